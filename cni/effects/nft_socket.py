"""The nftables socket: finds, lists and removes elements, and lists the chains that have rules."""

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
from cni.plan import nftables
from cni.protocol.owner import label_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.kernel.nft import Element, SetRef

FAMILIES = {nftables.INET: nft.NFPROTO_INET, nftables.BRIDGE: nft.NFPROTO_BRIDGE}


def _set_refs(table: str, *names: str) -> dict[str, SetRef]:
    return {name: nft.SetRef(FAMILIES[table], nftables.TABLE, name) for name in names}


MASQUERADE_SETS = _set_refs(nftables.INET, *[nftables.masquerade_map(family) for family in (4, 6)])
PORT_MAPS = [f"{name}{family}" for name in ("hostip_hostports", "hostports") for family in (4, 6)]
STANDBY = [*map(nftables.standby_map, PORT_MAPS)]
PORT_SETS = _set_refs(
    nftables.INET,
    *PORT_MAPS,
    *[f"condition_{name}" for name in PORT_MAPS],
    *STANDBY,
    "hairpin4",
    "hairpin6",
)
# Of an address and a port, each padded to four bytes.
TARGET_BYTES = {name: 8 if name.endswith("4") else 20 for name in PORT_MAPS}
SPOOFCHECK_SETS = _set_refs(nftables.BRIDGE, nftables.ALLOWED, nftables.GUARDED)
SOURCE_SETS = {
    **_set_refs(nftables.BRIDGE, nftables.CHECKED, *nftables.SOURCES.values(), nftables.TARGETS),
    **_set_refs(nftables.INET, nftables.ROUTED, nftables.BRIDGED),
}
LABELLED_SETS = [*MASQUERADE_SETS.values(), *SPOOFCHECK_SETS.values(), *SOURCE_SETS.values()]


class _NoSocket:
    """A socket of a kernel without nfnetlink."""

    @staticmethod
    def send(_data: bytes) -> None:
        raise OSError(EPROTONOSUPPORT, strerror(EPROTONOSUPPORT))

    @staticmethod
    def close() -> None:
        """Does nothing."""


class Nft(Netlink):
    """The socket for podwire's tables. On a kernel without nftables nothing is found, and additions fail.

    Every method raises NetlinkError and OSError if the kernel rejects a message, beyond what its own line says.
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
        """Returns the chains that have rules: a flushed one counts as missing. Cached until `forget_chains`."""
        if table not in self._chains:
            try:
                answers = self.dump(*nft.rules_of(FAMILIES[table], nftables.TABLE))
            except (NetlinkError, OSError) as error:
                if not self._is_absence(error):
                    raise
                answers = []
            self._chains[table] = {chain for of, chain in map(nft.parse_rule, answers) if of == nftables.TABLE}
        return self._chains[table]

    @property
    def is_in_kernel(self) -> bool:
        """True if the kernel has nftables; cached. For a subsystem that it does not have, nfnetlink answers EINVAL."""
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
        """Returns the standby elements of a map of ports, by the port's key. Cached until `forget_standby`."""
        if name not in self._standby:
            elements = self._standby[name] = {}
            for element in self.elements(PORT_SETS[nftables.standby_map(name)]):
                elements.setdefault(element.key[: -TARGET_BYTES[name]], []).append(element)
        return self._standby[name]

    def forget_standby(self) -> None:
        self._standby.clear()

    def change(self, *messages: tuple[int, int, bytes]) -> NetlinkError | None:
        """Sends a transaction: all messages or none take effect. Returns the error."""
        return self.batch(nft.transaction(list(messages)))

    def find(self, set_ref: SetRef, element: Element) -> Element | None:
        """Returns the element of the set that has the same key."""
        try:
            answer = self.ask(*nft.get_element(set_ref, element))
        except (NetlinkError, OSError) as error:
            if self._is_absence(error):
                return None
            raise
        return next(iter(nft.parse_elements(answer)), None)

    def remove(self, set_ref: SetRef, element: Element) -> bool:
        """Removes an element. A missing one is success, and so is a key that has another label by now.

        Returns True if the element was there.
        """
        current = self.find(set_ref, element)
        if current is None or current.label != element.label:
            return False
        refusal = self.change(nft.delete_element(set_ref, element))
        if refusal is not None and refusal.errno not in nft.NOT_FOUND:
            raise refusal
        return True

    def remove_all(self, owned: list[tuple[SetRef, Element]]) -> bool:
        """Removes elements in one transaction, whatever their labels. Returns False, and removes none, if one is
        missing.
        """
        try:
            refusal = self.change(*[nft.delete_element(*pair) for pair in owned])
            if refusal is not None:
                raise refusal
        except (NetlinkError, OSError) as error:
            if self._is_absence(error):
                return False
            raise
        return True

    def has_elements(self) -> bool:
        """Returns True if there are elements of any container."""
        set_refs = (*LABELLED_SETS, *PORT_SETS.values())
        return any(label_keys(element.label) for set_ref in set_refs for element in self.elements(set_ref))

    def each_element(self, set_ref: SetRef) -> Iterator[Element]:
        """Yields the elements of one dump, consistent or not; none if there is no set.

        A caller that stops before the end has to close the socket: the kernel runs one dump at a time.
        """
        self._sequence += 1
        kind, payload = nft.all_elements(set_ref)
        self._socket.send(frame(kind, NLM_F_REQUEST | NLM_F_DUMP, self._sequence, payload))
        for answer, flags, _, content in self._messages():
            if answer in (NLMSG_ERROR, NLMSG_DONE):
                refusal = refusal_of(flags, content) if len(content) >= U32.size else None
                if refusal is not None and not self._is_absence(refusal):
                    raise refusal
                return
            yield from nft.each_element(content)

    def elements(self, set_ref: SetRef) -> list[Element]:
        """Returns all elements; the cost grows with their number."""
        try:
            answers = self.dump(*nft.all_elements(set_ref))
        except (NetlinkError, OSError) as error:
            if self._is_absence(error):
                return []
            raise
        return [element for answer in answers for element in nft.parse_elements(answer)]
