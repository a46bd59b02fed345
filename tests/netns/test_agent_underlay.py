"""Tests the interface that podwired selects on hosts with several; the rules are flannel's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.agent.uplink.select import InterfaceSelector, NoUnderlay, Underlay, local_addresses, select_interface
from cni.kernel.rtnl_socket import RtnlSocket
from cni.protocol.address import parse_ip
from tests.machine import until

if TYPE_CHECKING:
    from tests.machine import Machine, Pod

EAST, WEST = "192.0.2.1", "198.51.100.1"
EAST6, WEST6 = "2001:db8:2::1", "2001:db8:3::1"


def chosen(families: tuple[int, ...], selector: InterfaceSelector) -> dict[str, Any]:
    """Inside the machine."""
    route = RtnlSocket()
    try:
        return texts(select_interface(route, families, selector))
    finally:
        route.close()


def texts(underlay: Underlay) -> dict[str, Any]:
    fields = underlay._asdict()
    fields["addresses"] = [address.text for address in underlay.addresses]
    fields["public_ips"] = [ip.text for ip in underlay.public_ips]
    return fields


def ask(machine: Machine, *families: int, **selector: Any) -> dict[str, Any]:
    for key in ("names", "patterns"):
        selector[key] = tuple(selector.get(key, ()))
    selector["public_ips"] = tuple([parse_ip(text) for text in selector.get("public_ips", ())])
    selector["can_reach"] = parse_ip(selector["can_reach"]) if "can_reach" in selector else None
    underlay: dict[str, Any] = machine.call(chosen, families or (4,), InterfaceSelector(**selector))
    return underlay


def own_addresses() -> list[str]:
    """Inside the machine."""
    route = RtnlSocket()
    try:
        return sorted(ip.text for ip in local_addresses(route))
    finally:
        route.close()


def wire(machine: Machine, name: str, *addresses: str) -> Pod:
    """Lays a wire from the host to a pod of the same name; addresses are the host's."""
    pod = machine.pod(name)
    machine.run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
    pod.run("ip", "link", "set", "eth0", "up")
    machine.run("ip", "link", "set", name, "up")
    for address in addresses:
        add(machine, name, address)
    return pod


def add(machine: Machine, link: str, address: str, *arguments: str) -> None:
    nodad = ["nodad"] if ":" in address and "dad" not in arguments else []
    rest = [word for word in arguments if word != "dad"]
    machine.run("ip", "address", "add", address, "dev", link, *nodad, *rest)


@pytest.fixture
def host(machine: Machine) -> Machine:
    """Returns a host with the interfaces east and west, each with addresses of both families, and no default route."""
    wire(machine, "east", f"{EAST}/24", f"{EAST6}/64")
    wire(machine, "west", f"{WEST}/24", f"{WEST6}/64")
    return machine


def default(machine: Machine, via: str, *arguments: str) -> None:
    family = "-6" if ":" in via else "-4"
    machine.run("ip", family, "route", "add", "default", "via", via, *arguments)


def test_the_default_route_decides_where_nothing_is_wished_for(host: Machine) -> None:
    default(host, "198.51.100.254")
    underlay = ask(host)
    index = int(host.run("cat", "/sys/class/net/west/ifindex").stdout)
    assert (underlay["name"], underlay["ifindex"], underlay["mtu"]) == ("west", index, 1500)
    assert (underlay["addresses"], underlay["public_ips"]) == ([f"{WEST}/24"], [WEST])
    assert underlay["reason"] == f"west with {WEST}, by the default route"


def test_of_several_default_routes_that_of_the_lowest_metric_decides(host: Machine) -> None:
    default(host, "192.0.2.254", "metric", "200")
    default(host, "198.51.100.254", "metric", "100")
    default(host, "2001:db8:2::fe", "metric", "50")
    default(host, "2001:db8:3::fe", "metric", "60")
    assert ask(host, 4)["name"] == "west"
    assert ask(host, 6)["name"] == "east"


def test_a_default_route_of_another_table_or_that_leads_nowhere_does_not_count(host: Machine) -> None:
    host.run("ip", "route", "add", "unreachable", "default", "metric", "1")
    host.run("ip", "route", "add", "default", "via", "192.0.2.254", "table", "100")
    default(host, "198.51.100.254", "metric", "5000")
    assert ask(host)["name"] == "west"


@pytest.mark.parametrize(("family", "hops"), [(4, ("198.51.100.254", "192.0.2.254")), (6, ("2001:db8:3::fe",))])
def test_of_several_next_hops_the_first_decides(host: Machine, family: int, hops: tuple[str, ...]) -> None:
    arguments = [word for hop in hops for word in ("nexthop", "via", hop)]
    host.run("ip", f"-{family}", "route", "add", "default", *arguments)
    assert ask(host, family)["name"] == "west"


def test_two_families_are_on_the_interface_of_both_default_routes(host: Machine) -> None:
    default(host, "198.51.100.254")
    default(host, "2001:db8:3::fe")
    underlay = ask(host, 4, 6)
    assert (underlay["name"], underlay["addresses"]) == ("west", [f"{WEST}/24", f"{WEST6}/64"])
    assert underlay["public_ips"] == [WEST, WEST6]


def test_default_routes_by_different_interfaces_are_refused_with_the_way_out(host: Machine) -> None:
    default(host, "192.0.2.254")
    default(host, "2001:db8:3::fe")
    with pytest.raises(NoUnderlay, match=r"IPv4 and IPv6 lead to different interfaces, east and west.*--iface chooses"):
        ask(host, 4, 6)
    assert ask(host, 4, 6, names=["east"])["name"] == "east"


def test_without_a_default_route_the_error_offers_what_there_is(host: Machine) -> None:
    with pytest.raises(NoUnderlay, match=rf"no default route of IPv4.*: east \({EAST}\), west \({WEST}\)$"):
        ask(host)


def test_on_a_host_without_any_interface_the_error_says_so(machine: Machine) -> None:
    for families in ((4,), (6,), (4, 6)):
        with pytest.raises(NoUnderlay, match=f"no default route of IPv{families[0]}.* No interface has addresses of"):
            ask(machine, *families)


@pytest.mark.parametrize("tunnel", ["flannel.1", "flannel-v6.1", "cni0"])
def test_the_own_tunnel_and_the_pods_bridge_are_taken_by_name_alone(host: Machine, tunnel: str) -> None:
    host.run("ip", "link", "add", tunnel, "type", "bridge")
    host.run("ip", "address", "add", "10.244.1.1/24", "dev", tunnel)
    host.run("ip", "link", "set", tunnel, "up")
    host.run("ip", "route", "add", "default", "dev", tunnel)
    default(host, "198.51.100.254", "metric", "100")
    assert ask(host)["name"] == "west"
    with pytest.raises(NoUnderlay, match="no interface with all addresses matches"):
        ask(host, patterns=[r"^10\.", tunnel])
    assert ask(host, names=[tunnel])["name"] == tunnel


def test_the_first_name_that_fits_decides(host: Machine) -> None:
    wire(host, "bare")
    underlay = ask(host, names=["absent", "bare", "203.0.113.9", "west", "east"], patterns=["east"])
    assert (underlay["name"], underlay["reason"]) == ("west", f"west with {WEST}, by --iface west")


def test_an_interface_is_named_by_an_address_too_and_that_one_is_taken(host: Machine) -> None:
    add(host, "west", "198.51.100.7/24")
    underlay = ask(host, 4, 6, names=["198.51.100.7"])
    assert (underlay["name"], underlay["addresses"]) == ("west", ["198.51.100.7/24", f"{WEST6}/64"])
    add(host, "east", "2001:db8:2::7/64")
    assert ask(host, 4, 6, names=["2001:db8:2::7"])["addresses"] == [f"{EAST}/24", "2001:db8:2::7/64"]


def test_every_wish_that_came_to_nothing_is_reported(host: Machine) -> None:
    default(host, "192.0.2.254")
    host.run("ip", "address", "del", f"{EAST6}/64", "dev", "east")
    host.run("ip", "-6", "address", "flush", "dev", "east")
    with pytest.raises(NoUnderlay) as caught:
        ask(host, 4, 6, names=["absent", "east"], patterns=["^north"], can_reach="203.0.113.9")
    message = str(caught.value)
    assert "there is no interface absent (--iface absent)" in message
    assert "east (--iface east) has no usable IPv6 address" in message
    assert "no interface with all addresses matches --iface-regex ^north" in message
    assert "east (the route to 203.0.113.9 (--iface-can-reach)) has no usable IPv6 address" in message
    assert f"--iface chooses one of: west ({WEST} and {WEST6})" in message


@pytest.mark.parametrize(
    ("families", "pattern", "name"),
    [
        ((4,), r"^198\.51\.", "west"),
        ((4,), "^we", "west"),
        ((4,), ".*", "east"),
        ((6,), "^2001:db8:3:", "west"),
        ((4, 6), r"^(198\.51\.|2001:db8:3:)", "west"),
        ((4, 6), "t$", "east"),
    ],
)
def test_a_pattern_is_held_against_addresses_and_then_against_names(
    host: Machine, families: tuple[int, ...], pattern: str, name: str
) -> None:
    assert ask(host, *families, patterns=["^nothing", pattern])["name"] == name


def test_of_two_families_a_pattern_has_to_match_both(host: Machine) -> None:
    with pytest.raises(NoUnderlay):
        ask(host, 4, 6, patterns=[r"^198\.51\."])


def test_a_pattern_that_matches_an_address_chooses_that_address(host: Machine) -> None:
    add(host, "west", "198.51.100.7/24")
    assert ask(host, patterns=[r"\.7$"])["addresses"] == ["198.51.100.7/24"]


def test_an_address_that_matches_comes_before_a_name_that_does(host: Machine) -> None:
    assert ask(host, patterns=[r"east|^198\."])["name"] == "west"


def test_the_way_to_an_address_decides_and_gives_the_source(host: Machine) -> None:
    add(host, "west", "198.51.100.7/24")
    host.run("ip", "route", "add", "203.0.113.0/24", "via", "198.51.100.254", "src", "198.51.100.7")
    underlay = ask(host, can_reach="203.0.113.9")
    assert (underlay["name"], underlay["addresses"]) == ("west", ["198.51.100.7/24"])
    assert underlay["reason"] == "west with 198.51.100.7, by the route to 203.0.113.9 (--iface-can-reach)"
    assert ask(host, 4, 6, can_reach="2001:db8:2::99")["addresses"] == [f"{EAST}/24", f"{EAST6}/64"]


def test_the_node_that_all_are_to_reach_takes_the_interface_that_has_the_address(host: Machine) -> None:
    assert ask(host, can_reach=WEST)["name"] == "west"


def test_an_address_that_there_is_no_way_to_is_reported(host: Machine) -> None:
    with pytest.raises(NoUnderlay, match=r"there is no route to 203\.0\.113\.9 \(--iface-can-reach\)"):
        ask(host, can_reach="203.0.113.9")


def test_a_public_address_alone_is_looked_up(host: Machine) -> None:
    default(host, "192.0.2.254")
    underlay = ask(host, 4, 6, public_ips=[WEST])
    assert (underlay["name"], underlay["public_ips"]) == ("west", [WEST, WEST6])
    assert ask(host, 4, 6, public_ips=[WEST6])["addresses"] == [f"{WEST}/24", f"{WEST6}/64"]
    with pytest.raises(NoUnderlay, match=r"no interface has 203\.0\.113\.7 \(--public-ip\).*by --iface as well"):
        ask(host, public_ips=["203.0.113.7"])
    with pytest.raises(NoUnderlay, match="are not addresses of one interface"):
        ask(host, 4, 6, public_ips=[EAST, WEST6])


def test_a_public_address_of_a_family_that_the_network_lacks_does_not_count(host: Machine) -> None:
    default(host, "192.0.2.254")
    assert ask(host, 4, public_ips=[WEST6])["name"] == "east"


def test_a_public_address_beside_an_interface_is_one_behind_which_it_is_translated(host: Machine) -> None:
    underlay = ask(host, names=["west"], public_ips=["203.0.113.7"])
    assert (underlay["addresses"], underlay["public_ips"]) == ([f"{WEST}/24"], ["203.0.113.7"])
    assert underlay["reason"].endswith("; other nodes reach it by 203.0.113.7")


def test_a_public_address_that_the_interface_has_is_its_address(host: Machine) -> None:
    add(host, "west", "198.51.100.7/24")
    underlay = ask(host, names=["west"], public_ips=["198.51.100.7"])
    assert (underlay["addresses"], underlay["public_ips"]) == (["198.51.100.7/24"], ["198.51.100.7"])


LASTING, FADING, GIVEN_UP = (), ("valid_lft", "900", "preferred_lft", "900"), ("preferred_lft", "0")


@pytest.mark.parametrize(
    ("addresses", "best"),
    [
        ([("169.254.1.1/16", LASTING), ("192.0.2.1/24", FADING)], "192.0.2.1/24"),
        ([("192.0.2.1/24", FADING), ("198.51.100.1/24", LASTING)], "198.51.100.1/24"),
        ([("192.0.2.1/24", LASTING), ("192.0.2.2/24", LASTING)], "192.0.2.1/24"),
        ([("192.0.2.1/24", LASTING), ("192.0.2.2/24", LASTING), ("198.51.100.1/24", FADING)], "192.0.2.1/24"),
        ([("169.254.1.1/16", LASTING)], "169.254.1.1/16"),
        ([("fe80::7/64", LASTING), ("2001:db8::1/64", FADING)], "2001:db8::1/64"),
        ([("2001:db8::1/64", FADING), ("2001:db8::2/64", LASTING)], "2001:db8::2/64"),
        ([("2001:db8::1/64", GIVEN_UP), ("2001:db8::2/64", FADING)], "2001:db8::2/64"),
    ],
)
def test_the_address_that_will_last_is_preferred(
    machine: Machine, addresses: list[tuple[str, tuple[str, ...]]], best: str
) -> None:
    wire(machine, "east")
    for address, options in addresses:
        add(machine, "east", address, *options)
    assert ask(machine, 6 if ":" in best else 4, names=["east"])["addresses"] == [best]


def test_an_address_that_is_given_up_is_taken_only_if_it_is_asked_for(machine: Machine) -> None:
    wire(machine, "east")
    add(machine, "east", "192.0.2.1/24", *GIVEN_UP)
    with pytest.raises(NoUnderlay, match="no usable IPv4"):
        ask(machine, names=["east"])
    assert ask(machine, names=["192.0.2.1"])["name"] == "east"


def test_an_address_that_is_still_checked_for_duplicates_is_not_taken(machine: Machine) -> None:
    """The check does not begin while the other end is down."""
    wire(machine, "east").run("ip", "link", "set", "eth0", "down")
    machine.run("ip", "-6", "address", "flush", "dev", "east")
    add(machine, "east", "2001:db8::1/64", "dad")
    with pytest.raises(NoUnderlay, match=r"no usable IPv6 address \(2001:db8::1 is still checked for duplicates\)"):
        ask(machine, 6, names=["east"])


def test_an_address_that_somebody_else_has_is_not_taken(machine: Machine) -> None:
    pod = wire(machine, "east")
    pod.run("ip", "address", "add", "2001:db8::1/64", "dev", "eth0", "nodad")
    add(machine, "east", "2001:db8::1/64", "dad")
    add(machine, "east", "2001:db8::2/64", *FADING)
    until(lambda: "dadfailed" in machine.run("ip", "address", "show", "dev", "east").stdout, "the duplicate is found")
    assert ask(machine, 6, names=["east"])["addresses"] == ["2001:db8::2/64"]


def test_the_loopback_address_counts_only_if_its_interface_is_named(machine: Machine) -> None:
    with pytest.raises(NoUnderlay):
        ask(machine, patterns=["^lo$", r"^127\."])
    assert ask(machine, names=["lo"])["addresses"] == ["127.0.0.1/8"]
    assert ask(machine, 4, 6, names=["127.0.0.1"])["addresses"] == ["127.0.0.1/8", "::1/128"]
    machine.run("ip", "address", "add", "203.0.113.1/32", "dev", "lo")
    assert ask(machine, names=["lo"])["addresses"] == ["203.0.113.1/32"]
    assert ask(machine, patterns=["^lo$"])["addresses"] == ["203.0.113.1/32"]


def test_the_local_addresses_are_those_of_all_interfaces(host: Machine) -> None:
    addresses = host.call(own_addresses)
    assert {EAST, WEST, EAST6, WEST6, "127.0.0.1"} <= set(addresses)


def questions(families: tuple[int, ...]) -> int:
    """Inside the machine: how many messages a choice takes."""
    route = RtnlSocket()
    try:
        select_interface(route, families, InterfaceSelector())
        return route._sequence
    finally:
        route.close()


def test_the_number_of_questions_does_not_grow_with_the_interfaces(host: Machine) -> None:
    default(host, "192.0.2.254")
    before = host.call(questions, (4,))
    host.run("sh", "-c", "for n in $(seq 30); do ip link add one$n type veth peer name other$n; done")
    assert host.call(questions, (4,)) == before == 3
