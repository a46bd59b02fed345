"""Holders of addresses: the pod that an address belongs to, if several claim it.

A pod that was attached with the address on this node comes before those that only the API names: a pod that is gone may
be reported with its address for a while. Of equals, the last to claim it has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import ItemsView

    from cni.agent.policy.groups import Group
    from cni.agent.policy.objects import NamedPort


class Entry(Record):
    """A pod as the index keeps it: `attached` are its addresses that were attached on this node."""

    name: str
    group: Group
    addresses: tuple[bytes, ...]
    ports: tuple[NamedPort, ...]
    is_local: bool
    attached: tuple[bytes, ...]


class Holders:
    """The entry of each address; all claims of an address that has several, the holder's last."""

    def __init__(self) -> None:
        self._holders: dict[bytes, Entry] = {}
        self._contested: dict[bytes, list[Entry]] = {}

    def get(self, address: bytes) -> Entry | None:
        return self._holders.get(address)

    def items(self) -> ItemsView[bytes, Entry]:
        return self._holders.items()

    def replace(self, address: bytes, old: Entry | None, new: Entry | None) -> None:
        """Takes in that an entry, if it had the address, is another now, or has it no longer."""
        before = old if old is not None and address in old.addresses else None
        after = new if new is not None and address in new.addresses else None
        if before and after and (address in before.attached) == (address in after.attached):
            self._exchange(address, before, after)
            return
        if before:
            self._withdraw(address, before)
        if after:
            self._claim(address, after)

    def _claim(self, address: bytes, entry: Entry) -> None:
        holder = self._holders.get(address)
        if holder is None:
            self._holders[address] = entry
            return
        claims = self._contested.setdefault(address, [holder])
        attached = sum(address in claim.attached for claim in claims)
        claims.insert(len(claims) if address in entry.attached else len(claims) - attached, entry)
        self._holders[address] = claims[-1]

    def _withdraw(self, address: bytes, entry: Entry) -> None:
        claims = self._contested.get(address)
        if claims is None:
            del self._holders[address]
            return
        del claims[_position(claims, entry)]
        self._holders[address] = claims[-1]
        if len(claims) == 1:
            del self._contested[address]

    def _exchange(self, address: bytes, old: Entry, new: Entry) -> None:
        claims = self._contested.get(address)
        if claims is None:
            self._holders[address] = new
            return
        claims[_position(claims, old)] = new
        self._holders[address] = claims[-1]


def _position(claims: list[Entry], entry: Entry) -> int:
    return next(position for position, claim in enumerate(claims) if claim is entry)
