"""Real containers: containerd and runc attach them to the example network through the bundle."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.machine import Machine, MachineError, until
from tests.snapshot import added
from tests.system.image import BUSYBOX, GREETING, NAME, write_image
from tests.system.plugins import Attachment, call
from tests.system.shared import assert_only_shared, example, without_marks

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from tests.system.plugins import Json

NEEDS = ("containerd", "containerd-shim-runc-v2", "ctr", "runc", BUSYBOX)
SOCKET = "/run/containerd-test.sock"
CONFIG = f"""
version = 2
root = "/run/containerd-test/root"
state = "/run/containerd-test/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{SOCKET}"
"""
CGROUPS = Path("/sys/fs/cgroup")


class Containerd(NamedTuple):
    """A containerd of its own on a machine; the namespace is containerd's word for a set of containers."""

    machine: Machine
    namespace: str

    def ctr(self, *arguments: str, check: bool = True) -> str:
        """Runs ctr and returns what it printed."""
        return self.machine.run(*self.command(*arguments), check=check).stdout

    def command(self, *arguments: str) -> tuple[str, ...]:
        return ("ctr", "--address", SOCKET, "--namespace", self.namespace, *arguments)

    def run(self, name: str) -> str:
        """Starts a container in the background and returns its address."""
        self.ctr("run", "--cni", "--detach", "--snapshotter", "native", NAME, name)
        return self.address(name)

    def run_attached(self, name: str) -> subprocess.Popen[str]:
        """Starts a container that ctr waits for: only then it calls DEL at the end."""
        command = self.command("run", "--cni", "--rm", "--snapshotter", "native", NAME, name)
        process = self.machine.start(*command)
        until(lambda: re.search(rf"{name} .*RUNNING", self.ctr("task", "list")), f"{name} runs")
        return process

    def inside(self, name: str, *command: str, check: bool = True) -> str:
        """Executes a command in a container and returns what it printed."""
        return self.ctr("task", "exec", "--exec-id", "test", name, *command, check=check)

    def address(self, name: str) -> str:
        shown = self.inside(name, "ip", "-4", "address", "show", "eth0")
        match = re.search(r"inet ([0-9.]+)/16", shown)
        assert match, shown
        return match[1]

    def delete(self, name: str) -> None:
        self.ctr("task", "delete", "--force", name)
        self.ctr("container", "delete", name)


@pytest.fixture
def containerd(bundle: Path, plugins: Path, tmp_path: Path) -> Iterator[Containerd]:
    """Returns a running containerd with the image, the example network and the bundle unpacked in /opt/cni/bin."""
    if os.geteuid() != 0:
        pytest.skip("needs root: containerd and runc")
    if absent := [name for name in NEEDS if shutil.which(name) is None]:
        pytest.skip(f"not installed: {', '.join(absent)} (hack/peers brings them)")
    image, namespace = tmp_path / "image.tar", f"podwire-{os.getpid()}"
    write_image(image, Path(BUSYBOX).read_bytes())
    with Machine(user_namespace=False) as machine:
        machine.run("cp", "-a", f"{bundle}/.", "/opt/cni/bin")
        machine.run("cp", "-an", f"{plugins}/.", "/opt/cni/bin")
        machine.run("install", "-D", "/dev/stdin", "/etc/cni/net.d/10-podwire.conflist", stdin=json.dumps(example()))
        machine.run("cp", "/dev/stdin", "/run/containerd.toml", stdin=CONFIG)
        log = tmp_path / "containerd.log"
        machine.start("sh", "-c", f"exec containerd --config /run/containerd.toml >{log} 2>&1")
        containerd = Containerd(machine, namespace)
        until(lambda: not machine.run(*containerd.command("version"), check=False).returncode, "containerd answers")
        containerd.ctr("image", "import", "--snapshotter", "native", str(image))
        yield containerd
    # The machine's end took the containers' processes; their cgroups are the kernel's and stay until removed.
    for folder in sorted(CGROUPS.glob(f"**/{namespace}/**/"), reverse=True):
        folder.rmdir()


def test_a_container_is_reached_from_the_host(containerd: Containerd) -> None:
    address = containerd.run("one")
    containerd.machine.run("ping", "-c", "1", "-W", "5", address)
    assert fetched(containerd, address) == GREETING


def test_containers_reach_each_other(containerd: Containerd) -> None:
    addresses = {name: containerd.run(name) for name in ("one", "two")}
    assert len(set(addresses.values())) == len(addresses)
    for caller, other in (("one", "two"), ("two", "one")):
        containerd.inside(caller, "ping", "-c", "1", "-W", "5", addresses[other])
        assert fetched(containerd, addresses[other], caller) == GREETING


def test_a_host_outside_sees_the_node_and_not_the_container(containerd: Containerd) -> None:
    containerd.machine.outside().serve(8080)
    containerd.run("one")
    assert containerd.inside("one", "nc", "192.0.2.2", "8080") == "192.0.2.1"


def test_the_end_of_a_container_leaves_nothing_of_it(containerd: Containerd) -> None:
    """When the container has ended, ctr calls DEL with an empty CNI_NETNS."""
    before = containerd.machine.snapshot()
    process = containerd.run_attached("one")
    address = containerd.address("one")
    assert fetched(containerd, address) == GREETING
    containerd.ctr("task", "kill", "--signal", "KILL", "one")
    process.communicate()
    containerd.machine.wait_for_links("lo", "cni0")
    assert_only_shared(added(before, containerd.machine.snapshot()))


def test_gc_takes_away_what_ctr_forgets(containerd: Containerd, plugins: Path) -> None:
    """No DEL comes from ctr for a container that ran detached; GC is told that nobody is left."""
    before = containerd.machine.snapshot()
    containerd.run("one")
    containerd.delete("one")
    containerd.machine.wait_for_links("lo", "cni0")
    collect(containerd, plugins, valid=[])
    assert_only_shared(added(before, containerd.machine.snapshot()))


def test_gc_leaves_a_container_that_lives(containerd: Containerd, plugins: Path) -> None:
    address = containerd.run("one")
    before = containerd.machine.snapshot()
    collect(containerd, plugins, valid=[{"containerID": f"{containerd.namespace}-one", "ifname": "eth0"}])
    assert without_marks(containerd.machine.snapshot()) == without_marks(before)
    assert fetched(containerd, address) == GREETING


def collect(containerd: Containerd, plugins: Path, valid: list[Json]) -> None:
    """Calls GC as a runtime that implements it would; ctr does not."""
    network = example()
    (plugin,) = network["plugins"]
    request = {**plugin, "name": network["name"], "cniVersion": "1.1.0", "cni.dev/valid-attachments": valid}
    call(containerd.machine, plugins / "podwire", "GC", request, Attachment())


def fetched(containerd: Containerd, address: str, caller: str = "") -> str:
    """Returns the page of the container's web server, which may take a moment to listen."""
    command = ("wget", "-q", "-O", "-", f"http://{address}/")

    def page() -> str:
        try:
            return containerd.inside(caller, *command) if caller else containerd.machine.run(BUSYBOX, *command).stdout
        except MachineError:
            return ""

    return until(page, f"{address} answers")
