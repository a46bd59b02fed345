"""The bridge itself: its MAC address, its link-local address, and gateways beside what it has already."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.machine import until
from tests.netns.runtime import IPV4, IPV6, AnsweredError, attachment, host_local, network
from tests.netns.state import link, shown

if TYPE_CHECKING:
    from tests.machine import Machine
    from tests.netns.runtime import Json, Node

NOBODYS = "00:00:00:00:00:00"


def link_locals(machine: Machine, bridge: str) -> list[str]:
    (link,) = shown(machine, "ip", "-j", "-6", "address", "show", "dev", bridge, "scope", "link")
    return [info["local"] for info in link.get("addr_info", [])]


def without_ports(machine: Machine, bridge: str) -> None:
    """Makes a bridge whose ports have come and gone: its MAC address went with the last."""
    for command in (
        f"ip link add {bridge} type bridge",
        f"ip link set {bridge} up",
        "ip link add port type veth peer name other",
        f"ip link set port master {bridge}",
        "ip link delete port",
    ):
        machine.run(*command.split())
    assert link(machine, bridge)["address"] == NOBODYS


@pytest.mark.parametrize("settings", [{"ipam": host_local(IPV4)}, {"isGateway": True, "ipam": host_local(IPV4)}, {}])
def test_a_bridge_without_a_mac_address_gets_one_and_keeps_it(machine: Machine, node: Node, settings: Json) -> None:
    without_ports(machine, "br9")
    config = network(bridge="br9", **settings)
    first, second = attachment(machine.pod()), attachment(machine.pod())
    answered = node.add(config, first, program="bridge")["interfaces"][0]["mac"]
    assert answered == link(machine, "br9")["address"] != NOBODYS
    assert node.add(config, second, program="bridge")["interfaces"][0]["mac"] == answered
    for attached in (first, second):
        node.delete(config, attached, program="bridge")
    assert link(machine, "br9")["address"] == answered


def test_a_bridge_whose_only_port_is_down_has_its_link_local_address(machine: Machine, node: Node) -> None:
    config = network(disableContainerInterface=True)
    pod = machine.pod()
    node.add(config, attachment(pod), program="bridge")
    until(lambda: link(machine, "cni0")["operstate"] == "DOWN", "the kernel has noticed that the bridge has no carrier")
    (own,) = link_locals(machine, "cni0")
    # The port comes up: the kernel finds the address that it would have given.
    pod.run("ip", "link", "set", "eth0", "up")
    until(lambda: link(machine, "cni0")["operstate"] == "UP", "the bridge is up")
    assert link_locals(machine, "cni0") == [own]


def test_a_bridge_of_a_host_without_ipv6_has_none(machine: Machine, node: Node) -> None:
    machine.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
    node.add(network(disableContainerInterface=True), attachment(machine.pod()), program="bridge")
    assert shown(machine, "ip", "-j", "-6", "address", "show", "dev", "cni0") in ([], [{}])


def test_a_link_local_gateway_stands_beside_the_kernels_own_address(machine: Machine, node: Node) -> None:
    machine.run("ip", "link", "add", "br9", "type", "bridge")
    machine.run("ip", "link", "set", "br9", "up")
    (own,) = link_locals(machine, "br9")
    ipam = host_local([{"subnet": "fd00:5::/64", "gateway": "fe80::1"}], routes=[{"dst": "::/0"}])
    for force in (False, True):
        config, pod = network(bridge="br9", isGateway=True, forceAddress=force, ipam=ipam), machine.pod()
        node.add(config, attachment(pod))
        (default,) = shown(pod, "ip", "-j", "-6", "route", "show", "default")
        assert (default["gateway"], default["dev"]) == ("fe80::1", "eth0")
        assert node.check(config, attachment(pod)).status == 0
    assert set(link_locals(machine, "br9")) == {own, "fe80::1"}


def test_another_gateway_of_the_same_subnet_is_still_refused(machine: Machine, node: Node) -> None:
    machine.run("ip", "link", "add", "br9", "type", "bridge")
    machine.run("ip", "address", "add", "2001:db8:1::7/64", "dev", "br9")
    with pytest.raises(AnsweredError, match="2001:db8:1::7/64"):
        node.add(network(bridge="br9", isGateway=True, ipam=host_local(IPV6)), attachment(machine.pod()))
