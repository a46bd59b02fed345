"""Named ports that rules ask for: the pods that have one, with the number that it has in each."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cni.agent.policy.holders import Entry, Holders

    PortName = tuple[str, str]  # protocol and name
    Endpoint = tuple[bytes, int]  # address and port


class PortNames:
    """The names in use, and the addresses with ports that each has gained (True) or lost."""

    def __init__(self) -> None:
        self._users: dict[PortName, int] = {}
        self._changes: dict[PortName, dict[Endpoint, bool]] = {}

    def use(self, name: PortName, holders: Holders) -> list[Endpoint]:
        """Returns the addresses of the pods that have a port of that protocol and name, with the port."""
        self._users[name] = self._users.get(name, 0) + 1
        return [endpoint for address, entry in holders.items() for endpoint in _endpoints(address, entry, name)]

    def release(self, name: PortName) -> None:
        self._users[name] -= 1
        if not self._users[name]:
            del self._users[name]
            self._changes.pop(name, None)

    def note(self, address: bytes, before: Entry | None, after: Entry | None) -> None:
        """Takes in that an address has another holder, or the holder other ports."""
        if (before.ports if before else ()) == (after.ports if after else ()):
            return
        for name in self._users:
            old, new = (set(_endpoints(address, entry, name)) for entry in (before, after))
            changed = self._changes.setdefault(name, {})
            changed.update({endpoint: endpoint in new for endpoint in old ^ new})

    def take(self) -> dict[PortName, dict[Endpoint, bool]]:
        """Returns what has changed since the call before."""
        changes, self._changes = self._changes, {}
        return changes


def _endpoints(address: bytes, entry: Entry | None, name: PortName) -> list[Endpoint]:
    """Returns the ports of that protocol and name that the holder of an address has there."""
    ports = entry.ports if entry is not None else ()
    return [(address, port.number) for port in ports if (port.protocol, port.name) == name]
