"""The nftables socket: elements asked for, found and removed, and the chains that have rules."""

from __future__ import annotations

from errno import EINVAL, EPROTONOSUPPORT
from posix import strerror

from cni.kernel import nft
from cni.kernel.netlink import (
    NETLINK_NETFILTER,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    U32,
    Netlink,
    NetlinkError,
    frame,
    refusal_of,
)
from cni.plan import nfttext
from cni.protocol.owner import label_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.kernel.nft import Element, SetRef

FAMILIES = {nfttext.INET: nft.NFPROTO_INET, nfttext.BRIDGE: nft.NFPROTO_BRIDGE}


def _places(table: str, *names: str) -> dict[str, SetRef]:
    return {name: nft.SetRef(FAMILIES[table], nfttext.TABLE, name) for name in names}


MASQUERADES = _places(nfttext.INET, *[nfttext.masquerade_map(family) for family in (4, 6)])
PORT_MAPS = [f"{name}{family}" for name in ("hostip_hostports", "hostports") for family in (4, 6)]
STANDBY = [*map(nfttext.standby_map, PORT_MAPS)]
PORTS = _places(
    nfttext.INET,
    *PORT_MAPS,
    *[f"condition_{name}" for name in PORT_MAPS],
    *STANDBY,
    "hairpin4",
    "hairpin6",
)
# Of an address and a port, each padded to four bytes.
TARGET_BYTES = {name: 8 if name.endswith("4") else 20 for name in PORT_MAPS}
GUARDS = _places(nfttext.BRIDGE, nfttext.ALLOWED, nfttext.GUARDED)


class _NoSocket:
    """Stands where the kernel has no nfnetlink."""

    @staticmethod
    def send(_data: bytes) -> None:
        raise OSError(EPROTONOSUPPORT, strerror(EPROTONOSUPPORT))

    @staticmethod
    def close() -> None:
        """There is nothing to close."""


class Nft(Netlink):
    """A kernel without nftables has nothing of what is looked for, and refuses what is added.

    Every method raises NetlinkError and OSError for what the kernel refuses, beyond what its own line says.
    """

    def __init__(self) -> None:
        try:
            super().__init__(NETLINK_NETFILTER)
        except OSError as error:
            if error.errno not in nft.NOT_FOUND:
                raise
            self._socket, self._sequence = _NoSocket(), 0  # type: ignore[assignment]  # all that is used of one
        self._known: bool | None = None
        self._chains: dict[str, set[str]] = {}
        self._standby: dict[str, dict[bytes, list[Element]]] = {}

    def chains(self, table: str) -> set[str]:
        """The chains that have rules: one that somebody flushed is as good as none. Asked for once, until `forget`."""
        if table not in self._chains:
            try:
                answers = self.dump(*nft.rules_of(FAMILIES[table], nfttext.TABLE))
            except (NetlinkError, OSError) as error:
                if not self._is_absence(error):
                    raise
                answers = []
            self._chains[table] = {chain for of, chain in map(nft.parse_rule, answers) if of == nfttext.TABLE}
        return self._chains[table]

    @property
    def is_in_kernel(self) -> bool:
        """Asked for once. Of a subsystem that it does not have, nfnetlink says EINVAL."""
        if self._known is None:
            try:
                self.ask(*nft.generation())
                self._known = True
            except (NetlinkError, OSError) as error:
                if error.errno not in nft.NOT_FOUND_OR_EINVAL:
                    raise
                self._known = False
        return self._known

    def _is_absence(self, error: NetlinkError | OSError) -> bool:
        return error.errno in nft.NOT_FOUND or (error.errno == EINVAL and not self.is_in_kernel)

    def forget_chains(self) -> None:
        self._chains.clear()

    def standby(self, name: str) -> dict[bytes, list[Element]]:
        """The elements beside a map of ports, by the port's key. Asked for once, until `forget_standby`."""
        if name not in self._standby:
            found = self._standby[name] = {}
            for element in self.elements(PORTS[nfttext.standby_map(name)]):
                found.setdefault(element.key[: -TARGET_BYTES[name]], []).append(element)
        return self._standby[name]

    def forget_standby(self) -> None:
        self._standby.clear()

    def change(self, *messages: tuple[int, int, bytes]) -> NetlinkError | None:
        """All of them or none take effect."""
        return self.batch(nft.transaction(list(messages)))

    def find(self, place: SetRef, element: Element) -> Element | None:
        """Whatever has the element's key."""
        try:
            answer = self.ask(*nft.get_element(place, element))
        except (NetlinkError, OSError) as error:
            if self._is_absence(error):
                return None
            raise
        return next(iter(nft.parse_elements(answer)), None)

    def remove(self, place: SetRef, element: Element) -> bool:
        """Absence is success, and so is a key that by now is another's. Tells whether the element was there."""
        found = self.find(place, element)
        if found is None or found.label != element.label:
            return False
        refusal = self.change(nft.delete_element(place, element))
        if refusal is not None and refusal.errno not in nft.NOT_FOUND:
            raise refusal
        return True

    def has_elements(self) -> bool:
        """Of any container."""
        places = (*MASQUERADES.values(), *GUARDS.values(), *PORTS.values())
        return any(label_keys(element.label) for place in places for element in self.elements(place))

    def each_element(self, place: SetRef) -> Iterator[Element]:
        """The same as they come, consistent or not; empty where there is none.

        Who stops before the end has to close the socket: the kernel dumps one thing at a time.
        """
        self._sequence += 1
        kind, payload = nft.all_elements(place)
        self._socket.send(frame(kind, NLM_F_REQUEST | NLM_F_DUMP, self._sequence, payload))
        for answer, flags, _, content in self._messages():
            if answer in (NLMSG_ERROR, NLMSG_DONE):
                refusal = refusal_of(flags, content) if len(content) >= U32.size else None
                if refusal is not None and not self._is_absence(refusal):
                    raise refusal
                return
            yield from nft.each_element(content)

    def elements(self, place: SetRef) -> list[Element]:
        """The cost grows with their number."""
        try:
            answers = self.dump(*nft.all_elements(place))
        except (NetlinkError, OSError) as error:
            if self._is_absence(error):
                return []
            raise
        return [one for answer in answers for one in nft.parse_elements(answer)]
