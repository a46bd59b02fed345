"""ipSpoofCheck: nothing leaves a container with an address that ADD did not give it, and all of its own does."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.plan.link import link_local
from cni.plan.policy import UNCHECKED
from cni.protocol.address import parse_mac
from tests.machine import MachineError, until
from tests.netns import frames
from tests.netns.frames import arp, ethernet, icmpv6, ipv4, ipv6, passing
from tests.netns.runtime import DUAL, IPV4, PLUGINS, attachment, host_local, network
from tests.netns.state import elements, link, owners
from tests.netns.test_policy_add import folder, make_folder

if TYPE_CHECKING:
    from tests.machine import Machine, Pod
    from tests.netns.runtime import Json, Node

CHECKED = network(isDefaultGateway=True, ipSpoofCheck=True, ipam=DUAL)
ROUTED = {**CHECKED, "mode": "routed"}
OWN4, OWN6, OTHER4, OTHER6 = "10.1.2.2", "2001:db8:1::2", "10.1.2.3", "2001:db8:1::3"
GATEWAY4, GATEWAY6, NOBODY4, NOBODY6 = "10.1.2.1", "2001:db8:1::1", "0.0.0.0", "::"
LINK_LOCAL = "fe80::1"


def false_frames() -> dict[str, bytes]:
    """Frames of the container with OWN4 and OWN6 with which it would be somebody else."""
    named: dict[str, tuple[int, bytes]] = {
        "IPv4 of a neighbour": (frames.IPV4, ipv4(OTHER4)),
        "IPv4 of the gateway": (frames.IPV4, ipv4(GATEWAY4)),
        "IPv4 of nobody": (frames.IPV4, ipv4(NOBODY4)),
        "IPv4 from outside": (frames.IPV4, ipv4("192.0.2.77")),
        "ARP answer for the gateway": (frames.ARP, arp(frames.REPLY, GATEWAY4, OTHER4)),
        "ARP answer for a neighbour": (frames.ARP, arp(frames.REPLY, OTHER4, OTHER4)),
        "ARP question as the gateway": (frames.ARP, arp(frames.REQUEST, GATEWAY4, OTHER4)),
        "ARP probe for a neighbour": (frames.ARP, arp(frames.REQUEST, NOBODY4, OTHER4)),
        "IPv6 of a neighbour": (frames.IPV6, ipv6(OTHER6)),
        "IPv6 of nobody": (frames.IPV6, ipv6(NOBODY6)),
        "IPv6 link-local of another": (frames.IPV6, ipv6(LINK_LOCAL)),
        "NA for the gateway": (frames.IPV6, icmpv6(OWN6, frames.NEIGHBOR_ADVERT, GATEWAY6)),
        "NA as the gateway": (frames.IPV6, icmpv6(GATEWAY6, frames.NEIGHBOR_ADVERT, GATEWAY6)),
        "NA as nobody": (frames.IPV6, icmpv6(NOBODY6, frames.NEIGHBOR_ADVERT, OWN6)),
        "NS as a neighbour": (frames.IPV6, icmpv6(OTHER6, frames.NEIGHBOR_SOLICIT, GATEWAY6)),
        "DAD for a neighbour": (frames.IPV6, icmpv6(NOBODY6, frames.NEIGHBOR_SOLICIT, OTHER6)),
    }
    plain = {name: ethernet(*frame) for name, frame in named.items()}
    tagged = {f"{name}, tagged": ethernet(*frame, tags=1) for name, frame in named.items()}
    twice = {f"{name}, tagged twice": ethernet(*frame, tags=2) for name, frame in named.items()}
    return plain | tagged | twice


def own_frames(link_local_address: str) -> dict[str, bytes]:
    named = {
        "IPv4": (frames.IPV4, ipv4(OWN4)),
        "ARP answer": (frames.ARP, arp(frames.REPLY, OWN4, OTHER4)),
        "ARP question": (frames.ARP, arp(frames.REQUEST, OWN4, GATEWAY4)),
        "ARP probe": (frames.ARP, arp(frames.REQUEST, NOBODY4, OWN4)),
        "IPv6": (frames.IPV6, ipv6(OWN6)),
        "IPv6 link-local": (frames.IPV6, ipv6(link_local_address)),
        "NA": (frames.IPV6, icmpv6(OWN6, frames.NEIGHBOR_ADVERT, OWN6)),
        "NA, link-local": (frames.IPV6, icmpv6(link_local_address, frames.NEIGHBOR_ADVERT, link_local_address)),
        "NS": (frames.IPV6, icmpv6(OWN6, frames.NEIGHBOR_SOLICIT, GATEWAY6)),
        "DAD": (frames.IPV6, icmpv6(NOBODY6, frames.NEIGHBOR_SOLICIT, OWN6)),
        "DAD, link-local": (frames.IPV6, icmpv6(NOBODY6, frames.NEIGHBOR_SOLICIT, link_local_address)),
        "RS": (frames.IPV6, icmpv6(NOBODY6, frames.ROUTER_SOLICIT)),
        "MLD": (frames.IPV6, icmpv6(NOBODY6, frames.MLD1)),
        "MLDv2": (frames.IPV6, icmpv6(NOBODY6, frames.MLD2)),
    }
    return {name: ethernet(*frame) for name, frame in named.items()}


def link_local_of(pod: Pod) -> str:
    return link_local(parse_mac(link(pod, "eth0")["address"])).ip.text


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("mac_check", [True, False])
def test_on_a_bridge_only_own_addresses_arrive(machine: Machine, node: Node, *, checked: bool, mac_check: bool) -> None:
    first, second = machine.pod(), machine.pod()
    for pod in (first, second):
        node.add({**CHECKED, "ipSpoofCheck": checked, "macspoofchk": mac_check}, attachment(pod))
    own, false = own_frames(link_local_of(first)), false_frames()
    assert passing(first, own | false, second) == set(own) | (set() if checked else set(false))
    assert passing(first, own | false, machine, "cni0") == set(own) | (set() if checked else set(false))


def reaches_all(machine: Machine, first: Pod, second: Pod) -> None:
    """Both families, after neighbours have been forgotten; the gateway too."""
    for where in (first, second, machine):
        where.run("ip", "neighbour", "flush", "all", check=False)
        where.run("ip", "-6", "neighbour", "flush", "all", check=False)
    assert first.ask(OTHER4, 8080) == OWN4
    assert first.ask(OTHER6, 8080) == OWN6
    assert first.ask(GATEWAY4, 8081) == OWN4
    assert first.ask(GATEWAY6, 8081) == OWN6
    assert machine.ask(OTHER4, 8080) == GATEWAY4
    assert machine.ask(OTHER6, 8080) == GATEWAY6


@pytest.mark.parametrize("program", ["podwire", "bridge", "ptp"])
@pytest.mark.parametrize("settings", [{}, {"enabledad": True}], ids=["at once", "after duplicate detection"])
def test_containers_reach_each_other_and_the_node(machine: Machine, node: Node, program: str, settings: Json) -> None:
    first, second = machine.pod(), machine.pod()
    config = {**CHECKED, **settings, "type": program}
    for pod in (first, second):
        node.add(config, attachment(pod), program=program)
        node.check(config, attachment(pod), program=program).succeeded()
    second.serve(8080)
    machine.serve(8081)
    reaches_all(machine, first, second)


def test_a_container_reaches_by_link_local_addresses_and_detects_no_duplicates_of_itself(
    machine: Machine, node: Node
) -> None:
    pod = machine.pod()
    node.add(CHECKED, attachment(pod))
    pod.run("sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=1", "net.ipv6.conf.eth0.keep_addr_on_down=0")
    pod.run("ip", "link", "set", "eth0", "down")
    pod.run("ip", "link", "set", "eth0", "up")
    pod.run("ip", "address", "add", f"{OWN6}/64", "dev", "eth0")
    gateway = link_local(parse_mac(link(machine, "cni0")["address"])).ip.text
    pod.run("ping", "-c1", "-w20", f"{gateway}%eth0")
    until(
        lambda: "tentative" not in pod.run("ip", "address", "show", "dev", "eth0").stdout, "duplicates were looked for"
    )
    pod.run("ping", "-c1", "-w20", "-I", OWN6, GATEWAY6)
    assert "dadfailed" not in pod.run("ip", "address", "show", "dev", "eth0").stdout


_FORGE = """
import socket, sys
source, target, port = sys.argv[1:]
family = socket.AF_INET6 if ":" in source else socket.AF_INET
out = socket.socket(family, socket.SOCK_DGRAM)
level, option = (socket.IPPROTO_IPV6, 75) if ":" in source else (socket.IPPROTO_IP, 19)
out.setsockopt(level, option, 1)  # IPV6_TRANSPARENT, IP_TRANSPARENT
out.bind((source, 0))
out.sendto(b"forged", (target, int(port)))
"""
_HEAR = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
ears = socket.socket(family, socket.SOCK_DGRAM)
ears.bind((sys.argv[1], int(sys.argv[2])))
ears.settimeout(20)
print("ready", flush=True)
while True:
    data, sender = ears.recvfrom(100)
    print(sender[0], flush=True)
    if data == b"the end":
        break
"""
_PYTHON = ("python3", "-I", "-S", "-c")


def sources_heard(sender: Pod, target: str, sources: list[str], *, last: str, listener: Pod | None = None) -> list[str]:
    """Sends a datagram from each source, then one from `last`; returns the sources that the target hears of."""
    machine = sender.machine
    enter = () if listener is None else ("nsenter", f"--net={listener.path}", "--")
    process = machine.start(*enter, *_PYTHON, _HEAR, target, "9000")
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    for source in sources:
        sender.run(*_PYTHON, _FORGE, source, target, "9000")
    sender.run(*_PYTHON, _FORGE.replace("forged", "the end"), last, target, "9000")
    return process.communicate()[0].split()


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("family", [4, 6])
def test_the_node_hears_a_routed_container_by_its_own_addresses_alone(
    machine: Machine, node: Node, family: int, *, checked: bool
) -> None:
    """Whatever rp_filter says, which IPv6 does not have."""
    first, second = machine.pod(), machine.pod()
    for setting in ("all", "default"):
        machine.run("sysctl", "-qw", f"net.ipv4.conf.{setting}.rp_filter=0")
    for pod in (first, second):
        node.add({**ROUTED, "ipSpoofCheck": checked}, attachment(pod))
    own, gateway = {4: (OWN4, GATEWAY4), 6: (OWN6, GATEWAY6)}[family]
    false = {4: [OTHER4, "192.0.2.77"], 6: [OTHER6, "2001:db8:77::1"]}[family]
    assert sources_heard(first, gateway, false, last=own) == ([] if checked else false) + [own]
    other = {4: OTHER4, 6: OTHER6}[family]
    stranger = false[1:]
    heard = sources_heard(first, other, stranger, last=own, listener=second)
    assert heard == ([] if checked else stranger) + [own]


PASSED_UP = b"\x01\x80\xc2\0\0\x0e"  # IEEE 802.1D: a bridge hands these to the host as the port's own


@pytest.mark.parametrize("checked", [True, False])
def test_frames_that_no_bridge_forwards_reach_no_service_of_the_node(
    machine: Machine, node: Node, *, checked: bool
) -> None:
    """Its port is no way to the node with a false address, past the hooks of the bridge."""
    pod = machine.pod()
    for setting in ("all", "default"):
        machine.run("sysctl", "-qw", f"net.ipv4.conf.{setting}.rp_filter=0")
    node.add({**CHECKED, "ipSpoofCheck": checked}, attachment(pod))
    process = machine.start(*_PYTHON, _HEAR, GATEWAY4, "67")
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    forged = ethernet(frames.IPV4, ipv4(OTHER4, GATEWAY4), destination=PASSED_UP)
    passing(pod, {"forged": forged}, machine, "cni0")
    pod.run(*_PYTHON, _FORGE.replace("forged", "the end"), OWN4, GATEWAY4, "67")
    assert process.communicate()[0].split() == ([] if checked else [OTHER4]) + [OWN4]


LEASED = """#!/bin/sh
[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.1.2.2/24", "gateway": "10.1.2.1"}]}'
exit 0
"""


@pytest.mark.parametrize(("kind", "arrives"), [("dhcp", True), ("given", False)])
def test_the_address_of_nobody_is_for_dhcp(machine: Machine, node: Node, kind: str, *, arrives: bool) -> None:
    place = f"mkdir -p {PLUGINS} && cat > {PLUGINS}/{kind} && chmod +x {PLUGINS}/{kind}"
    machine.run("sh", "-c", place, stdin=LEASED)
    config = {**CHECKED, "ipam": {"type": kind}}
    pod = machine.pod()
    node.add(config, attachment(pod))
    node.check(config, attachment(pod)).succeeded()
    asked = {"asks for a lease": ethernet(frames.IPV4, ipv4(NOBODY4))}
    assert passing(pod, asked, machine, "cni0") == ({"asks for a lease"} if arrives else set())
    node.delete(config, attachment(pod))
    assert elements(machine) == {}


def test_a_container_has_elements_of_its_own_addresses(machine: Machine, node: Node) -> None:
    """One for each address; its comment says whose it is."""
    pod = machine.pod()
    node.add(CHECKED, attachment(pod))
    (port,) = owners(machine)
    own = link_local_of(pod)
    targets = {f"targets6 {port} 0x{frames.packed(ip).hex()}" for ip in (OWN6, own)}
    sources = {f"sources4 {port} {OWN4}", *[f"sources6 {port} {ip}" for ip in (OWN6, own)]}
    assert set(elements(machine)) == targets | sources | {f"checked {port}", f"bridged {port}"}
    assert set(elements(machine).values()) == {"pod1/eth0"}
    node.delete(CHECKED, attachment(pod))
    node.add(ROUTED, attachment(pod))
    assert elements(machine) == {f"routed {port}": "pod1/eth0"}


@pytest.mark.parametrize(
    ("config", "damage"),
    [
        (CHECKED, "flush ruleset"),
        (CHECKED, "flush table bridge podwire"),
        (CHECKED, "delete table bridge podwire"),
        (CHECKED, "flush table inet podwire"),
        (CHECKED, "delete table inet podwire"),
        (ROUTED, "flush ruleset"),
        (ROUTED, "flush table inet podwire"),
        (ROUTED, "delete table inet podwire"),
    ],
)
def test_the_next_add_restores_the_check_of_all(machine: Machine, node: Node, config: Json, damage: str) -> None:
    pods = [machine.pod(name) for name in ("first", "second", "third")]
    for pod in pods[:2]:
        node.add(config, attachment(pod))
    before = elements(machine)
    machine.run("nft", damage)
    assert node.check(config, attachment(pods[0])).code == 101
    node.add(config, attachment(pods[2]))
    for pod in pods:
        node.check(config, attachment(pod)).succeeded()
    node.delete(config, attachment(pods[2]))
    assert elements(machine) == before


def test_what_an_attachment_of_the_same_name_left_is_replaced(machine: Machine, node: Node) -> None:
    """The runtime tries again after it lost the container's interface, and another address is leased."""
    pod = machine.pod()
    node.add(CHECKED, attachment(pod))
    pod.run("ip", "link", "delete", "eth0")
    machine.run("rm", "-r", "/var/lib/cni/networks")
    config = {**CHECKED, "ipam": host_local([{"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9"}])}
    node.add(config, attachment(pod))
    (port,) = owners(machine)
    assert {name for name in elements(machine) if name.startswith("sources4")} == {f"sources4 {port} 10.1.2.9"}
    node.check(config, attachment(pod)).succeeded()
    node.delete(config, attachment(pod))
    assert elements(machine) == {}


INTERVENTIONS: dict[str, tuple[Json, str, str]] = {
    "an address": (CHECKED, "flush set bridge podwire sources4", "lacks elements"),
    "an address of IPv6": (CHECKED, "flush set bridge podwire targets6", "lacks elements"),
    "the port": (CHECKED, "flush set bridge podwire checked", "lacks elements"),
    "the rules": (CHECKED, "flush chain bridge podwire sources", "lost its rules"),
    "the rule of the node": (CHECKED, "flush chain inet podwire bridged", "lost its rules"),
    "the interface": (ROUTED, "flush set inet podwire routed", "lacks elements"),
    "the rule of routed containers": (ROUTED, "flush chain inet podwire routed", "lost its rules"),
}


@pytest.mark.parametrize(("config", "damage", "named"), INTERVENTIONS.values(), ids=INTERVENTIONS)
def test_check_names_what_is_missing(machine: Machine, node: Node, config: Json, damage: str, named: str) -> None:
    pod = machine.pod()
    node.add(config, attachment(pod))
    machine.run("nft", *damage.split())
    answer = node.check(config, attachment(pod))
    assert (answer.code, named in answer.message) == (101, True)


@pytest.mark.parametrize("config", [CHECKED, ROUTED], ids=["bridged", "routed"])
def test_a_container_attached_with_the_check_is_released_without_it(machine: Machine, node: Node, config: Json) -> None:
    """The configuration may have changed since; the interface's alias tells."""
    pod = machine.pod()
    node.add(config, attachment(pod))
    unchecked = {**config, "ipSpoofCheck": False}
    node.check(unchecked, attachment(pod)).succeeded()
    node.delete(unchecked, attachment(pod))
    assert elements(machine) == {}


def test_a_failed_attachment_leaves_nothing_of_the_check(machine: Machine, node: Node) -> None:
    machine.run("ip", "link", "add", "cni0", "type", "bridge")
    machine.run("ip", "address", "add", "10.1.2.77/24", "dev", "cni0")
    pod = machine.pod()
    assert node.call("ADD", CHECKED, attachment(pod)).code == 100  # the bridge has another gateway address
    assert machine.run("nft", "list", "ruleset").stdout == ""


def remove_folder() -> None:
    """Inside: as podwired does that is started without --network-policy."""
    shutil.rmtree(folder())


@pytest.mark.parametrize("config", [CHECKED, ROUTED], ids=["bridged", "routed"])
@pytest.mark.parametrize(("asked", "checked"), [(None, True), (True, True), (False, False)])
def test_where_policies_are_enforced_sources_are_checked_by_default(
    machine: Machine, node: Node, config: Json, asked: bool | None, *, checked: bool
) -> None:
    """As long as the container is there, whatever becomes of the policies."""
    who = attachment(machine.pod())
    config = {**config, "ipSpoofCheck": asked, "policyWait": 0}
    machine.call(make_folder)
    node.add(config, who)
    held = elements(machine)
    assert bool(held) == checked
    machine.call(remove_folder)
    node.check(config, who).succeeded()
    machine.run("nft", "flush", "ruleset")
    assert node.check(config, who).code == (101 if checked else 0)
    node.delete(config, who)
    node.add(config, who)
    assert bool(elements(machine)) == bool(asked)
    node.delete(config, who)
    assert elements(machine) == {}


def mark_unchecked() -> None:
    """Inside: as podwired does where the kernel lacks what the check needs."""
    Path(folder(), UNCHECKED).touch()


@pytest.mark.parametrize("config", [CHECKED, ROUTED], ids=["bridged", "routed"])
def test_where_the_kernel_cannot_check_sources_the_default_fails_no_container(
    machine: Machine, node: Node, config: Json
) -> None:
    who = attachment(machine.pod())
    config = {**config, "ipSpoofCheck": None, "policyWait": 0}
    machine.call(make_folder)
    machine.call(mark_unchecked)
    node.add(config, who)
    assert elements(machine) == {}
    node.check(config, who).succeeded()
    node.delete(config, who)


@pytest.mark.parametrize("config", [CHECKED, ROUTED], ids=["bridged", "routed"])
def test_a_default_check_is_released_after_the_container(machine: Machine, node: Node, config: Json) -> None:
    """Its interface, with the alias that tells of the check, has gone with its namespace."""
    pod = machine.pod()
    config = {**config, "ipSpoofCheck": None, "policyWait": 0}
    machine.call(make_folder)
    node.add(config, attachment(pod))
    pod.run("ip", "link", "delete", "eth0")
    node.delete(config, attachment(pod))
    assert elements(machine) == {}


def test_a_network_without_addresses_is_not_checked_by_default(machine: Machine, node: Node) -> None:
    machine.call(make_folder)
    node.add(network(), attachment(machine.pod()))
    assert machine.run("nft", "list", "ruleset").stdout == ""


def test_the_check_needs_addresses(machine: Machine, node: Node) -> None:
    answer = node.call("ADD", network(ipSpoofCheck=True), attachment(machine.pod()))
    assert (answer.code, "ipSpoofCheck: needs ipam" in answer.message) == (7, True)


def test_an_unchecked_container_is_unaffected_by_checked_ones(machine: Machine, node: Node) -> None:
    first, second = machine.pod(), machine.pod()
    unchecked: dict[str, Any] = {**CHECKED, "ipSpoofCheck": False}
    node.add(unchecked, attachment(first))
    node.add(CHECKED, attachment(second))
    false = false_frames()
    assert passing(first, false, machine, "cni0") == set(false)


def test_the_counters_tell_of_what_was_dropped(machine: Machine, node: Node) -> None:
    pod = machine.pod()
    node.add(CHECKED, attachment(pod))
    passing(pod, {"forged": ethernet(frames.IPV4, ipv4(OTHER4))}, machine, "cni0")
    assert "counter packets 1 " in machine.run("nft", "list", "chain", "bridge", "podwire", "sources").stdout


def test_an_address_elsewhere_is_out_of_reach_with_the_reverse_path_missing(machine: Machine, node: Node) -> None:
    """A routed container that takes another's address gets no answer as that one."""
    first, second = machine.pod(), machine.pod()
    config = {**ROUTED, "ipam": host_local(IPV4)}
    for pod in (first, second):
        node.add(config, attachment(pod))
    machine.serve(8081)
    first.run("ip", "address", "add", f"{OTHER4}/32", "dev", "eth0")
    first.run("ip", "address", "delete", f"{OWN4}/24", "dev", "eth0")
    with pytest.raises(MachineError):
        first.ask(GATEWAY4, 8081, seconds=1.0)
