"""ipMasq: what leaves takes the node's address, what stays keeps its own; and rules that others flushed come back."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from cni.kernel import netlink
from tests.netns.runtime import DUAL, IPV4, IPV6, MASQUERADED, PLAIN, RICH, Attachment, attachment, host_local, network
from tests.netns.state import elements, owners, shown

if TYPE_CHECKING:
    from tests.machine import Machine, Pod
    from tests.netns.runtime import Json, Node

NODE4, NODE6 = "192.0.2.1", "2001:db8:2::1"
OUTSIDE4, OUTSIDE6 = "192.0.2.2", "2001:db8:2::2"


class World(NamedTuple):
    """A host behind a wire, and two pods."""

    outside: Pod
    pods: tuple[Pod, Pod]


@pytest.fixture
def world(machine: Machine, node: Node) -> World:
    outside = machine.outside()
    outside.serve(8080)
    pods = machine.pod("pod1"), machine.pod("pod2")
    for pod in pods:
        node.add(MASQUERADED, attachment(pod))
    return World(outside, pods)


def is_masqueraded(pod: Pod) -> bool:
    return pod.ask(OUTSIDE4, 8080) == NODE4 and pod.ask(OUTSIDE6, 8080) == NODE6


def test_an_outside_host_sees_the_node_and_a_neighbour_sees_the_pod(world: World) -> None:
    first, second = world.pods
    second.serve(8080)
    assert first.ask(OUTSIDE4, 8080) == NODE4
    assert first.ask(OUTSIDE6, 8080) == NODE6
    assert first.ask("10.1.2.3", 8080) == "10.1.2.2"
    assert first.ask("2001:db8:1::3", 8080) == "2001:db8:1::2"


def test_the_node_itself_sees_the_pod(world: World, machine: Machine) -> None:
    machine.serve(8080)
    assert world.pods[0].ask("10.1.2.1", 8080) == "10.1.2.2"
    assert world.pods[0].ask(NODE4, 8080) == "10.1.2.2"


def test_a_pod_on_a_network_without_masquerade_keeps_its_address(world: World, machine: Machine, node: Node) -> None:
    bare = machine.pod("bare")
    node.add(
        network("bare", bridge="cni1", isDefaultGateway=True, ipam=host_local([{"subnet": "10.5.0.0/24"}])),
        attachment(bare),
    )
    world.outside.run("ip", "route", "add", "10.5.0.0/24", "via", NODE4)
    assert bare.ask(OUTSIDE4, 8080) == "10.5.0.2"


SNIFF = """
import socket, sys
raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
raw.settimeout(5)
print("ready", flush=True)
while True:
    packet, where = raw.recvfrom(2000)
    version = packet[0] >> 4
    if where[1] == 0x800 and packet[16] == 239:
        print(socket.inet_ntoa(packet[12:16]), flush=True)
    if where[1] == 0x86DD and packet[24:26] == bytes([0xFF, 0x0E]):
        print(socket.inet_ntop(socket.AF_INET6, packet[8:24]), flush=True)
"""
SHOUT = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
shouting = socket.socket(family, socket.SOCK_DGRAM)
shouting.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"uplink")
shouting.bind((sys.argv[2], 0))
shouting.sendto(b"hello", (sys.argv[1], 4000))
"""


@pytest.mark.parametrize(
    ("group", "source", "family"), [("239.1.2.3", "10.1.2.2", 4), ("ff0e::1234", "2001:db8:1::2", 6)]
)
def test_multicast_keeps_its_source(world: World, machine: Machine, group: str, source: str, family: int) -> None:
    """Without a multicast router nothing forwards the pod's packets, so the host sends one with the pod's address.

    It passes the same rules.
    """
    enter = ("nsenter", f"--net={world.outside.path}", "--")
    sniffer = machine.start(*enter, "python3", "-I", "-S", "-c", SNIFF)
    assert sniffer.stdout
    assert sniffer.stdout.readline() == "ready\n"
    machine.run("ip", f"-{family}", "route", "add", group, "dev", "uplink")
    machine.run("ip", "address", "add", f"{source}/{32 if family == 4 else 128}", "dev", "lo")
    machine.run("python3", "-I", "-S", "-c", SHOUT, group, source)
    assert sniffer.stdout.readline().strip() == source


@pytest.mark.parametrize(
    "accident",
    [
        "flush ruleset",
        "flush table inet podwire",
        "delete table inet podwire",
        "flush chain inet podwire postrouting",
        "flush chain inet podwire masquerade-10.1.2.0/24",
        "flush map inet podwire masquerade4; flush chain inet podwire postrouting",
    ],
)
def test_the_next_add_heals_all_pods(world: World, machine: Machine, node: Node, accident: str) -> None:
    held = elements(machine)
    assert len(held) == 4
    machine.run("nft", accident)
    node.add(MASQUERADED, attachment(machine.pod("pod3")))
    assert held.items() <= elements(machine).items()
    assert len(elements(machine)) == 6
    for pod in (*world.pods, machine.pods["pod3"]):
        assert is_masqueraded(pod)
        assert node.check(MASQUERADED, attachment(pod)).status == 0


def test_pods_of_other_subnets_are_healed_as_well(world: World, machine: Machine, node: Node) -> None:
    other = network(
        "other", bridge="cni1", isDefaultGateway=True, ipMasq=True, ipam=host_local([{"subnet": "10.5.0.0/24"}])
    )
    pod = machine.pod("pod3")
    node.add(other, attachment(pod))
    machine.run("nft", "flush", "ruleset")
    node.add(MASQUERADED, attachment(machine.pod("pod4")))
    assert pod.ask(OUTSIDE4, 8080) == NODE4
    assert node.check(other, attachment(pod)).status == 0
    assert is_masqueraded(world.pods[0])


def test_healing_restores_no_pod_that_is_gone(world: World, machine: Machine, node: Node) -> None:
    node.delete(MASQUERADED, attachment(world.pods[0]))
    machine.run("nft", "flush", "ruleset")
    node.add(MASQUERADED, attachment(machine.pod("pod3")))
    assert set(elements(machine).values()) == {"pod2/eth0", "pod3/eth0"}


def test_an_element_of_a_dead_owner_under_a_reused_address_is_replaced(machine: Machine, node: Node) -> None:
    first, second = machine.pod("first"), machine.pod("second")
    node.add(RICH, attachment(first))
    first.run("ip", "link", "delete", "eth0")
    machine.run("rm", "-r", "/var/lib/cni/networks/net")
    node.add(RICH, attachment(second))
    held = elements(machine)
    assert held["masquerade4 10.1.2.2"] == held["masquerade6 2001:db8:1::2"] == "second/eth0"
    assert node.check(RICH, attachment(second)).status == 0
    node.delete(RICH, attachment(first))
    assert elements(machine)["masquerade4 10.1.2.2"] == "second/eth0"


def test_other_peoples_tables_are_left_alone(machine: Machine, node: Node) -> None:
    machine.run("nft", "add table inet mine; add chain inet mine keep; add rule inet mine keep counter")
    before = machine.run("nft", "list", "table", "inet", "mine").stdout
    who = attachment(machine.pod())
    node.add(RICH, who)
    node.delete(RICH, who)
    assert machine.run("nft", "list", "table", "inet", "mine").stdout == before


def _without_nftables() -> None:
    """In this process, a netlink socket of nftables is an error."""
    original = netlink.Netlink.__init__

    def refuse(self: netlink.Netlink, protocol: int) -> None:
        assert protocol != netlink.NETLINK_NETFILTER, "a socket of nftables"
        original(self, protocol)

    netlink.Netlink.__init__ = refuse  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "config",
    [PLAIN, network(), network(isGateway=True, ipam=DUAL, portIsolation=True)],
    ids=["gateway", "link", "isolated"],
)
def test_nftables_is_not_touched_where_nothing_asks_for_it(machine: Machine, node: Node, config: Json) -> None:
    """As bridge, which leaves the host's firewall to others; podwire asks one question (test_accept)."""
    who, bare = attachment(machine.pod()), {"program": "bridge", "prepare": _without_nftables}
    node.add(config, who, **bare)
    node.check(config, who, **bare).succeeded()
    node.call("STATUS", config, program="bridge", prepare=_without_nftables).succeeded()
    node.delete(config, who, **bare)
    node.delete(config, who, **bare)
    assert shown(machine, "nft", "-j", "list", "tables")["nftables"][1:] == []


def test_no_program_is_executed_for_rules(machine: Machine, node: Node) -> None:
    """Neither for the first pod, which loads them, nor for others."""
    pods = [attachment(machine.pod()) for _ in range(2)]
    for attached in pods:
        node.add(RICH, attached, prepare=_no_programs)
    node.check(RICH, pods[0], prepare=_no_programs).succeeded()
    node.delete(RICH, pods[0], prepare=_no_programs)
    assert len(owners(machine)) == 1


def _no_programs() -> None:
    from cni import proc

    def refuse(*_: object) -> None:
        raise AssertionError("a program")

    vars(proc).update(find=refuse, find_system=refuse, run=refuse)


def test_addresses_of_one_pod_in_two_subnets_of_a_family(machine: Machine, node: Node) -> None:
    outside = machine.outside()
    outside.serve(8080)
    config = network(isDefaultGateway=True, ipMasq=True, ipam=host_local(IPV6, [{"subnet": "2001:db8:5::/64"}], IPV4))
    pod = machine.pod()
    node.add(config, attachment(pod))
    assert len(elements(machine)) == 3
    assert is_masqueraded(pod)
    node.delete(config, attachment(pod))
    assert elements(machine) == {}


def test_an_address_that_another_container_claims_twice_has_one_element(machine: Machine, node: Node) -> None:
    """Two networks with the same subnet: the second holder of an address owns the element, and DEL of the first
    does not take it.
    """
    first, second = machine.pod("here"), machine.pod("there")
    first_network, second_network = (
        network(name, bridge=f"br-{name}", ipMasq=True, ipam=host_local(IPV4)) for name in ("one", "two")
    )
    node.add(first_network, Attachment("here", first.path))
    node.add(second_network, Attachment("there", second.path))
    node.delete(first_network, Attachment("here", first.path))
    assert elements(machine) == {"masquerade4 10.1.2.2": "there/eth0"}


@pytest.mark.parametrize("damage", ["flush ruleset", "flush table bridge podwire", "delete table bridge podwire"])
def test_guards_against_spoofing_come_back_with_the_next_pod(machine: Machine, node: Node, damage: str) -> None:
    guarded = {**PLAIN, "macspoofchk": True}
    pods = [attachment(machine.pod(name)) for name in ("first", "second", "third")]
    for attached in pods[:2]:
        node.add(guarded, attached)
    before = elements(machine)
    machine.run("nft", *damage.split())
    assert node.check(guarded, pods[0]).code == 101
    node.add(guarded, pods[2])
    for attached in pods:
        node.check(guarded, attached).succeeded()
    node.delete(guarded, pods[2])
    assert elements(machine) == before
