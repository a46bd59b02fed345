"""The trace of a probe, from the kernel's events."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from cni.diag.path import tracing
from cni.diag.path.ends import TCP, Connection
from cni.diag.path.tracing import Tracer
from cni.kernel.events import Overflowed
from cni.protocol.address import parse_ip

if TYPE_CHECKING:
    import pytest

    from cni.diag.path.probe import Probe

SOURCE: Any = SimpleNamespace()  # the attachment is not looked at
PATH = Connection(SOURCE, parse_ip("10.1.2.2"), None, parse_ip("10.1.2.3"), TCP, 80)
PROBE: Probe = SimpleNamespace(number=40000, protocol=6)  # type: ignore[assignment]


class Kernel:
    """The sockets of a kernel whose events were more than their queue holds."""

    def __init__(self, *_: object) -> None: ...

    def batch(self, _: object) -> None: ...

    def close(self) -> None: ...

    def read(self) -> list[tuple[int, bytes]]:
        raise Overflowed


def test_a_trace_that_lost_events_shows_none_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe itself is not concerned: its answer is worth having."""
    monkeypatch.setattr(tracing, "Netlink", Kernel)
    monkeypatch.setattr(tracing, "Events", Kernel)
    tracer = Tracer(PATH, PROBE)
    assert tracer.lost == ""
    assert not tracer.read()
    assert (tracer.lost, tracer.packets) == (tracing.LOST, [])
