"""Random objects and packets of all protocols: after every change, the kernel lets pass what the evaluator allows.

PODWIRE_POLICY_SETS is the number of object sets instead of SETS, PODWIRE_POLICY_SEED chooses others. A failing set is
made smaller by leaving out objects, until none can be left out.
"""

from __future__ import annotations

import os
from itertools import product
from typing import TYPE_CHECKING

import pytest
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

from cni.agent.dataplane.policy_table import PolicyTable
from cni.agent.policy.basetable import TableOptions
from cni.agent.policy.evaluator import allowed
from cni.agent.policy.objects import EGRESS, NetworkPolicy, PodPeer, PortRange, Rule
from cni.agent.policy.selectors import EVERYTHING
from cni.kernel.netlink import NETLINK_NETFILTER, Netlink, NetlinkError
from cni.protocol.address import parse_ip
from tests.machine import Machine
from tests.netns.test_agent_policy import forget_connections
from tests.unit.policy_objects import NODES, namespace_of, pod_of
from tests.unit.strategies import PROFILE
from tests.unit.test_policy_compiler import CLUSTER_EVENTS, CLUSTER_NODES, CLUSTER_POLICIES, ENDS, PAIRS, STARTS, Nodes
from tests.wire import Probe, Wire, lay

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.unit.test_policy_compiler import Event

SETS = 25  # each with up to four states, of about 120 packets
NODE = "n1"
OPTIONS = TableOptions(log=False)
OWN = [parse_ip(text) for text in NODES[NODE]]
BEHIND = [end for end in ENDS if end not in OWN]
ASKED = [("TCP", 80), ("TCP", 81), ("UDP", 80), ("SCTP", 80)]
PROBES = [Probe(*pair, *asked) for pair, asked in product(PAIRS, ASKED) if pair[0] not in OWN and pair[0] != pair[1]]
BATCHES = st.lists(st.lists(CLUSTER_EVENTS, min_size=1, max_size=3), min_size=1, max_size=3)
CLUSTERED = st.lists(CLUSTER_POLICIES | CLUSTER_NODES, max_size=3)


class Kernel:
    """A node's table in the kernel, beside the objects that it follows from."""

    def __init__(self, path: str) -> None:
        self.wire, self._netfilter = Wire(path), Netlink(NETLINK_NETFILTER)
        self._table = PolicyTable(self._netfilter, OPTIONS)

    def follow(self, batches: Sequence[Sequence[Event]]) -> None:
        """Begins without objects, and compares after each batch of changes."""
        nodes = Nodes(OPTIONS)
        tracker = nodes.nodes[NODE].tracker
        self._table.audit(tracker.table)
        for batch in batches:
            for event in batch:
                nodes.handle(event)
            if changes := tracker.update():
                self._table.apply(changes)
            self._netfilter.request(*forget_connections())
            differences = self._differences(nodes)
            assert not differences, differences
        assert self._table.audit(tracker.table) == ""

    def error(self, batches: Sequence[Sequence[Event]]) -> str:
        """Returns in what it fails; empty if it does not."""
        try:
            self.follow(batches)
        except (AssertionError, NetlinkError) as failure:
            return str(failure)
        return ""

    def _differences(self, nodes: Nodes) -> list[str]:
        expected = [self._is_allowed(nodes, probe) for probe in PROBES]
        return [
            f"{probe.source.text} > {probe.destination.text} {probe[2:]} {'passes' if passes else 'is dropped'}"
            for probe, passes, allows in zip(PROBES, self.wire.arrive(PROBES), expected, strict=True)
            if passes != allows
        ]

    def _is_allowed(self, nodes: Nodes, probe: Probe) -> bool:
        """True if the policies of this node's pods allow it; those of other nodes' pods are enforced there."""
        verdict = allowed(nodes.objects, *probe)
        ends = {EGRESS: probe.source}
        pods = [
            nodes.objects.pod_at(ends.get(judgement.direction, probe.destination).packed)
            for judgement in verdict.judgements
        ]
        return not any(
            not judgement.allowed and pod is not None and pod.node == NODE
            for judgement, pod in zip(verdict.judgements, pods, strict=True)
        )


def try_all(path: str, sets: int, number: int) -> int:
    """Inside: tries random object sets; returns how many there were. Raises AssertionError with the smallest that
    fails.
    """
    kernel, tried = Kernel(path), 0
    failed: list[list[list[Event]]] = []

    @seed(number)
    @settings(PROFILE, derandomize=False, database=None, max_examples=sets, phases=[Phase.generate])
    @given(STARTS, CLUSTERED, BATCHES)
    def follows(start: tuple[list[Event], ...], clustered: list[Event], batches: list[list[Event]]) -> None:
        nonlocal tried
        tried += not failed
        drawn = [[*[event for events in start for event in events], *clustered], *batches]
        if not failed and kernel.error(drawn):
            failed.append(drawn)

    follows()
    if failed:
        least = without_needless(kernel, failed[0])
        raise AssertionError(f"{kernel.error(least)}\n{least!r}")
    return tried


def without_needless(kernel: Kernel, batches: list[list[Event]]) -> list[list[Event]]:
    """Returns the changes without all those that are not needed to fail."""
    for number, batch in enumerate(batches):
        for event in list(batch):
            fewer = [[kept for kept in other if kept is not event] for other in batches]
            if kernel.error(fewer):
                return without_needless(kernel, fewer)
        if not batch:
            fewer = batches[:number] + batches[number + 1 :]
            return without_needless(kernel, fewer) if kernel.error(fewer) else batches
    return batches


def try_one(path: str, batches: Sequence[Sequence[Event]]) -> None:
    """Inside."""
    Kernel(path).follow(batches)


@pytest.fixture(scope="module")
def net() -> Iterator[tuple[Machine, str]]:
    """Gives a node, and the place of all ends."""
    with Machine() as machine:
        if machine.user_namespace:
            pytest.skip("needs root: net.netfilter.nf_conntrack_checksum")
        yield machine, lay(machine, BEHIND, OWN)


def test_the_kernel_lets_pass_what_the_evaluator_allows(net: tuple[Machine, str]) -> None:
    machine, path = net
    sets = int(os.environ.get("PODWIRE_POLICY_SETS", SETS))
    assert machine.call(try_all, path, sets, int(os.environ.get("PODWIRE_POLICY_SEED", "1"))) >= sets


ALL = PodPeer(EVERYTHING, EVERYTHING)
TO_NAMED = Rule((), (PortRange("TCP", name="http"),))
CASES: dict[str, list[list[Event]]] = {
    "a pod that nobody selects": [[pod_of("x/m", "10.1.1.2", "fd00:1::2")]],
    "an isolated pod": [
        [pod_of("x/m", "10.1.1.2", "fd00:1::2"), NetworkPolicy("x", "p", EVERYTHING, (), ())],
        ["x/p"],
    ],
    "all pods, and an address that changes its pod": [
        [
            namespace_of("y"),
            pod_of("x/m", "10.1.1.2", "fd00:1::2"),
            NetworkPolicy("x", "p", EVERYTHING, (Rule((ALL,)),), None),
        ],
        [pod_of("y/n", "10.1.2.2", "fd00:1::3", node="n2")],
        [pod_of("x/o", "10.1.2.2")],
    ],
    "a named port of each protocol": [
        [
            pod_of("x/m", "10.1.1.2"),
            pod_of("x/n", "10.1.1.3", ports={"http": 81}),
            NetworkPolicy("x", "p", EVERYTHING, None, (TO_NAMED, Rule((), (PortRange("SCTP", 80, 80),)))),
        ],
        [pod_of("x/n", "10.1.1.3", ports={"http": 80})],
    ],
}


@pytest.mark.parametrize("case", CASES)
def test_named_sets_of_objects(net: tuple[Machine, str], case: str) -> None:
    machine, path = net
    machine.call(try_one, path, CASES[case])
