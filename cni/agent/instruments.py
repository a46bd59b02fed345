"""Instruments that count as the agent works: plain numbers, which `exposition` renders when somebody asks.

So no start waits for the import of prometheus-client, which takes a fifth of it. The loop's thread writes, others read.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

FASTEST, SLOWEST = 0.001, 10.0  # seconds
BOUNDS = (FASTEST, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, SLOWEST)


class Number:
    """A gauge, or a counter."""

    def __init__(self) -> None:
        self.value = 0.0

    def set(self, value: float) -> None:
        self.value = float(value)

    def inc(self, amount: float = 1) -> None:
        self.value += amount


class Durations:
    """A histogram of seconds."""

    def __init__(self) -> None:
        self.sum = 0.0
        self._counts = [0] * (len(BOUNDS) + 1)

    def observe(self, seconds: float) -> None:
        self.sum += seconds
        self._counts[bisect_left(BOUNDS, seconds)] += 1

    @property
    def buckets(self) -> list[tuple[float, int]]:
        """Each bound, infinity last, with the number of observations that were at most as long."""
        return list(zip((*BOUNDS, float("inf")), accumulate(self._counts), strict=True))


Instrument = TypeVar("Instrument", Number, Durations)


class Labelled(Generic[Instrument]):
    """Instruments of one kind by the value of a label."""

    def __init__(self, kind: type[Instrument]) -> None:
        self._kind: type[Instrument] = kind
        self._instruments: dict[str, Instrument] = {}

    def labels(self, value: str) -> Instrument:
        """Returns the instrument of this value, which is shown from then on."""
        if value not in self._instruments:
            self._instruments[value] = self._kind()
        return self._instruments[value]

    def by_label(self) -> Mapping[str, Instrument]:
        return self._instruments.copy()
