"""Refusals of the kernel are told with their true cause, not as missing IPv6 or a missing capability."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.netns.runtime import DUAL, IPV4, IPV6, AnsweredError, attachment, host_local, network
from tests.netns.state import difference, whole

if TYPE_CHECKING:
    from tests.machine import Machine
    from tests.netns.runtime import Json, Node

STATIC = """#!/bin/sh
[ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion":"1.1.0","ips":[{"address":"2001:db8:1::9/64"}]}'
"""


@pytest.mark.parametrize("program", ["podwire", "bridge", "ptp"])
@pytest.mark.parametrize("ipam", [DUAL, host_local(IPV6)])
@pytest.mark.parametrize("mtu", [1, 1200, 1279])
def test_an_mtu_that_ipv6_cannot_live_with_is_a_fault_of_the_configuration(
    machine: Machine, node: Node, program: str, ipam: Json, mtu: int
) -> None:
    who = attachment(machine.pod())
    before = whole(machine)
    with pytest.raises(AnsweredError, match=rf"mtu: {mtu} is too small for IPv6.*1280") as refused:
        node.add(network(mtu=mtu, ipam=ipam), who, program=program)
    assert refused.value.code == 7
    assert difference(before, whole(machine)) == []
    assert node.call("STATUS", network(mtu=mtu, ipam=ipam), program=program).code == 7


@pytest.mark.parametrize(("mtu", "ipam"), [(1280, DUAL), (1200, host_local(IPV4)), (1200, {})])
def test_any_other_mtu_is_served(machine: Machine, node: Node, mtu: int, ipam: Json) -> None:
    node.add(network(mtu=mtu, ipam=ipam), attachment(machine.pod()))


def test_what_another_program_gives_is_held_to_the_mtu_as_well(machine: Machine, node: Node) -> None:
    machine.run("mkdir", "-p", "/opt/cni/bin")
    machine.run("sh", "-c", "cat > /opt/cni/bin/given; chmod +x /opt/cni/bin/given", stdin=STATIC)
    who = attachment(machine.pod())
    before = whole(machine)
    with pytest.raises(AnsweredError, match="mtu: 1200 is too small for IPv6") as refused:
        node.add(network(mtu=1200, ipam={"type": "given"}), who)
    assert refused.value.code == 7
    assert difference(before, whole(machine)) == []


def test_the_mtu_of_a_bridge_is_named_where_ipv6_fails_by_it(machine: Machine, node: Node) -> None:
    node.add(network("small", mtu=1200, ipam=host_local([{"subnet": "10.9.0.0/24"}])), attachment(machine.pod()))
    with pytest.raises(AnsweredError, match=r"cni0 .*2001:db8:1::1/64.* MTU is 1200.* 1280"):
        node.add(network(isGateway=True, ipam=host_local(IPV6)), attachment(machine.pod()))


def test_ipv6_that_is_off_is_not_called_a_missing_capability(machine: Machine, node: Node) -> None:
    pod = machine.pod()
    pod.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]
    with pytest.raises(AnsweredError, match=r"route add ::/0 .*disable_ipv6") as refused:
        node.add(network(isGateway=True, ipam=host_local(IPV4, routes=routes)), attachment(pod))
    assert "CAP_" not in refused.value.message
    machine.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
    with pytest.raises(AnsweredError, match=r"2001:db8:1::1/64 dev cni0.*disable_ipv6") as refused:
        node.add(network(isGateway=True, ipam=host_local(IPV6)), attachment(machine.pod()))
    assert "CAP_" not in refused.value.message


def test_a_default_route_of_a_family_without_addresses_is_set_where_the_kernel_takes_it(
    machine: Machine, node: Node
) -> None:
    pod = machine.pod()
    config = network(isGateway=True, ipam=host_local(IPV4, routes=[{"dst": "::/0"}]))
    node.add(config, attachment(pod))
    assert node.check(config, attachment(pod)).status == 0


def drop_capabilities() -> None:
    """Runs in the process of the call: CAP_NET_ADMIN goes (prctl(2), capset(2))."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, data) == 0
    data[0] &= ~(1 << 12)
    assert libc.capset(header, data) == 0


def test_a_capability_that_is_missing_is_named(machine: Machine, node: Node) -> None:
    who = attachment(machine.pod())
    answer = node.call("ADD", network(), who, prepare=drop_capabilities)
    assert answer.code == 100
    assert "CAP_NET_ADMIN" in answer.message
