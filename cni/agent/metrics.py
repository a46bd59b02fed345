"""What the agent counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

FASTEST, SLOWEST = 0.001, 10.0  # seconds
BUCKETS = (FASTEST, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, SLOWEST)


class Metrics:
    """One agent's."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        ProcessCollector(registry=registry)
        self.peers = Gauge("podwired_peers", "Nodes that are served.", registry=registry)
        self.refused_peers = Gauge("podwired_refused_peers", "Leases that cannot be served.", registry=registry)
        self.ready = Gauge("podwired_ready", "Whether pods of this node can be attached.", registry=registry)
        self.store_up = Gauge("podwired_store_up", "Whether the store answers.", registry=registry)
        self.lease_expiry = Gauge(
            "podwired_lease_expiry_timestamp_seconds", "When the own lease ends, 0 for never.", registry=registry
        )
        self.sync_seconds = Histogram(
            "podwired_sync_seconds",
            "From what was heard to the kernel's answer: a comparison of all, or of the peers that changed.",
            ["what"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.errors = Counter("podwired_errors_total", "What went wrong, by where.", ["where"], registry=registry)
        self.writes = Counter("podwired_netlink_writes_total", "Entries set or removed.", registry=registry)
        self.healed = Counter("podwired_healed_total", "What others had broken and was made whole.", registry=registry)

    def text(self) -> bytes:
        return generate_latest(self.registry)
