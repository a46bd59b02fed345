"""Metrics of the agent, for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from cni import VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cni.agent.node.addresses import AddressUse

    Read = Callable[[], Mapping[tuple[str, ...], float]]  # by the values of the labels
    Family = type[CounterMetricFamily | GaugeMetricFamily]

# Where errors occur: a rate notices the first one only if there was a 0 before.
PLACES = ("store", "interface", "kernel", "instance", "conflist", "policy store", "policy")
FASTEST, SLOWEST = 0.001, 10.0  # seconds
BUCKETS = (FASTEST, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, SLOWEST)


class Readings(Collector):
    """A metric whose values are read when somebody asks: counters of the kernel, and what has no events."""

    def __init__(self, family: Family, name: str, text: str, labels: Sequence[str], read: Read) -> None:
        self._family, self._name, self._text = family, name, text
        self._labels, self._read = labels, read

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        family = self._family(self._name, self._text, labels=self._labels)
        for values, number in self._read().items():
            family.add_metric(values, number)
        yield family


class NodeState(Collector):
    """Peers by their state, and the use of the node's addresses, which are counted when somebody asks."""

    def __init__(self, peers: Callable[[], Mapping[str, int]], addresses: Callable[[], Sequence[AddressUse]]) -> None:
        self._peers, self._addresses = peers, addresses

    def collect(self) -> Iterator[GaugeMetricFamily]:
        peers = GaugeMetricFamily(
            "podwired_peers_by_state", "Number of other nodes by how they are reached.", labels=["state"]
        )
        for state, number in self._peers().items():
            peers.add_metric([state], number)
        yield peers
        size = GaugeMetricFamily(
            "podwired_pool_addresses", "Number of addresses that pods of this node can lease.", labels=["family"]
        )
        used = GaugeMetricFamily(
            "podwired_pool_addresses_used", "Number of these addresses that are leased.", labels=["family"]
        )
        for use in self._addresses():
            size.add_metric([f"IPv{use.family}"], use.size)
            used.add_metric([f"IPv{use.family}"], use.used)
        yield from (size, used)


class Metrics:
    """The metrics of one agent."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        ProcessCollector(registry=registry)
        build = Gauge("podwired_build_info", "Version of podwired; the value is 1.", ["version"], registry=registry)
        build.labels(VERSION).set(1)
        self.peers = Gauge("podwired_peers", "Number of nodes that routes lead to.", registry=registry)
        self.refused_peers = Gauge(
            "podwired_refused_peers", "Number of leases that are ignored (invalid or in conflict).", registry=registry
        )
        self.ready = Gauge("podwired_ready", "1 if pods of this node can be attached, else 0.", registry=registry)
        self.store_up = Gauge("podwired_store_up", "1 if the store answers, else 0.", registry=registry)
        self.lease_expiry = Gauge(
            "podwired_lease_expiry_timestamp_seconds",
            "Time at which this node's lease expires; 0: never.",
            registry=registry,
        )
        self.sync_seconds = Histogram(
            "podwired_sync_seconds",
            "Duration of a sync by its extent: all (desired compared with actual state), or part (changed peers).",
            ["what"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.errors = Counter(
            "podwired_errors_total", "Number of errors, by where they occurred.", ["where"], registry=registry
        )
        for where in PLACES:
            self.errors.labels(where)
        self.writes = Counter(
            "podwired_netlink_writes_total", "Number of netlink messages that set or remove entries.", registry=registry
        )
        self.healed = Counter("podwired_healed_total", "Number of repairs after changes by others.", registry=registry)
        self._add_policy_metrics(registry)

    def _add_policy_metrics(self, registry: CollectorRegistry) -> None:
        self.policies = Gauge("podwired_policies", "Number of NetworkPolicies that are known.", registry=registry)
        self.policy_pods = Gauge(
            "podwired_policy_pods",
            "Number of pods that NetworkPolicy knows: those of this node (local), and all that can be peers (known).",
            ["what"],
            registry=registry,
        )
        self.policy_faults = Gauge(
            "podwired_policy_faults",
            "Number of policies that are ignored, closed or unsupported in a part, or tied; the log says why.",
            ["fault"],
            registry=registry,
        )
        self.policy_sets = Gauge("podwired_policy_sets", "Number of sets that policies' rules use.", registry=registry)
        self.policy_elements = Gauge(
            "podwired_policy_elements", "Number of addresses in these sets, and of ranges.", registry=registry
        )
        self.policy_programming_seconds = Histogram(
            "podwired_policy_programming_seconds",
            "Time from the first event of a change until it is in force.",
            buckets=BUCKETS,
            registry=registry,
        )
        self.policy_pod_start_seconds = Histogram(
            "podwired_policy_pod_start_seconds",
            "Time from when an ADD closes a new pod until the pod has its class.",
            buckets=BUCKETS,
            registry=registry,
        )
        self.policy_healed = Counter(
            "podwired_policy_healed_total", "Number of repairs of the table of NetworkPolicy.", registry=registry
        )

        self.policy_revoked_connections = Counter(
            "podwired_policy_revoked_connections",
            "Number of connections that were cut since policies no longer allow them.",
            registry=registry,
        )

    def note_sets(self, sizes: Sequence[int]) -> None:
        """Tells of the sets that policies' rules use, by how many elements each has."""
        self.policy_sets.set(len(sizes))
        self.policy_elements.set(sum(sizes))

    def count_denied(self, read: Read) -> None:
        """Adds the numbers of denied packets by direction, which `read` returns."""
        text = "Number of packets that policies denied, since their table was made."
        self._add_readings(CounterMetricFamily, "podwired_policy_denied_packets", text, ["direction"], read)

    def count_rules(self, read: Read) -> None:
        """Adds the numbers of packets that rules of policies matched, which `read` returns."""
        text = "Number of first packets of connections that a rule of a policy matched, since its chain was made."
        labels = ["policy", "direction", "rule"]
        self._add_readings(CounterMetricFamily, "podwired_policy_rule_packets", text, labels, read)

    def count_connections(self, entries: Read, limit: Read) -> None:
        """Adds the size of the table of tracked connections, and its limit."""
        text = "Number of connections that the kernel tracks."
        self._add_readings(GaugeMetricFamily, "podwired_tracked_connections", text, [], entries)
        text = "Number of connections that the kernel can track; packets of others are dropped."
        self._add_readings(GaugeMetricFamily, "podwired_tracked_connections_limit", text, [], limit)

    def note_watches(self, read: Read) -> None:
        """Adds when each watch of the policies' store last brought something, which `read` returns by kind."""
        text = "Time at which the API server last sent anything about objects of a kind, be it a bookmark."
        self._add_readings(GaugeMetricFamily, "podwired_policy_watch_timestamp_seconds", text, ["kind"], read)

    def count_node(self, peers: Callable[[], Mapping[str, int]], addresses: Callable[[], Sequence[AddressUse]]) -> None:
        """Adds the numbers of peers by their state, and the use of this node's addresses."""
        self.registry.register(NodeState(peers, addresses))

    def _add_readings(self, family: Family, name: str, text: str, labels: Sequence[str], read: Read) -> None:
        self.registry.register(Readings(family, name, text, labels, read))

    def text(self) -> bytes:
        return generate_latest(self.registry)
