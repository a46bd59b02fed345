"""GC takes what the runtime no longer knows and nothing else; STATUS says beforehand what ADD would say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.runtime import PLAIN, RICH, Attachment, attachment, host_local, network
from tests.netns.state import elements, held_by, leases, links, owners

if TYPE_CHECKING:
    from tests.machine import Machine
    from tests.netns.runtime import Json, Node

NEW, OLD = "cni.dev/valid-attachments", "cni.dev/attachments"
LIVING = [{"containerID": "living", "ifname": "eth0"}]
NEIGHBOUR = network(
    "neighbour", bridge="cni1", isGateway=True, ipMasq=True, ipam=host_local([{"subnet": "10.5.0.0/24"}])
)


@pytest.fixture
def populated(machine: Machine, node: Node) -> Machine:
    """Returns a host with two pods of a network, a second interface of one of them, and a pod of another network."""
    for name in ("living", "dead"):
        node.add(RICH, attachment(machine.pod(name)))
    node.add(RICH, attachment(machine.pods["living"], "eth1"))
    node.add(NEIGHBOUR, attachment(machine.pod("beyond")))
    return machine


def collect(node: Node, config: Json, **valid: Any) -> None:
    """Calls GC as libcni does: all variables but CNI_COMMAND and CNI_PATH empty."""
    empty = {"CNI_CONTAINERID": "", "CNI_NETNS": "", "CNI_IFNAME": "", "CNI_ARGS": ""}
    named = {{"new": NEW, "old": OLD}[key]: value for key, value in valid.items()}
    answer = node.call("GC", {**config, **named}, extra=empty).succeeded()
    assert answer.stdout == ""


@pytest.mark.parametrize(
    ("valid", "kept"),
    [
        ({"new": LIVING}, {"living/eth0"}),
        ({"old": LIVING}, {"living/eth0"}),
        ({"new": LIVING, "old": LIVING}, {"living/eth0"}),
        ({"new": [*LIVING, {"containerID": "living", "ifname": "eth1"}]}, {"living/eth0", "living/eth1"}),
        ({"new": [{"containerID": "stranger", "ifname": "eth0"}]}, set()),
        ({"new": []}, set()),
        ({"new": None}, set()),
        ({"new": None, "old": None}, set()),
        ({}, {"living/eth0", "living/eth1", "dead/eth0"}),
    ],
    ids=["new key", "old key", "both keys", "two of one container", "stranger", "empty", "null", "both null", "silent"],
)
def test_what_the_runtime_does_not_name_is_released(
    populated: Machine, node: Node, valid: Json, kept: set[str]
) -> None:
    everything = {owner: held_by(populated, owner) for owner in ("living/eth0", "living/eth1", "dead/eth0")}
    beyond = held_by(populated, "beyond/eth0")
    for _ in range(2):
        collect(node, RICH, **valid)
    for owner, held in everything.items():
        assert held_by(populated, owner) == (held if owner in kept else [])
    assert held_by(populated, "beyond/eth0") == beyond
    assert node.check(NEIGHBOUR, attachment(populated.pods["beyond"])).status == 0
    if "living/eth0" in kept:
        assert node.check(RICH, attachment(populated.pods["living"])).status == 0


def test_leftovers_without_a_link_or_a_namespace_go(populated: Machine, node: Node) -> None:
    populated.pods["dead"].run("ip", "link", "delete", "eth0")
    populated.pods["dead"].remove()
    assert held_by(populated, "dead/eth0") != []
    collect(node, RICH, new=LIVING)
    assert held_by(populated, "dead/eth0") == []


def test_leftovers_go_whatever_the_configuration_says_now(populated: Machine, node: Node) -> None:
    collect(node, {**RICH, "ipMasq": False, "macspoofchk": False, "mtu": -5, "bridge": "cni9"}, new=LIVING)
    assert held_by(populated, "dead/eth0") == []
    assert held_by(populated, "living/eth0") != []


def test_leftovers_of_killed_calls_go(machine: Machine, node: Node) -> None:
    """A lease alone, as of an ADD that was killed early."""
    machine.run(
        "sh", "-c", "mkdir -p /var/lib/cni/networks/net; printf 'lost\\r\\neth0' > /var/lib/cni/networks/net/10.1.2.9"
    )
    collect(node, RICH, new=[])
    assert leases(machine) == {}


def test_what_others_made_is_not_podwires_to_collect(machine: Machine, node: Node) -> None:
    machine.run(
        "ip", "link", "add", "veth0123456789a", "alias", "podwire of a person", "type", "veth", "peer", "name", "x"
    )
    machine.run(
        "nft",
        "add table inet podwire; add set inet podwire masquerade4 { type ipv4_addr; };"
        ' add element inet podwire masquerade4 { 10.1.2.9 comment "a person" }',
    )
    collect(node, RICH, new=[])
    assert "veth0123456789a" in links(machine)
    assert "10.1.2.9" in machine.run("nft", "list", "ruleset").stdout


def test_a_list_that_cannot_be_read_costs_nobody_anything(populated: Machine, node: Node) -> None:
    before = {**owners(populated), **elements(populated), **leases(populated)}
    for valid in (7, "all", [7], [{"containerID": "living"}], [{"ifname": "eth0"}], {"containerID": "living"}):
        assert node.call("GC", {**RICH, NEW: valid}).code == 7
    assert {**owners(populated), **elements(populated), **leases(populated)} == before


def test_gc_is_handed_on_to_another_allocator(machine: Machine, node: Node) -> None:
    machine.run(
        "sh",
        "-c",
        "mkdir -p /opt/cni/bin && cat > /opt/cni/bin/other-ipam && chmod +x /opt/cni/bin/other-ipam",
        stdin='#!/bin/sh\necho "$CNI_COMMAND" >> /run/calls\ncat >> /run/calls\n',
    )
    collect(node, network(ipam={"type": "other-ipam"}), new=LIVING)
    calls = machine.run("cat", "/run/calls").stdout
    assert calls.startswith("GC\n")
    assert '"living"' in calls


TINY = host_local([{"subnet": "10.1.2.0/30"}])  # one address besides the gateway


def test_status_of_a_machine_that_can_serve(machine: Machine, node: Node) -> None:
    before = machine.snapshot()
    answer = node.call("STATUS", RICH).succeeded()
    assert (answer.stdout, answer.stderr) == ("", "")
    assert machine.snapshot() == before
    node.add(RICH, attachment(machine.pod()))
    node.call("STATUS", RICH).succeeded()


def test_status_of_an_exhausted_network(machine: Machine, node: Node) -> None:
    config = network(isGateway=True, ipam=TINY)
    node.call("STATUS", config).succeeded()
    who = attachment(machine.pod())
    node.add(config, who)
    refused = node.call("STATUS", config)
    assert refused.code == 50
    assert "10.1.2.1-10.1.2.2" in refused.message
    assert node.call("ADD", config, Attachment("another", machine.pod().path)).code == 11
    node.delete(config, who)
    node.call("STATUS", config).succeeded()


@pytest.mark.parametrize("kind", ["veth", "vxlan id 7 dstport 4789", "tun"])
def test_status_where_the_bridges_name_is_taken(machine: Machine, node: Node, kind: str) -> None:
    make = ("tuntap", "add", "cni0", "mode", "tun") if kind == "tun" else ("link", "add", "cni0", "type", *kind.split())
    if machine.run("ip", *make, check=False).returncode:
        pytest.skip(f"the kernel has no {kind.split(maxsplit=1)[0]}")
    refused = node.call("STATUS", PLAIN)
    assert refused.code == 50
    assert '"cni0" exists but is not a bridge' in refused.message


@pytest.mark.parametrize(
    ("settings", "code"),
    [({"mtu": -1}, 7), ({"ipam": {"type": "host-local"}}, 7), ({"ipam": {"type": "absent-ipam"}}, 100)],
)
def test_status_of_a_configuration_at_fault(node: Node, settings: Json, code: int) -> None:
    assert node.call("STATUS", {**PLAIN, **settings}).code == code


def test_status_where_the_disk_is_read_only(machine: Machine, node: Node) -> None:
    machine.run("mount", "-t", "tmpfs", "-o", "ro", "tmpfs", "/var/lib/cni")
    assert node.call("STATUS", PLAIN).code == 50
    assert node.call("ADD", PLAIN, attachment(machine.pod())).code == 5
    assert leases(machine) == {}
    assert "cni0" not in links(machine)


def test_leases_of_an_earlier_boot_do_not_exhaust_a_network(machine: Machine, node: Node) -> None:
    config = network(isGateway=True, ipam=host_local([{"subnet": "10.1.2.0/30"}]))
    machine.run(
        "sh",
        "-c",
        "mkdir -p /var/lib/cni/networks/net; cd /var/lib/cni/networks/net;"
        "printf 'past\\r\\neth0' > 10.1.2.2; touch -d 2001-01-01 10.1.2.2",
    )
    node.call("STATUS", config).succeeded()
    assert node.add(config, attachment(machine.pod()))["ips"][0]["address"] == "10.1.2.2/30"
