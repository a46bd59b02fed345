"""The host that operations are applied to: the host's namespace, the container's, and their open sockets.

Sockets are opened in their namespace once and used from outside; only sysctls need the thread to be inside.
"""

from __future__ import annotations

import posix as os  # see cni/__init__.py

from cni.kernel import sysctl
from cni.kernel.hostlock import RUN, HostLock
from cni.kernel.netlink import NETLINK_NETFILTER, Netlink
from cni.kernel.netns import OWN, EnteredNetns, Netns
from cni.kernel.rtnl_socket import RtnlSocket
from cni.protocol.errors import InvalidNetns, TryAgain
from cni.protocol.owner import label_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cni.effects.nft_socket import Nft


class Host:
    """One call's view of host and container. `container` is None if DEL finds none. `warn` prints a notice."""

    def __init__(self, environment: Mapping[str, str], warn: Callable[[str], None]) -> None:
        self.environment = environment
        self.warn = warn
        self.netns = Netns(OWN)
        self.rtnl = RtnlSocket()
        self.lock = HostLock(self.netns)
        self.container: Netns | None = None
        self._container_rtnl: RtnlSocket | None = None
        self._netfilter: Netlink | None = None
        self._nft: Nft | None = None
        self.stopped = False

    def close(self) -> None:
        held = (self.rtnl, self._container_rtnl, self._netfilter, self._nft, self.container, self.lock, self.netns)
        for resource in held:
            if resource is not None:
                resource.close()

    def stop(self) -> None:
        """Stops the call before its next step; for signal handlers."""
        self.stopped = True

    def raise_if_interrupted(self) -> None:
        """Is called between steps. Raises TryAgain after `stop`."""
        if self.stopped:
            raise TryAgain("interrupted by a signal, everything done so far is undone")

    def open_container(self, path: str, own_allowed: bool) -> None:
        """Opens the container's namespace and a socket in it. Raises InvalidNetns if CNI_NETNS cannot be used."""
        try:
            container = Netns(path)
        except OSError as error:
            raise InvalidNetns(f"cannot open CNI_NETNS {path!r}: {error.strerror}") from None
        if container.same_as(self.netns) and not own_allowed:
            container.close()
            raise InvalidNetns(f"CNI_NETNS {path!r} is the plugin's own network namespace, expected a container's")
        try:
            with EnteredNetns(container, self.netns):
                self._container_rtnl = RtnlSocket()
        except BaseException:
            container.close()
            raise
        self.container = container

    @property
    def in_container(self) -> EnteredNetns:
        """A context manager for `with`: the calling thread is in the container's namespace."""
        return EnteredNetns(self._need_container(), self.netns)

    @property
    def container_descriptor(self) -> int:
        return self._need_container().descriptor

    def _need_container(self) -> Netns:
        if self.container is None:
            raise InvalidNetns("the container's network namespace is gone")
        return self.container

    @property
    def container_rtnl(self) -> RtnlSocket:
        if self._container_rtnl is None:
            raise InvalidNetns("the container's network namespace is gone")
        return self._container_rtnl

    def attachment_record(self, key: str) -> str:
        """Returns the path of an attachment's record; `key` is the owner's, and with none the beginning of all."""
        return f"{RUN}/attachment-{os.fstat(self.netns.descriptor).st_ino}-{key}"

    @property
    def pod_records(self) -> str:
        """The folder of records of pods for podwired; it exists while podwired enforces NetworkPolicy."""
        return f"{RUN}/pods-{os.fstat(self.netns.descriptor).st_ino}"

    @property
    def netfilter(self) -> Netlink:
        """The socket for messages about foreign tables, opened on demand: that for podwire's own if it is open."""
        if self._netfilter is None:
            self._netfilter = self._nft if self._nft is not None else Netlink(NETLINK_NETFILTER)
        return self._netfilter

    @property
    def nft(self) -> Nft:
        """The socket for podwire's tables, opened on demand: without nftables, features that do not need it work."""
        if self._nft is None:
            from cni.effects.nft_socket import Nft

            self._nft = Nft()
        return self._nft

    def remember(self) -> None:
        """Caches all further dumps, since nothing is changed any more."""
        for rtnl_socket in (self.rtnl, self._container_rtnl):
            if rtnl_socket is not None:
                rtnl_socket.remember()

    def is_sole_user(self) -> bool:
        """Returns True if no other container is attached or being attached or detached: shared objects may be undone.

        Own links and elements must be gone already. Ports may be of a container that another plugin has attached. The
        lock stays exclusive until the process ends.
        """
        if not self.lock.try_lock_exclusive() or any(label_keys(link.alias) for link in self.rtnl.links()):
            return False
        return self._nft is None or not self._nft.has_elements()


def node_identity() -> str:
    """Returns the host's identity, unique among hosts of an L2 segment: machine-id(5), or else its name."""
    try:
        return sysctl.read_text("/etc/machine-id") or os.uname().nodename
    except OSError:
        return os.uname().nodename


def has_ipv6() -> bool:
    return sysctl.exists("/proc/sys/net/ipv6")
