"""One container on two networks with the same host ports, as Docker Compose publishes them: once for each network."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.machine import MachineError
from tests.netns.runtime import AnsweredError, attachment, host_local, network
from tests.netns.state import difference, elements, owners, whole
from tests.netns.test_portmap import (
    NODE4,
    NODE6,
    OUTSIDE4,
    OUTSIDE6,
    Flow,
    answering,
    mapping,
)

if TYPE_CHECKING:
    from tests.machine import Machine, Pod
    from tests.netns.runtime import Attachment, Json, Node


def on(name: str, *mappings: Json, **settings: object) -> Json:
    """Returns network `name` (front or back) with these ports."""
    number = {"front": 1, "back": 2}[name]
    ranges = [{"subnet": f"10.{number}.0.0/24"}], [{"subnet": f"2001:db8:{number}0::/64"}]
    config = {
        "capabilities": {"portMappings": True},
        "bridge": name,
        "ipMasq": True,
        "isDefaultGateway": True,
        "ipam": host_local(*ranges),
    }
    return network(name, **{**config, "runtimeConfig": {"portMappings": list(mappings)}, **settings})


class World(NamedTuple):
    """A host behind a wire, and a pod that serves at port 80; both networks lead back from it."""

    machine: Machine
    node: Node
    outside: Pod
    web: Pod


@pytest.fixture
def world(machine: Machine, node: Node) -> World:
    outside = machine.outside()
    web = machine.pod("web")
    web.run("ip", "link", "set", "lo", "up")
    web.serve(80)
    return World(machine, node, outside, web)


def answers(world: World, host: str = NODE4, port: int = 8080) -> bool:
    try:
        return world.outside.ask(host, port, seconds=0.5) in (OUTSIDE4, OUTSIDE6)
    except MachineError:
        return False


WHOLE, PART4, PART6 = mapping(8080, 80), mapping(8080, 80, ip=NODE4), mapping(8080, 80, ip=NODE6)
FRONT, BACK = on("front", WHOLE), on("back", WHOLE)


def both(world: World) -> tuple[Attachment, Attachment]:
    """Returns the pod's attachments: to front by eth0, to back by eth1."""
    return attachment(world.web), attachment(world.web, "eth1")


@pytest.mark.parametrize("mode", ["bridged", "routed"])
@pytest.mark.parametrize(("mapped", "hosts"), [(WHOLE, (NODE4, NODE6)), (PART4, (NODE4,)), (PART6, (NODE6,))])
def test_a_port_lives_until_the_last_attachment_is_gone(
    world: World, mapped: Json, hosts: tuple[str, ...], mode: str
) -> None:
    front, back = both(world)
    configs = on("front", mapped, mode=mode), on("back", mapped, mode=mode)
    for config, attached in zip(configs, (front, back), strict=True):
        world.node.add(config, attached)
        assert world.node.check(config, attached).message == ""
    assert [answers(world, host) for host in hosts] == [True for _ in hosts]
    world.node.delete(configs[1], back)
    assert [answers(world, host) for host in hosts] == [True for _ in hosts]
    world.node.add(configs[1], back)
    world.node.delete(configs[0], front)
    assert world.node.check(configs[1], back).message == ""
    assert [answers(world, host) for host in hosts] == [True for _ in hosts]
    world.node.delete(configs[1], back)
    assert [answers(world, host) for host in hosts] == [False for _ in hosts]
    assert elements(world.machine) == {}


def test_every_address_and_one_address_may_be_of_two_attachments(world: World) -> None:
    front, back = both(world)
    world.node.add(FRONT, front)
    world.node.add(on("back", PART4), back)
    world.node.delete(FRONT, front)
    assert (answers(world, NODE4), answers(world, NODE6)) == (True, False)


def test_another_container_still_has_to_choose_another_port(world: World) -> None:
    front, back = both(world)
    world.node.add(FRONT, front)
    world.node.add(BACK, back)
    other = attachment(world.machine.pod("other"))
    before = whole(world.machine)
    for name, holder in (("front", "front/web/eth0"), ("back", "back/web/eth1")):
        with pytest.raises(AnsweredError) as refused:
            world.node.add(on("back", WHOLE), other)
        assert f"8080 is taken by {holder} " in refused.value.message
        assert difference(before, whole(world.machine)) == []
        if name == "front":
            world.node.delete(FRONT, front)
            before = whole(world.machine)
    world.node.delete(BACK, back)
    world.node.add(on("back", WHOLE), other)


def test_a_container_whose_first_attachment_died_keeps_the_port_by_the_second(world: World) -> None:
    front, back = both(world)
    world.node.add(FRONT, front)
    world.node.add(BACK, back)
    world.web.run("ip", "link", "delete", "eth0")
    world.machine.wait_for_links("lo", "uplink", "front", "back", *_host_ends(world.machine))
    with pytest.raises(AnsweredError) as refused:
        world.node.add(FRONT, attachment(world.machine.pod("other")))
    assert "8080 is taken by back/web/eth1 " in refused.value.message
    assert answers(world)


def _host_ends(machine: Machine) -> list[str]:
    return [name for name, owner in owners(machine).items() if owner == "web/eth1"]


def test_conditions_are_those_of_the_attachment_that_holds_the_port(world: World) -> None:
    front, back = both(world)
    closed = {"conditionsV4": ["ip", "saddr", "203.0.113.0/24"]}
    configs = on("front", WHOLE), on("back", WHOLE, **closed)
    world.node.add(configs[0], front)
    world.node.add(configs[1], back)
    assert world.node.check(configs[1], back).message == ""
    assert answers(world)
    world.node.delete(configs[0], front)
    assert world.node.check(configs[1], back).message == ""
    assert not answers(world)
    world.node.add(configs[0], front)
    world.node.delete(configs[1], back)
    assert answers(world)
    world.node.delete(configs[0], front)
    assert elements(world.machine) == {}


def test_a_collection_hands_the_port_to_what_is_valid(world: World) -> None:
    front, back = both(world)
    world.node.add(FRONT, front)
    world.node.add(BACK, back)
    world.node.call("GC", {**on("front"), "cni.dev/valid-attachments": []}).succeeded()
    assert answers(world)
    assert world.node.check(BACK, back).message == ""
    world.node.call("GC", {**on("back"), "cni.dev/valid-attachments": []}).succeeded()
    assert elements(world.machine) == {}


@pytest.mark.parametrize("known", ["everything", "nothing"])
def test_a_delete_hands_on_whatever_it_is_told(world: World, known: str) -> None:
    front, back = both(world)
    world.node.add(FRONT, front)
    world.node.add(BACK, back)
    world.web.run("ip", "link", "delete", "eth0")
    if known == "nothing":
        config = on("front")
        config.pop("runtimeConfig")
        world.node.call("DEL", config, front).succeeded()
    else:
        world.node.delete(FRONT, front)
    assert answers(world)
    assert world.node.check(BACK, back).message == ""


@pytest.mark.parametrize("flush", ["flush ruleset", "flush table inet podwire", "delete table inet podwire"])
def test_what_was_flushed_comes_back_for_both(world: World, flush: str) -> None:
    front, back = both(world)
    world.node.add(FRONT, front)
    world.node.add(BACK, back)
    world.machine.run("nft", *flush.split())
    world.node.add(on("front", mapping(8081, 80)), attachment(world.machine.pod("other")))
    checks = [world.node.check(config, attached).message for config, attached in ((FRONT, front), (BACK, back))]
    assert [text for text in checks if "port" in text] == []
    world.node.delete(FRONT, front)
    assert answers(world)


def test_a_failed_add_leaves_the_port_with_its_holder(world: World) -> None:
    front, back = both(world)
    world.node.add(FRONT, front)
    other = attachment(world.machine.pod("other"))
    world.node.add(on("front", mapping(9000, 80)), other)
    before = elements(world.machine)
    with pytest.raises(AnsweredError):
        world.node.add(on("back", WHOLE, mapping(9000, 80)), back)
    assert elements(world.machine) == before
    assert answers(world)


def test_a_udp_flow_follows_the_port_to_the_other_attachment(world: World) -> None:
    front, back = both(world)
    dns = mapping(53, 53, "udp")
    answering(world.web)
    world.node.add(on("front", dns), front)
    flow = Flow(world.outside, NODE4, 53)
    seen = [flow.ask()]
    world.node.add(on("back", dns), back)
    world.node.delete(on("front", dns), front)
    seen.append(flow.ask())
    flow.end()
    assert seen == ["web", "web"]


def test_the_chained_plugin_serves_both_networks(world: World) -> None:
    front, back = both(world)
    results = []
    for name, attached in (("front", front), ("back", back)):
        bridge = {key: value for key, value in on(name).items() if key != "runtimeConfig"} | {"type": "bridge"}
        results.append(world.node.add(bridge, attached, program="bridge"))
        portmap = network(name, type="portmap", runtimeConfig={"portMappings": [WHOLE]}, prevResult=results[-1])
        world.node.call("ADD", portmap, attached, program="portmap").succeeded()
        assert world.node.call("CHECK", portmap, attached, program="portmap").message == ""
    config = network("front", type="portmap", runtimeConfig={"portMappings": [WHOLE]}, prevResult=results[0])
    world.node.call("DEL", config, front, program="portmap").succeeded()
    world.node.call("DEL", on("front"), front, program="bridge").succeeded()
    assert answers(world)
    config = network("back", type="portmap")
    world.node.call("DEL", config, back, program="portmap").succeeded()
    assert [key for key in elements(world.machine) if "hostports" in key] == []
