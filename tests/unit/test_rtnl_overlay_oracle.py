"""rtnetlink messages of overlays, held byte for byte to pyroute2's, and its answers read alike."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from cni.kernel import rtnl_overlay
from cni.kernel.rtnl_overlay import KernelRoute, Neighbour, VxlanInfo
from cni.protocol.address import IP, Net, mac_text, parse_ip, parse_net
from tests.unit.oracle import (
    AF_BRIDGE,
    AF_INET,
    AF_INET6,
    MAC,
    NAME,
    ONE,
    OUT,
    SIZES,
    WHY,
    Attributes,
    answer,
    encoded,
    framed,
    ifinfmsg,
    linkinfo,
    normal,
    rtmsg,
)

if TYPE_CHECKING:
    from cni.kernel.rtnl import Message

ndmsg: Any = pytest.importorskip("pyroute2.netlink.rtnl.ndmsg", reason=WHY).ndmsg
SIZES["ndmsg"] = 12
CREATE, REPLACE = 0x400 | 0x200, 0x400 | 0x100  # NLM_F_CREATE | NLM_F_EXCL, NLM_F_CREATE | NLM_F_REPLACE
PERMANENT, SELF, ONLINK = 0x80, 0x02, 4
RTM_SCOPE = 6  # its offset in struct rtmsg

V4 = VxlanInfo(vni=1, link=5, local=parse_ip("192.0.2.1"), port=8472, learning=False, gbp=False)
V6 = VxlanInfo(vni=4097, link=5, local=parse_ip("fd01::1"), port=0, learning=True, gbp=True)
DATA4: Attributes = [
    ("IFLA_VXLAN_ID", 1), ("IFLA_VXLAN_LINK", 5), ("IFLA_VXLAN_LEARNING", 0), ("IFLA_VXLAN_LOCAL", "192.0.2.1"),
]  # fmt: skip
DATA6: Attributes = [
    ("IFLA_VXLAN_ID", 4097), ("IFLA_VXLAN_LINK", 5), ("IFLA_VXLAN_LEARNING", 1), ("IFLA_VXLAN_LOCAL6", "fd01::1"),
]  # fmt: skip
PORT4, GBP = ("IFLA_VXLAN_PORT", 8472), ("IFLA_VXLAN_GBP", b"")
SIZE = ("IFLA_MTU", 1450)


def vxlan(*data: Any) -> tuple[str, Any]:
    return linkinfo("vxlan", [*data])


LINKS: dict[str, tuple[Message, tuple[int, int], dict[str, int], Attributes]] = {
    "new": (rtnl_overlay.new_vxlan("br0", ONE, 1450, V4), (16, CREATE), {}, [NAME, MAC, SIZE, vxlan(*DATA4, PORT4)]),
    "new IPv6": (rtnl_overlay.new_vxlan("br0", ONE, 1450, V6), (16, CREATE), {}, [NAME, MAC, SIZE, vxlan(*DATA6, GBP)]),
    "no port": (rtnl_overlay.set_free("br0"), (19, 0), {}, [NAME, ("IFLA_MASTER", 0)]),
    "set": (rtnl_overlay.set_vxlan("br0", V4), (16, 0), {}, [NAME, vxlan(*DATA4)]),
    "set IPv6": (rtnl_overlay.set_vxlan("br0", V6), (16, 0), {}, [NAME, vxlan(*DATA6)]),
}


IP4, IP6 = parse_ip("10.5.2.0"), parse_ip("fd00:5:0:2::")
AT4, AT6 = {"family": AF_INET, "ifindex": 7}, {"family": AF_INET6, "ifindex": 7}
BRIDGED = {"family": AF_BRIDGE, "ifindex": 7, "state": PERMANENT, "flags": SELF}
ENTRY4: Attributes = [("NDA_DST", "10.5.2.0"), ("NDA_LLADDR", mac_text(ONE))]
ENTRY6: Attributes = [("NDA_DST", "fd00:5:0:2::"), ("NDA_LLADDR", mac_text(ONE))]
STATE = {"state": PERMANENT}


def dump_of(question: tuple[int, bytes]) -> Message:
    return question[0], 0, question[1]


NEIGHBOURS: dict[str, tuple[Message, tuple[int, int], dict[str, int], Attributes]] = {
    "neighbour": (rtnl_overlay.set_neighbour(7, IP4, ONE), (28, REPLACE), AT4 | STATE, ENTRY4),
    "IPv6 neighbour": (rtnl_overlay.set_neighbour(7, IP6, ONE), (28, REPLACE), AT6 | STATE, ENTRY6),
    "no neighbour": (rtnl_overlay.delete_neighbour(7, IP4, ONE), (29, 0), AT4 | STATE, ENTRY4),
    "no IPv6 neighbour": (rtnl_overlay.delete_neighbour(7, IP6, ONE), (29, 0), AT6 | STATE, ENTRY6),
    "place": (rtnl_overlay.set_fdb_entry(7, IP4, ONE), (28, REPLACE), BRIDGED, ENTRY4),
    "IPv6 place": (rtnl_overlay.set_fdb_entry(7, IP6, ONE), (28, REPLACE), BRIDGED, ENTRY6),
    "no place": (rtnl_overlay.delete_fdb_entry(7, IP4, ONE), (29, 0), BRIDGED, ENTRY4),
    "no IPv6 place": (rtnl_overlay.delete_fdb_entry(7, IP6, ONE), (29, 0), BRIDGED, ENTRY6),
    "neighbours": (dump_of(rtnl_overlay.neighbours_of(7, 4)), (30, 0), {"family": AF_INET}, [("NDA_IFINDEX", 7)]),
    "IPv6 neighbours": (dump_of(rtnl_overlay.neighbours_of(7, 6)), (30, 0), {"family": AF_INET6}, [("NDA_IFINDEX", 7)]),
    "places": (dump_of(rtnl_overlay.fdb_of(7)), (30, 0), {"family": AF_BRIDGE, "ifindex": 7}, []),
}
NET4, NET6 = parse_net("10.5.2.0/24"), parse_net("fd00:5:0:2::/64")


BLACKHOLE, LAST, ANY_SCOPE = {"type": 6}, ("RTA_PRIORITY", 0xFFFFFFFE), {"scope": 255}


def made(family: int, prefix: int, proto: int, flags: int = 0) -> dict[str, int]:
    return {"family": family, "dst_len": prefix, "table": 254, "proto": proto, "scope": 0, "type": 1, "flags": flags}


def through(net: str, gw: str) -> Attributes:
    return [("RTA_DST", net), ("RTA_GATEWAY", gw), *OUT] if gw else [("RTA_DST", net), *OUT]


FOREIGN = KernelRoute(NET6, parse_ip("fd01::2"), 7, main=True, protocol=3, on_link=False, priority=100)
ROUTES: dict[str, tuple[Message, tuple[int, int], dict[str, int], Attributes]] = {
    "route": (
        rtnl_overlay.set_route(NET4, parse_ip("192.0.2.2"), 7, 80, on_link=False),
        (24, REPLACE), made(AF_INET, 24, 80), through("10.5.2.0", "192.0.2.2"),
    ),
    "route on the link": (
        rtnl_overlay.set_route(NET4, IP4, 7, 80, on_link=True),
        (24, REPLACE), made(AF_INET, 24, 80, ONLINK) | {"scope": 142}, through("10.5.2.0", "10.5.2.0"),
    ),
    "IPv6 route on the link": (
        rtnl_overlay.set_route(NET6, IP6, 7, 80, on_link=True),
        (24, REPLACE), made(AF_INET6, 64, 80, ONLINK), through("fd00:5:0:2::", "fd00:5:0:2::"),
    ),
    "no route": (
        rtnl_overlay.delete_route(NET4, IP4, 7, 0),
        (25, 0), made(AF_INET, 24, 0) | ANY_SCOPE, through("10.5.2.0", "10.5.2.0"),
    ),
    "no route without a gateway": (
        rtnl_overlay.delete_route(NET6, None, 7, 80),
        (25, 0), made(AF_INET6, 64, 80) | ANY_SCOPE, through("fd00:5:0:2::", ""),
    ),
    "blackhole": (
        rtnl_overlay.new_blackhole(NET4, 80),
        (24, CREATE), made(AF_INET, 24, 80) | BLACKHOLE, [("RTA_DST", "10.5.2.0"), LAST],
    ),
    "no IPv6 blackhole": (
        rtnl_overlay.delete_blackhole(NET6, 80),
        (25, 0), made(AF_INET6, 64, 80) | BLACKHOLE, [("RTA_DST", "fd00:5:0:2::"), LAST],
    ),
    "no route of others": (
        rtnl_overlay.delete_kernel_route(FOREIGN),
        (25, 0), made(AF_INET6, 64, 3) | {"scope": 255},
        [("RTA_DST", "fd00:5:0:2::"), ("RTA_PRIORITY", 100), ("RTA_GATEWAY", "fd01::2"), ("RTA_OIF", 7)],
    ),
    "no blackhole of others": (
        rtnl_overlay.delete_kernel_route(KernelRoute(NET4, None, 1, main=True, protocol=4, on_link=False, kind=6)),
        (25, 0), made(AF_INET, 24, 4) | BLACKHOLE | {"scope": 255},
        [("RTA_DST", "10.5.2.0"), ("RTA_PRIORITY", 0)],
    ),
    "routes": (dump_of(rtnl_overlay.routes_by(80, 4)), (26, 0), {"family": AF_INET, "table": 254, "proto": 80}, []),
    "IPv6 routes": (
        dump_of(rtnl_overlay.routes_by(80, 6)), (26, 0), {"family": AF_INET6, "table": 254, "proto": 80}, [],
    ),
}  # fmt: skip
ALL = [
    pytest.param(kind, *case, id=f"{kind.__name__} {name}")
    for kind, cases in ((ifinfmsg, LINKS), (ndmsg, NEIGHBOURS), (rtmsg, ROUTES))
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
        for name, value in vars(rtnl_overlay).items()
        if callable(value) and getattr(value, "__module__", "") == rtnl_overlay.__name__ and name[0].islower()
    }
    builders = {name for name in builders if not name.startswith("parse_") and name != "described"}
    assert len(builders) == 15
    with open(__file__, encoding="ascii") as file:
        text = file.read()
    assert {name for name in builders if f"rtnl_overlay.{name}(" not in text} == set()


@pytest.mark.parametrize(
    ("data", "info"),
    [
        ([*DATA4, PORT4], V4),
        ([*DATA6, ("IFLA_VXLAN_PORT", 4789), GBP], V6._replace(port=4789)),
        ([("IFLA_VXLAN_ID", 9), PORT4], VxlanInfo(9, 0, IP(4, 0), 8472, learning=False, gbp=False)),
    ],
)
def test_a_device_is_read_as_pyroute2_writes_it(data: Attributes, info: VxlanInfo) -> None:
    assert rtnl_overlay.parse_vxlan(answer(ifinfmsg, {}, [NAME, MAC, vxlan(*data)])) == info


@pytest.mark.parametrize("attrs", [[NAME, MAC], [NAME, linkinfo("bridge")], [NAME, linkinfo("veth", [])]])
def test_another_link_is_no_such_device(attrs: Attributes) -> None:
    assert rtnl_overlay.parse_vxlan(answer(ifinfmsg, {}, attrs)) is None


@pytest.mark.parametrize(("attrs", "ip"), [(ENTRY4, IP4), (ENTRY6, IP6)])
@pytest.mark.parametrize(("state", "permanent"), [(PERMANENT, True), (PERMANENT | 0x40, True), (2, False), (0, False)])
def test_an_entry_is_read_as_pyroute2_writes_it(attrs: Attributes, ip: IP, state: int, *, permanent: bool) -> None:
    data = answer(ndmsg, {"family": AF_BRIDGE, "ifindex": 7, "state": state}, attrs)
    assert rtnl_overlay.parse_neighbour(data) == Neighbour(7, ip, ONE, permanent)


def test_an_entry_that_failed_has_no_mac_address() -> None:
    data = answer(ndmsg, {"family": AF_INET, "ifindex": 7, "state": 0x20}, ENTRY4[:1])
    assert rtnl_overlay.parse_neighbour(data) == Neighbour(7, IP4, b"", permanent=False)


@pytest.mark.parametrize("attrs", [[], ENTRY4[1:]])
def test_an_entry_without_an_address_is_none(attrs: Attributes) -> None:
    assert rtnl_overlay.parse_neighbour(answer(ndmsg, {"family": AF_BRIDGE, "ifindex": 7}, attrs)) is None


@pytest.mark.parametrize(
    ("fields", "attrs", "route"),
    [
        (
            made(AF_INET, 24, 80, ONLINK),
            through("10.5.2.0", "10.5.2.0"),
            KernelRoute(NET4, IP4, 7, main=True, protocol=80, on_link=True),
        ),
        (
            made(AF_INET6, 64, 3),
            through("fd00:5:0:2::", "fd01::2"),
            KernelRoute(NET6, parse_ip("fd01::2"), 7, main=True, protocol=3, on_link=False),
        ),
        (
            made(AF_INET, 0, 3) | {"table": 100},
            OUT,
            KernelRoute(parse_net("0.0.0.0/0"), None, 7, main=False, protocol=3, on_link=False),
        ),
        (
            made(AF_INET6, 0, 3),
            [],
            KernelRoute(parse_net("::/0"), None, 0, main=True, protocol=3, on_link=False),
        ),
        (
            made(AF_INET, 24, 80) | BLACKHOLE,
            [("RTA_DST", "10.5.2.0"), LAST],
            KernelRoute(NET4, None, 0, main=True, protocol=80, on_link=False, priority=0xFFFFFFFE, kind=6),
        ),
    ],
)
def test_a_route_is_read_as_pyroute2_writes_it(fields: dict[str, int], attrs: Attributes, route: KernelRoute) -> None:
    assert rtnl_overlay.parse_kernel_route(answer(rtmsg, fields, attrs)) == route


def test_whatever_is_built_is_read_again() -> None:
    dice = random.Random(1)
    for _ in range(300):
        family = dice.choice((4, 6))
        bits = 32 if family == 4 else 128
        ip, mac, index = IP(family, dice.getrandbits(bits)), dice.randbytes(6), dice.randrange(1, 1 << 31)
        dst = Net(ip, dice.randrange(1, bits + 1)).network
        for build in (rtnl_overlay.set_neighbour, rtnl_overlay.set_fdb_entry):
            assert rtnl_overlay.parse_neighbour(build(index, ip, mac)[2]) == Neighbour(index, ip, mac, permanent=True)
        route = rtnl_overlay.set_route(dst, ip, index, 80, on_link=True)
        assert rtnl_overlay.parse_kernel_route(route[2])[:6] == (dst, ip, index, True, 80, True)


def test_routes_of_one_device_are_spread_over_the_scopes_of_interior_routes() -> None:
    """The kernel compares each new one with all others of its scope."""
    nets = [Net(IP(4, (10 << 24) + (number << 8)), 24) for number in range(1990)]
    scopes = Counter(rtnl_overlay.set_route(net, net.ip, 7, 80, on_link=True)[2][RTM_SCOPE] for net in nets)
    assert scopes == dict.fromkeys(range(1, 200), 10)


def is_question(message: Message) -> bool:
    return message[0] in (26, 30)


def test_a_message_is_described_as_people_know_it() -> None:
    messages = [message for message, *_ in (*NEIGHBOURS.values(), *ROUTES.values()) if not is_question(message)]
    assert [*map(rtnl_overlay.described, messages)] == [
        "ip neighbour replace 10.5.2.0 lladdr 02:00:00:00:00:01",
        "ip neighbour replace fd00:5:0:2:: lladdr 02:00:00:00:00:01",
        "ip neighbour delete 10.5.2.0 lladdr 02:00:00:00:00:01",
        "ip neighbour delete fd00:5:0:2:: lladdr 02:00:00:00:00:01",
        "bridge fdb replace 02:00:00:00:00:01 dst 10.5.2.0",
        "bridge fdb replace 02:00:00:00:00:01 dst fd00:5:0:2::",
        "bridge fdb delete 02:00:00:00:00:01 dst 10.5.2.0",
        "bridge fdb delete 02:00:00:00:00:01 dst fd00:5:0:2::",
        "ip route replace 10.5.2.0/24 via 192.0.2.2",
        "ip route replace 10.5.2.0/24 via 10.5.2.0",
        "ip route replace fd00:5:0:2::/64 via fd00:5:0:2::",
        "ip route delete 10.5.2.0/24 via 10.5.2.0",
        "ip route delete fd00:5:0:2::/64",
        "ip route replace blackhole 10.5.2.0/24",
        "ip route delete blackhole fd00:5:0:2::/64",
        "ip route delete fd00:5:0:2::/64 via fd01::2",
        "ip route delete blackhole 10.5.2.0/24",
    ]
