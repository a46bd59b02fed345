"""The administrator's chain of iptables, which firewall has asked before all others wherever it exists."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.netns.forwarding import (
    NEEDS_IPTABLES,
    ONE,
    OUTSIDE4,
    OUTSIDE6,
    SUBNETS,
    TWO,
    crossing,
    drop,
    paths,
    rules,
    settle,
)
from tests.netns.runtime import attachment
from tests.netns.test_firewall import chain_behind

if TYPE_CHECKING:
    from tests.machine import Machine
    from tests.netns.forwarding import World
    from tests.netns.runtime import Json, Node

pytestmark = NEEDS_IPTABLES

PROGRAMS = {"iptables-nft": (SUBNETS[0], OUTSIDE4), "ip6tables-nft": (SUBNETS[2], OUTSIDE6)}
ADMIN = "CNI-ADMIN"


@pytest.fixture
def world(machine: Machine, node: Node) -> World:
    return crossing(machine, node)


def write(machine: Machine, verdict: str, *, outbound: bool, chain: str = ADMIN) -> None:
    """As a person would: the first container's subnet and the host outside, from one to the other."""
    for program, (subnet, outside) in PROGRAMS.items():
        source, destination = (subnet, outside) if outbound else (outside, subnet)
        machine.run(program, "-N", chain)
        machine.run(program, "-A", chain, "-s", source, "-d", destination, "-j", verdict)


def attach(world: World, **settings: str) -> list[Json]:
    """Attaches both; returns firewall's configuration for other verbs."""
    notices = []
    for config, pod in zip((ONE, TWO), world.pods, strict=True):
        called = chain_behind(world.node, config, attachment(pod)) | settings
        world.node.call("ADD", called, attachment(pod), program="firewall").succeeded()
        notices.append(called)
    settle(world.machine)
    return notices


def jumps(machine: Machine, chain: str = ADMIN) -> list[str]:
    return [line for line in machine.run("iptables-nft", "-S").stdout.splitlines() if line.endswith(f"-j {chain}")]


@pytest.mark.parametrize("dropping", [False, True])
def test_what_the_chain_drops_is_dropped(world: World, dropping: bool) -> None:
    """Also where the host forwards everything, and has no chain FORWARD yet; answers are dropped as well."""
    if dropping:
        drop(world.machine, "iptables")
    write(world.machine, "DROP", outbound=True)
    attach(world)
    assert paths(world) == [False, False, False, False, True, True]


def test_what_the_chain_accepts_is_accepted(world: World) -> None:
    """The plugin itself accepts nothing that is new from outside."""
    drop(world.machine, "iptables")
    write(world.machine, "ACCEPT", outbound=False)
    attach(world)
    assert paths(world) == [True, True, True, True, True, True]


def test_it_comes_before_the_rules_of_others_and_once(world: World) -> None:
    world.machine.run("iptables-nft", "-A", "FORWARD", "-j", "ACCEPT")
    write(world.machine, "DROP", outbound=True)
    attach(world)
    listed = world.machine.run("iptables-nft", "-S", "FORWARD").stdout.splitlines()
    jump = f'-A FORWARD -m comment --comment "podwire: asked first" -j {ADMIN}'
    assert listed == ["-P FORWARD ACCEPT", jump, "-A FORWARD -j ACCEPT"]
    world.machine.run("iptables-nft", "-D", "FORWARD", "1")
    assert jumps(world.machine) == []


def test_the_chain_may_have_another_name(world: World) -> None:
    write(world.machine, "DROP", outbound=True, chain="NOMAD-ADMIN")
    write(world.machine, "DROP", outbound=False)
    attach(world, iptablesAdminChainName="NOMAD-ADMIN")
    assert len(jumps(world.machine, "NOMAD-ADMIN")) == 1


@pytest.mark.parametrize("through", ["", "CNI-FORWARD"])
def test_who_leads_to_the_chain_already_is_believed(world: World, through: str) -> None:
    """An administrator's own rule, and what the reference has made."""
    write(world.machine, "DROP", outbound=True)
    if through:
        world.machine.run("iptables-nft", "-N", through)
        world.machine.run("iptables-nft", "-I", "FORWARD", "-j", through)
    world.machine.run("iptables-nft", "-A", through or "FORWARD", "-j", ADMIN)
    before = jumps(world.machine)
    attach(world)
    assert jumps(world.machine) == before


def test_it_is_checked_and_stays(world: World) -> None:
    write(world.machine, "DROP", outbound=True)
    called, _ = attach(world)
    who = attachment(world.pods[0])
    world.node.call("CHECK", called, who, program="firewall").succeeded()
    before = rules(world.machine)
    world.node.call("DEL", called, who, program="firewall").succeeded()
    assert rules(world.machine) == before
    world.machine.run("iptables-nft", "-F", "FORWARD")
    missed = world.node.call("CHECK", called, who, program="firewall")
    assert (missed.code, f"chain FORWARD of table ip filter does not lead to {ADMIN}" in missed.message) == (101, True)


def test_without_such_a_chain_nothing_is_made(world: World) -> None:
    world.machine.run("iptables-nft", "-N", "DOCKER-USER")
    before = rules(world.machine)
    attach(world)
    assert rules(world.machine) == before


def test_a_chain_that_cannot_be_asked_is_named(world: World) -> None:
    """FORWARD itself is one that no rule may lead to: what an administrator has forbidden must not pass unnoticed."""
    drop(world.machine, "iptables")
    called = chain_behind(world.node, ONE, attachment(world.pods[0])) | {"iptablesAdminChainName": "FORWARD"}
    refused = world.node.call("ADD", called, attachment(world.pods[0]), program="firewall")
    assert refused.code == 100
    assert "iptables -I FORWARD -j FORWARD" in refused.message
