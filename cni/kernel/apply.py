"""What an operation knows beyond itself: how it is applied, released, compared. One table serves every verb."""

from __future__ import annotations

from errno import EACCES, EEXIST, ENODEV, EOPNOTSUPP, EPERM
from posix import strerror

from cni.kernel import bridge, container, forwarding, veth
from cni.kernel.journal import FAILURES
from cni.kernel.netlink import Refused
from cni.plan import operations as ops
from cni.spec.errors import CniError, MachineRefused
from cni.spec.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from cni.kernel.journal import Journal
    from cni.kernel.machine import Machine

REMEDIES = {
    EPERM: "podwire needs CAP_NET_ADMIN and CAP_SYS_ADMIN in the host's network namespace",
    EACCES: "podwire needs CAP_NET_ADMIN and CAP_SYS_ADMIN in the host's network namespace",
    EEXIST: "something of this name or address is there already",
    ENODEV: "the interface is gone: did somebody else remove it?",
    EOPNOTSUPP: "the kernel lacks it: is the module loaded (bridge, veth, nf_tables)?",
}


class Effect(Record):
    """`release` is DEL's: what is gone already is success, what is shared or goes with the interface stays."""

    apply: Callable[[Machine, Any, Journal], None]
    release: Callable[[Machine, Any], None]
    differs: Callable[[Machine, Any], str]


def stay(machine: Machine, op: Any) -> None:
    """Released with the interface, or shared."""
    del machine, op


def nothing_differs(machine: Machine, op: Any) -> str:
    """An event leaves nothing to compare."""
    del machine, op
    return ""


def _nft(name: str) -> Callable[..., Any]:
    """A function of cni.kernel.nft, which is loaded when first called: 1 ms that a network without rules is spared."""

    def call(*arguments: object) -> object:
        from cni.kernel import nft

        return getattr(nft, name)(*arguments)

    return call


EFFECTS: dict[type, Effect] = {
    ops.Bridge: Effect(bridge.apply_bridge, stay, bridge.bridge_differs),
    ops.Veth: Effect(veth.apply, veth.release, veth.differs),
    ops.BridgePort: Effect(bridge.apply_port, stay, bridge.port_differs),
    ops.PortVlan: Effect(bridge.apply_vlan, stay, bridge.vlan_differs),
    ops.NoPortVlan: Effect(bridge.remove_vlan, stay, bridge.no_vlan_differs),
    ops.VlanGateway: Effect(bridge.apply_vlan_gateway, stay, bridge.vlan_gateway_differs),
    ops.SpoofGuard: Effect(_nft("apply_guard"), _nft("release_guard"), _nft("guard_differs")),
    ops.ContainerSysctl: Effect(container.apply_sysctl, stay, container.sysctl_differs),
    ops.Forwarding: Effect(forwarding.apply, stay, forwarding.differs),
    ops.ContainerAddress: Effect(container.apply_address, stay, container.address_differs),
    ops.ContainerUp: Effect(container.apply_up, stay, container.up_differs),
    ops.ContainerRoute: Effect(container.apply_route, stay, container.route_differs),
    ops.GatewayAddress: Effect(bridge.apply_gateway, stay, bridge.gateway_differs),
    ops.Masquerade: Effect(_nft("apply_masquerade"), _nft("release_masquerade"), _nft("masquerade_differs")),
    ops.Readiness: Effect(container.await_ready, stay, nothing_differs),
}


def explain(what: str, error: Exception) -> CniError:
    """A failure in words: what was to be done, the reason, the remedy. A CniError has its words already."""
    if isinstance(error, CniError):
        return error
    if isinstance(error, (Refused, OSError)) and error.errno is not None:
        reason = strerror(error.errno)
        if isinstance(error, Refused) and error.words:
            reason = f"{reason} ({error.words})"
        remedy = REMEDIES.get(error.errno)
        return MachineRefused(f"{what}: {reason}{f'; {remedy}' if remedy else ''}")
    return MachineRefused(f"{what}: {error}")


def apply(machine: Machine, operations: Iterable[ops.Operation], journal: Journal) -> None:
    """Applies in order, each step journalled. Raises CniError; rolling back is the caller's."""
    for op in operations:
        machine.proceed()
        try:
            EFFECTS[type(op)].apply(machine, op, journal)
        except FAILURES as error:
            raise explain(op.describe(), error) from None
    machine.proceed()


def release(machine: Machine, operations: Iterable[ops.Operation]) -> list[str]:
    """Releases whatever there is, and returns what could not be."""
    failed = []
    for op in operations:
        try:
            EFFECTS[type(op)].release(machine, op)
        except FAILURES as error:
            failed.append(explain(op.describe(), error).message)
    return failed


def differences(machine: Machine, operations: Iterable[ops.Operation]) -> list[str]:
    """What no longer is as the operations made it. Raises CniError where the kernel does not tell."""
    found = []
    for op in operations:
        try:
            found.append(EFFECTS[type(op)].differs(machine, op))
        except FAILURES as error:
            raise explain(op.describe(), error) from None
    return [difference for difference in found if difference]
