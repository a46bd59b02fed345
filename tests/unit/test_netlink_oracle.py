"""rtnetlink messages, held byte for byte to pyroute2's: what podwire sends, and what it reads."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest

from cni.kernel import rtinfo, rtnl
from cni.kernel.netlink import frame
from cni.spec.address import mac_text, parse_ip, parse_net
from cni.spec.result import Route

if TYPE_CHECKING:
    from cni.kernel.rtnl import Message

WHY = "pyroute2 is the oracle (pip install pyroute2)"
ifinfmsg: Any = pytest.importorskip("pyroute2.netlink.rtnl.ifinfmsg", reason=WHY).ifinfmsg
ifaddrmsg: Any = pytest.importorskip("pyroute2.netlink.rtnl.ifaddrmsg", reason=WHY).ifaddrmsg
rtmsg: Any = pytest.importorskip("pyroute2.netlink.rtnl.rtmsg", reason=WHY).rtmsg

Attributes = list[tuple[str, Any]]
SIZES = {"ifinfmsg": 16, "ifaddrmsg": 8, "rtmsg": 12}
ONE, OTHER = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
AF_BRIDGE, AF_INET, AF_INET6 = 7, 2, 10
CREATE = 0x400 | 0x200  # NLM_F_CREATE | NLM_F_EXCL


def encoded(kind: Any, header: tuple[int, int], fields: dict[str, int], attrs: Attributes) -> bytes:
    """What pyroute2 would send."""
    message = kind()
    message["header"] = {"type": header[0], "flags": header[1], "sequence_number": 1, "pid": 0}
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = attrs
    message.encode()
    return bytes(message.data)


def normal(kind: Any, data: bytes) -> tuple[bytes, list[bytes]]:
    """The headers, and the attributes in the order of their types, since the kernel does not care for another."""
    start = 16 + SIZES[kind.__name__]
    found, position = [], start
    while position < len(data):
        (length,) = struct.unpack_from("=H", data, position)
        found.append(data[position : position + length])
        position += (length + 3) & ~3
    return data[:start], sorted(found, key=lambda one: struct.unpack_from("=HH", one)[1])


def framed(message: Message) -> bytes:
    kind, flags, payload = message
    return frame(kind, flags, 1, payload)


def dump_of(question: tuple[int, bytes]) -> Message:
    return question[0], 0, question[1]


def linkinfo(kind: str, data: Attributes | None = None, key: str = "INFO") -> tuple[str, Any]:
    attrs: Attributes = [(f"IFLA_{key}_KIND", kind)]
    return ("IFLA_LINKINFO", {"attrs": attrs + ([(f"IFLA_{key}_DATA", {"attrs": data})] if data else [])})


def vlan_spec(*infos: tuple[int, int]) -> tuple[str, Any]:
    listed = [("IFLA_BRIDGE_VLAN_INFO", {"flags": flags, "vid": vid}) for flags, vid in infos]
    return ("IFLA_AF_SPEC", {"attrs": listed})


def ends(*, mtu: bool, netns: bool) -> Attributes:
    """A pair of interfaces: the peer is described as a link within the link."""
    size: Attributes = [("IFLA_MTU", 1400)] if mtu else []
    peer: Attributes = [("IFLA_IFNAME", "eth0"), ("IFLA_ADDRESS", mac_text(OTHER)), *size]
    peer += [("IFLA_NET_NS_FD", 9)] if netns else []
    info = linkinfo("veth", [("VETH_INFO_PEER", {"attrs": peer})])
    return [("IFLA_IFNAME", "veth0"), ("IFLA_ADDRESS", mac_text(ONE)), *size, info]


NAME = ("IFLA_IFNAME", "br0")
MAC = ("IFLA_ADDRESS", mac_text(ONE))
MASK = ("IFLA_EXT_MASK", 8)
UP = {"flags": 1, "change": 1}
LINKS: dict[str, tuple[Message, tuple[int, int], dict[str, int], Attributes]] = {
    "bridge": (rtnl.new_bridge("br0", ONE, 0, False), (16, CREATE), {}, [NAME, MAC, linkinfo("bridge")]),
    "bridge with all": (
        rtnl.new_bridge("br0", ONE, 1400, True),
        (16, CREATE),
        {},
        [NAME, MAC, ("IFLA_MTU", 1400), linkinfo("bridge", [("IFLA_BR_VLAN_FILTERING", 1)])],
    ),
    "pair": (
        rtnl.new_veth(("veth0", ONE), ("eth0", OTHER), 0, None),
        (16, CREATE),
        {},
        ends(mtu=False, netns=False),
    ),
    "pair with all": (
        rtnl.new_veth(("veth0", ONE), ("eth0", OTHER), 1400, 9),
        (16, CREATE),
        {},
        ends(mtu=True, netns=True),
    ),
    "port": (rtnl.set_port("br0", 7, "", False), (19, 0), UP, [NAME, ("IFLA_MASTER", 7)]),
    "port without IPv6": (
        rtnl.set_port("br0", 7, "", True),
        (19, 0),
        UP,
        [
            NAME,
            ("IFLA_MASTER", 7),
            ("IFLA_AF_SPEC", {"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", 1)]})]}),
        ],
    ),
    "flags": (rtnl.set_flags("br0", 0x101, 0x101), (19, 0), {"flags": 0x101, "change": 0x101}, [NAME]),
    "flags off": (rtnl.set_flags("br0", 0, 0x100), (19, 0), {"flags": 0, "change": 0x100}, [NAME]),
    "mac": (rtnl.set_mac("br0", ONE), (19, 0), {}, [NAME, MAC]),
    "filtering on": (
        rtnl.set_vlan_filtering("br0", True),
        (16, 0),
        {},
        [NAME, linkinfo("bridge", [("IFLA_BR_VLAN_FILTERING", 1)])],
    ),
    "filtering off": (
        rtnl.set_vlan_filtering("br0", False),
        (16, 0),
        {},
        [NAME, linkinfo("bridge", [("IFLA_BR_VLAN_FILTERING", 0)])],
    ),
    "hairpin": (
        rtnl.set_bridge_port("br0", True, False),
        (16, 0),
        {},
        [NAME, linkinfo("bridge", [("IFLA_BRPORT_MODE", 1), ("IFLA_BRPORT_ISOLATED", 0)], "INFO_SLAVE")],
    ),
    "isolated": (
        rtnl.set_bridge_port("br0", False, True),
        (16, 0),
        {},
        [NAME, linkinfo("bridge", [("IFLA_BRPORT_MODE", 0), ("IFLA_BRPORT_ISOLATED", 1)], "INFO_SLAVE")],
    ),
    "vlan": (rtnl.add_vlans(7, 5, 5, False), (19, 0), {"family": AF_BRIDGE, "index": 7}, [vlan_spec((0, 5))]),
    "native vlan": (rtnl.add_vlans(7, 5, 5, True), (19, 0), {"family": AF_BRIDGE, "index": 7}, [vlan_spec((6, 5))]),
    "vlans": (
        rtnl.add_vlans(7, 5, 4094, False),
        (19, 0),
        {"family": AF_BRIDGE, "index": 7},
        [vlan_spec((8, 5), (16, 4094))],
    ),
    "no vlan": (rtnl.delete_vlan(7, 1), (17, 0), {"family": AF_BRIDGE, "index": 7}, [vlan_spec((0, 1))]),
    "no link": (rtnl.delete_link("br0"), (17, 0), {}, [NAME]),
    "link": (rtnl.get_link("br0"), (18, 0), {}, [NAME, MASK]),
    "links": (dump_of(rtnl.all_links()), (18, 0), {}, [MASK]),
    "ports": (dump_of(rtnl.ports_of(7)), (18, 0), {}, [MASK, ("IFLA_MASTER", 7)]),
    "port vlans": (dump_of(rtnl.all_port_vlans()), (18, 0), {"family": AF_BRIDGE}, [("IFLA_EXT_MASK", 2)]),
}
V4, V6, HOST = parse_net("10.1.2.3/24"), parse_net("2001:db8::3/64"), parse_net("10.1.2.3/31")
LOCAL4: Attributes = [("IFA_LOCAL", "10.1.2.3"), ("IFA_ADDRESS", "10.1.2.3")]
LOCAL6: Attributes = [("IFA_LOCAL", "2001:db8::3"), ("IFA_ADDRESS", "2001:db8::3")]
AT4, AT6 = ({"family": AF_INET, "prefixlen": 24, "index": 7}, {"family": AF_INET6, "prefixlen": 64, "index": 7})
ADDRESSES: dict[str, tuple[Message, tuple[int, int], dict[str, int], Attributes]] = {
    "IPv4": (rtnl.new_address(7, V4, 0), (20, CREATE), AT4, [*LOCAL4, ("IFA_BROADCAST", "10.1.2.255")]),
    "IPv4 of a small net": (rtnl.new_address(7, HOST, 0), (20, CREATE), AT4 | {"prefixlen": 31}, LOCAL4),
    "IPv6": (rtnl.new_address(7, V6, 0), (20, CREATE), AT6, LOCAL6),
    "IPv6 at once": (rtnl.new_address(7, V6, 2), (20, CREATE), AT6, [*LOCAL6, ("IFA_FLAGS", 2)]),
    "no IPv4": (rtnl.delete_address(7, V4), (21, 0), AT4, LOCAL4),
    "no IPv6": (rtnl.delete_address(7, V6), (21, 0), AT6, LOCAL6),
    "addresses": (dump_of(rtnl.addresses_of(7)), (22, 0), {"index": 7}, []),
}


def route(dst: str, gw: str = "", **members: int) -> Message:
    return rtnl.new_route(7, Route(parse_net(dst), parse_ip(gw) if gw else None, **members))


def way(family: int, prefix: int, scope: int, table: int = 254) -> dict[str, int]:
    return {"family": family, "dst_len": prefix, "table": table, "proto": 3, "scope": scope, "type": 1}


def metrics(**values: int) -> tuple[str, Any]:
    return ("RTA_METRICS", {"attrs": [(f"RTAX_{name}", value) for name, value in values.items()]})


OUT: Attributes = [("RTA_OIF", 7)]
MAIN: Attributes = [("RTA_TABLE", 254), *OUT]
ROUTES: dict[str, tuple[Message, tuple[int, int], dict[str, int], Attributes]] = {
    "on the link": (route("10.9.0.0/16"), (24, 0x400), way(AF_INET, 16, 253), [("RTA_DST", "10.9.0.0"), *MAIN]),
    "default": (
        route("0.0.0.0/0", "10.1.2.1"), (24, 0x400), way(AF_INET, 0, 0), [*MAIN, ("RTA_GATEWAY", "10.1.2.1")],
    ),
    "IPv6 default": (
        route("::/0", "2001:db8::1"), (24, 0x400), way(AF_INET6, 0, 0), [*MAIN, ("RTA_GATEWAY", "2001:db8::1")],
    ),
    "IPv6": (route("2001:db8:9::/48"), (24, 0x400), way(AF_INET6, 48, 253), [("RTA_DST", "2001:db8:9::"), *MAIN]),
    "with all": (
        route("10.9.0.0/16", "10.1.2.1", mtu=1400, advmss=1360, priority=5, table=100, scope=200),
        (24, 0x400),
        way(AF_INET, 16, 200, 100),
        [
            ("RTA_DST", "10.9.0.0"), ("RTA_TABLE", 100), *OUT, ("RTA_GATEWAY", "10.1.2.1"), ("RTA_PRIORITY", 5),
            metrics(MTU=1400, ADVMSS=1360),
        ],
    ),
    "with one metric": (
        route("10.9.0.0/16", advmss=1360), (24, 0x400), way(AF_INET, 16, 253),
        [("RTA_DST", "10.9.0.0"), *MAIN, metrics(ADVMSS=1360)],
    ),
    "in a table of a large number": (
        route("10.9.0.0/16", table=70000, scope=0), (24, 0x400), way(AF_INET, 16, 0, 252),
        [("RTA_DST", "10.9.0.0"), ("RTA_TABLE", 70000), *OUT],
    ),
    "in the last table of a small number": (
        route("10.9.0.0/16", table=255), (24, 0x400), way(AF_INET, 16, 253, 255),
        [("RTA_DST", "10.9.0.0"), ("RTA_TABLE", 255), *OUT],
    ),
    "in the first table of a large number": (
        route("10.9.0.0/16", table=256), (24, 0x400), way(AF_INET, 16, 253, 252),
        [("RTA_DST", "10.9.0.0"), ("RTA_TABLE", 256), *OUT],
    ),
    "routes": (dump_of(rtnl.routes_of(7, 4)), (26, 0), {"family": AF_INET}, OUT),
    "IPv6 routes": (dump_of(rtnl.routes_of(7, 6)), (26, 0), {"family": AF_INET6}, OUT),
}  # fmt: skip
ALL = [
    pytest.param(kind, *case, id=f"{kind.__name__} {name}")
    for kind, cases in ((ifinfmsg, LINKS), (ifaddrmsg, ADDRESSES), (rtmsg, ROUTES))
    for name, case in cases.items()
]


@pytest.mark.parametrize(("kind", "message", "header", "fields", "attrs"), ALL)
def test_a_message_is_what_pyroute2_would_send(
    kind: Any, message: Message, header: tuple[int, int], fields: dict[str, int], attrs: Attributes
) -> None:
    assert normal(kind, framed(message)) == normal(kind, encoded(kind, header, fields, attrs))


def test_every_builder_and_reader_is_held_to_the_oracle() -> None:
    verbs = ("new", "set", "add", "delete", "get", "all", "parse")
    builders = {name for name in vars(rtnl) if name.split("_")[0] in verbs}
    builders |= {"ports_of", "addresses_of", "routes_of"}
    with open(__file__, encoding="ascii") as file:
        text = file.read()
    assert {name for name in builders if f"rtnl.{name}(" not in text} == set()


@pytest.mark.parametrize("name", ["IFA_F_NODAD", "IFA_F_DADFAILED", "IFA_F_TENTATIVE", "IFA_F_PERMANENT"])
def test_a_flag_of_an_address_has_its_number(name: str) -> None:
    module: Any = pytest.importorskip("pyroute2.netlink.rtnl.ifaddrmsg", reason=WHY)
    assert getattr(rtnl, name) == getattr(module, name)


@pytest.mark.parametrize("name", ["IFF_UP", "IFF_PROMISC"])
def test_a_flag_of_a_link_has_its_number(name: str) -> None:
    module: Any = pytest.importorskip("pyroute2.netlink.rtnl.ifinfmsg", reason=WHY)
    assert getattr(rtnl, name) == getattr(module, name)


def test_an_alias_is_sent_without_its_nul() -> None:
    """As by ip(8): the kernel counts the bytes that it is given (net/core/dev.c, dev_set_alias)."""
    message = ifinfmsg(framed(rtnl.set_port("br0", 7, "whose", False)))
    message.decode()
    assert message.get_attr("IFLA_IFALIAS") == "whose"
    assert struct.pack("=HH", 9, 20) + b"whose\0\0\0" in framed(rtnl.set_port("br0", 7, "whose", False))


def answer(kind: Any, fields: dict[str, int], attrs: Attributes) -> bytes:
    """The content of what the kernel would answer, as pyroute2 writes it."""
    return encoded(kind, (16, 0), fields, attrs)[16:]


PORT: Attributes = [
    ("IFLA_IFNAME", "veth0"),
    ("IFLA_MTU", 1400),
    ("IFLA_LINK", 5),
    ("IFLA_MASTER", 7),
    ("IFLA_OPERSTATE", "UP"),
    ("IFLA_ADDRESS", mac_text(ONE)),
    ("IFLA_IFALIAS", "whose; masquerade x"),
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
    link = rtinfo.parse_link(answer(ifinfmsg, {"index": 9, "flags": 0x1003}, [*PORT, ("IFLA_LINKINFO", info)]))
    assert link == rtinfo.Link(
        ifindex=9, name="veth0", kind="veth", mac=ONE, mtu=1400, flags=0x1003, master=7, peer=5, operstate=6,
        alias="whose; masquerade x", vlan_filtering=False, hairpin=hairpin, isolated=isolated,
    )  # fmt: skip
    assert link.up


@pytest.mark.parametrize("filtering", [False, True])
def test_a_bridge_is_read_as_pyroute2_writes_it(filtering: bool) -> None:
    attrs = [
        NAME,
        MAC,
        linkinfo("bridge", [("IFLA_BR_FORWARD_DELAY", 1500), ("IFLA_BR_VLAN_FILTERING", int(filtering))]),
    ]
    link = rtinfo.parse_link(answer(ifinfmsg, {"index": 7, "flags": 0x102}, attrs))
    assert (link.name, link.kind, link.mac, link.vlan_filtering, link.up) == ("br0", "bridge", ONE, filtering, False)


def test_a_link_without_any_attribute_is_read() -> None:
    link = rtinfo.parse_link(answer(ifinfmsg, {"index": 1}, []))
    assert link == rtinfo.Link(1, "", "", b"", 0, 0, 0, 0, 0, "", False, False, False)


def test_only_a_bridges_own_data_is_read_as_a_bridges() -> None:
    """The same number means something else in another kind of link."""
    info = linkinfo("vxlan", [("IFLA_VXLAN_LEARNING", 1)])
    assert not rtinfo.parse_link(answer(ifinfmsg, {"index": 1}, [info])).vlan_filtering


def test_the_vlans_of_a_port_are_read_as_pyroute2_writes_them() -> None:
    data = answer(ifinfmsg, {"family": AF_BRIDGE, "index": 9}, [NAME, vlan_spec((6, 1), (0, 5), (0, 6))])
    assert rtinfo.parse_port_vlans(data) == (9, {1: 6, 5: 0, 6: 0})
    assert rtinfo.parse_port_vlans(answer(ifinfmsg, {"family": AF_BRIDGE, "index": 9}, [])) == (9, {})


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
    assert rtinfo.parse_address(answer(ifaddrmsg, fields, attrs)) == rtinfo.AddressInfo(7, parse_net(text), flags)


@pytest.mark.parametrize("name", [name for name in ROUTES if "routes" not in name])
def test_a_route_is_read_as_pyroute2_writes_it(name: str) -> None:
    _, _, fields, attrs = ROUTES[name]
    found = rtinfo.parse_route(answer(rtmsg, fields, attrs))
    told = dict(attrs)
    gateway, measured = told.get("RTA_GATEWAY"), dict(told.get("RTA_METRICS", {"attrs": []})["attrs"])
    everything = "::" if fields["family"] == AF_INET6 else "0.0.0.0"
    assert found == rtinfo.RouteInfo(
        dst=parse_net(f"{told.get('RTA_DST', everything)}/{fields['dst_len']}"),
        gw=parse_ip(gateway) if gateway else None,
        ifindex=7,
        priority=told.get("RTA_PRIORITY", 0),
        table=told["RTA_TABLE"],
        scope=fields["scope"],
        mtu=measured.get("RTAX_MTU", 0),
        advmss=measured.get("RTAX_ADVMSS", 0),
    )


def test_a_route_of_a_kernel_without_long_tables_is_read() -> None:
    found = rtinfo.parse_route(answer(rtmsg, way(AF_INET, 0, 0, 100), []))
    assert (found.table, found.ifindex, found.gw, found.dst) == (100, 0, None, parse_net("0.0.0.0/0"))


@pytest.mark.parametrize(
    ("family", "hops"),
    [
        (AF_INET, [(7, "10.1.2.1"), (8, "10.1.2.254")]),
        (AF_INET, [(7, ""), (8, "10.1.2.254"), (9, "")]),
        (AF_INET6, [(7, "2001:db8::1"), (8, ""), (7, "2001:db8::2")]),
    ],
)
def test_a_route_of_several_ways_is_read_as_pyroute2_writes_it(family: int, hops: list[tuple[int, str]]) -> None:
    told = [{"oif": index, "attrs": [("RTA_GATEWAY", gw)] if gw else []} for index, gw in hops]
    data = answer(rtmsg, way(family, 0, 0), [("RTA_TABLE", 254), ("RTA_PRIORITY", 5), ("RTA_MULTIPATH", told)])
    ways = rtinfo.parse_ways(data)
    assert [(one.ifindex, one.gw) for one in ways] == [(index, parse_ip(gw) if gw else None) for index, gw in hops]
    assert {(one.dst.prefix, one.table, one.priority) for one in ways} == {(0, 254, 5)}


def test_a_route_of_one_way_is_that_way() -> None:
    data = answer(rtmsg, way(AF_INET, 0, 0), [*MAIN, ("RTA_GATEWAY", "10.1.2.1")])
    assert rtinfo.parse_ways(data) == [rtinfo.parse_route(data)]


@pytest.mark.parametrize("hops", [b"\0" * 8, b"\0" * 11, struct.pack("=HBBi", 99, 0, 0, 7)])
def test_next_hops_that_are_cut_do_not_last_for_ever(hops: bytes) -> None:
    data = answer(rtmsg, way(AF_INET, 0, 0), []) + struct.pack("=HH", 4 + len(hops), 9) + hops
    assert [one.gw for one in rtinfo.parse_ways(data)] == [None]
