"""The tunnel's device, its tables and what the kernel tells of changes, on the real kernel."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from cni.agent.backends import vxlan
from cni.agent.dataplane import routes
from cni.agent.dataplane.devices import remove_stale_devices
from cni.agent.dataplane.state import NextHopLinks, difference, forwarding_state
from cni.agent.model.lease import Endpoint
from cni.kernel import events, rtnl_overlay
from cni.kernel.ethtool import leaves_checksums
from cni.kernel.events import Events, Overflowed
from cni.kernel.rtnl import NETLINK_ROUTE
from cni.kernel.rtnl_socket import RtnlSocket
from cni.protocol.address import parse_ip, parse_mac, parse_net
from tests.machine import Machine, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GROUPS = (
    events.RTNLGRP_LINK,
    events.RTNLGRP_NEIGH,
    events.RTNLGRP_IPV4_IFADDR,
    events.RTNLGRP_IPV4_ROUTE,
    events.RTNLGRP_IPV6_IFADDR,
    events.RTNLGRP_IPV6_ROUTE,
)
NETWORKS = parse_net("10.0.0.0/8"), parse_net("fd00::/16")
NAMES = {4: "flannel.1", 6: "flannel-v6.1"}
MAC = parse_mac("0a:00:00:00:00:01")
PEERS = {
    4: (
        Endpoint(parse_net("10.5.2.0/24"), parse_ip("192.0.2.2"), parse_mac("0a:00:00:00:00:02")),
        Endpoint(parse_net("10.5.3.0/24"), parse_ip("192.0.2.3"), parse_mac("0a:00:00:00:00:03")),
    ),
    6: (
        Endpoint(parse_net("fd00:5:0:2::/64"), parse_ip("2001:db8:2::2"), parse_mac("0a:00:00:00:00:02")),
        Endpoint(parse_net("fd00:5:0:3::/64"), parse_ip("2001:db8:2::3"), parse_mac("0a:00:00:00:00:03")),
    ),
}


def wanted(route: RtnlSocket, family: int, **info: Any) -> vxlan.Device:
    """The device of this test's network."""
    local = parse_ip("192.0.2.1" if family == 4 else "2001:db8:2::1")
    vxlan_info = rtnl_overlay.VxlanInfo(1, route.ifindex("uplink"), local, 0, learning=False, gbp=False)._replace(
        **info
    )
    address = parse_net("10.5.1.0/32" if family == 4 else "fd00:5:0:1::/128")
    return vxlan.Device(NAMES[family], MAC, 1450 if family == 4 else 1430, vxlan_info, address, "podwired")


@contextmanager
def listening(*groups: int) -> Iterator[tuple[RtnlSocket, Events]]:
    """Inside the machine: a socket for changes, and one that hears of all of them."""
    route, heard = RtnlSocket(), Events(NETLINK_ROUTE, groups or GROUPS)
    try:
        yield route, heard
    finally:
        route.close()
        heard.close()


def ensure(family: int, info: dict[str, Any]) -> tuple[int, list[str], int]:
    """Inside: the device's index, what was done, and how many changes the kernel told of."""
    with listening() as (route, heard):
        index, done = wanted(route, family, **info).ensure(route)
        return index, done, len(heard.read())


def synchronize(family: int) -> list[str]:
    """Inside: makes the tables what they should be, and returns the changes in words."""
    with listening() as (route, heard):
        links = NextHopLinks(route.ifindex(NAMES[family]), ())
        selector = forwarding_state(PEERS[family], links)
        messages = difference(routes.read_forwarding_state(route, family, links.device, NETWORKS), selector, links)
        assert routes.apply(route, messages) == []
        assert bool(heard.read()) == bool(messages)
        assert difference(routes.read_forwarding_state(route, family, links.device, NETWORKS), selector, links) == []
        return [rtnl_overlay.described(message) for message in messages]


def ensure_without_offload() -> tuple[list[str], bool]:
    """Inside: what was done, and if the device leaves checksums to the network card then."""
    with listening() as (route, _):
        _, done = wanted(route, 4)._replace(offloads=False).ensure(route)
        return done, leaves_checksums(NAMES[4])


def shown(machine: Machine, family: int) -> dict[str, Any]:
    (link,) = json.loads(machine.run("ip", "-j", "-d", "address", "show", "dev", NAMES[family]).stdout)
    details: dict[str, Any] = link
    return details


def entries(machine: Machine, family: int) -> list[str]:
    """All that leads to peers, as ip and bridge show it."""
    name = NAMES[family]
    questions = [
        ["ip", f"-{family}", "route", "show", "dev", name],
        ["ip", f"-{family}", "neighbour", "show", "dev", name, "nud", "permanent"],
        ["bridge", "fdb", "show", "dev", name],
    ]
    lines = [line.strip() for question in questions for line in machine.run(*question).stdout.splitlines()]
    return sorted(line for line in lines if "proto kernel" not in line)


def with_tunnels(machine: Machine) -> Machine:
    """Returns a host with a wire to another, and on it complete tunnels of both families."""
    machine.run("sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")  # 2 s less
    machine.outside()
    for family in (4, 6):
        machine.call(ensure, family, {})
        machine.call(synchronize, family)
    until(lambda: "tentative" not in machine.run("ip", "address").stdout, "the kernel tells no more of addresses")
    return machine


@pytest.fixture
def host(machine: Machine) -> Machine:
    return with_tunnels(machine)


@pytest.fixture(scope="module")
def lasting_host() -> Iterator[Machine]:
    """Yields a host for tests that leave it as they found it, which is what they assert: its making takes longer."""
    with Machine() as machine:
        with_tunnels(machine).run("ip", "nexthop", "add", "id", "7", "via", "192.0.2.2", "dev", "uplink")
        machine.run("ip", "nexthop", "add", "id", "76", "via", "2001:db8:2::2", "dev", "uplink")
        yield machine


ON_LASTING_HOST = pytest.mark.xdist_group("tunnels")
FAMILIES = pytest.mark.parametrize("family", [4, 6])


@FAMILIES
def test_a_device_is_made_as_flannel_makes_it(machine: Machine, family: int) -> None:
    machine.outside()
    _, done, _ = machine.call(ensure, family, {})
    link = shown(machine, family)
    data = link["linkinfo"]["info_data"]
    assert done[0] == f"{NAMES[family]} was not there"
    assert (link["address"], link["mtu"], link["ifalias"]) == (
        "0a:00:00:00:00:01",
        1450 if family == 4 else 1430,
        "podwired",
    )
    assert "UP" in link["flags"]
    assert (data["id"], data["port"], data["learning"], data["link"]) == (1, 8472, False, "uplink")
    assert "gbp" not in data
    own = [f"{info['local']}/{info['prefixlen']}" for info in link["addr_info"] if info["scope"] == "global"]
    assert own == ["10.5.1.0/32" if family == 4 else "fd00:5:0:1::/128"]
    assert machine.run("cat", f"/proc/sys/net/ipv6/conf/{NAMES[family]}/accept_ra").stdout == "0\n"


@FAMILIES
def test_where_all_is_as_it_should_be_nothing_changes(host: Machine, family: int) -> None:
    before = entries(host, family)
    index, done, heard = host.call(ensure, family, {})
    assert (index, done, heard) == (shown(host, family)["ifindex"], [], 0)
    assert host.call(synchronize, family) == []
    assert entries(host, family) == before
    assert len(before) == 6


@FAMILIES
@pytest.mark.parametrize(
    ("spoil", "reported"),
    [
        ("ip link set {name} mtu 1400", "had an MTU of 1400"),
        ("ip address add {other} dev {name}", "had the address {other}"),
        ("ip link set {name} type vxlan id 1 learning", "had another underlay"),
        ("ip link set {name} type vxlan id 1 local {local}", "had another underlay"),
        ("ip link set {name} type vxlan id 1 dev spare", "had another underlay"),
    ],
)
def test_what_can_be_set_is_set_and_the_tables_stay(host: Machine, family: int, spoil: str, reported: str) -> None:
    values = {
        4: {"other": "10.5.77.1/32", "local": "192.0.2.77"},
        6: {"other": "fd00:5:0:77::1/128", "local": "2001:db8:2::77"},
    }[family] | {"name": NAMES[family]}
    host.run("ip", "link", "add", "spare", "type", "bridge")
    before, index = entries(host, family), shown(host, family)["ifindex"]
    host.run(*spoil.format(**values).split())
    current, done, _ = host.call(ensure, family, {})
    assert (current, done) == (index, [f"{NAMES[family]} {reported.format(**values)}"])
    assert entries(host, family) == before
    assert host.call(ensure, family, {})[1:] == ([], 0)


@FAMILIES
@pytest.mark.parametrize(
    ("spoil", "reported"),
    [
        ("ip link set {name} down", "was down"),
        ("ip link set {name} address 0a:00:00:00:00:99", "had the MAC address 0a:00:00:00:00:99"),
        ("ip address del {own} dev {name}", "had no address {own}"),
    ],
)
def test_what_the_kernel_drops_with_a_change_is_made_again(
    host: Machine, family: int, spoil: str, reported: str
) -> None:
    values = {"own": "10.5.1.0/32" if family == 4 else "fd00:5:0:1::/128", "name": NAMES[family]}
    before, index = entries(host, family), shown(host, family)["ifindex"]
    host.run(*spoil.format(**values).split())
    current, done, _ = host.call(ensure, family, {})
    assert (current, done[-1]) == (index, f"{NAMES[family]} {reported.format(**values)}")
    host.call(synchronize, family)
    assert entries(host, family) == before


@FAMILIES
@pytest.mark.parametrize(
    "other",
    [
        "type vxlan id 2 dev uplink local {local} dstport 8472",
        "type vxlan id 1 dev uplink local {local} dstport 8472 gbp",
    ],
)
def test_what_cannot_be_set_is_made_anew(host: Machine, family: int, other: str) -> None:
    local, name, before = "192.0.2.1" if family == 4 else "2001:db8:2::1", NAMES[family], entries(host, family)
    host.run("ip", "link", "del", name)
    host.run("ip", "link", "add", name, *other.format(local=local).split())
    index = shown(host, family)["ifindex"]
    current, done, _ = host.call(ensure, family, {})
    assert current != index
    assert done[0] == f"{name} was not this network's tunnel: recreated"
    host.call(synchronize, family)
    assert entries(host, family) == before


def test_a_port_that_was_asked_for_is_had(host: Machine) -> None:
    index = shown(host, 4)["ifindex"]
    assert host.call(ensure, 4, {"port": 8472})[:2] == (index, [])
    current, done, _ = host.call(ensure, 4, {"port": 4789})
    assert (current != index, done[0]) == (True, "flannel.1 was not this network's tunnel: recreated")
    assert shown(host, 4)["linkinfo"]["info_data"]["port"] == 4789


def test_devices_of_the_agent_that_nobody_wants_go_and_others_stay(host: Machine) -> None:
    host.run("ip", "link", "add", "theirs", "type", "vxlan", "id", "9", "dev", "uplink", "dstport", "4789")
    assert host.call(retired, ("flannel-v6.1",)) == ["flannel.1"]
    assert host.call(retired, ("flannel-v6.1",)) == []
    names = {link["ifname"] for link in json.loads(host.run("ip", "-j", "link").stdout)}
    assert names == {"lo", "uplink", "theirs", "flannel-v6.1"}


def retired(keep: tuple[str, ...]) -> list[str]:
    with listening() as (route, _):
        return remove_stale_devices(route, "podwired", keep)


@ON_LASTING_HOST
@FAMILIES
@pytest.mark.parametrize(
    "spoil",
    [
        "ip route del {net} dev {name}",
        "ip route replace {net} via {gw} dev {name} onlink proto 80 {metric}",
        "ip route replace {net} via {wire} dev uplink proto 80 {metric}",
        "ip route replace {strange} via {first} dev {name} onlink proto 80",
        "ip route replace {strange} via {first} dev {name} onlink",
        "ip route replace {strange} via {wire} dev uplink proto 80",
        "ip neighbour del {first} dev {name}",
        "ip neighbour replace {first} lladdr 0a:00:00:00:00:77 dev {name} nud permanent",
        "ip neighbour replace {first} lladdr 0a:00:00:00:00:02 dev {name} nud stale",
        "ip neighbour add {gw} lladdr 0a:00:00:00:00:77 dev {name} nud permanent",
        "bridge fdb del 0a:00:00:00:00:02 dev {name} dst {wire} self",
        "bridge fdb replace 0a:00:00:00:00:02 dev {name} dst {other} self permanent",
        "bridge fdb replace 0a:00:00:00:00:02 dev {name} dst {wire} self dynamic",
        "bridge fdb append 0a:00:00:00:00:77 dev {name} dst {wire} self permanent",
        "bridge fdb append 00:00:00:00:00:00 dev {name} dst {wire} self permanent",
    ],
)
def test_every_deviation_is_mended(lasting_host: Machine, family: int, spoil: str) -> None:
    host = lasting_host
    values = {
        4: {"net": "10.5.2.0/24", "first": "10.5.2.0", "gw": "10.5.2.9", "wire": "192.0.2.2", "other": "192.0.2.9"},
        6: {
            "net": "fd00:5:0:2::/64",
            "first": "fd00:5:0:2::",
            "gw": "fd00:5:0:2::9",
            "wire": "2001:db8:2::2",
            "other": "2001:db8:2::9",
        },
    }[family] | {"name": NAMES[family], "metric": "" if family == 4 else "metric 1024"}
    values["strange"] = "10.5.66.0/24" if family == 4 else "fd00:5:0:66::/64"
    before = entries(host, family), everything(host, family)
    host.run(*spoil.replace("ip ", f"ip -{family} ", 1).format(**values).split())
    assert everything(host, family) != before[1]
    assert len(host.call(synchronize, family)) in (1, 2)  # what is strange goes, what is wanted comes
    assert (entries(host, family), everything(host, family)) == before


@ON_LASTING_HOST
@pytest.mark.parametrize(
    ("family", "rival"),
    [
        (4, "prepend {net} via {wire} dev uplink"),
        (4, "prepend blackhole {net}"),
        (4, "prepend {net} nexthop via {wire} dev uplink nexthop via {other} dev uplink"),
        (4, "prepend {net} nhid 7"),
        (4, "append {net} via {wire} dev uplink proto 80"),
        (4, "add {net} via {wire} dev uplink proto 80 metric 700"),
        (6, "add {net} via {wire} dev uplink metric 100"),
        (6, "add {net} via {wire} dev uplink proto 80 metric 100"),
        (6, "add {net} via {wire} dev uplink proto 80 metric 2000"),
        (6, "append {net} via {wire} dev uplink"),
        (6, "append {net} via {wire} dev uplink proto 80"),
        (6, "add blackhole {net} metric 100"),
        (6, "add {net} dev uplink metric 100"),
        (6, "add {net} metric 100 nexthop via {wire} dev uplink nexthop via {other} dev uplink"),
        (6, "add {net} nhid 76 metric 100"),
    ],
)
@pytest.mark.parametrize("ours", ["stays", "is gone"])
def test_a_route_of_others_to_a_peers_subnet_does_not_win(
    lasting_host: Machine, family: int, rival: str, ours: str
) -> None:
    """Beside the agent's own, and where that is not there (as before its start)."""
    host = lasting_host
    net, wire = ("10.5.2.0/24", "192.0.2.2") if family == 4 else ("fd00:5:0:2::/64", "2001:db8:2::2")
    before = entries(host, family), everything(host, family)
    other = "192.0.2.9" if family == 4 else "2001:db8:2::9"
    host.run("ip", f"-{family}", "route", *rival.format(net=net, wire=wire, other=other).split())
    if ours == "is gone":
        host.run("ip", f"-{family}", "route", "del", net, "dev", NAMES[family], "proto", "80", check=False)
    assert everything(host, family) != before[1]
    host.call(synchronize, family)
    assert (entries(host, family), everything(host, family)) == before
    assert (
        f"dev {NAMES[family]}"
        in host.run("ip", f"-{family}", "route", "get", net.replace("0/24", "5").replace(":/64", ":5")).stdout
    )


def everything(machine: Machine, family: int) -> list[str]:
    """Routes, neighbours and places of all links."""
    questions = [["ip", f"-{family}", "route"], ["ip", f"-{family}", "neighbour"], ["bridge", "fdb", "show"]]
    lines = [line.strip() for question in questions for line in machine.run(*question).stdout.splitlines()]
    learned = ("REACHABLE", "STALE", "DELAY", "PROBE", "INCOMPLETE", "FAILED")  # the kernel's own, of the wire
    return sorted(line for line in lines if not ("dev uplink" in line and line.endswith(learned)))


@FAMILIES
def test_what_others_made_stays(host: Machine, family: int) -> None:
    net, gw = ("10.99.0.0/24", "192.0.2.2") if family == 4 else ("fd99::/64", "2001:db8:2::2")
    name = NAMES[family]
    for command in (
        f"ip -{family} route add {net} via {gw} dev uplink proto static",
        f"ip -{family} route add {net} via {gw} dev uplink proto 80 table 100",
        f"ip -{family} route add {PEERS[family][0].subnet.text} via {gw} dev uplink metric 5000",
        f"ip -{family} route add {PEERS[family][0].subnet.text} via {gw} dev uplink metric 1 table 100",
        f"ip -{family} neighbour add {gw} lladdr 0a:00:00:00:00:88 dev uplink nud permanent",
        f"bridge fdb add 0a:00:00:00:00:99 dev {name} dst {gw} self dynamic",
        f"ip -{family} neighbour add {gw} lladdr 0a:00:00:00:00:88 dev {name} nud reachable",
    ):
        host.run(*command.split())
    before = host.run("ip", f"-{family}", "route", "show", "table", "all").stdout, everything(host, family)
    assert host.call(synchronize, family) == []
    assert host.call(ensure, family, {})[1:] == ([], 0)
    after = host.run("ip", f"-{family}", "route", "show", "table", "all").stdout, everything(host, family)
    assert after == before


@FAMILIES
def test_what_the_agent_made_elsewhere_can_be_cleared(host: Machine, family: int) -> None:
    before = entries(host, family)
    assert host.call(cleared, family) == []
    assert [line for line in before if "proto 80" not in line] == entries(host, family)
    assert host.call(cleared, family) == []


def cleared(family: int) -> list[str]:
    with listening() as (route, _):
        return routes.clear(route, family, NETWORKS)


@FAMILIES
def test_what_the_kernel_refuses_is_reported_and_the_rest_is_done(host: Machine, family: int) -> None:
    failed, number = host.call(refused, family)
    bad = "10.5.200.0/24 via 203.0.113.9" if family == 4 else "fd00:5:0:200::/64 via 2001:db8:ff::9"
    assert [failure.partition(":")[0] if family == 4 else failure[: len(bad) + 17] for failure in failed] == [
        f"ip route replace {bad}"
    ]
    assert number == 300


def refused(family: int) -> tuple[list[str], int]:
    """Inside: 301 routes more than fit a datagram, of which one is impossible, and what is gone already."""
    with listening() as (route, _):
        index = route.ifindex("uplink")
        gw = parse_ip("192.0.2.2" if family == 4 else "2001:db8:2::2")
        unreachable = parse_ip("203.0.113.9" if family == 4 else "2001:db8:ff::9")
        nets = [parse_net(f"10.6.{n}.0/24" if family == 4 else f"fd00:6:0:{n}::/64") for n in range(200)]
        nets += [parse_net(f"10.7.{n}.0/24" if family == 4 else f"fd00:7:0:{n}::/64") for n in range(100)]
        messages = [rtnl_overlay.set_route(net, gw, index, 80, on_link=False) for net in nets]
        bad = parse_net("10.5.200.0/24" if family == 4 else "fd00:5:0:200::/64")
        messages.insert(150, rtnl_overlay.set_route(bad, unreachable, index, 80, on_link=False))
        gone = [
            rtnl_overlay.delete_route(bad, unreachable, index, 0),
            rtnl_overlay.delete_neighbour(index, unreachable, MAC),
        ]
        gone.append(rtnl_overlay.delete_fdb_entry(route.ifindex(NAMES[family]), unreachable, MAC))
        failed = [refusal.text for refusal in routes.apply(route, [*messages, *gone])]
        installed = routes.read_forwarding_state(route, family, 0, NETWORKS).routes
        return failed, len([net for net in installed if net in nets])


def heard_of(change: Callable[[RtnlSocket, int], None], *, own: bool) -> int:
    """Inside: how many messages tell of what a socket did, by one that ignores it or another."""
    acting, other = RtnlSocket(), RtnlSocket()
    heard = Events(NETLINK_ROUTE, GROUPS, acting if own else other)
    try:
        index = acting.ifindex("flannel.1")
        heard.read()
        change(acting, index)
        return len(heard.read())
    finally:
        for opened in (acting, other, heard):
            opened.close()


def add_route(route: RtnlSocket, index: int) -> None:
    route.request(*rtnl_overlay.set_route(parse_net("10.5.9.0/24"), parse_ip("10.5.9.0"), index, 80, on_link=True))


def add_neighbour(route: RtnlSocket, index: int) -> None:
    route.request(*rtnl_overlay.set_neighbour(index, parse_ip("10.5.9.0"), MAC))


def add_place(route: RtnlSocket, index: int) -> None:
    route.request(*rtnl_overlay.set_fdb_entry(index, parse_ip("192.0.2.9"), parse_mac("0a:00:00:00:00:09")))


@pytest.mark.parametrize(("change", "echoes"), [(add_route, 0), (add_neighbour, 0), (add_place, 1)])
def test_others_changes_are_heard_of_and_ones_own_are_not(
    host: Machine, change: Callable[[RtnlSocket, int], None], echoes: int
) -> None:
    """But for the forwarding database: of its changes the kernel does not tell who made them (vxlan_fdb_notify)."""
    assert host.call(lambda: heard_of(change, own=False)) == 1
    host.run("ip", "route", "flush", "proto", "80")
    host.run("ip", "neighbour", "flush", "dev", "flannel.1", "nud", "permanent")
    host.run("bridge", "fdb", "flush", "dev", "flannel.1")
    assert host.call(lambda: heard_of(change, own=True)) == echoes


def test_more_changes_than_fit_are_reported_as_lost_and_what_follows_is_heard(host: Machine) -> None:
    assert host.call(overflowed) == ["lost", 1]


def overflowed() -> list[object]:
    """Inside: a queue so small that it cannot hold what happens."""
    events.QUEUE_BYTES = 1 << 12
    outcome: list[object] = []
    with listening(events.RTNLGRP_IPV4_ROUTE) as (route, heard):
        index = route.ifindex("flannel.1")
        for number in range(200):
            dst = parse_net(f"10.6.{number}.0/24")
            route.request(*rtnl_overlay.set_route(dst, dst.ip, index, 80, on_link=True))
        try:
            heard.read()
        except Overflowed:
            outcome.append("lost")
        heard.read()
        add_route(route, index)
        outcome.append(len(heard.read()))
    return outcome


def test_without_offload_the_kernel_adds_checksums_before_the_device_and_once_is_enough(host: Machine) -> None:
    assert host.call(leaves_checksums, NAMES[4])
    assert host.call(ensure_without_offload) == (["flannel.1 left checksums to the network card"], False)
    assert host.call(ensure_without_offload) == ([], False)
    assert host.call(ensure, 4, {})[1:] == ([], 0)
    assert not host.call(leaves_checksums, NAMES[4])  # somebody's own setting stays
