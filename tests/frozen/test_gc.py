"""`podwire gc` of the bundle: what attachments have left that are gone, and nothing of those that may live."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.frozen.test_operator import LEASES, NETWORK, RESULTS, Operator, keep, operator
from tests.machine import until

if TYPE_CHECKING:
    from tests.machine import Pod

    Json = dict[str, Any]

__all__ = ["operator"]  # the fixture
OLD = f"touch -d '2 minutes ago' {LEASES}/10* /run/podwire/attachment-*"
LIMITED = {**NETWORK["runtimeConfig"], "bandwidth": {"egressRate": 8_000_000, "egressBurst": 8_000_000}}
FULL = {**NETWORK, "runtimeConfig": LIMITED, "ipSpoofCheck": True, "macspoofchk": True}
PLAIN = {**NETWORK, "runtimeConfig": {}}
PORTS = {
    "cniVersion": "1.1.0",
    "name": "net",
    "type": "portmap",
    "runtimeConfig": {"portMappings": [{"hostPort": 9090, "containerPort": 80, "protocol": "tcp"}]},
}


def lose(operator: Operator, pod: Pod) -> None:
    """Removes a container as if its DEL was never called, more than a minute ago."""
    links = operator.machine.run("ip", "-o", "link").stdout.count(" veth")
    pod.remove()
    until(lambda: operator.machine.run("ip", "-o", "link").stdout.count(" veth") < links, "the kernel removes the pair")
    operator.machine.run("sh", "-c", OLD)


def test_all_that_a_lost_container_has_left_is_shown_then_removed(operator: Operator) -> None:
    machine = operator.machine
    operator.attach("db", PLAIN)
    clean = machine.snapshot()
    lose(operator, operator.attach("web", FULL))
    before = machine.snapshot()
    shown = operator.types("gc", "--dry-run")
    assert shown.returncode == 1
    remnants = operator.asks("gc", "--dry-run")["remnants"]
    assert {each["kind"] for each in remnants} == {"lease", "record", "interface", "element"}
    assert {each["holder"] for each in remnants} == {"net/web0123456789abcdef/eth0"}
    for name in ("masquerade4 10.1.2.3", "hostports4 10.1.2.3", "sources4 10.1.2.3", "allowed"):
        assert name in [each["object"] for each in remnants]
    assert all(each["object"] in shown.stdout for each in remnants)
    assert shown.stdout.splitlines()[-1] == f"would be removed: {len(remnants)}"
    assert machine.snapshot() == before
    done = operator.types("gc")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"removed: {len(remnants)}"
    assert operator.types("gc", "--dry-run").stdout == "nothing is left of attachments that are gone\n"
    after = machine.snapshot()
    assert after["links"] == clean["links"]
    assert "web0123456789" not in json.dumps([after[part] for part in ("files", "nft")])
    assert operator.types("check", "shop/db").returncode == 0
    operator.attach("new", FULL)


def test_what_lives_or_may_live_is_kept(operator: Operator) -> None:
    machine = operator.machine
    operator.attach("web", FULL)
    young = operator.attach("young", PLAIN)
    stripped = operator.attach("bare", PLAIN)
    stripped.run("ip", "link", "delete", "eth0")
    known = operator.attach("known", PLAIN)
    keep(operator, "known0123456789abcdef", {"cniVersion": "1.1.0"}, PLAIN)
    lose(operator, known)
    machine.run("touch", f"{LEASES}/10.1.2.3")
    machine.run("sh", "-c", "rm $(grep -l young /run/podwire/attachment-*)")
    young.remove()
    until(lambda: "net/young" not in machine.run("ip", "link").stdout, "the kernel removes the pair")
    before = machine.snapshot()
    assert operator.asks("gc")["remnants"] == []
    assert machine.snapshot() == before
    machine.run("sh", "-c", f"rm {RESULTS}/*")
    holders = {each["holder"] for each in operator.asks("gc")["remnants"]}
    assert holders == {"net/known0123456789abcdef/eth0"}


def test_ports_behind_another_plugin_are_kept_while_their_container_has_the_address(operator: Operator) -> None:
    machine, pod = operator.machine, operator.machine.pod("web")
    machine.run("ip", "link", "add", "other0", "type", "veth", "peer", "name", "eth0", "netns", "web")
    pod.run("sh", "-c", "ip address add 10.5.0.2/24 dev eth0; ip link set eth0 up")
    result = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "other0"}, {"name": "eth0", "sandbox": pod.path}],
        "ips": [{"address": "10.5.0.2/24", "interface": 1}],
    }
    machine.run("sh", "-c", f"mkdir -p /run/bin; ln -s {operator.bundle}/podwire /run/bin/portmap")
    variables = [
        "CNI_COMMAND=ADD",
        "CNI_CONTAINERID=web01",
        f"CNI_NETNS={pod.path}",
        "CNI_IFNAME=eth0",
        "CNI_PATH=/run/bin",
    ]
    machine.run("env", *variables, "/run/bin/portmap", stdin=json.dumps({**PORTS, "prevResult": result}))
    assert operator.asks("gc")["remnants"] == []
    keep(operator, "web01", result, PORTS)
    pod.run("ip", "address", "flush", "dev", "eth0")
    assert operator.asks("gc")["remnants"] == []
    assert "10.5.0.2" in machine.run("nft", "list", "ruleset").stdout
    machine.run("rm", f"{RESULTS}/net-web01-eth0")
    pod.remove()
    until(lambda: "other0" not in machine.run("ip", "link").stdout, "the kernel removes the pair")
    assert {each["holder"] for each in operator.asks("gc")["remnants"]} == {"net/web01/eth0"}
    assert "10.5.0.2" not in machine.run("nft", "list", "ruleset").stdout


def test_a_container_whose_namespace_is_mounted_elsewhere_keeps_its_lease(operator: Operator) -> None:
    """It has no process, no name in /run/netns, and another plugin has attached it."""
    machine, pod = operator.machine, operator.attach("web", PLAIN)
    pod.run("ip", "address", "add", "10.1.2.5/32", "dev", "lo")
    machine.run("sh", "-ec", f"touch '/run/my pod'; mount --bind {pod.path} '/run/my pod'; ip netns delete web")
    machine.run("sh", "-ec", f"printf 'other\\r\\neth0' >{LEASES}/10.1.2.5; {OLD}")
    assert operator.asks("gc", "--dry-run")["remnants"] == []
    machine.run("umount", "/run/my pod")
    until(lambda: operator.asks("gc", "--dry-run")["remnants"] != [], "the kernel removes the namespace")


def test_the_record_of_what_a_reference_plugin_has_detached_is_removed(operator: Operator) -> None:
    """It takes interface and lease, and the namespace may have a name that stays."""
    machine, pod = operator.machine, operator.attach("web", PLAIN)
    pod.run("ip", "link", "delete", "eth0")
    machine.run("rm", f"{LEASES}/10.1.2.2")
    assert operator.asks("gc")["remnants"] == []
    machine.run("sh", "-c", "touch -d '2 minutes ago' /run/podwire/attachment-*")
    [remnant] = operator.asks("gc")["remnants"]
    assert (remnant["kind"], remnant["holder"]) == ("record", "net/web0123456789abcdef/eth0")
    assert machine.run("sh", "-c", "ls /run/podwire/attachment-*", check=False).returncode


CONTAINER = ("unshare", "--pid", "--fork", "--mount-proc")  # with the host's network, as podwired's pod
BESIDE = (*CONTAINER, "sh", "-c", 'echo podwired >/proc/$$/comm; "$@"; exit $?', "sh")


@pytest.mark.parametrize("hiding", [("unshare", "--mount"), ("unshare", "--net"), CONTAINER, BESIDE, ()])
def test_nothing_is_removed_where_containers_may_be_hidden(operator: Operator, hiding: tuple[str, ...]) -> None:
    machine = operator.machine
    lose(operator, operator.attach("web", FULL))
    if not hiding:
        machine.run("touch", "/run/netns/stale")
    before = machine.snapshot()
    done = machine.run(*hiding, str(operator.bundle / "podwire"), "gc", check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert "nothing is removed: " in done.stderr
    assert machine.snapshot() == before


def test_what_cannot_be_removed_is_a_finding(operator: Operator) -> None:
    machine = operator.machine
    lose(operator, operator.attach("web", PLAIN))
    machine.run("mount", "--bind", "-o", "ro", LEASES, LEASES)
    machine.run("mount", "-o", "remount,bind,ro", LEASES)
    done = operator.types("gc")
    assert done.returncode == 1
    assert "not removed: " in done.stdout
    machine.run("umount", LEASES)
    assert operator.types("gc").returncode == 0
