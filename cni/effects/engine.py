"""What an operation knows beyond itself: how it is applied, released, compared. One table serves every verb."""

from __future__ import annotations

from errno import EACCES, EAGAIN, EBUSY, EEXIST, EINTR, EMFILE, ENODEV, ENOENT, EOPNOTSUPP, EPERM
from posix import strerror
from sys import modules

from cni.effects import bridge, container, forwarding, veth
from cni.effects.journal import FAILURES, error_text
from cni.kernel import sysctl
from cni.kernel.netlink import NetlinkError
from cni.protocol.errors import CniError, OperationFailed
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

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


class Effect(Record):
    """`release` is DEL's: what is gone already is success, what is shared or goes with the interface stays."""

    apply: Callable[[Host, Any, Journal], None]
    release: Callable[[Host, Any], None]
    differs: Callable[[Host, Any], str]


def not_released(host: Host, op: Any) -> None:
    """Released with the interface, or shared."""
    del host, op


def nothing_differs(host: Host, op: Any) -> str:
    """An event leaves nothing to compare."""
    del host, op
    return ""


def _later(room: str, what: str = "", shared: bool = False) -> Effect:
    """The effect of a word that few networks use, in a room that is entered at its first use: `apply_port`,
    `release_port` and `port_differs` for the word `port`. What is `shared`, or goes with an interface, has no release.
    """
    ending = f"_{what}" if what else ""

    def call(name: str) -> Callable[..., Any]:
        def enter(*arguments: object) -> Any:
            __import__(f"cni.effects.{room}")
            return getattr(modules[f"cni.effects.{room}"], name)(*arguments)

        return enter

    release = not_released if shared else call(f"release{ending}")
    return Effect(call(f"apply{ending}"), release, call(f"{what}_differs" if what else "differs"))


# By the name of the operation's record.
EFFECTS: dict[str, Effect] = {
    "Bridge": Effect(bridge.apply_bridge, not_released, bridge.bridge_differs),
    "Veth": Effect(veth.apply, veth.release, veth.differs),
    "BridgePort": Effect(bridge.apply_port, not_released, bridge.port_differs),
    "PortVlan": _later("vlan", "port", shared=True),
    "RemovePortVlan": _later("vlan", "removal", shared=True),
    "VlanGateway": _later("vlan", "gateway", shared=True),
    "SpoofGuard": _later("spoofcheck"),
    "ContainerSysctl": Effect(container.apply_sysctl, not_released, container.sysctl_differs),
    "Forwarding": Effect(forwarding.apply, not_released, forwarding.differs),
    "IgnoreAdvertisements": Effect(forwarding.ignore_advertisements, not_released, forwarding.advertisements_differ),
    "ContainerAddress": Effect(container.apply_address, not_released, container.address_differs),
    "ContainerUp": Effect(container.apply_up, not_released, container.up_differs),
    "ContainerRoute": Effect(container.apply_route, not_released, container.route_differs),
    "GatewayAddress": Effect(bridge.apply_gateway, not_released, bridge.gateway_differs),
    "HostAddress": _later("routed", "address", shared=True),
    "HostRoute": _later("routed", "route", shared=True),
    "Masquerade": _later("masquerade"),
    "Accept": _later("forward_accept"),
    "AdminChain": _later("adminchain", shared=True),
    "ZoneSource": _later("firewalld"),
    "Isolation": _later("isolation", shared=True),
    "IsolatedPort": _later("isolation", "port", shared=True),
    "Hairpin": _later("portmap", "hairpin"),
    "Condition": _later("portmap", "condition"),
    "HostPort": _later("portmap", "port"),
    "PortOverlap": _later("portmap", "overlap", shared=True)._replace(differs=nothing_differs),
    "UnmappedFlows": _later("conntrack", "unmapped", shared=True)._replace(differs=nothing_differs),
    "MappedFlows": _later("conntrack", "mapped")._replace(differs=nothing_differs),
    "LoopbackRouting": _later("route_localnet"),
    "TokenBucket": _later("bandwidth", "bucket", shared=True),
    "Ifb": _later("bandwidth", "ifb"),
    "MirredRedirect": _later("bandwidth", "redirect", shared=True),
    "LoopbackUp": _later("loopback"),
    "SavedSettings": _later("tuning", "originals")._replace(differs=nothing_differs),
    "SetContainerSysctl": _later("tuning", "sysctl", shared=True)._replace(differs=nothing_differs),
    "SpelledSysctls": _later("tuning", "spelled", shared=True),
    "SetLink": _later("tuning", "link", shared=True),
    "WaitReady": Effect(container.await_ready, not_released, nothing_differs),
}


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
                EFFECTS[type(one).__name__].apply(host, one, journal)
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
            EFFECTS[type(op).__name__].release(host, op)
        except FAILURES as error:
            failed.append(to_cni_error(op.describe(), error).message)
    return failed


def differences(host: Host, operations: Iterable[Operation]) -> list[str]:
    """What no longer is as the operations made it. Raises CniError where the kernel does not tell."""
    host.remember()
    found = []
    for op in operations:
        try:
            found.append(EFFECTS[type(op).__name__].differs(host, op))
        except FAILURES as error:
            raise to_cni_error(op.describe(), error) from None
    return [difference for difference in found if difference]
