"""Applies, releases and compares operations: ADD, DEL and CHECK by one table of effects."""

from __future__ import annotations

from errno import EACCES, EAGAIN, EBUSY, EEXIST, EINTR, EMFILE, ENODEV, ENOENT, EOPNOTSUPP, EPERM
from posix import strerror
from sys import modules

from cni.effects import Effect, bridge, container, forwarding, veth
from cni.effects.journal import FAILURES, error_text
from cni.kernel import sysctl
from cni.kernel.netlink import NetlinkError
from cni.protocol.errors import CniError, OperationFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.effects.host import Host
    from cni.effects.journal import Journal
    from cni.plan.operations import Operation

REMEDIES = {
    EMFILE: "raise the limit of open files (ulimit -n)",
    EEXIST: "an object of this name or address exists already",
    ENODEV: "the interface is gone: did another program delete it?",
    EOPNOTSUPP: "the kernel does not support it: is the module loaded (bridge, veth, nf_tables)?",
}


PRIVILEGES = 1 << 12 | 1 << 21  # include/uapi/linux/capability.h: CAP_NET_ADMIN, CAP_SYS_ADMIN
ALL_USERS = ["0", "0", "4294967295"]  # user_namespaces(7): the map of the first namespace

# The errors of nftables if a table is deleted between the look at it and its use, or during a concurrent change.
TRANSIENT = (ENOENT, EBUSY, EAGAIN, EINTR)
FLUSHES = 3  # more `nft flush ruleset` in the course of one ADD are an error
IN_RULES = (
    "SpoofGuard",
    "SourceGuard",
    "Masquerade",
    "Accept",
    "AdminChain",
    "Isolation",
    "Hairpin",
    "Condition",
    "HostPort",
)

# The file of each operation, by the name of its record. Most are for features that few networks use, and loaded at
# their first use; four are every attachment's.
FILES = {
    "Bridge": "bridge",
    "BridgePort": "bridge",
    "GatewayAddress": "bridge",
    "Veth": "veth",
    "ContainerSysctl": "container",
    "ContainerAddress": "container",
    "ContainerUp": "container",
    "ContainerRoute": "container",
    "WaitReady": "container",
    "Forwarding": "forwarding",
    "IgnoreAdvertisements": "forwarding",
    "PortVlan": "vlan",
    "RemovePortVlan": "vlan",
    "VlanGateway": "vlan",
    "Pending": "policy",
    "AwaitClass": "policy",
    "PolicyPort": "policy",
    "SpoofGuard": "spoofcheck",
    "SourceGuard": "sourcecheck",
    "HostAddress": "routed",
    "HostRoute": "routed",
    "Masquerade": "masquerade",
    "Accept": "forward_accept",
    "AdminChain": "adminchain",
    "ZoneSource": "firewalld",
    "Isolation": "isolation",
    "IsolatedPort": "isolation",
    "Hairpin": "portmap",
    "Condition": "portmap",
    "HostPort": "portmap",
    "PortOverlap": "portmap",
    "FlowsBeforeMapping": "conntrack",
    "FlowsThroughMapping": "conntrack",
    "LoopbackRouting": "route_localnet",
    "TokenBucket": "bandwidth",
    "Ifb": "bandwidth",
    "MirredRedirect": "bandwidth",
    "LoopbackUp": "loopback",
    "SavedSettings": "tuning",
    "SetContainerSysctl": "tuning",
    "SpelledSysctls": "tuning",
    "SetLink": "tuning",
}
EFFECTS: dict[str, Effect] = {**bridge.EFFECTS, **container.EFFECTS, **forwarding.EFFECTS, **veth.EFFECTS}


def effect_of(operation: str) -> Effect:
    """Returns the effect of an operation, by the name of its record."""
    if operation not in EFFECTS:
        module = f"cni.effects.{FILES[operation]}"
        __import__(module)
        EFFECTS.update(modules[module].EFFECTS)
    return EFFECTS[operation]


def to_cni_error(operation: str, error: Exception) -> CniError:
    """Returns an error that names the operation, the reason and the remedy. A CniError is returned unchanged."""
    if isinstance(error, CniError):
        return error
    if isinstance(error, (NetlinkError, OSError)) and error.errno is not None:
        reason = str(error) if isinstance(error, NetlinkError) else strerror(error.errno)
        remedy = _remedy(error)
        return OperationFailed(f"{operation}: {reason}{f'; {remedy}' if remedy else ''}")
    return OperationFailed(f"{operation}: {error_text(error)}")


def _remedy(error: NetlinkError | OSError) -> str:
    if isinstance(error, NetlinkError) and "IPv6 is disabled" in error.text:
        return "enable it there (sysctl net.ipv6.conf.INTERFACE.disable_ipv6=0), or remove IPv6 from the network"
    if error.errno in (EPERM, EACCES):
        remedy = "podwire needs CAP_NET_ADMIN and CAP_SYS_ADMIN in the host's network namespace"
        return remedy if _lacks_privileges() else ""
    return REMEDIES.get(error.errno or 0, "")


def _lacks_privileges() -> bool:
    """True where a capability is missing, or is that of a user namespace, which may not be the host network's.

    If all are there, "permission denied" comes from a module, a setting or a file.
    """
    try:
        status = sysctl.read_text("/proc/self/status") or ""
        users = sysctl.read_text("/proc/self/uid_map") or ""
    except OSError:
        return True
    held = [int(line.split()[1], 16) for line in status.split("\n") if line.startswith("CapEff:")]
    return not held or held[0] & PRIVILEGES != PRIVILEGES or users.split() != ALL_USERS


def apply(host: Host, operations: Iterable[Operation], journal: Journal) -> None:
    """Applies operations in order, each step with its undo in the journal. Raises CniError; the caller rolls back."""
    done: list[Operation] = []
    for op in operations:
        host.raise_if_interrupted()
        try:
            _apply_one(host, op, journal, done)
        except FAILURES as error:
            raise to_cni_error(op.describe(), error) from None
        done.append(op)
    host.raise_if_interrupted()


def _apply_one(host: Host, op: Operation, journal: Journal, done: list[Operation]) -> None:
    """Applies an operation; if the ruleset was flushed meanwhile, those already done are applied again as well."""
    pending = [op]
    for left in reversed(range(FLUSHES + 1)):
        try:
            for operation in pending:
                effect_of(type(operation).__name__).apply(host, operation, journal)
        except NetlinkError as error:
            if not left or error.errno not in TRANSIENT or type(op).__name__ not in IN_RULES:
                raise
            host.nft.forget_chains()
            pending = [*[earlier for earlier in done if type(earlier).__name__ in IN_RULES], op]
        else:
            return


def release(host: Host, operations: Iterable[Operation]) -> list[str]:
    """Releases all that exists; returns the errors."""
    failed = []
    for op in operations:
        try:
            effect_of(type(op).__name__).release(host, op)
        except FAILURES as error:
            failed.append(to_cni_error(op.describe(), error).message)
    return failed


def differences(host: Host, operations: Iterable[Operation]) -> list[str]:
    """Returns the differences between the operations and the kernel's state. Raises CniError if it cannot be read."""
    host.remember()
    return [difference for difference in [compare(host, op) for op in operations] if difference]


def compare(host: Host, op: Operation) -> str:
    """Returns how the kernel's state differs from what the operation leaves, or an empty text. Raises CniError."""
    try:
        return effect_of(type(op).__name__).differs(host, op)
    except FAILURES as error:
        raise to_cni_error(op.describe(), error) from None
