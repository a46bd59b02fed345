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
    EEXIST: "something of this name or address is there already",
    ENODEV: "the interface is gone: did somebody else remove it?",
    EOPNOTSUPP: "the kernel lacks it: is the module loaded (bridge, veth, nf_tables)?",
}


PRIVILEGES = 1 << 12 | 1 << 21  # include/uapi/linux/capability.h: CAP_NET_ADMIN, CAP_SYS_ADMIN
ALL_USERS = ["0", "0", "4294967295"]  # user_namespaces(7): the map of the first namespace

# What nftables answers where a table goes between the look at it and its use, or another change is under way.
PASSING = (ENOENT, EBUSY, EAGAIN, EINTR)
FLUSHES = 3  # so many in the course of one ADD are put up with
IN_RULES = ("SpoofGuard", "Masquerade", "Accept", "AdminChain", "Isolation", "Hairpin", "Condition", "HostPort")

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
    "SpoofGuard": "spoofcheck",
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
    "UnmappedFlows": "conntrack",
    "MappedFlows": "conntrack",
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


def to_cni_error(what: str, error: Exception) -> CniError:
    """A failure in words: what was to be done, the reason, the remedy. A CniError has its words already."""
    if isinstance(error, CniError):
        return error
    if isinstance(error, (NetlinkError, OSError)) and error.errno is not None:
        reason = str(error) if isinstance(error, NetlinkError) else strerror(error.errno)
        remedy = _remedy(error)
        return OperationFailed(f"{what}: {reason}{f'; {remedy}' if remedy else ''}")
    return OperationFailed(f"{what}: {error_text(error)}")


def _remedy(error: NetlinkError | OSError) -> str:
    if isinstance(error, NetlinkError) and "IPv6 is disabled" in error.words:
        return "switch it on there (sysctl net.ipv6.conf.INTERFACE.disable_ipv6=0), or leave IPv6 out of the network"
    if error.errno in (EPERM, EACCES):
        needed = "podwire needs CAP_NET_ADMIN and CAP_SYS_ADMIN in the host's network namespace"
        return needed if _lacks_privileges() else ""
    return REMEDIES.get(error.errno or 0, "")


def _lacks_privileges() -> bool:
    """True where a capability is missing, or is that of a user namespace, which may not be the host network's.

    What says "permission denied" to somebody who has them all is a module, a setting or a file.
    """
    try:
        status = sysctl.read_text("/proc/self/status") or ""
        users = sysctl.read_text("/proc/self/uid_map") or ""
    except OSError:
        return True
    held = [int(line.split()[1], 16) for line in status.split("\n") if line.startswith("CapEff:")]
    return not held or held[0] & PRIVILEGES != PRIVILEGES or users.split() != ALL_USERS


def apply(host: Host, operations: Iterable[Operation], journal: Journal) -> None:
    """Applies in order, each step journalled. Raises CniError; rolling back is the caller's."""
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
            for one in pending:
                effect_of(type(one).__name__).apply(host, one, journal)
        except NetlinkError as refused:
            if not left or refused.errno not in PASSING or type(op).__name__ not in IN_RULES:
                raise
            host.nft.forget_chains()
            pending = [*[one for one in done if type(one).__name__ in IN_RULES], op]
        else:
            return


def release(host: Host, operations: Iterable[Operation]) -> list[str]:
    """Releases whatever there is, and returns what could not be."""
    failed = []
    for op in operations:
        try:
            effect_of(type(op).__name__).release(host, op)
        except FAILURES as error:
            failed.append(to_cni_error(op.describe(), error).message)
    return failed


def differences(host: Host, operations: Iterable[Operation]) -> list[str]:
    """What no longer is as the operations made it. Raises CniError where the kernel does not tell."""
    host.remember()
    found = []
    for op in operations:
        try:
            found.append(effect_of(type(op).__name__).differs(host, op))
        except FAILURES as error:
            raise to_cni_error(op.describe(), error) from None
    return [difference for difference in found if difference]
