"""Tests that answers of rtnetlink, as pyroute2 encodes them, are read back."""

from __future__ import annotations

import struct

import pytest

from cni.kernel import rtnl_parse
from cni.kernel.netlink import Malformed
from cni.protocol.address import mac_text, parse_ip, parse_net
from tests.unit.oracle import (
    AF_BRIDGE,
    AF_INET,
    AF_INET6,
    AT4,
    AT6,
    LOCAL4,
    MAC,
    MAIN,
    NAME,
    ONE,
    OUT,
    Attributes,
    answer,
    head,
    ifaddrmsg,
    ifinfmsg,
    linkinfo,
    metrics,
    rtmsg,
    vlan_spec,
)

PORT: Attributes = [
    ("IFLA_IFNAME", "veth0"),
    ("IFLA_MTU", 1400),
    ("IFLA_LINK", 5),
    ("IFLA_MASTER", 7),
    ("IFLA_TXQLEN", 500),
    ("IFLA_OPERSTATE", "UP"),
    ("IFLA_GROUP", 0x50570009),
    ("IFLA_ADDRESS", mac_text(ONE)),
    ("IFLA_IFALIAS", "whose; masqueraded"),
]


@pytest.mark.parametrize(("hairpin", "isolated"), [(False, False), (True, False), (False, True)])
def test_a_port_is_read_as_pyroute2_writes_it(hairpin: bool, isolated: bool) -> None:
    slave = [("IFLA_BRPORT_STATE", 3), ("IFLA_BRPORT_MODE", int(hairpin)), ("IFLA_BRPORT_ISOLATED", int(isolated))]
    info = {
        "attrs": [
            ("IFLA_INFO_KIND", "veth"),
            ("IFLA_INFO_SLAVE_KIND", "bridge"),
            ("IFLA_INFO_SLAVE_DATA", {"attrs": slave}),
        ]
    }
    link = rtnl_parse.parse_link(answer(ifinfmsg, {"index": 9, "flags": 0x1003}, [*PORT, ("IFLA_LINKINFO", info)]))
    assert link == rtnl_parse.Link(
        ifindex=9, name="veth0", kind="veth", mac=ONE, mtu=1400, flags=0x1003, master=7, peer=5, operstate=6,
        txqlen=500, group=0x50570009, alias="whose; masqueraded", vlan_filtering=False, hairpin=hairpin,
        isolated=isolated,
    )  # fmt: skip
    assert link.up


@pytest.mark.parametrize("filtering", [False, True])
def test_a_bridge_is_read_as_pyroute2_writes_it(filtering: bool) -> None:
    attrs = [
        NAME,
        MAC,
        linkinfo("bridge", [("IFLA_BR_FORWARD_DELAY", 1500), ("IFLA_BR_VLAN_FILTERING", int(filtering))]),
    ]
    link = rtnl_parse.parse_link(answer(ifinfmsg, {"index": 7, "flags": 0x102}, attrs))
    assert (link.name, link.kind, link.mac, link.vlan_filtering, link.up) == ("br0", "bridge", ONE, filtering, False)


def test_a_link_without_any_attribute_is_read() -> None:
    link = rtnl_parse.parse_link(answer(ifinfmsg, {"index": 1}, []))
    assert {name: value for name, value in link._asdict().items() if value} == {"ifindex": 1}


def test_only_a_bridges_own_data_is_read_as_a_bridges() -> None:
    """The same number means something else in another kind of link."""
    info = linkinfo("vxlan", [("IFLA_VXLAN_LEARNING", 1)])
    assert not rtnl_parse.parse_link(answer(ifinfmsg, {"index": 1}, [info])).vlan_filtering


def test_the_vlans_of_a_port_are_read_as_pyroute2_writes_them() -> None:
    data = answer(ifinfmsg, {"family": AF_BRIDGE, "index": 9}, [NAME, vlan_spec((6, 1), (0, 5), (0, 6))])
    assert rtnl_parse.parse_port_vlans(data) == (9, {1: 6, 5: 0, 6: 0})
    assert rtnl_parse.parse_port_vlans(answer(ifinfmsg, {"family": AF_BRIDGE, "index": 9}, [])) == (9, {})


@pytest.mark.parametrize(
    ("fields", "attrs", "text", "flags"),
    [
        (AT4 | {"flags": 0x80}, [*LOCAL4, ("IFA_FLAGS", 0x80)], "10.1.2.3/24", 0x80),
        (AT4, [("IFA_ADDRESS", "10.1.2.9"), ("IFA_LOCAL", "10.1.2.3")], "10.1.2.3/24", 0),
        (AT6 | {"flags": 0x40}, [("IFA_ADDRESS", "2001:db8::3"), ("IFA_FLAGS", 0x240)], "2001:db8::3/64", 0x240),
        (AT6 | {"flags": 0x08}, [("IFA_ADDRESS", "2001:db8::3")], "2001:db8::3/64", 0x08),
    ],
)
def test_an_address_is_read_as_pyroute2_writes_it(
    fields: dict[str, int], attrs: Attributes, text: str, flags: int
) -> None:
    assert rtnl_parse.parse_address(answer(ifaddrmsg, fields, attrs)) == rtnl_parse.AddressInfo(
        7, parse_net(text), flags
    )


TO_NET: Attributes = [("RTA_DST", "10.9.0.0"), *OUT]
EVERYTHING = [
    ("RTA_TABLE", 100),
    ("RTA_GATEWAY", "10.1.2.1"),
    ("RTA_PRIORITY", 5),
    ("RTA_PREFSRC", "10.1.2.3"),
    metrics(MTU=1400, ADVMSS=1360),
]


@pytest.mark.parametrize(
    ("fields", "attrs", "expected"),
    [
        (head(AF_INET, 16, 253), [*TO_NET, ("RTA_TABLE", 254)], ("10.9.0.0/16", "", 0, 254, 253, 0, 0)),
        (head(AF_INET, 0, 0), [*MAIN, ("RTA_GATEWAY", "10.1.2.1")], ("0.0.0.0/0", "10.1.2.1", 0, 254, 0, 0, 0)),
        (
            head(AF_INET6, 0, 0),
            [*MAIN, ("RTA_GATEWAY", "2001:db8::1")],
            ("::/0", "2001:db8::1", 0, 254, 0, 0, 0),
        ),
        (head(AF_INET6, 48, 0), [*MAIN, ("RTA_DST", "2001:db8:9::")], ("2001:db8:9::/48", "", 0, 254, 0, 0, 0)),
        (
            head(AF_INET, 16, 200, 100),
            [*TO_NET, *EVERYTHING],
            ("10.9.0.0/16", "10.1.2.1", 5, 100, 200, 1400, 1360),
        ),
        (head(AF_INET, 16, 0), [*TO_NET, metrics(ADVMSS=1360)], ("10.9.0.0/16", "", 0, 254, 0, 0, 1360)),
        (head(AF_INET, 16, 0, 252), [*TO_NET, ("RTA_TABLE", 70000)], ("10.9.0.0/16", "", 0, 70000, 0, 0, 0)),
        (head(AF_INET6, 0, 0), [*MAIN, ("RTA_PREFSRC", "2001:db8::3")], ("::/0", "", 0, 254, 0, 0, 0)),
    ],
)
def test_a_route_is_read_as_pyroute2_writes_it(
    fields: dict[str, int], attrs: Attributes, expected: tuple[str, str, int, int, int, int, int]
) -> None:
    dst, gw, priority, table, scope, mtu, advmss = expected
    source = dict(attrs).get("RTA_PREFSRC")
    assert rtnl_parse.parse_route(answer(rtmsg, fields, attrs)) == rtnl_parse.RouteInfo(
        parse_net(dst), parse_ip(gw) if gw else None, 7, priority, table, scope, mtu, advmss,
        parse_ip(source) if source else None,
    )  # fmt: skip


def test_a_route_of_a_kernel_without_long_tables_is_read() -> None:
    route = rtnl_parse.parse_route(answer(rtmsg, head(AF_INET, 0, 0, 100), []))
    assert (route.table, route.ifindex, route.gw, route.dst) == (100, 0, None, parse_net("0.0.0.0/0"))


@pytest.mark.parametrize(
    ("family", "hops"),
    [
        (AF_INET, [(7, "10.1.2.1"), (8, "10.1.2.254")]),
        (AF_INET, [(7, ""), (8, "10.1.2.254"), (9, "")]),
        (AF_INET6, [(7, "2001:db8::1"), (8, ""), (7, "2001:db8::2")]),
    ],
)
def test_a_route_of_several_ways_is_read_as_pyroute2_writes_it(family: int, hops: list[tuple[int, str]]) -> None:
    next_hops = [{"oif": index, "attrs": [("RTA_GATEWAY", gw)] if gw else []} for index, gw in hops]
    data = answer(rtmsg, head(family, 0, 0), [("RTA_TABLE", 254), ("RTA_PRIORITY", 5), ("RTA_MULTIPATH", next_hops)])
    routes = rtnl_parse.parse_next_hops(data)
    assert [(route.ifindex, route.gw) for route in routes] == [
        (index, parse_ip(gw) if gw else None) for index, gw in hops
    ]
    assert {(route.dst.prefix, route.table, route.priority) for route in routes} == {(0, 254, 5)}


def test_a_route_of_one_way_is_that_way() -> None:
    data = answer(rtmsg, head(AF_INET, 0, 0), [*MAIN, ("RTA_GATEWAY", "10.1.2.1")])
    assert rtnl_parse.parse_next_hops(data) == [rtnl_parse.parse_route(data)]


@pytest.mark.parametrize("hops", [b"\0" * 8, b"\0" * 11, struct.pack("=HBBi", 99, 0, 0, 7)])
def test_next_hops_that_are_cut_are_malformed(hops: bytes) -> None:
    data = answer(rtmsg, head(AF_INET, 0, 0), []) + struct.pack("=HH", 4 + len(hops), 9) + hops
    with pytest.raises(Malformed):
        rtnl_parse.parse_next_hops(data)


def test_every_reader_is_held_to_the_oracle() -> None:
    with open(__file__, encoding="ascii") as file:
        text = file.read()
    readers = {name for name in vars(rtnl_parse) if name.startswith("parse_")}
    assert len(readers) > 4
    assert {name for name in readers if f"rtnl_parse.{name}(" not in text} == set()


@pytest.mark.parametrize(
    ("protocol", "expires", "expected"),
    [(9, 0, True), (9, 180_000, True), (2, 180_000, True), (2, 0, False), (3, 180_000, False), (80, 0, False)],
)
def test_a_route_that_a_router_advertised_is_reported_by_its_protocol_or_its_end(
    protocol: int, expires: int, expected: bool
) -> None:
    cache = {"rta_clntref": 0, "rta_lastuse": 0, "rta_expires": expires, "rta_error": 0, "rta_used": 0}
    attributes: Attributes = [("RTA_OIF", 9), ("RTA_CACHEINFO", {**cache, "rta_id": 0, "rta_ts": 0, "rta_tsage": 0})]
    fields = {**head(AF_INET6, 0, 0), "proto": protocol}
    assert rtnl_parse.is_advertised(answer(rtmsg, fields, attributes)) is expected
