"""route_localnet must not let containers reach 127.0.0.1, and goes with the last port."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.machine import MachineError
from tests.netns.runtime import IPV4, attachment, host_local, network
from tests.netns.state import difference, shown, whole
from tests.netns.test_portmap import GATEWAY4, MAPPED, World, attached, loopback_services_are_closed, mapped, mapping
from tests.netns.test_portmap import world as world  # noqa: PLC0414  # a fixture

if TYPE_CHECKING:
    from tests.machine import Machine
    from tests.netns.runtime import Json, Node

HAS_FRAMES_AS_PACKETS = "/proc/sys/net/bridge/bridge-nf-call-iptables"


def setting(machine: Machine, interface: str = "cni0") -> str:
    return machine.run("cat", f"/proc/sys/net/ipv4/conf/{interface}/route_localnet").stdout.strip()


def filters(machine: Machine, interface: str = "cni0") -> str:
    return machine.run("tc", "filter", "show", "dev", interface, "ingress").stdout


@pytest.mark.parametrize("mode", ["bridged", "routed"])
def test_a_flushed_ruleset_does_not_open_127_0_0_1_to_pods(world: World, mode: str) -> None:
    attached(world, {**MAPPED, "mode": mode})
    world.machine.run("nft", "flush", "ruleset")
    assert loopback_services_are_closed(world)


@pytest.mark.parametrize("frames", ["0", "1"])
def test_127_0_0_1_reaches_a_port_whether_or_not_rules_see_bridged_frames(world: World, frames: str) -> None:
    if world.machine.run("sh", "-c", f"echo {frames} > {HAS_FRAMES_AS_PACKETS}", check=False).returncode:
        pytest.skip("the kernel has no br_netfilter")
    attached(world, MAPPED)
    assert world.machine.ask("127.0.0.1", 8080) == GATEWAY4
    assert loopback_services_are_closed(world)


def test_the_setting_goes_with_the_last_port(world: World) -> None:
    attached(world, MAPPED)
    third = attachment(world.machine.pod("third"))
    world.node.add(mapped(mapping(8081, 80)), third)
    assert setting(world.machine) == "1"
    world.node.delete(MAPPED, attachment(world.server))
    assert setting(world.machine) == "1"
    assert filters(world.machine) != ""
    world.node.delete(mapped(mapping(8081, 80)), third)
    assert setting(world.machine) == "0"
    assert shown(world.machine, "tc", "-j", "qdisc", "show", "dev", "cni0", "ingress") == []


def test_one_bridge_loses_the_setting_while_another_keeps_it(world: World) -> None:
    attached(world, MAPPED)
    other = mapped(mapping(8081, 80), name="other", bridge="cni1", ipam=host_local([{"subnet": "10.5.0.0/24"}]))
    third = attachment(world.machine.pod("third"))
    world.node.add(other, third)
    assert (setting(world.machine), setting(world.machine, "cni1")) == ("1", "1")
    world.node.delete(MAPPED, attachment(world.server))
    assert (setting(world.machine), setting(world.machine, "cni1")) == ("0", "1")
    world.node.delete(other, third)
    assert setting(world.machine, "cni1") == "0"


def test_two_subnets_of_one_bridge_share_the_setting(world: World) -> None:
    attached(world, MAPPED)
    world.machine.run("ip", "address", "add", "10.5.0.1/24", "dev", "cni0")
    ipam = host_local([{"subnet": "10.5.0.0/24"}], routes=[{"dst": "0.0.0.0/0"}])
    other = mapped(mapping(8081, 80), name="other", isDefaultGateway=False, ipam=ipam)
    third = world.machine.pod("third")
    third.serve(80)
    world.node.add(other, attachment(third))
    world.node.delete(MAPPED, attachment(world.server))
    assert setting(world.machine) == "1"
    assert world.machine.ask("127.0.0.1", 8081) == "10.5.0.1"


def test_a_setting_of_the_administrators_stays(world: World) -> None:
    attached(world, mapped())
    world.machine.run("sysctl", "-qw", "net.ipv4.conf.cni0.route_localnet=1")
    third = attachment(world.machine.pod("third"))
    world.node.add(mapped(mapping(8081, 80)), third)
    world.node.delete(mapped(mapping(8081, 80)), third)
    assert setting(world.machine) == "1"
    assert filters(world.machine) == ""


def test_filters_of_others_on_the_bridge_stay(world: World) -> None:
    attached(world, mapped())
    world.machine.run("tc", "qdisc", "add", "dev", "cni0", "clsact")
    before = shown(world.machine, "tc", "-j", "qdisc", "show", "dev", "cni0")
    third = attachment(world.machine.pod("third"))
    world.node.add(mapped(mapping(8081, 80)), third)
    assert filters(world.machine) != ""
    world.node.delete(mapped(mapping(8081, 80)), third)
    assert filters(world.machine) == ""
    assert shown(world.machine, "tc", "-j", "qdisc", "show", "dev", "cni0") == before


@pytest.mark.parametrize("verb", ["DEL that is told nothing", "GC"])
def test_the_setting_goes_whatever_the_ports_are_released_by(world: World, verb: str) -> None:
    attached(world, MAPPED)
    if verb == "GC":
        world.node.call("GC", {**mapped(), "cni.dev/valid-attachments": []}).succeeded()
    else:
        world.server.run("ip", "link", "delete", "eth0")
        config = mapped()
        config.pop("runtimeConfig")
        world.node.call("DEL", config, attachment(world.server)).succeeded()
    assert setting(world.machine) == "0"


LIMITS: Json = {"bandwidth": {"egressRate": 10**8, "egressBurst": 10**6}}


def test_a_routed_neighbour_keeps_the_setting_when_the_others_port_is_collected(world: World) -> None:
    """Its link has the gateway's address alone, which no subnet of the containers is seen from."""
    attached(world, {**MAPPED, "mode": "routed"})
    world.node.add({**mapped(mapping(8081, 80)), "mode": "routed"}, attachment(world.machine.pod("third")))
    valid = [{"containerID": attachment(world.server).container, "ifname": "eth0"}]
    config = {**mapped(), "mode": "routed", "cni.dev/valid-attachments": valid}
    world.node.call("GC", config).succeeded()
    assert world.machine.ask("127.0.0.1", 8080) == GATEWAY4


def test_a_port_and_a_limit_live_together_behind_ptp(machine: Machine, node: Node) -> None:
    """In whatever order they are called. The host's end is left to the plugins that work on it; its setting goes."""
    pod = machine.pod("limited")
    pod.run("ip", "link", "set", "lo", "up")
    pod.serve(80)
    who = attachment(pod)
    result = node.add(network(type="ptp", ipam=host_local(IPV4)), who, program="ptp")
    runtime_config = {"portMappings": [mapping(8080, 80)], **LIMITS}
    before = whole(machine)
    for order in (("portmap", "bandwidth"), ("bandwidth", "portmap")):
        for program in order:
            config = network(type=program, runtimeConfig=runtime_config, prevResult=result)
            node.call("ADD", config, who, program=program).succeeded()
        for program in order:
            config = network(type=program, runtimeConfig=runtime_config, prevResult=result)
            assert node.call("CHECK", config, who, program=program).message == "", order
        assert machine.ask("127.0.0.1", 8080) == GATEWAY4
        for program in reversed(order):
            config = network(type=program, runtimeConfig=runtime_config, prevResult=result)
            node.call("DEL", config, who, program=program).succeeded()
        assert not [line for line in difference(before, whole(machine)) if "route_localnet" in line]
        for name in ("veth", "ingress"):
            machine.run("sh", "-c", f"tc qdisc del dev $(ip -br link | grep -o '^{name}[^@]*') ingress", check=False)
            machine.run("sh", "-c", "tc qdisc del dev $(ip -br link | grep -o '^veth[^@]*') root", check=False)


def test_behind_a_pair_of_others_rules_guard_and_come_back_with_the_next_port(world: World) -> None:
    """The place for filters of the host's end stays free: the reference bandwidth fails where it is taken."""
    for port, pod in ((8081, world.neighbour), (8080, world.server)):
        world.machine.run("nft", "flush", "ruleset")
        result = world.node.add(network(type="ptp", ipam=host_local(IPV4)), attachment(pod), program="ptp")
        runtime_config = {"portMappings": [mapping(port, 80)]}
        config = network(type="portmap", runtimeConfig=runtime_config, prevResult=result)
        world.node.call("ADD", config, attachment(pod), program="portmap").succeeded()
    assert not [qdisc for qdisc in shown(world.machine, "tc", "-j", "qdisc", "show") if qdisc["kind"] == "ingress"]
    assert world.machine.ask("127.0.0.1", 8080) == GATEWAY4
    assert loopback_services_are_closed(world)


def test_a_kernel_without_the_filter_says_so_and_maps_the_port(world: World) -> None:
    attached(world, mapped())
    world.machine.run("tc", "qdisc", "add", "dev", "cni0", "ingress")
    filter_arguments = ("protocol", "ip", "pref", "1", "u32", "match", "u32", "0", "0", "classid", "1:1")
    world.machine.run("tc", "filter", "add", "dev", "cni0", "ingress", *filter_arguments)
    third = world.machine.pod("third")
    third.serve(80)
    answer = world.node.call("ADD", mapped(mapping(8081, 80)), attachment(third)).succeeded()
    assert "no filter of traffic control keeps containers from 127.0.0.1" in answer.stderr
    with pytest.raises(MachineError):
        world.machine.ask("127.0.0.1", 8082, seconds=0.3)
    assert world.machine.ask("127.0.0.1", 8081) == GATEWAY4


def test_localhost_of_ipv6_is_refused_at_once_so_that_clients_turn_to_127_0_0_1(world: World) -> None:
    """The kernel would not route answers to ::1: a client that tries it first, for localhost, would hang."""
    attached(world, MAPPED)
    with pytest.raises(MachineError, match="refused"):
        world.machine.ask("::1", 8080)
    world.machine.serve(8080)
    assert world.machine.ask("::1", 8080) == "::1"
    assert world.machine.ask("127.0.0.1", 8080) == GATEWAY4


@pytest.mark.parametrize(("ip", "is_noted"), [("::1", True), ("::ffff:127.0.0.1", False), ("127.0.0.1", False)])
def test_a_port_of_the_ipv6_loopback_is_told_to_be_out_of_reach(world: World, ip: str, is_noted: bool) -> None:
    answer = world.node.call("ADD", mapped(mapping(8080, 80, ip=ip)), attachment(world.server)).succeeded()
    assert ("IPv6 has no route_localnet" in answer.stderr, "hostIP 127.0.0.1" in answer.stderr) == (is_noted, is_noted)
    if not is_noted:
        assert world.machine.ask("127.0.0.1", 8080) == GATEWAY4
    world.node.delete(mapped(mapping(8080, 80, ip=ip)), attachment(world.server))
