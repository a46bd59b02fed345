"""The check whether a lease's container is alive on this host: a lease is freed only on this evidence."""

from __future__ import annotations

import posix as os  # see cni/__init__.py
from errno import ENOENT, ESRCH

from cni.effects.journal import FAILURES
from cni.kernel import rtnl, rtnl_parse, sysctl
from cni.kernel.netns import OWN, EnteredNetns, Netns
from cni.kernel.rtnl_socket import RtnlSocket
from cni.protocol.owner import Owner, host_interface_of, label_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cni.protocol.address import IP
    from ipam.lease import Lease

NAMED = ("/run/netns", "/var/run/docker/netns")
MOUNTS = "/proc/self/mountinfo"  # proc_pid_mountinfo(5)
NET, ROOT, POINT = b"net:[", 3, 4  # how the root of a mounted network namespace begins; fields
ESCAPES = ((rb"\040", b" "), (rb"\011", b"\t"), (rb"\012", b"\n"), (rb"\134", b"\\"))


def alive_in(network: str, scanned: set[IP] | None = None) -> Callable[[Lease], bool]:
    """Returns a predicate "is this lease's container alive"; the host is scanned at its first use, which most calls
    never reach, unless `scanned` are the addresses in use.
    """
    seen = [] if scanned is None else [scanned]

    def alive(lease: Lease) -> bool:
        if not seen:
            seen.append(addresses_in_use())
        return lease.ip in seen[0] or _attached(Owner(network, lease.container_id, lease.ifname))

    return alive


def holder_lives(route: RtnlSocket, label: str, packed: bytes) -> bool:
    """Returns True if the attachment of the label, whose address is `packed`, is still on this host.

    Its own interface proves it if podwire made it. Else the address does, unless another attachment has it by now.
    """
    from cni.plan.alias import parse_alias

    _, key = label_keys(label) or ("", "")
    if route.find(host_interface_of(key)) is not None:
        return True
    ip = rtnl_parse.ip_of(packed)
    for alias in [parse_alias(link.alias) for link in route.links()]:
        if label_keys(alias.label) and any(address.ip == ip for address in alias.addresses):
            return False
    return ip in addresses_in_use()


def _attached(owner: Owner) -> bool:
    route = RtnlSocket()
    try:
        return route.find(owner.host_interface) is not None
    finally:
        route.close()


def addresses_in_use(missed: list[str] | None = None) -> set[IP]:
    """Returns all addresses of all network namespaces that have a process, a name or a mount, third-party plugins' too.

    Namespaces that exist and cannot be looked into are added to `missed`.
    """
    addresses: set[IP] = set()
    visited: set[tuple[int, int]] = set()
    home = Netns(OWN)
    for path in _namespaces():
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) not in visited:
                visited.add((status.st_dev, status.st_ino))
                addresses.update(_addresses_at(path, home))
        except FAILURES:
            if missed is not None and not _is_gone(path):  # else a process that ended meanwhile
                missed.append(path)
    home.close()
    return addresses


def _is_gone(path: str) -> bool:
    try:
        os.stat(path)
    except OSError as error:
        return error.errno in (ENOENT, ESRCH)
    return False


def _namespaces() -> Iterator[str]:
    yield OWN
    for name in os.listdir("/proc"):
        if name.isdigit():
            yield f"/proc/{name}/ns/net"
    for folder in NAMED:
        if sysctl.exists(folder):
            for name in os.listdir(folder):
                yield f"{folder}/{name}"
    yield from _mounted()


def _mounted() -> Iterator[str]:
    """Yields where network namespaces are mounted: a runtime may have a folder of its own for them."""
    with open(MOUNTS, "rb") as file:
        for line in file:
            fields = line.split(b" ")
            if fields[ROOT].startswith(NET):
                point = fields[POINT]
                for escape, letter in ESCAPES:
                    point = point.replace(escape, letter)
                yield point.decode("utf-8", "surrogateescape")


def _addresses_at(path: str, home: Netns) -> list[IP]:
    namespace = Netns(path)
    try:
        with EnteredNetns(namespace, home):
            route = RtnlSocket()
        try:
            return [rtnl_parse.parse_address(answer).address.ip for answer in route.dump(*rtnl.addresses_of(0))]
        finally:
            route.close()
    finally:
        namespace.close()
