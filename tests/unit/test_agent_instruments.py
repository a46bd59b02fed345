"""Plain instruments are rendered as prometheus-client renders its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("prometheus_client", reason="podwired renders metrics by it")

import prometheus_client

from cni.agent.exposition import Exposed
from cni.agent.instruments import BOUNDS, Durations, Labelled, Number
from cni.agent.metrics import COUNTER, GAUGE, HISTOGRAM, Description

SECONDS = (0.0004, 0.001, 0.0011, 1.5, 10.0, 11.0)


def rendered(*descriptions: Description) -> list[str]:
    registry = prometheus_client.CollectorRegistry()
    registry.register(Exposed(descriptions))
    return lines_of(registry)


def lines_of(registry: prometheus_client.CollectorRegistry) -> list[str]:
    lines = prometheus_client.generate_latest(registry).decode().splitlines()
    return [line for line in lines if "_created" not in line]


def test_durations_are_a_histogram() -> None:
    registry = prometheus_client.CollectorRegistry()
    theirs = prometheus_client.Histogram("sync", "A text.", ["what"], buckets=BOUNDS, registry=registry)
    ours = Labelled(Durations)
    for seconds in SECONDS:
        theirs.labels("all").observe(seconds)
        ours.labels("all").observe(seconds)
    assert rendered(Description(HISTOGRAM, "sync", "A text.", ("what",), ours)) == lines_of(registry)


def test_numbers_are_gauges_and_counters() -> None:
    registry = prometheus_client.CollectorRegistry()
    prometheus_client.Gauge("ready", "A text.", registry=registry).set(True)
    prometheus_client.Counter("writes_total", "Another.", registry=registry).inc(3)
    gauge, counter = Number(), Number()
    gauge.set(True)
    counter.inc(3)
    descriptions = (
        Description(GAUGE, "ready", "A text.", (), gauge),
        Description(COUNTER, "writes_total", "Another.", (), counter),
    )
    assert rendered(*descriptions) == lines_of(registry)


def test_counting_does_not_load_what_renders() -> None:
    """Its import is a fifth of a start."""
    code = "import sys; from cni.agent.metrics import Metrics; Metrics(); print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
