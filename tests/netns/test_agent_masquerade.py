"""podwired's rules on the real kernel: what they masquerade, and that they are whole or made so at once."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cni.agent.node import masquerade
from cni.agent.node.masquerade import Rules
from cni.effects import host as kernel
from cni.plan.forward_accept import CHAIN
from cni.protocol.address import parse_net
from tests.netns.forwarding import FIREWALLS, OUTSIDE4, OUTSIDE6, drop, no_programs, reaches, rules

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.machine import Machine, Pod

NETWORKS = parse_net("10.5.0.0/16"), parse_net("fd00:5::/56")
SPACES = ((NETWORKS[0], parse_net("10.5.1.0/24")), (NETWORKS[1], parse_net("fd00:5:0:1::/64")))
RULES = Rules("podwired", SPACES, masquerades=True, fully_random=True, forwards=True)
NOT_WHOLE = ["table inet podwired was incomplete"]
FOREIGN = "add table inet theirs; add chain inet theirs mine; add rule inet theirs mine accept"


def on(act: Callable[[kernel.Host], list[str] | None]) -> list[str]:
    """Inside: acts on the machine, and gives what was done and what people were told."""
    arguments: list[str] = []
    host = kernel.Host(os.environ, arguments.append)
    try:
        return [*(act(host) or ()), *arguments]
    finally:
        host.close()


def ensured(machine: Machine, wanted: Rules = RULES, *, by: Callable[[], None] = lambda: None) -> list[str]:
    def act(host: kernel.Host) -> list[str]:
        by()
        return masquerade.ensure(host, wanted) + masquerade.ensure_forward_accept(host, wanted)

    return machine.call(lambda: on(act))


def removed(machine: Machine) -> list[str]:
    return machine.call(lambda: on(lambda host: masquerade.remove(host, "podwired", NETWORKS)))


class Cluster:
    """A node with a pod, behind a wire a machine that is another node's pod as well as no member of the cluster."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.outside, self.pod = machine, machine.outside(), machine.pod()
        machine.run("ip", "link", "add", "pair", "type", "veth", "peer", "name", "eth0", "netns", self.pod.name)
        machine.run("sysctl", "-q", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        self._pinned(machine.run, "pair", "10.5.1.1/24", "fd00:5:0:1::1/64")
        self._pinned(self.pod.run, "eth0", "10.5.1.2/24", "fd00:5:0:1::2/64")
        self._pinned(self.outside.run, "eth0", "10.5.2.2/32", "fd00:5:0:2::2/128")
        for family, near, unreachable, other, network in (
            (4, "10.5.1.1", "192.0.2.1", "192.0.2.2", "10.5.{}.0/24"),
            (6, "fd00:5:0:1::1", "2001:db8:2::1", "2001:db8:2::2", "fd00:5:0:{}::/64"),
        ):
            self.pod.run("ip", f"-{family}", "route", "add", "default", "via", near)
            self.outside.run("ip", f"-{family}", "route", "add", network.format(1), "via", unreachable, "src", other)
            machine.run("ip", f"-{family}", "route", "add", network.format(2), "via", other)
        self.pod.serve(8080)
        self.outside.serve(8080)

    @staticmethod
    def _pinned(run: Callable[..., object], link: str, *addresses: str) -> None:
        run("ip", "link", "set", link, "up")
        for address in addresses:
            run("ip", "address", "add", address, "dev", link, *(["nodad"] if ":" in address else []))


@pytest.fixture
def cluster(machine: Machine) -> Cluster:
    return Cluster(machine)


def seen(asking: Pod, *addresses: str) -> list[str]:
    return [asking.ask(address, 8080) for address in addresses]


OWN, PEER = ("10.5.1.2", "fd00:5:0:1::2"), ("10.5.2.2", "fd00:5:0:2::2")
NODE, OUTSIDE = ("192.0.2.1", "2001:db8:2::1"), (OUTSIDE4, OUTSIDE6)


@pytest.mark.parametrize("fully_random", [True, False])
def test_pods_keep_their_address_within_the_cluster_and_take_the_nodes_beyond(
    cluster: Cluster, *, fully_random: bool
) -> None:
    assert ensured(cluster.machine, RULES._replace(fully_random=fully_random)) == NOT_WHOLE
    assert seen(cluster.pod, *OUTSIDE) == [*NODE]
    assert seen(cluster.pod, *PEER) == [*OWN]
    assert ("fully-random" in rules(cluster.machine)) is fully_random


def test_who_calls_a_pod_keeps_his_address(cluster: Cluster) -> None:
    ensured(cluster.machine)
    assert seen(cluster.outside, *OWN) == [*OUTSIDE]


def test_what_kube_proxy_has_marked_is_its_own_to_masquerade(cluster: Cluster) -> None:
    ensured(cluster.machine)
    hook = "{ type filter hook prerouting priority mangle; }"
    rule = "add rule inet proxy marking iifname pair meta mark set 0x4008"
    cluster.machine.run("nft", f"add table inet proxy; add chain inet proxy marking {hook}; {rule}")
    assert seen(cluster.pod, OUTSIDE4, *PEER) == [OWN[0], *OWN]


def test_without_masquerading_there_is_no_table(cluster: Cluster) -> None:
    bare = RULES._replace(masquerades=False)
    before = rules(cluster.machine)
    assert ensured(cluster.machine, bare) == []
    assert rules(cluster.machine) == before
    assert seen(cluster.pod, OUTSIDE4) == [OWN[0]]
    ensured(cluster.machine)
    assert ensured(cluster.machine, bare) == NOT_WHOLE
    assert rules(cluster.machine) == before


def test_rules_that_are_whole_are_left_alone(machine: Machine) -> None:
    ensured(machine)
    before = machine.run("nft", "-a", "list", "ruleset").stdout
    assert ensured(machine, by=no_programs) == []
    assert machine.run("nft", "-a", "list", "ruleset").stdout == before
    assert "masquerade fully-random" in before


@pytest.mark.parametrize(
    "spoil",
    [
        "flush ruleset",
        "delete table inet podwired",
        "flush table inet podwired",
        "flush chain inet podwired postrouting",
        "insert rule inet podwired postrouting accept",
        "add rule inet podwired postrouting ip saddr 10.5.0.0/16 masquerade",
        "add chain inet podwired other; add rule inet podwired other accept",
    ],
)
def test_rules_that_are_not_whole_are_made_anew(machine: Machine, spoil: str) -> None:
    ensured(machine)
    before = rules(machine)
    machine.run("nft", spoil)
    assert rules(machine) != before
    assert ensured(machine) == NOT_WHOLE
    assert rules(machine) == before


def test_one_rule_that_is_missing_is_noticed(machine: Machine) -> None:
    ensured(machine)
    before = rules(machine)
    listed = machine.run("nft", "-a", "list", "chain", "inet", "podwired", "postrouting").stdout
    handle = next(line for line in listed.splitlines() if "224.0.0.0/4" in line).rpartition(" ")[2]
    machine.run("nft", "delete", "rule", "inet", "podwired", "postrouting", "handle", handle)
    assert ensured(machine) == NOT_WHOLE
    assert rules(machine) == before


@pytest.mark.parametrize(
    "other",
    [
        RULES._replace(fully_random=False),
        RULES._replace(spaces=SPACES[:1]),
        RULES._replace(spaces=((NETWORKS[0], parse_net("10.5.9.0/24")), SPACES[1])),
    ],
)
def test_rules_of_another_network_replace_the_former(machine: Machine, other: Rules) -> None:
    ensured(machine, other)
    alone = rules(machine)
    ensured(machine)
    assert ensured(machine, other) == NOT_WHOLE
    assert rules(machine) == alone
    assert ensured(machine, other) == []


@pytest.mark.parametrize("backend", FIREWALLS)
def test_a_firewall_that_drops_what_is_forwarded_lets_pods_pass(cluster: Cluster, backend: str) -> None:
    ensured(cluster.machine, RULES._replace(forwards=False))
    drop(cluster.machine, backend)
    assert not reaches(cluster.pod, OUTSIDE4)
    assert not reaches(cluster.outside, OWN[1])
    assert len(ensured(cluster.machine)) == 1
    assert seen(cluster.pod, *OUTSIDE) == [*NODE]
    assert seen(cluster.outside, *OWN) == [*OUTSIDE]
    before = rules(cluster.machine)
    assert ensured(cluster.machine, by=no_programs) == []
    assert rules(cluster.machine) == before


@pytest.mark.parametrize("backend", FIREWALLS)
def test_what_is_removed_is_gone_and_what_others_made_stays(machine: Machine, backend: str) -> None:
    machine.run("nft", FOREIGN)
    drop(machine, backend)
    before = rules(machine)
    ensured(machine)
    assert removed(machine) == []
    left = rules(machine)
    assert "podwired" not in left
    assert left == before
    assert removed(machine) == []
    assert rules(machine) == left


@pytest.mark.parametrize("backend", FIREWALLS)
def test_a_chain_that_containers_still_need_stays(machine: Machine, backend: str) -> None:
    drop(machine, backend)
    ensured(machine)
    ensured(machine, RULES._replace(spaces=((parse_net("10.7.0.0/16"), parse_net("10.7.1.0/24")),)))
    removed(machine)
    left = rules(machine)
    assert CHAIN in left
    assert "10.7.0.0/16" in left
    assert all(network.text not in left for network in NETWORKS)


def test_removing_what_is_not_there_is_no_error(machine: Machine) -> None:
    assert removed(machine) == []
    assert rules(machine) == ""


def test_a_table_that_was_emptied_is_removed_as_well(machine: Machine) -> None:
    ensured(machine)
    machine.run("nft", "flush", "table", "inet", "podwired")
    removed(machine)
    assert rules(machine) == ""
