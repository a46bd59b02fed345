"""The commands of the documents do what they say, as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.docs.conftest import new_node, shell
from tests.docs.documents import ROOT, session
from tests.machine import Machine, missing, until
from tests.namespaces import cover
from tests.system.image import BUSYBOX, NAME, write_image

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE = "docker.io/library/busybox:latest"
CONTAINERD = ("containerd", "containerd-shim-runc-v2", "ctr", "runc", BUSYBOX)
CGROUPS = Path("/sys/fs/cgroup")
UNDERLAY = ("172.31.0.11", "172.31.0.12")  # of conf/nodes.json
SYSTEMCTL = """#!/bin/bash
# systemctl enable --now UNIT: starts the unit's ExecStart in its environment, and waits until pods can be attached.
set -eu
[[ "$1 $2" == "enable --now" ]]
unit=/etc/systemd/system/$3.service
while read -r setting; do export "$setting"; done < <(sed -n 's/^Environment=//p' "$unit")
read -r -a command < <(sed -n 's/^ExecStart=//p' "$unit")
"${command[@]}" >/run/unit.log 2>&1 </dev/null &
for _ in $(seq 600); do [[ ! -e /run/flannel/subnet.env ]] || exit 0; sleep 0.1; done
cat /run/unit.log >&2
exit 1
"""
KIND = """#!/bin/sh
[ "$*" = "get nodes" ] && echo kind-worker
"""
DOCKER = """#!/bin/sh
# docker exec [-i] NODE COMMAND: runs it here.
set -eu
[ "$1" = exec ]
shift
[ "$1" != -i ] || shift
[ "$1" = kind-worker ]
shift
exec "$@"
"""
KINDNET = """
{
	"cniVersion": "0.3.1",
	"name": "kindnet",
	"plugins": [
	{
		"type": "ptp",
		"ipMasq": false,
		"ipam": {
			"type": "host-local",
			"dataDir": "/run/cni-ipam-state",
			"routes": [{ "dst": "0.0.0.0/0" }],
			"ranges": [[{ "subnet": "10.244.1.0/24" }]]
		},
		"mtu": 1500
	},
	{ "type": "portmap", "capabilities": { "portMappings": true } }
	]
}
"""


def test_the_demo_works(bundle: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    command = ["bash", "-euxo", "pipefail", "-c", session("README.md", "demo")]
    environment = {**os.environ, "PODWIRE_BUNDLE": str(bundle)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "\x1b" not in done.stdout
    end = done.stdout.partition("It worked\n")[2]
    documents = re.findall(r"([\w/]*README\.md)(?:, \"([^\"]+)\")?", end)
    assert documents
    for document, heading in documents:
        assert not heading or f"\n## {heading}\n" in (ROOT / document).read_text(encoding="utf-8")


def test_two_containers_are_attached_by_cnitool_and_reach_each_other(node: Machine, peers: Path) -> None:
    printed = shell(node, session("README.md", "node"), path=str(peers))
    assert '"address": "10.88.0.3/16"' in printed
    assert "1 received" in printed
    assert node.run("ip", "-br", "link", "show", "type", "veth").stdout == ""


def test_the_plugin_alone_takes_over_from_kindnet(node: Machine, peers: Path, tmp_path: Path) -> None:
    """Both lease from the same files: a new pod never gets the address of one that kindnet has attached."""
    for name, text in (("kind", KIND), ("docker", DOCKER)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    node.run("mkdir", "-p", "/opt/cni/bin", "/etc/cni/net.d")
    node.run("cp", *[str(peers / name) for name in ("ptp", "host-local", "portmap")], "/opt/cni/bin")
    node.run("cp", "/dev/stdin", "/etc/cni/net.d/10-kindnet.conflist", stdin=KINDNET)
    cnitool = f"export CNI_PATH=/opt/cni/bin PATH={peers}:$PATH\n"
    printed = shell(node, f"{cnitool}ip netns add old\ncnitool add kindnet /run/netns/old")
    assert '"address": "10.244.1.2/24"' in printed
    shell(node, session("conf/kubernetes/README.md", "kind"), path=str(tmp_path))
    node.run("rm", "/opt/cni/bin/ptp", "/opt/cni/bin/host-local")  # what comes now is podwire's
    printed = shell(node, f"{cnitool}ip netns add new\ncnitool add kindnet /run/netns/new")
    assert '"address": "10.244.1.3/24"' in printed
    for pod, other in (("old", "10.244.1.3"), ("new", "10.244.1.2")):
        node.run("ip", "netns", "exec", pod, "ping", "-c", "1", "-W", "5", other)
    shell(node, f"{cnitool}cnitool del kindnet /run/netns/old\ncnitool del kindnet /run/netns/new")
    assert re.findall(r"10\.244\.\d+\.\d+", node.run("ls", "/run/cni-ipam-state/kindnet").stdout) == []
    assert node.run("ip", "-br", "link", "show", "type", "veth").stdout == ""


@pytest.fixture
def containerd(node: Machine, tmp_path: Path) -> Iterator[str]:
    """Runs containerd on the node as it is by default, and returns the namespace where it has the image."""
    if os.geteuid() != 0:
        pytest.skip("needs root: containerd and runc")
    if absent := [name for name in CONTAINERD if shutil.which(name) is None]:
        pytest.skip(f"not installed: {', '.join(absent)} (hack/peers brings them)")
    namespace = f"podwire-docs-{os.getpid()}"
    write_image(tmp_path / "image.tar", Path(BUSYBOX).read_bytes())
    config = 'version = 2\nroot = "/run/containerd-root"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
    node.run("cp", "/dev/stdin", "/run/containerd.toml", stdin=config)
    node.start("sh", "-c", "exec containerd --config /run/containerd.toml >/run/containerd.log 2>&1")
    until(lambda: not node.run("ctr", "version", check=False).returncode, "containerd answers")
    ctr = ("ctr", "--namespace", namespace, "image")
    node.run(*ctr, "import", str(tmp_path / "image.tar"))
    node.run(*ctr, "tag", NAME, IMAGE)
    yield namespace
    for folder in sorted(CGROUPS.glob(f"**/{namespace}/**/"), reverse=True):
        folder.rmdir()


def test_containerd_runs_a_container_in_the_network(node: Machine, containerd: str, peers: Path) -> None:
    shell(node, session("README.md", "node"), path=str(peers))
    printed = shell(node, f"export CONTAINERD_NAMESPACE={containerd}\n{session('README.md', 'containerd')}")
    assert re.search(r"inet 10\.88\.\d+\.\d+/16 ", printed)


@pytest.fixture
def nodes(built: Path) -> Iterator[list[Machine]]:
    """Two nodes with the addresses of conf/nodes.json on one network, each with its own files."""
    del built
    if os.geteuid() != 0:
        pytest.skip("needs root: two machines on one network")
    with new_node() as first, new_node() as second:
        pair = [first, second]
        process = Path(second.root).parent.name  # /proc/NUMBER/root
        link = ("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", process)
        # The mounts and processes of the test's own, in which the other machine has that number.
        subprocess.run(["nsenter", f"--net=/proc/{Path(first.root).parent.name}/ns/net", "--", *link], check=True)
        for machine, address in zip(pair, UNDERLAY, strict=True):
            machine.call(cover, str(ROOT))
            batch = f"address add {address}/24 dev eth0\nlink set eth0 up\nroute add default via 172.31.0.1\n"
            machine.run("ip", "-batch", "-", stdin=batch)
        yield pair


def test_two_nodes_under_systemds_unit_reach_each_others_containers(
    nodes: list[Machine], peers: Path, tmp_path: Path
) -> None:
    (tmp_path / "systemctl").write_text(SYSTEMCTL)
    (tmp_path / "systemctl").chmod(0o755)
    build, copied = session("README.md", "build for nodes"), "cd dist"  # where the folder node is
    for number, machine in enumerate(nodes, 1):
        printed = shell(machine, f"{build}\n{copied}\n{session('README.md', 'service')}", path=str(tmp_path))
        assert f"FLANNEL_SUBNET=10.244.{number}.1/24" in printed
        assert f"10.244.{3 - number}.0/24 via 10.244.{3 - number}.0 dev flannel.1" in printed
    for machine in nodes:
        machine.pod("pod")
        environment = {"CNI_PATH": "/opt/cni/bin", "NETCONFPATH": "/etc/cni/net.d"}
        machine.run(str(peers / "cnitool"), "add", "cbr0", "/run/netns/pod", env=environment)
    nodes[0].pods["pod"].run("ping", "-c", "1", "-W", "10", "10.244.2.2")
    nodes[1].pods["pod"].run("ping", "-c", "1", "-W", "10", "10.244.1.2")
