"""The host's own setting: packets are routed between its interfaces."""

from __future__ import annotations

from cni.kernel import sysctl
from cni.spec.errors import MachineRefused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.kernel.journal import Journal
    from cni.kernel.machine import Machine
    from cni.plan.operations import Forwarding


def apply(machine: Machine, op: Forwarding, journal: Journal) -> None:
    del machine
    before = sysctl.read(op.key)
    if before is None:
        raise MachineRefused(f"the host has no {op.key}: is IPv6 switched off (ipv6.disable=1)?")
    if before == "0":
        journal.add_shared(lambda: sysctl.ensure(op.key, before))
        sysctl.ensure(op.key, "1")


def differs(machine: Machine, op: Forwarding) -> str:
    del machine
    return f"the host does not forward IPv{op.family} ({op.key} is 0)" if sysctl.read(op.key) == "0" else ""
