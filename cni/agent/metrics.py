"""Metrics of the agent, for Prometheus."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from cni import VERSION
from cni.agent.instruments import Durations, Labelled, Number
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from prometheus_client import CollectorRegistry

    from cni.agent.node.addresses import AddressUse

    Read = Callable[[], Mapping[tuple[str, ...], float]]  # by the values of the labels
    Source = Number | Durations | Labelled[Number] | Labelled[Durations] | Read

# Where errors occur: a rate notices the first one only if there was a 0 before.
PLACES = ("store", "interface", "kernel", "instance", "conflist", "policy store", "policy")
GAUGE, COUNTER, HISTOGRAM = "gauge", "counter", "histogram"


class Description(Record):
    """A metric. What a function returns is read when somebody asks: counters of the kernel, and what has no events."""

    kind: str
    name: str
    text: str
    labels: tuple[str, ...]
    source: Source


class Metrics:
    """The metrics of one agent."""

    def __init__(self) -> None:
        self._descriptions: list[Description] = []
        text = "Version of podwired; the value is 1."
        self._describe(GAUGE, "podwired_build_info", text, ("version",), lambda: {(VERSION,): 1})
        self.peers = self._gauge("podwired_peers", "Number of nodes that routes lead to.")
        self.refused_peers = self._gauge(
            "podwired_refused_peers", "Number of leases that are ignored (invalid or in conflict)."
        )
        self.ready = self._gauge("podwired_ready", "1 if pods of this node can be attached, else 0.")
        self.store_up = self._gauge("podwired_store_up", "1 if the store answers, else 0.")
        self.lease_expiry = self._gauge(
            "podwired_lease_expiry_timestamp_seconds", "Time at which this node's lease expires; 0: never."
        )
        self.sync_seconds = Labelled(Durations)
        text = "Duration of a sync by its extent: all (desired compared with actual state), or part (changed peers)."
        self._describe(HISTOGRAM, "podwired_sync_seconds", text, ("what",), self.sync_seconds)
        self.errors = Labelled(Number)
        text = "Number of errors, by where they occurred."
        self._describe(COUNTER, "podwired_errors_total", text, ("where",), self.errors)
        for where in PLACES:
            self.errors.labels(where)
        self.writes = self._counter(
            "podwired_netlink_writes_total", "Number of netlink messages that set or remove entries."
        )
        self.healed = self._counter("podwired_healed_total", "Number of repairs after changes by others.")
        self._add_policy_metrics()

    def _add_policy_metrics(self) -> None:
        self.policies = self._gauge("podwired_policies", "Number of NetworkPolicies that are known.")
        self.policy_pods = Labelled(Number)
        text = "Number of pods that NetworkPolicy knows: those of this node (local), and all that can be peers (known)."
        self._describe(GAUGE, "podwired_policy_pods", text, ("what",), self.policy_pods)
        self.policy_faults = Labelled(Number)
        text = "Number of policies that are ignored, closed or unsupported in a part, or tied; the log says why."
        self._describe(GAUGE, "podwired_policy_faults", text, ("fault",), self.policy_faults)
        self.policy_sets = self._gauge("podwired_policy_sets", "Number of sets that policies' rules use.")
        self.policy_elements = self._gauge(
            "podwired_policy_elements", "Number of addresses in these sets, and of ranges."
        )
        self.policy_programming_seconds = self._histogram(
            "podwired_policy_programming_seconds", "Time from the first event of a change until it is in force."
        )
        self.policy_pod_start_seconds = self._histogram(
            "podwired_policy_pod_start_seconds", "Time from when an ADD closes a new pod until the pod has its class."
        )
        self.policy_healed = self._counter(
            "podwired_policy_healed_total", "Number of repairs of the table of NetworkPolicy."
        )
        self.policy_revoked_connections = self._counter(
            "podwired_policy_revoked_connections_total",
            "Number of connections that were cut since policies no longer allow them.",
        )

    def note_sets(self, sizes: Sequence[int]) -> None:
        """Tells of the sets that policies' rules use, by how many elements each has."""
        self.policy_sets.set(len(sizes))
        self.policy_elements.set(sum(sizes))

    def count_denied(self, read: Read) -> None:
        """Adds the numbers of denied packets by direction, which `read` returns."""
        text = "Number of packets that policies denied, since their table was made."
        self._describe(COUNTER, "podwired_policy_denied_packets_total", text, ("direction",), read)

    def count_rules(self, read: Read) -> None:
        """Adds the numbers of packets that rules of policies matched, which `read` returns."""
        text = "Number of first packets of connections that a rule of a policy matched, since its chain was made."
        labels = "policy", "direction", "rule"
        self._describe(COUNTER, "podwired_policy_rule_packets_total", text, labels, read)

    def count_connections(self, entries: Read, limit: Read) -> None:
        """Adds the size of the table of tracked connections, and its limit."""
        text = "Number of connections that the kernel tracks."
        self._describe(GAUGE, "podwired_tracked_connections", text, (), entries)
        text = "Number of connections that the kernel can track; packets of others are dropped."
        self._describe(GAUGE, "podwired_tracked_connections_limit", text, (), limit)

    def note_watches(self, read: Read) -> None:
        """Adds when each watch of the policies' store last brought something, which `read` returns by kind."""
        text = "Time at which the API server last sent anything about objects of a kind, be it a bookmark."
        self._describe(GAUGE, "podwired_policy_watch_timestamp_seconds", text, ("kind",), read)

    def count_node(self, peers: Callable[[], Mapping[str, int]], addresses: Callable[[], Sequence[AddressUse]]) -> None:
        """Adds the numbers of peers by their state, and the use of this node's addresses."""
        text = "Number of other nodes by how they are reached."
        self._describe(
            GAUGE,
            "podwired_peers_by_state",
            text,
            ("state",),
            lambda: {(state,): number for state, number in peers().items()},
        )
        text = "Number of addresses that pods of this node can lease."
        self._describe(
            GAUGE,
            "podwired_pool_addresses",
            text,
            ("family",),
            lambda: {(f"IPv{use.family}",): use.size for use in addresses()},
        )
        text = "Number of these addresses that are leased."
        self._describe(
            GAUGE,
            "podwired_pool_addresses_used",
            text,
            ("family",),
            lambda: {(f"IPv{use.family}",): use.used for use in addresses()},
        )

    def _gauge(self, name: str, text: str) -> Number:
        return self._number(GAUGE, name, text)

    def _counter(self, name: str, text: str) -> Number:
        return self._number(COUNTER, name, text)

    def _number(self, kind: str, name: str, text: str) -> Number:
        number = Number()
        self._describe(kind, name, text, (), number)
        return number

    def _histogram(self, name: str, text: str) -> Durations:
        durations = Durations()
        self._describe(HISTOGRAM, name, text, (), durations)
        return durations

    def _describe(self, kind: str, name: str, text: str, labels: tuple[str, ...], source: Source) -> None:
        self._descriptions.append(Description(kind, name, text, labels, source))

    @cached_property
    def registry(self) -> CollectorRegistry:
        """The registry of prometheus-client, which is loaded now."""
        from cni.agent.exposition import registry_of

        return registry_of(self._descriptions)

    def text(self) -> bytes:
        from cni.agent.exposition import text_of

        return text_of(self.registry)
