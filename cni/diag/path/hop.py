"""A hop of a path, as it was read from the kernel."""

from __future__ import annotations

from cni.protocol.record import Record

PASSES, STOPS, UNKNOWN = "passes", "stops", "unknown"


class Hop(Record):
    """A hop. `state` is PASSES, STOPS or UNKNOWN: nothing that can be read says whether the packet passes. `remedy`
    may be empty.
    """

    hop: str
    subject: str
    state: str
    evidence: str
    remedy: str = ""


def passes(hop: str, subject: str, evidence: str) -> Hop:
    return Hop(hop, subject, PASSES, evidence)


def stops(hop: str, subject: str, evidence: str, remedy: str = "") -> Hop:
    return Hop(hop, subject, STOPS, evidence, remedy)


def unknown(hop: str, subject: str, evidence: str, remedy: str = "") -> Hop:
    return Hop(hop, subject, UNKNOWN, evidence, remedy)
