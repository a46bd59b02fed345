"""rtnetlink messages, held byte for byte to pyroute2's: what podwire sends."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest

from cni.kernel import rtnl
from cni.protocol.address import mac_text, parse_ip, parse_net
from cni.protocol.result import Route
from tests.unit.oracle import (
    AF_BRIDGE,
    AF_INET,
    AF_INET6,
    AT4,
    AT6,
    LOCAL4,
    LOCAL6,
    MAC,
    MAIN,
    NAME,
    ONE,
    OTHER,
    OUT,
    WHY,
    Attributes,
    encoded,
    framed,
    head,
    ifaddrmsg,
    ifinfmsg,
    linkinfo,
    metrics,
    normal,
    rtmsg,
    vlan_spec,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.kernel.rtnl import Message

CREATE = 0x400 | 0x200  # NLM_F_CREATE | NLM_F_EXCL


def dump_of(question: tuple[int, bytes]) -> Message:
    return question[0], 0, question[1]


def ends(*, mtu: bool, netns: bool) -> Attributes:
    """A pair of interfaces: the peer is described as a link within the link."""
    size: Attributes = [("IFLA_MTU", 1400)] if mtu else []
    peer: Attributes = [("IFLA_IFNAME", "eth0"), ("IFLA_ADDRESS", mac_text(OTHER)), *size]
    peer += [("IFLA_NET_NS_FD", 9)] if netns else []
    info = linkinfo("veth", [("VETH_INFO_PEER", {"attrs": peer})])
    return [("IFLA_IFNAME", "veth0"), ("IFLA_ADDRESS", mac_text(ONE)), *size, info]


MASK = ("IFLA_EXT_MASK", 8)
UP = {"flags": 1, "change": 1}
DETOUR: Attributes = [NAME, MAC, ("IFLA_MTU", 1400), ("IFLA_TXQLEN", 0)]
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
    "port of none": (rtnl.set_port("br0", 0, "", False), (19, 0), UP, [NAME]),
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
    "ifb": (rtnl.new_ifb("br0", ONE, 1400, 0), (16, CREATE), UP, [*DETOUR, linkinfo("ifb")]),
    "ifb of a group": (
        rtnl.new_ifb("br0", ONE, 1400, 0x50570009),
        (16, CREATE),
        UP,
        [*DETOUR, ("IFLA_GROUP", 0x50570009), linkinfo("ifb")],
    ),
    "group": (rtnl.set_group("br0", 0x50570009), (19, 0), {}, [NAME, ("IFLA_GROUP", 0x50570009)]),
    "no group": (rtnl.delete_group(0x50570009), (17, 0), {}, [("IFLA_GROUP", 0x50570009)]),
    "mtu": (rtnl.set_mtu("br0", 1400), (19, 0), {}, [NAME, ("IFLA_MTU", 1400)]),
    "queue": (rtnl.set_txqlen("br0", 0), (19, 0), {}, [NAME, ("IFLA_TXQLEN", 0)]),
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
    "link at": (rtnl.get_link_at(7), (18, 0), {"index": 7}, [MASK]),
    "links": (dump_of(rtnl.all_links()), (18, 0), {}, [MASK]),
    "ports": (dump_of(rtnl.ports_of(7)), (18, 0), {}, [MASK, ("IFLA_MASTER", 7)]),
    "port vlans": (dump_of(rtnl.all_port_vlans()), (18, 0), {"family": AF_BRIDGE}, [("IFLA_EXT_MASK", 2)]),
}
V4, V6, HOST = parse_net("10.1.2.3/24"), parse_net("2001:db8::3/64"), parse_net("10.1.2.3/31")
ADDRESSES: dict[str, tuple[Message, tuple[int, int], dict[str, int], Attributes]] = {
    "IPv4": (rtnl.new_address(7, V4, 0), (20, CREATE), AT4, [*LOCAL4, ("IFA_BROADCAST", "10.1.2.255")]),
    "IPv4 of a small net": (rtnl.new_address(7, HOST, 0), (20, CREATE), AT4 | {"prefixlen": 31}, LOCAL4),
    "IPv6": (rtnl.new_address(7, V6, 0), (20, CREATE), AT6, LOCAL6),
    "IPv6 at once": (rtnl.new_address(7, V6, 2), (20, CREATE), AT6, [*LOCAL6, ("IFA_FLAGS", 2)]),
    "no IPv4": (rtnl.delete_address(7, V4), (21, 0), AT4, LOCAL4),
    "no IPv6": (rtnl.delete_address(7, V6), (21, 0), AT6, LOCAL6),
    "addresses": (dump_of(rtnl.addresses_of(7)), (22, 0), {"index": 7}, []),
    "all addresses": (dump_of(rtnl.addresses_of(0)), (22, 0), {}, []),
}


def route(dst: str, gw: str = "", source: str = "", **members: int) -> Message:
    asked = Route(parse_net(dst), parse_ip(gw) if gw else None, **members)
    return rtnl.new_route(7, asked, parse_ip(source) if source else None)


ROUTES: dict[str, tuple[Message, tuple[int, int], dict[str, int], Attributes]] = {
    "on the link": (route("10.9.0.0/16"), (24, 0x400), head(AF_INET, 16, 253), [("RTA_DST", "10.9.0.0"), *MAIN]),
    "default": (
        route("0.0.0.0/0", "10.1.2.1"), (24, 0x400), head(AF_INET, 0, 0), [*MAIN, ("RTA_GATEWAY", "10.1.2.1")],
    ),
    "IPv6 default": (
        route("::/0", "2001:db8::1"), (24, 0x400), head(AF_INET6, 0, 0), [*MAIN, ("RTA_GATEWAY", "2001:db8::1")],
    ),
    "IPv6": (route("2001:db8:9::/48"), (24, 0x400), head(AF_INET6, 48, 253), [("RTA_DST", "2001:db8:9::"), *MAIN]),
    "with all": (
        route("10.9.0.0/16", "10.1.2.1", mtu=1400, advmss=1360, priority=5, table=100, scope=200),
        (24, 0x400),
        head(AF_INET, 16, 200, 100),
        [
            ("RTA_DST", "10.9.0.0"), ("RTA_TABLE", 100), *OUT, ("RTA_GATEWAY", "10.1.2.1"), ("RTA_PRIORITY", 5),
            metrics(MTU=1400, ADVMSS=1360),
        ],
    ),
    "with one metric": (
        route("10.9.0.0/16", advmss=1360), (24, 0x400), head(AF_INET, 16, 253),
        [("RTA_DST", "10.9.0.0"), *MAIN, metrics(ADVMSS=1360)],
    ),
    "in a table of a large number": (
        route("10.9.0.0/16", table=70000, scope=0), (24, 0x400), head(AF_INET, 16, 0, 252),
        [("RTA_DST", "10.9.0.0"), ("RTA_TABLE", 70000), *OUT],
    ),
    "in the last table of a small number": (
        route("10.9.0.0/16", table=255), (24, 0x400), head(AF_INET, 16, 253, 255),
        [("RTA_DST", "10.9.0.0"), ("RTA_TABLE", 255), *OUT],
    ),
    "in the first table of a large number": (
        route("10.9.0.0/16", table=256), (24, 0x400), head(AF_INET, 16, 253, 252),
        [("RTA_DST", "10.9.0.0"), ("RTA_TABLE", 256), *OUT],
    ),
    "from a source": (
        route("10.9.0.0/16", "10.1.2.1", "10.1.2.3"), (24, 0x400), head(AF_INET, 16, 0),
        [("RTA_DST", "10.9.0.0"), *MAIN, ("RTA_GATEWAY", "10.1.2.1"), ("RTA_PREFSRC", "10.1.2.3")],
    ),
    "IPv6 from a source": (
        route("2001:db8::1/128", source="2001:db8::3"), (24, 0x400), head(AF_INET6, 128, 253),
        [("RTA_DST", "2001:db8::1"), *MAIN, ("RTA_PREFSRC", "2001:db8::3")],
    ),
    "way": (
        rtnl.route_get(parse_ip("10.1.2.3")), (26, 0), {"family": AF_INET, "dst_len": 32}, [("RTA_DST", "10.1.2.3")],
    ),
    "IPv6 way": (
        rtnl.route_get(parse_ip("2001:db8::3")), (26, 0), {"family": AF_INET6, "dst_len": 128},
        [("RTA_DST", "2001:db8::3")],
    ),
    "routes": (dump_of(rtnl.routes_of(7, 4)), (26, 0), {"family": AF_INET}, OUT),
    "IPv6 routes": (dump_of(rtnl.routes_of(7, 6)), (26, 0), {"family": AF_INET6}, OUT),
    "main routes": (dump_of(rtnl.main_routes(4)), (26, 0), {"family": AF_INET, "table": 254, "type": 1}, []),
    "IPv6 main routes": (dump_of(rtnl.main_routes(6)), (26, 0), {"family": AF_INET6, "table": 254, "type": 1}, []),
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


def test_every_builder_is_held_to_the_oracle() -> None:
    builders = {
        name
        for name, value in vars(rtnl).items()
        if callable(value) and getattr(value, "__module__", "") == rtnl.__name__ and not name.startswith("_")
    }
    assert len(builders) > 25
    with open(__file__, encoding="ascii") as file:
        text = file.read()
    assert {name for name in builders if f"rtnl.{name}(" not in text} == set()


@pytest.mark.parametrize(
    "name",
    [
        "IFA_F_TEMPORARY",
        "IFA_F_NODAD",
        "IFA_F_DADFAILED",
        "IFA_F_DEPRECATED",
        "IFA_F_TENTATIVE",
        "IFA_F_PERMANENT",
        "IFA_F_NOPREFIXROUTE",
    ],
)
def test_a_flag_of_an_address_has_its_number(name: str) -> None:
    module: Any = pytest.importorskip("pyroute2.netlink.rtnl.ifaddrmsg", reason=WHY)
    assert getattr(rtnl, name) == getattr(module, name)


@pytest.mark.parametrize("name", ["IFF_UP", "IFF_PROMISC", "IFF_ALLMULTI"])
def test_a_flag_of_a_link_has_its_number(name: str) -> None:
    module: Any = pytest.importorskip("pyroute2.netlink.rtnl.ifinfmsg", reason=WHY)
    assert getattr(rtnl, name) == getattr(module, name)


@pytest.mark.parametrize(
    "build", [lambda alias: rtnl.set_port("br0", 7, alias, False), lambda alias: rtnl.set_alias("br0", alias)]
)
def test_an_alias_is_sent_without_its_nul(build: Callable[[str], Message]) -> None:
    """As by ip(8): the kernel counts the bytes that it is given (net/core/dev.c, dev_set_alias)."""
    message = ifinfmsg(framed(build("whose")))
    message.decode()
    assert (message["header"]["type"], message["header"]["flags"]) == (19, 0)
    assert (message.get_attr("IFLA_IFNAME"), message.get_attr("IFLA_IFALIAS")) == ("br0", "whose")
    assert struct.pack("=HH", 9, 20) + b"whose\0\0\0" in framed(build("whose"))


def test_an_empty_alias_takes_away_the_one_that_is_there() -> None:
    assert struct.pack("=HH", 4, 20) in framed(rtnl.set_alias("br0", ""))
    assert struct.pack("=HH", 4, 20) not in framed(rtnl.set_port("br0", 7, "", False))
