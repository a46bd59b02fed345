"""Router advertisements: a host follows none of its containers and its own routers as before, and a container that has
its IPv6 addresses from the allocator follows none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.effects.engine import EFFECTS
from cni.protocol.errors import OperationFailed
from tests.machine import until
from tests.netns.routers import advertise, advertised
from tests.netns.runtime import DUAL, IPV4, IPV6, AnsweredError, attachment, host_local, network
from tests.netns.state import filters_vlans, owners

if TYPE_CHECKING:
    from tests.machine import Machine, Pod
    from tests.netns.runtime import Json, Node

PORT = "the host's end"
ONE = host_local(IPV4)
# The plugin's name, its configuration, and the host's interface that hears what a container sends.
PLACES: dict[str, tuple[str, Json, str]] = {
    "podwire": ("podwire", network(isGateway=True, ipam=ONE), "cni0"),
    "podwire, routed": ("podwire", network(mode="routed", ipam=ONE), PORT),
    "bridge": ("bridge", network(isGateway=True, ipam=ONE), "cni0"),
    "bridge without a gateway": ("bridge", network(ipam=ONE), "cni0"),
    "ptp": ("ptp", network(ipam=ONE), PORT),
    "a VLAN": ("bridge", network(vlan=7, isGateway=True, ipam=ONE), "cni0.7"),
}


def accepts(where: Machine | Pod, interface: str, setting: str = "accept_ra") -> str:
    return where.run("cat", f"/proc/sys/net/ipv6/conf/{interface}/{setting}").stdout.strip()


def place_of(machine: Machine, place: str) -> str:
    return next(iter(owners(machine))) if place == PORT else place


def skip_without_vlans(machine: Machine, config: Json) -> None:
    if "vlan" in config and not filters_vlans(machine):
        pytest.skip("the kernel has no CONFIG_BRIDGE_VLAN_FILTERING")


@pytest.mark.parametrize(("program", "config", "place"), PLACES.values(), ids=PLACES)
def test_the_host_follows_no_container(machine: Machine, node: Node, program: str, config: Json, place: str) -> None:
    skip_without_vlans(machine, config)
    pod = machine.pod()
    node.add(config, attachment(pod), program=program)
    interface, (port,) = place_of(machine, place), owners(machine)
    advertise(pod, "eth0", machine, interface)
    assert advertised(machine, interface) == (0, 0)
    assert accepts(machine, port) == "0"
    assert node.check(config, attachment(pod), program=program).status == 0
    machine.run("sysctl", "-qw", f"net/ipv6/conf/{interface}/accept_ra=2")
    answer = node.check(config, attachment(pod), program=program)
    assert answer.code == 101
    assert "accept_ra" in answer.message


def test_nor_by_a_bridge_that_others_have_made(machine: Machine, node: Node) -> None:
    machine.run("ip", "link", "add", "br9", "type", "bridge")
    machine.run("ip", "link", "set", "br9", "up")
    config, pod = network(bridge="br9", ipam=ONE), machine.pod()
    node.add(config, attachment(pod), program="bridge")
    advertise(pod, "eth0", machine, "br9")
    assert advertised(machine, "br9") == (0, 0)


def test_nor_by_a_gateway_in_a_vlan_that_is_there_already(machine: Machine, node: Node) -> None:
    config = network(vlan=7, isGateway=True, ipam=ONE)
    skip_without_vlans(machine, config)
    node.add(config, attachment(machine.pod()), program="bridge")
    machine.run("sysctl", "-qw", "net/ipv6/conf/cni0.7/accept_ra=1")
    node.add(config, attachment(machine.pod()), program="bridge")
    assert accepts(machine, "cni0.7") == "0"


def test_an_add_that_fails_gives_the_bridge_back_as_it_was(machine: Machine, node: Node) -> None:
    machine.run("ip", "link", "add", "br9", "type", "bridge")
    pod, route = machine.pod(), {"dst": "192.0.2.0/24", "gw": "203.0.113.1"}
    with pytest.raises(AnsweredError):
        node.add(network(bridge="br9", ipam={**ONE, "routes": [route]}), attachment(pod))
    assert accepts(machine, "br9") == "1"


def follow(where: Machine | Pod, interface: str, router: Pod, behind: str) -> None:
    """Waits until the interface has the route and an address of the router behind the other."""

    def has_both() -> bool:
        advertise(router, behind, where, interface)
        return advertised(where, interface) == (1, 1)

    until(has_both, f"{interface} follows the router")


@pytest.fixture
def router(machine: Machine) -> Pod:
    """Returns a router on a wire of the host's, which has followed it."""
    router = machine.pod("router")
    machine.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up0", "netns", "router")
    router.run("ip", "link", "set", "up0", "up")
    machine.run("ip", "link", "set", "up0", "up")
    follow(machine, "up0", router, "up0")
    return router


@pytest.mark.parametrize("config", [network(isGateway=True, ipam=DUAL), network(mode="routed", ipam=DUAL)])
def test_a_host_that_begins_to_forward_keeps_its_own_router(
    machine: Machine, node: Node, router: Pod, config: Json
) -> None:
    node.add(config, attachment(machine.pod()))
    assert machine.run("cat", "/proc/sys/net/ipv6/conf/all/forwarding").stdout == "1\n"
    assert advertised(machine, "up0") == (1, 1)
    machine.run("ip", "-6", "route", "delete", "default", "dev", "up0")
    follow(machine, "up0", router, "up0")
    assert (accepts(machine, "up0"), accepts(machine, "lo")) == ("2", "1")


@pytest.mark.usefixtures("router")
@pytest.mark.parametrize("setting", ["0", "2"])
def test_what_the_host_has_chosen_itself_stays(machine: Machine, node: Node, setting: str) -> None:
    machine.run("sysctl", "-qw", f"net.ipv6.conf.up0.accept_ra={setting}")
    node.add(network(isGateway=True, ipam=DUAL), attachment(machine.pod()))
    assert accepts(machine, "up0") == setting


@pytest.mark.usefixtures("router")
def test_a_host_that_does_not_begin_to_forward_ipv6_is_left_alone(machine: Machine, node: Node) -> None:
    node.add(network(isGateway=True, ipam=ONE), attachment(machine.pod()))
    assert accepts(machine, "up0") == "1"


@pytest.mark.usefixtures("router")
def test_an_add_that_fails_puts_the_interface_of_the_router_back(machine: Machine, node: Node) -> None:
    with pytest.raises(AnsweredError):
        node.add(network(isGateway=True, ipam=DUAL), attachment(machine.pod()), prepare=refuse_the_last_step)
    assert machine.run("cat", "/proc/sys/net/ipv6/conf/all/forwarding").stdout == "0\n"
    assert accepts(machine, "up0") == "1"
    assert advertised(machine, "up0") == (1, 1)


def refuse_the_last_step() -> None:
    """Runs in the process of the call, when all of the host is set up."""

    def refuse(*_: object) -> None:
        raise OperationFailed("refused")

    EFFECTS["WaitReady"] = EFFECTS["WaitReady"]._replace(apply=refuse)


def on_a_lan(machine: Machine) -> Pod:
    """Returns a router on the bridge lan."""
    router = machine.pod("router")
    for command in (
        "ip link add lan type bridge",
        "ip link set lan up",
        "ip link add u2 type veth peer name r0 netns router",
        "ip link set u2 master lan up",
        "ip -n router link set r0 up",
    ):
        machine.run(*command.split())
    return router


@pytest.mark.parametrize("ipam", [host_local(IPV6), DUAL])
def test_a_container_with_ipv6_addresses_of_the_allocator_takes_no_others(
    machine: Machine, node: Node, ipam: Json
) -> None:
    router, pod = on_a_lan(machine), machine.pod()
    config = network(bridge="lan", ipam={**ipam, "routes": [{"dst": "::/0"}]})
    node.add(config, attachment(pod), program="bridge")
    advertise(router, "r0", pod, "eth0")
    assert advertised(pod, "eth0") == (1, 0)
    assert [accepts(pod, "eth0", name) for name in ("accept_ra", "autoconf")] == ["0", "0"]
    assert accepts(pod, "lo") == "1"


@pytest.mark.parametrize(
    "settings", [{"ipam": ONE}, {}, {"ipam": DUAL, "acceptRA": True}], ids=["IPv4 alone", "no addresses", "acceptRA"]
)
def test_any_other_container_configures_itself_as_before(machine: Machine, node: Node, settings: Json) -> None:
    router, pod = on_a_lan(machine), machine.pod()
    node.add(network(bridge="lan", **settings), attachment(pod), program="bridge")
    follow(pod, "eth0", router, "r0")


@pytest.mark.parametrize(("program", "settings"), [("ptp", {}), ("podwire", {"mode": "routed"})])
def test_a_routed_container_takes_none_either(machine: Machine, node: Node, program: str, settings: Json) -> None:
    pod, other = machine.pod(), machine.pod()
    node.add(network(ipam=DUAL, **settings), attachment(pod), program=program)
    node.add(network(ipam=DUAL, acceptRA=True, **settings), attachment(other), program=program)
    assert [accepts(each, "eth0") for each in (pod, other)] == ["0", "1"]
