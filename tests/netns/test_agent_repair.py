"""Tests changes to the agent's device and entries other than deletion, and locks held by other processes."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from cni.agent.backends import vxlan
from cni.agent.dataplane import routes
from cni.agent.dataplane.state import NextHopLinks, difference, forwarding_state
from cni.agent.model.lease import Endpoint
from cni.agent.node import masquerade
from cni.effects.host import Host
from cni.kernel import rtnl_overlay
from cni.kernel.netlink import NetlinkError
from cni.kernel.rtnl_socket import RtnlSocket
from cni.protocol.address import parse_ip, parse_mac, parse_net
from cni.protocol.errors import TryAgain

if TYPE_CHECKING:
    from pathlib import Path

    from tests.machine import Machine

NAME = "flannel.1"
NET = parse_net("10.5.0.0/16")
PEER = Endpoint(parse_net("10.5.2.0/24"), parse_ip("192.0.2.2"), parse_mac("0a:00:00:00:00:02"))


def keep() -> list[str]:
    """Inside: the device and its entries as they have to be; returns what had to be done, in words."""
    route = RtnlSocket()
    try:
        info = rtnl_overlay.VxlanInfo(1, route.ifindex("uplink"), parse_ip("192.0.2.1"), 0, learning=False, gbp=False)
        mac = parse_mac("0a:00:00:00:00:01")
        index, done = vxlan.Device(NAME, mac, 1450, info, parse_net("10.5.1.0/32"), "podwired").ensure(route)
        links = NextHopLinks(index, ())
        messages = difference(
            routes.read_forwarding_state(route, 4, index, (NET,)), forwarding_state([PEER], links), links
        )
        assert routes.apply(route, messages) == []
        return done + [rtnl_overlay.described(message) for message in messages]
    finally:
        route.close()


def shown(machine: Machine) -> str:
    lines = [
        machine.run("ip", "-d", "link", "show", NAME).stdout.partition(": ")[2],
        machine.run("ip", "route", "show", "dev", NAME).stdout,
        machine.run("bridge", "fdb", "show", "dev", NAME).stdout,
    ]
    return "".join(lines)


@pytest.fixture
def host(machine: Machine) -> Machine:
    machine.outside()
    machine.call(keep)
    assert machine.call(keep) == []
    return machine


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        ("ip link add br9 type bridge; ip link set {name} master br9", ["flannel.1 was a port of another link"]),
        ("ip link set {name} type vxlan id 1 local 192.0.2.77", ["flannel.1 had another underlay"]),
        (
            "bridge fdb replace 0a:00:00:00:00:02 dev {name} dst 192.0.2.2 port 9999 self permanent",
            ["bridge fdb replace 0a:00:00:00:00:02 dst 192.0.2.2"],
        ),
        (
            "bridge fdb replace 0a:00:00:00:00:02 dev {name} dst 192.0.2.2 vni 77 self permanent",
            ["bridge fdb replace 0a:00:00:00:00:02 dst 192.0.2.2"],
        ),
        (
            "ip route replace 10.5.2.0/24 via 10.5.2.0 dev {name} onlink proto 80 mtu 100",
            ["ip route replace 10.5.2.0/24 via 10.5.2.0"],
        ),
    ],
)
def test_what_was_changed_is_changed_back(host: Machine, change: str, reported: list[str]) -> None:
    before = shown(host)
    host.run("sh", "-ec", change.format(name=NAME))
    assert shown(host) != before
    assert host.call(keep) == reported
    assert shown(host) == before
    assert host.call(keep) == []


def test_a_device_that_was_renamed_gives_way_to_one_of_the_right_name(host: Machine) -> None:
    before = shown(host)
    host.run("sh", "-ec", f"ip link set {NAME} down; ip link set {NAME} name renamed; ip link set renamed up")
    assert "renamed had been flannel.1" in host.call(keep)
    assert shown(host) == before
    assert "renamed" not in host.run("ip", "link").stdout


@pytest.mark.parametrize(
    ("foreign", "reported"),
    [
        (
            "link add foreign type vxlan id 1 dstport 8472 dev uplink",
            "VXLAN device foreign has the VNI of flannel.1 on its port: .*choose another VNI or Port than 1 and 8472",
        ),
        ("link add flannel.1 type bridge", "flannel.1 is a bridge that podwired did not create: remove it"),
        (
            "link add foreign up type vxlan id 9 dstport 8472 gbp dev uplink",
            "flannel.1 cannot be up: the VXLAN device foreign uses UDP port 8472: remove it",
        ),
        (
            "link add foreign up type vxlan external dstport 8472",
            "flannel.1 cannot be up: the VXLAN device foreign uses UDP port 8472: remove it",
        ),
    ],
)
def test_a_device_of_another_in_the_way_is_left_and_named_until_it_goes(
    machine: Machine, foreign: str, reported: str
) -> None:
    machine.outside()
    machine.run("ip", *foreign.split())
    name = foreign.split()[2]
    for _ in range(2):
        with pytest.raises(NetlinkError, match=reported):
            machine.call(keep)
    assert name in machine.run("ip", "link").stdout
    machine.run("ip", "link", "del", name)
    machine.call(keep)
    assert machine.call(keep) == []


def keep_beside_a_program() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
        program.bind(("", 8472))
        keep()


def test_the_agents_own_device_of_the_other_family_is_not_named_as_in_the_way(machine: Machine) -> None:
    machine.outside()
    add = "ip link add flannel-v6.1 up type vxlan id 1 dstport 8472 local fd00::1 dev uplink"
    machine.run("sh", "-ec", f"{add}; ip link set flannel-v6.1 alias podwired")
    with pytest.raises(NetlinkError, match=r"flannel\.1 cannot be up: a program uses UDP port 8472"):
        machine.call(keep_beside_a_program)
    assert machine.call(keep)[:1] == ["flannel.1 was down"]


def test_a_device_that_was_moved_into_another_namespace_is_reported_as_that(machine: Machine, tmp_path: Path) -> None:
    machine.outside()
    machine.call(keep)
    away = tmp_path / "away"
    away.touch()
    machine.run("unshare", f"--net={away}", "true")
    machine.run("ip", "link", "set", NAME, "netns", str(away))
    with pytest.raises(
        NetlinkError, match=r"device in another network namespace has the VNI of flannel\.1 on its port"
    ):
        machine.call(keep)
    machine.run("umount", str(away))


DROP = "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }"


def let_through(*, busy: bool) -> list[str]:
    """Inside, with a container being attached meanwhile, or without."""
    other, host = Host({}, print), Host({}, print)
    try:
        if busy:
            other.lock.lock_shared()
        spaces = ((parse_net("10.5.0.0/16"), parse_net("10.5.1.0/24")),)
        rules = masquerade.Rules("podwired", spaces, masquerades=False, fully_random=False, forwards=True)
        try:
            return masquerade.ensure_forward_accept(host, rules)
        finally:
            assert other.lock.try_lock_exclusive()  # whatever happened, nothing is held any more
    finally:
        other.close()
        host.close()


def test_who_attaches_is_not_waited_for(machine: Machine) -> None:
    machine.run("nft", DROP)
    with pytest.raises(TryAgain, match="has to wait"):
        machine.call(lambda: let_through(busy=True))
    (reported,) = machine.call(lambda: let_through(busy=False))
    assert "policy drop" in reported
    assert "10.5.0.0/16" in machine.run("nft", "list", "ruleset").stdout
    assert machine.call(lambda: let_through(busy=False)) == []
