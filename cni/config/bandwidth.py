"""Bandwidth limits: the capability bandwidth, and the reference bandwidth plugin's keys."""

from __future__ import annotations

from cni.protocol.fields import UINT32, UINT64
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.fields import Fields

KEYS = ("ingressRate", "ingressBurst", "egressRate", "egressBurst")
LOWEST = 8  # bits per second: the kernel's scheduler counts bytes


class Rate(Record):
    """A limit: `rate` in bytes per second, `burst` in bytes."""

    rate: int
    burst: int


class Bandwidth(Record):
    """The limits of a container. `ingress`: into it; `egress`: out of it; None: not limited."""

    ingress: Rate | None = None
    egress: Rate | None = None


def parse_bandwidth(fields: Fields) -> Bandwidth:
    """Parses the limits. If the configuration itself has any, runtimeConfig is ignored, as in the reference."""
    source = fields if has_rates(fields) else fields.object("runtimeConfig").object("bandwidth")
    return Bandwidth(_rate(source, "ingressRate", "ingressBurst"), _rate(source, "egressRate", "egressBurst"))


def has_rates(fields: Fields) -> bool:
    return any(fields.raw(key) is not None for key in KEYS)


def _rate(fields: Fields, rate_key: str, burst_key: str) -> Rate | None:
    """Parses one limit, whose keys are in bits."""
    rate, burst = fields.integer(rate_key, 0, UINT64), fields.integer(burst_key, 0, UINT64)
    if bool(rate) != bool(burst):
        absent, present = (burst_key, rate_key) if rate else (rate_key, burst_key)
        fields.error(absent, f"if {present} is set, {absent} must also be set")
        return None
    if not rate:
        return None
    if burst // 8 >= UINT32:
        fields.error(burst_key, "burst cannot be more than 4GB")
        return None
    if min(rate, burst) < LOWEST:
        fields.error(rate_key if rate < LOWEST else burst_key, f"must be at least {LOWEST} bits")
        return None
    return Rate(rate // 8, burst // 8)
