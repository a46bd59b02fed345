"""The plugin firewall behind bridge: what its policies accept, and whom they keep apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from cni.plan.forward_accept import CHAIN
from tests.netns.forwarding import (
    FIREWALLS,
    NEEDS_IPTABLES,
    ONE,
    OUTSIDE4,
    TWO,
    answers,
    drop,
    no_programs,
    paths,
    reaches,
    rules,
    settle,
    skip_detection,
)
from tests.netns.runtime import Attachment, Closed, attachment, host_local, network
from tests.netns.state import difference, link, whole

if TYPE_CHECKING:
    from tests.machine import Machine, Pod
    from tests.netns.forwarding import World
    from tests.netns.runtime import Json, Node


def firewalled(policy: str = "") -> Json:
    return network("fw", type="firewall", **({"ingressPolicy": policy} if policy else {}))


def chain_behind(node: Node, config: Json, who: Attachment, policy: str = "") -> Json:
    """Attaches by the plugins bridge and firewall; returns the configuration of firewall for other verbs."""
    result = node.add(config, who, program="bridge")
    called = {**firewalled(policy), "name": config["name"], "prevResult": result}
    assert node.call("ADD", called, who, program="firewall").succeeded().content == result
    return called


@pytest.mark.parametrize("firewall", FIREWALLS)
@pytest.mark.parametrize("policy", ["", "open", "same-bridge", "isolated"])
def test_firewall_accepts_as_much_as_its_policy_says(world: World, firewall: str, policy: str) -> None:
    """A container's connections pass, to other bridges under the policy open alone; new ones from outside do not."""
    drop(world.machine, firewall)
    for config, pod in zip((ONE, TWO), world.pods, strict=True):
        chain_behind(world.node, config, attachment(pod), policy)
    settle(world.machine)
    opened = policy in ("", "open")
    assert paths(world) == [True, True, False, False, opened, opened]


@NEEDS_IPTABLES
def test_what_came_through_a_host_port_is_no_new_connection(world: World) -> None:
    drop(world.machine, "iptables")
    chain_behind(world.node, ONE, attachment(world.pods[0]), "same-bridge")
    assert not reaches(world.outside, "192.0.2.1", 81)
    world.machine.run(
        "nft",
        "add table ip ports; add chain ip ports pre { type nat hook prerouting priority dstnat; };"
        " add rule ip ports pre tcp dport 81 dnat to 10.1.2.2:8080",
    )
    assert reaches(world.outside, "192.0.2.1", 81)
    assert not reaches(world.outside, "10.1.2.2")
    assert "--ctstate RELATED,ESTABLISHED,DNAT" in world.machine.run("iptables-nft", "-S").stdout


def test_firewall_checks_releases_and_collects(world: World) -> None:
    drop(world.machine, "inet")
    who = attachment(world.pods[0])
    called = chain_behind(world.node, ONE, who, "isolated")
    before = rules(world.machine)
    world.node.call("CHECK", called, who, program="firewall").succeeded()
    world.node.call("DEL", called, who, program="firewall").succeeded()
    world.node.call("DEL", firewalled("isolated"), who, program="firewall").succeeded()
    gc = {**firewalled("isolated"), "cni.dev/valid-attachments": []}
    world.node.call("GC", gc, program="firewall").succeeded()
    assert rules(world.machine) == before  # the bridge's and the subnet's
    for damage, word in (
        ("flush set inet podwire isolating", "br-one"),
        ("flush set inet podwire isolated", "br-one"),
        ("flush chain inet podwire isolation", "lost its rules"),
        (f"flush chain inet filter {CHAIN}", "chain forward of table inet filter"),
    ):
        world.machine.run("nft", damage)
        missed = world.node.call("CHECK", called, who, program="firewall")
        assert (missed.code, word in missed.message) == (101, True), damage
        world.node.call("ADD", called, who, program="firewall").succeeded()
        world.node.call("CHECK", called, who, program="firewall").succeeded()


@pytest.mark.parametrize("policy", ["same-bridge", "isolated"])
@pytest.mark.parametrize(
    ("result", "word"),
    [
        ({"ips": [{"address": "10.1.2.3/24"}]}, "no host interface"),
        ({"interfaces": [{"name": "eth0", "sandbox": "/run/netns/x"}]}, "no host interface"),
        ({"interfaces": [{"name": ""}]}, "no host interface"),
        ({"interfaces": [{"name": "much-too-long-for-a-name"}]}, "too long"),
    ],
)
def test_isolation_needs_a_bridge(machine: Machine, node: Node, policy: str, result: Json, word: str) -> None:
    called = {**firewalled(policy), "prevResult": {"cniVersion": "1.1.0", **result}}
    answer = node.call("ADD", called, attachment(machine.pod()), program="firewall")
    assert answer.code == 7
    assert "prevResult.interfaces" in answer.message
    assert word in answer.message


def test_firewall_says_what_is_wrong_and_nothing_else(machine: Machine, node: Node) -> None:
    who = attachment(machine.pod())
    answer = node.call("ADD", {**firewalled("closed"), "backend": "x"}, who, program="firewall")
    assert answer.code == 7
    assert "ingressPolicy: " in answer.message
    assert "backend: " in answer.message
    result = node.add(ONE, who)
    called = {**firewalled(), "prevResult": result, "backend": "iptables", "iptablesadminchainname": "ADMIN"}
    assert node.call("ADD", called, who, program="firewall").succeeded().stderr == ""
    assert node.call("DEL", called, who, program="firewall").succeeded().stderr == ""


# --- Isolation


class Street(NamedTuple):
    """Two containers on one bridge, one each on two others; the last of them does not isolate."""

    first: Pod
    second: Pod
    beyond: Pod
    stranger: Pod


def street(machine: Machine, node: Node, policy: str) -> Street:
    skip_detection(machine)
    pods = Street(*[machine.pod(name) for name in Street._fields])
    free = network("free", bridge="br-free", isDefaultGateway=True, ipam=host_local([{"subnet": "10.7.0.0/24"}]))
    for pod, config in zip(pods, (ONE, ONE, TWO, free), strict=True):
        pod.serve(8080)
        chain_behind(node, config, attachment(pod), "" if config is free else policy)
    settle(machine)
    return pods


@pytest.mark.parametrize("filtering", [False, True], ids=["frames", "br_netfilter"])
@pytest.mark.parametrize("policy", ["open", "same-bridge", "isolated"])
def test_who_is_kept_from_whom(machine: Machine, node: Node, policy: str, filtering: bool) -> None:
    key = "net.bridge.bridge-nf-call-iptables"
    if machine.run("sysctl", "-qw", f"{key}={int(filtering)}", check=False).returncode and filtering:
        pytest.skip("br_netfilter is not loaded")
    outside = machine.outside()
    outside.serve(8080)
    outside.run("ip", "route", "add", "default", "via", "192.0.2.1")
    first, _, beyond, stranger = street(machine, node, policy)
    ways: dict[str, tuple[Pod, str]] = {
        "a neighbour": (first, "10.1.2.3"),
        "a neighbour by IPv6": (first, "2001:db8:1::3"),
        "another bridge that isolates": (first, "10.5.0.2"),
        "and back": (beyond, "10.1.2.2"),
        "and back by IPv6": (beyond, "2001:db8:1::2"),
        "one that does not": (first, "10.7.0.2"),
        "from there": (stranger, "10.1.2.2"),
        "outside": (first, OUTSIDE4),
        "from outside": (outside, "10.1.2.2"),
    }
    talk = dict(zip(ways, answers(machine, *ways.values()), strict=True))
    apart = {
        "open": set(),
        "same-bridge": {"another bridge that isolates", "and back", "and back by IPv6"},
    }
    apart["isolated"] = apart["same-bridge"] | {"a neighbour", "a neighbour by IPv6"}
    assert {name for name, passes in talk.items() if not passes} == apart[policy]


def test_isolated_containers_still_know_their_gateway(machine: Machine, node: Node) -> None:
    first = street(machine, node, "isolated").first
    machine.serve(8081)
    assert reaches(first, "10.1.2.1", 8081)
    assert reaches(first, "2001:db8:1::1", 8081)


@pytest.mark.parametrize("order", [("same-bridge", "isolated"), ("isolated", "same-bridge")])
def test_the_stricter_of_two_policies_of_a_bridge_counts(machine: Machine, node: Node, order: tuple[str, str]) -> None:
    first, second = machine.pod(), machine.pod()
    second.serve(8080)
    for pod, policy in zip((first, second), order, strict=True):
        chain_behind(node, ONE, attachment(pod), policy)
    assert not reaches(first, "10.1.2.3")


def disowned(machine: Machine, result: Json) -> Json:
    """Lets the host's interface look like another plugin's: then nobody is attached, and what is shared may go."""
    machine.run("ip", "link", "set", result["interfaces"][1]["name"], "alias", "another's")
    return result


@pytest.mark.parametrize("others", [0, 1])
def test_a_failed_isolation_leaves_only_what_others_may_rely_on(machine: Machine, node: Node, others: int) -> None:
    """Nothing tells which containers of a bridge it isolates."""
    for _ in range(others):
        disowned(machine, chain_behind(node, TWO, attachment(machine.pod()), "isolated")["prevResult"])
    who = attachment(machine.pod())
    result = disowned(machine, node.add(ONE, who, program="bridge"))
    before = whole(machine)
    called = {**firewalled("isolated"), "prevResult": result}
    assert node.call("ADD", called, who, program="firewall", stdout=Closed()).status == 1
    left = difference(before, whole(machine))
    shared = ("+ element inet podwire", "+ chain", "+ rule", "+ set", "+ table")
    assert [line for line in left if not line.startswith(shared)] == []
    assert [line for line in left if "container" in line] == []


def test_a_port_is_isolated_and_stays_what_else_it_is(machine: Machine, node: Node) -> None:
    who = attachment(machine.pod())
    called = chain_behind(node, {**ONE, "hairpinMode": True}, who, "isolated")
    port = called["prevResult"]["interfaces"][1]["name"]
    port_data = link(machine, port)["linkinfo"]["info_slave_data"]
    assert (port_data["hairpin"], port_data["isolated"]) == (True, True)
    machine.run("bridge", "link", "set", "dev", port, "isolated", "off")
    missed = node.call("CHECK", called, who, program="firewall")
    assert (missed.code, f"{port} is not an isolated port" in missed.message) == (101, True)


def _always_absent() -> None:
    """As if another container of the bridge added its elements between question and answer."""
    from cni.effects.nft_socket import Nft

    Nft.find = lambda *_: None  # type: ignore[method-assign]


def test_two_containers_of_a_bridge_may_come_together(machine: Machine, node: Node) -> None:
    called = chain_behind(node, ONE, attachment(machine.pod()), "isolated")
    before = rules(machine)
    who = attachment(machine.pod())
    node.call("ADD", called, who, program="firewall", prepare=_always_absent).succeeded()
    assert rules(machine) == before


def test_a_second_container_runs_no_program_for_its_isolation(machine: Machine, node: Node) -> None:
    chain_behind(node, ONE, attachment(machine.pod()), "isolated")
    before = rules(machine)
    who = attachment(machine.pod())
    called = {**firewalled("isolated"), "prevResult": node.add(ONE, who)}
    node.call("ADD", called, who, program="firewall", prepare=no_programs).succeeded()
    assert rules(machine) == before
