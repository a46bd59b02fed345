"""/proc/sys is read-only in containers that run containers: what is set as wanted is not written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.netns.runtime import DUAL, MASQUERADED, PLAIN, RICHEST, ROUTED, attachment, network
from tests.netns.state import difference, whole

if TYPE_CHECKING:
    from tests.machine import Machine
    from tests.netns.runtime import Json, Node

READ_ONLY = "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys"
FORWARDING = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
UNMAPPED = {**ROUTED, "runtimeConfig": {}}


def prepare(machine: Machine, *keys: str) -> None:
    """Sets the keys to 1 and makes /proc/sys read-only, as the owner of such a container does."""
    for key in keys:
        machine.run("sh", "-c", f"echo 1 > /proc/sys/{key}")
    machine.run("sh", "-c", READ_ONLY)
    assert machine.run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward", check=False).returncode


@pytest.mark.parametrize("config", [PLAIN, MASQUERADED, UNMAPPED], ids=["plain", "dual", "routed"])
def test_all_is_served_where_forwarding_is_on(machine: Machine, node: Node, config: Json) -> None:
    prepare(machine, *FORWARDING)
    who = attachment(machine.pod())
    node.add(config, who)
    node.check(config, who).succeeded()
    node.delete(config, who).succeeded()


def test_what_has_to_be_written_is_named(machine: Machine, node: Node) -> None:
    prepare(machine)
    who = attachment(machine.pod())
    before = whole(machine)
    answer = node.call("ADD", PLAIN, who)
    assert answer.code == 100
    assert "net.ipv4.ip_forward=1: Read-only file system" in answer.message
    assert not difference(before, whole(machine))


def test_a_bridge_without_gateway_needs_nothing_beforehand(machine: Machine, node: Node) -> None:
    prepare(machine)
    who = attachment(machine.pod())
    node.add(network(ipam=DUAL), who)
    node.check(network(ipam=DUAL), who).succeeded()


def test_a_port_from_loopback_names_its_setting(machine: Machine, node: Node) -> None:
    prepare(machine, *FORWARDING)
    answer = node.call("ADD", RICHEST, attachment(machine.pod()))
    assert answer.code == 100
    assert "net.ipv4.conf.cni0.route_localnet=1: Read-only file system" in answer.message


def test_tuning_takes_what_is_so_already(machine: Machine, node: Node) -> None:
    who = attachment(machine.pod())
    config = {"cniVersion": "1.1.0", "name": "net", "type": "tuning", "prevResult": node.add(PLAIN, who)}
    prepare(machine)
    same, other = ({"sysctl": {"net.ipv4.conf.IFNAME.arp_filter": value}} for value in "01")
    node.call("ADD", config | same, who, program="tuning").succeeded()
    assert node.call("ADD", config | other, who, program="tuning").code == 100
