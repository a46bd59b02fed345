"""Hosts where firewalld runs: containers' addresses are in the zone that lets them through, while they live."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.machine import MachineError, until
from tests.netns import firewalld
from tests.netns.runtime import DUAL, attachment, network

if TYPE_CHECKING:
    from tests.machine import Machine
    from tests.netns.runtime import Answer, Attachment, Json, Node

pytestmark = firewalld.NEEDS_FIREWALLD

CHAIN = network("net", type="bridge", isDefaultGateway=True, ipMasq=True, ipam=DUAL)
OURS = ["10.1.2.2/32", "2001:db8:1::2/128"]


def call(node: Node, verb: str, result: Json, who: Attachment, **request: object) -> Answer:
    config = network("net", type="firewall", prevResult=result) | request
    return node.call(verb, config, who, program="firewall")


def passes(machine: Machine, who: Attachment) -> bool:
    try:
        return machine.pods[who.container].ask("192.0.2.2", 80, seconds=1) == "192.0.2.1"
    except MachineError:
        return False


def test_a_container_is_in_the_zone_while_it_lives(machine: Machine, node: Node) -> None:
    """Tries all verbs with one firewalld, since its start takes seconds."""
    machine.outside().serve(80)
    firewalld.start(machine)
    who = attachment(machine.pod())
    result = node.add(CHAIN, who, program="bridge")
    assert not passes(machine, who)

    call(node, "ADD", result, who).succeeded()
    assert firewalld.sources(machine) == OURS
    assert until(lambda: passes(machine, who), "the zone's rules are the container's")
    assert call(node, "CHECK", result, who).message == ""
    call(node, "ADD", result, who).succeeded()  # ZONE_ALREADY_SET

    firewalld.zones(machine, "removeSource", "trusted", OURS[0])
    assert f"{OURS[0]} is not a source of firewalld's zone trusted" in call(node, "CHECK", result, who).message
    call(node, "DEL", result, who).succeeded()  # UNKNOWN_SOURCE
    assert firewalld.sources(machine) == []
    call(node, "DEL", result, who).succeeded()

    call(node, "ADD", result, who, firewalldZone="internal").succeeded()
    assert (firewalld.sources(machine), firewalld.sources(machine, "internal")) == ([], OURS)
    conflict = call(node, "ADD", result, who, firewalldZone="public")
    assert (conflict.code, "ZONE_CONFLICT" in conflict.message) == (100, True)
    call(node, "DEL", result, who, firewalldZone="internal").succeeded()
    assert firewalld.sources(machine, "internal") == []

    missing = call(node, "ADD", result, who, firewalldZone="nowhere")
    assert (missing.code, "INVALID_ZONE" in missing.message) == (100, True)

    firewalld.zones(machine, "addSource", "trusted", OURS[0])
    firewalld.zones(machine, "addSource", "internal", OURS[1])
    assert "ZONE_CONFLICT" in call(node, "ADD", result, who).message
    assert firewalld.sources(machine) == OURS[:1]  # rollback leaves what was there before
    call(node, "DEL", result, who, firewalldZone="nowhere").succeeded()
    call(node, "DEL", result, who, firewalldZone="internal").succeeded()  # one of both is in another zone by now
    assert (firewalld.sources(machine), firewalld.sources(machine, "internal")) == (OURS[:1], [])
    call(node, "DEL", result, who).succeeded()

    call(node, "ADD", result, who, backend="iptables").succeeded()
    assert firewalld.sources(machine) == []
    assert call(node, "STATUS", result, who, backend="firewalld").message == ""


@pytest.mark.parametrize("bus", ["none", "one without firewalld"])
def test_a_host_without_firewalld_needs_none(machine: Machine, node: Node, bus: str) -> None:
    if bus != "none":
        firewalld.start_bus(machine)
    who = attachment(machine.pod())
    result = node.add(CHAIN, who, program="bridge")
    for verb in ("ADD", "CHECK", "DEL"):
        assert call(node, verb, result, who).message == "", verb
    asked = call(node, "ADD", result, who, backend="firewalld")
    assert asked.code == 100
    assert "D-Bus" in asked.message or "firewalld" in asked.message
    status = call(node, "STATUS", result, who, backend="firewalld")
    assert (status.code, "firewalld: not running" in status.message) == (50, True)
    call(node, "DEL", result, who, backend="firewalld").succeeded()


def test_podwire_alone_names_the_remedy_and_is_served_by_either(machine: Machine, node: Node) -> None:
    """A plain ADD asks nothing of firewalld: its zones are the administrator's, or the plugin firewall's business."""
    machine.outside().serve(80)
    firewalld.start(machine)
    who = attachment(machine.pod())
    config = CHAIN | {"type": "podwire"}
    result = node.add(config, who)
    status = node.call("STATUS", config)
    assert status.code == 50
    assert "table inet firewalld rejects what is forwarded" in status.message
    assert "firewall-cmd --zone=trusted --add-source=SUBNET" in status.message
    assert not passes(machine, who)

    call(node, "ADD", result, who).succeeded()
    assert until(lambda: passes(machine, who), "the chained firewall has asked")
    call(node, "DEL", result, who).succeeded()
    assert until(lambda: not passes(machine, who), "the zone is left")

    for subnet in ("10.1.2.0/24", "2001:db8:1::/64"):
        machine.run("firewall-cmd", "--zone=trusted", f"--add-source={subnet}", env={"PATH": firewalld.PATH})
    assert until(lambda: passes(machine, who), "the administrator has asked")
    assert node.call("STATUS", config).message == ""
