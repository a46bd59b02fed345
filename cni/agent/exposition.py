"""Renders the agent's metrics for Prometheus. It is loaded when somebody asks for them first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from cni.agent.instruments import Durations, Labelled, Number
from cni.agent.metrics import COUNTER, GAUGE, HISTOGRAM

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cni.agent.metrics import Description, Source

FAMILIES: dict[str, Any] = {GAUGE: GaugeMetricFamily, COUNTER: CounterMetricFamily, HISTOGRAM: HistogramMetricFamily}


class Exposed(Collector):
    """Metrics by their descriptions, to which others may be added."""

    def __init__(self, descriptions: Sequence[Description]) -> None:
        self._descriptions = descriptions

    def collect(self) -> Iterator[Metric]:
        return map(_metric_of, [*self._descriptions])


def _metric_of(described: Description) -> Metric:
    family = FAMILIES[described.kind](described.name, described.text, labels=described.labels)
    for labels, value in _values_of(described.source).items():
        if isinstance(value, Durations):
            buckets = [(f"{bound}" if bound < float("inf") else "+Inf", count) for bound, count in value.buckets]
            family.add_metric(labels, buckets, value.sum)
        else:
            family.add_metric(labels, value)
    metric: Metric = family
    return metric


def _values_of(source: Source) -> Mapping[tuple[str, ...], float | Durations]:
    if isinstance(source, Labelled):
        return {(label,): _value_of(instrument) for label, instrument in source.by_label().items()}
    return {(): _value_of(source)} if isinstance(source, Number | Durations) else source()


def _value_of(instrument: Number | Durations) -> float | Durations:
    return instrument.value if isinstance(instrument, Number) else instrument


def registry_of(descriptions: Sequence[Description]) -> CollectorRegistry:
    """Returns a registry of these metrics and of those of the process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(Exposed(descriptions))
    return registry


def text_of(registry: CollectorRegistry) -> bytes:
    """Returns all metrics in Prometheus' text format."""
    return generate_latest(registry)
