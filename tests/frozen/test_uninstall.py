"""`podwire uninstall` of the bundle: all that is podwire's goes, and what is another program's stays."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.frozen.test_operator import LEASES, NETWORK, Operator
from tests.machine import Machine, missing, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Json = dict[str, Any]

BIN, CONF = "/opt/cni/bin", "/etc/cni/net.d"
NODES = {
    "Network": "10.244.0.0/16",
    "Backend": {"Type": "vxlan"},
    "nodes": [{"name": "here", "publicIP": "192.0.2.1", "subnet": "10.244.1.0/24"}],
}
FORWARD = (
    "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; chain CNI-ADMIN { }; }"
)
FOREIGN = "#!/bin/sh\necho another\n"


class Node(Operator):
    """A node on which podwire is installed beside another program, and its state before that."""

    def furnish(self) -> None:
        self.write(f"{BIN}/bridge", FOREIGN)
        self.machine.run("nft", FORWARD)
        self.clean = self.machine.snapshot()
        self.program("install", "--bin-dir", BIN)

    def write(self, path: str, text: str) -> None:
        self.machine.run("sh", "-c", f"mkdir -p $(dirname {path}); cat >{path}", stdin=text)

    def program(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.machine.run(str(self.bundle / "podwire"), *arguments)

    def use(self) -> list[Json]:
        """Attaches a pod with everything, and detaches it; returns the hops of its path to the outside."""
        pod = self.attach("web", {**NETWORK, "ipSpoofCheck": True})
        hops: list[Json] = self.asks("trace", "web", "192.0.2.2")["hops"]
        self.call("DEL", "web", pod, NETWORK)
        pod.remove()
        del self.machine.pods["web"]
        return hops

    def installed(self) -> list[str]:
        return self.machine.run("ls", "-A", BIN).stdout.split()


@pytest.fixture
def node(bundle: Path) -> Iterator[Node]:
    if reason := missing():
        pytest.skip(reason)
    with Machine() as machine:
        node = Node(machine, bundle)
        node.furnish()
        yield node


def test_the_node_is_as_it_was_before_podwire(node: Node) -> None:
    node.use()
    before = node.machine.snapshot()
    shown = node.types("uninstall", "--dry-run")
    assert (shown.returncode, shown.stderr) == (0, "")
    belongings = node.asks("uninstall", "--dry-run")["belongings"]
    assert {each["kind"] for each in belongings} == {"program", "table", "rules", "interface", "leases", "state"}
    objects = [each["object"] for each in belongings]
    chain = "chain PODWIRE-FORWARD of table ip filter"
    for name in ("inet podwire", "bridge podwire", "cni0", f"{LEASES}/", chain, f"{BIN}/ptp -> podwire"):
        assert name in objects
        assert name in shown.stdout
    assert not any("bridge ->" in each or each == f"{BIN}/bridge" for each in objects)
    assert node.machine.snapshot() == before
    done = node.types("uninstall", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"removed: {len(belongings)}"
    after = node.machine.snapshot()
    for part in node.clean.keys() - {"sysctls", "files"}:  # IP forwarding stays
        assert after[part] == node.clean[part]
    assert after["files"] == ["/var/lib/cni/networks/"]  # which the reference host-local makes as well
    assert node.installed() == ["bridge"]
    assert node.types("uninstall").stdout == "nothing of podwire's is on this node\n"


def test_the_installed_program_uninstalls_itself(node: Node) -> None:
    node.use()
    done = node.machine.run(f"{BIN}/podwire", "uninstall", "--yes", "--json", check=False)
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert (answer["removed"], answer["errors"], answer["refused"]) == (True, [], "")
    assert node.installed() == ["bridge"]


def test_it_is_refused_while_containers_are_attached(node: Node) -> None:
    node.attach("web", NETWORK)
    before = node.machine.snapshot()
    for arguments in (("uninstall", "--yes"), ("uninstall", "--dry-run"), ("uninstall",)):
        done = node.types(*arguments)
        assert done.returncode == 1
        assert "nothing is removed: attached: shop/web (delete these pods first, or give --force)" in done.stdout
    assert node.machine.snapshot() == before
    done = node.types("uninstall", "--yes", "--force")
    assert done.returncode == 0, done.stdout
    assert f"{LEASES}/: it has 1 leases" in done.stdout
    assert node.installed() == ["bridge"]
    assert "table inet podwire" not in node.machine.run("nft", "list", "tables").stdout
    assert node.machine.pods["web"].addresses() == ["10.1.2.2/29"]


def test_without_a_terminal_it_has_to_be_asked_for(node: Node) -> None:
    done = node.types("uninstall")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--yes is needed where nobody can be asked" in done.stderr
    assert "podwire" in node.installed()


@pytest.mark.parametrize(("typed", "status"), [("", 1), ("y", 0)])
def test_at_a_terminal_it_asks(node: Node, typed: str, status: int) -> None:
    controller, terminal = pty.openpty()
    command = node.machine.command(str(node.bundle / "podwire"), "uninstall")
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    shown = b""
    while b"[y/N]" not in shown:
        shown += os.read(controller, 1 << 16)
    os.write(controller, f"{typed}\n".encode())
    assert process.wait(timeout=60) == status
    os.close(controller)
    assert f"{BIN}/ptp -> podwire".encode() in shown
    assert ("podwire" in node.installed()) == bool(status)


def test_an_unpacked_archive_is_uninstalled_and_other_links_stay(node: Node) -> None:
    node.types("uninstall", "--yes")
    node.machine.run("sh", "-c", f"cp -a {node.bundle}/podwire {node.bundle}/podwire.d {BIN}; ln -s podwire {BIN}/ptp")
    node.machine.run("ln", "-s", "/usr/bin/true", f"{BIN}/loopback")
    assert node.types("uninstall", "--yes").returncode == 0
    assert node.installed() == ["bridge", "loopback"]
    node.machine.run("sh", "-c", f"ln -s podwire {BIN}/ptp; echo another >{BIN}/podwire")
    assert node.asks("uninstall", "--dry-run")["belongings"] == []


def test_what_podwired_has_made_goes_and_the_file_of_another_stays(node: Node) -> None:
    machine = node.machine
    machine.outside()
    node.write("/etc/podwire/nodes.json", json.dumps(NODES))
    conflist = {"cniVersion": "1.0.0", "name": "cbr0", "plugins": [{"type": "flannel"}]}
    node.write("/etc/podwire/10-cbr0.conflist", json.dumps(conflist))
    node.write(f"{CONF}/20-mine.conflist", json.dumps({**NETWORK, "name": "mine"}))
    machine.run("ln", "-s", f"{node.bundle}/podwire", "/run/podwired")
    before = machine.snapshot()
    flags = ["--nodes-file=/etc/podwire/nodes.json", "--conflist=/etc/podwire/10-cbr0.conflist", "--healthz-port=0"]
    agent = machine.start("/run/podwired", *flags, "--node-name=here", "--ip-masq")
    until(
        lambda: machine.run("test", "-e", f"{CONF}/10-cbr0.conflist", check=False).returncode == 0, "podwired is ready"
    )
    evidence = {hop["hop"]: hop["evidence"] for hop in node.use()}
    assert evidence["policy"] == "NetworkPolicy is not enforced"
    done = node.types("uninstall", "--yes")
    assert done.returncode == 1
    assert "nothing is removed: podwired runs (it holds /run/podwire/podwired-" in done.stdout
    machine.run("pkill", "-TERM", "podwired")
    agent.wait()
    done = node.types("uninstall", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{CONF}/20-mine.conflist: podwired has not written it" in done.stdout
    assert machine.run("ls", "-A", CONF).stdout.split() == ["20-mine.conflist"]
    after = machine.snapshot()
    for part in ("links", "routes", "nft"):
        assert after[part] == before[part]
    assert machine.run("ls", "-A", "/run/flannel").stdout == ""


def test_podwireds_file_that_somebody_has_changed_stays(node: Node) -> None:
    node.write(f"{CONF}/10-cbr0.conflist", "changed")
    node.write(f"{CONF}/.10-cbr0.conflist.podwired", "written")
    done = node.types("uninstall", "--yes")
    assert done.returncode == 1
    assert "not removed: " in done.stdout
    assert node.machine.run("cat", f"{CONF}/10-cbr0.conflist").stdout == "changed"


def test_flannelds_part_stays_where_it_has_taken_over(node: Node) -> None:
    machine = node.machine
    node.write("/run/flannel/subnet.env", "FLANNEL_MTU=1450\n")
    node.write("/run/flannel/.subnet.env.lock", "pid 1, subnet file /run/flannel/subnet.env")
    machine.run("sh", "-c", "chmod 600 /run/flannel/.*.lock; cp $(command -v sleep) /run/flanneld")
    machine.start("/run/flanneld", "600")
    until(lambda: machine.run("pgrep", "-x", "flanneld", check=False).returncode == 0, "it runs")
    done = node.types("uninstall", "--yes")
    assert done.returncode == 0
    assert "flanneld runs and may use them" in done.stdout
    assert machine.run("cat", "/run/flannel/subnet.env").stdout == "FLANNEL_MTU=1450\n"


def test_a_process_of_another_namespace_removes_nothing(node: Node) -> None:
    done = node.machine.run("unshare", "--mount", str(node.bundle / "podwire"), "uninstall", "--yes", check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert "nothing is removed: " in done.stderr
    assert "podwire" in node.installed()
