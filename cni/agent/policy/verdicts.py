"""The maps from this node's addresses to the chains of their classes.

A new pod's address stays pending in the map of all pods, as its ADD has led it, and has its class in the map of new
pods beside it, until `settle`: adding is all that happens while the ADD waits.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cni.agent.policy.basetable import NOT_ISOLATED, PENDING
from cni.plan.policy import map_name, new_map

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from cni.agent.policy.desired import Delta


class Verdicts:
    """The chains of addresses by map, and who uses a chain; `maps` are those of the desired table."""

    def __init__(self, maps: dict[str, dict[bytes, str]], families: tuple[int, ...]) -> None:
        self._maps = maps
        self._pairs = [
            (name, new_map(name)) for name in [map_name(way, family) for way in PENDING for family in families]
        ]
        self.users: Counter[str] = Counter()  # addresses of a chain
        self.lost: list[str] = []  # chains that have lost a user, and may have lost their last
        self._met: set[bytes] = set()
        self._settled: set[bytes] = set()
        self.new: set[bytes] = set()

    def meet(self, name: str, address: bytes, chain: str | None) -> None:
        """Takes in to which chain somebody else has led an address in a map; None: to none any more."""
        verdicts = self._maps[name]
        self._release(verdicts.pop(address, None))
        if chain is not None:
            self.users[chain] += 1
            verdicts[address] = chain
        if chain in PENDING.values():
            self.new.add(address)
        elif any(name == main for main, _ in self._pairs):
            self.new.discard(address)
        self._met.add(address)

    @property
    def has_met(self) -> bool:
        """True if others have led an address somewhere since `take_met`."""
        return bool(self._met)

    def take_met(self) -> set[bytes]:
        """Returns the addresses that others have led somewhere since the call before."""
        met, self._met = self._met, set()
        return met

    def settle(self, addresses: AbstractSet[bytes]) -> None:
        """Makes these addresses such as are not new."""
        self._settled |= addresses
        self.new -= addresses

    def close(self, addresses: AbstractSet[bytes], delta: Delta) -> None:
        """Sends as pending, of these addresses, those of new pods: the kernel has them so, unless podwired changed the
        earlier holder's element after the ADD and before it heard of it. Where it is pending, the kernel does nothing.
        """
        for name, _ in self._pairs:
            verdicts = self._maps[name]
            for address in addresses & self.new & verdicts.keys():
                delta.verdicts.setdefault(name, {})[address] = verdicts[address]

    def take_settled(self) -> set[bytes]:
        """Returns the addresses that have been settled since the call before."""
        settled, self._settled = self._settled, set()
        return settled

    @property
    def are_any_unjudged(self) -> bool:
        """True if podwired does not know a pod: more addresses are pending than have a class as new pods."""
        pending = sum([self.users[chain] for chain in PENDING.values()])
        return pending > sum([len(self._maps[early]) for _, early in self._pairs])

    def lead(self, address: bytes, way: str, family: int, chain: str | None, delta: Delta) -> None:
        """Leads an address to a chain, by the map of new pods if it is one; None: to none."""
        name = map_name(way, family)
        is_new = address in self.new
        early = (chain or NOT_ISOLATED[way]) if is_new and chain != PENDING[way] else None
        self._put(new_map(name), address, early, delta)
        self._put(name, address, PENDING[way] if is_new else chain, delta)

    def _put(self, name: str, address: bytes, new: str | None, delta: Delta) -> None:
        verdicts = self._maps[name]
        old = verdicts.get(address)
        if old == new:
            return
        if old is not None:
            delta.old_verdicts.setdefault(name, []).append(address)
            self._release(verdicts.pop(address))
        if new is not None:
            delta.verdicts.setdefault(name, {})[address] = new
            self.users[new] += 1
            verdicts[address] = new

    def _release(self, chain: str | None) -> None:
        if chain is not None:
            self.users[chain] -= 1
            self.lost.append(chain)
