"""The machine that operations are applied to: the host's namespace, the container's, and their open sockets.

Sockets are opened in their namespace once and used from outside; only sysctls need the thread to be inside.
"""

from __future__ import annotations

import os
from errno import ENODEV

from cni.kernel import rtnl
from cni.kernel.netlink import Netlink, Refused
from cni.kernel.netns import OWN, HostLock, Netns
from cni.kernel.nfnl import NETLINK_NETFILTER
from cni.spec.errors import InvalidNetns, TryAgain
from cni.spec.owner import label_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Machine:
    """One call's view of host and container. `container` is None where DEL finds none."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.host = Netns(OWN)
        self.route = Netlink(rtnl.NETLINK_ROUTE)
        self.lock = HostLock(self.host)
        self.container: Netns | None = None
        self._container_route: Netlink | None = None
        self._nft: Netlink | None = None
        self.stopped = False

    def close(self) -> None:
        for one in (self.route, self._container_route, self._nft, self.lock, self.container, self.host):
            if one is not None:
                one.close()

    def stop(self) -> None:
        """From a signal handler: the next step that asks will not be taken."""
        self.stopped = True

    def proceed(self) -> None:
        """Asked between steps. Raises TryAgain after `stop`."""
        if self.stopped:
            raise TryAgain("interrupted by a signal, everything done so far is undone")

    def open_container(self, path: str, own_allowed: bool) -> None:
        """Raises InvalidNetns, naming what is wrong with CNI_NETNS."""
        try:
            container = Netns(path)
        except OSError as error:
            raise InvalidNetns(f"cannot open CNI_NETNS {path!r}: {error.strerror}") from None
        if container.same_as(self.host) and not own_allowed:
            container.close()
            raise InvalidNetns(f"CNI_NETNS {path!r} is the plugin's own network namespace, expected a container's")
        try:
            with container:
                self._container_route = Netlink(rtnl.NETLINK_ROUTE)
        except BaseException:
            container.close()
            raise
        self.container = container

    @property
    def inside(self) -> Netns:
        """The container's namespace, to enter with `with`."""
        if self.container is None:
            raise InvalidNetns("the container's network namespace is gone")
        return self.container

    @property
    def container_route(self) -> Netlink:
        if self._container_route is None:
            raise InvalidNetns("the container's network namespace is gone")
        return self._container_route

    @property
    def nft(self) -> Netlink:
        """Opened on demand: a kernel without nftables is no obstacle where no feature asks for it."""
        if self._nft is None:
            self._nft = Netlink(NETLINK_NETFILTER)
        return self._nft

    def links(self) -> list[rtnl.Link]:
        """All links of the host: for what happens seldom, its cost grows with their number."""
        return [rtnl.parse_link(answer) for answer in self.route.dump(*rtnl.all_links())]

    def unshared(self) -> bool:
        """Nobody else is attached, attaching or detaching, so what attachments share may be taken back.

        Own links must be gone already. The lock stays ours alone until the process ends.
        """
        return self.lock.try_alone() and not any(label_keys(link.alias) for link in self.links())


def find_link(route: Netlink, name: str) -> rtnl.Link | None:
    """None where there is no link of that name."""
    try:
        return rtnl.parse_link(route.request(*rtnl.get_link(name))[0])
    except Refused as refused:
        if refused.errno == ENODEV:
            return None
        raise


def need_link(route: Netlink, name: str) -> rtnl.Link:
    """Raises Refused (ENODEV)."""
    return rtnl.parse_link(route.request(*rtnl.get_link(name))[0])


def addresses(route: Netlink, ifindex: int) -> list[rtnl.AddressInfo]:
    """The addresses of one link; kernels before 4.20 send all, whatever they are asked for."""
    found = [rtnl.parse_address(answer) for answer in route.dump(*rtnl.addresses_of(ifindex))]
    return [one for one in found if one.ifindex == ifindex]


def delete_link(route: Netlink, name: str) -> None:
    """A link that is gone already is success."""
    link = find_link(route, name)
    if link is None:
        return
    try:
        route.request(*rtnl.delete_link(link.ifindex))
    except Refused as refused:
        if refused.errno != ENODEV:
            raise


def node_identity() -> str:
    """What tells this machine from others that may share a wire with it (machine-id(5)), or else its name."""
    try:
        with open("/etc/machine-id", encoding="ascii", errors="replace") as file:
            return file.read(64).strip() or os.uname().nodename
    except OSError:
        return os.uname().nodename


def has_ipv6() -> bool:
    return os.path.isdir("/proc/sys/net/ipv6")
