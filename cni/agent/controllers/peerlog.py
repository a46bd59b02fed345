"""Logs which peers were added, changed and removed, and which leases are ignored: by name, or many by number."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cni.agent.logs import log
from cni.protocol.address import mac_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cni.agent.model.lease import Endpoint, Lease
    from cni.agent.model.peers import Peers

LONGEST_KEY = 200  # characters of keys and errors, which other programs may write
ONE_BY_ONE = 20  # of more only the number is logged


class PeerLog:
    """The peers that the log has named; `changed_at`: when each last changed, in seconds since the epoch."""

    def __init__(self) -> None:
        self.changed_at: dict[str, float] = {}
        self._named: dict[str, Lease] = {}
        self._peers: Peers | None = None  # all of them, as they were last noted

    def note_all(self, peers: Peers) -> None:
        """Takes in all peers; of those that it knows it logs what has changed since."""
        if peers is not self._peers:
            log_errors(peers.errors, peers.errors)
        log_changes(self._named, peers.served)
        self._note_times(self._named, peers.served)
        self._peers, self._named = peers, dict(peers.served)

    def note(self, peers: Peers, before: Mapping[str, Lease | None]) -> None:
        """Takes in the peers that have changed; `before`: their leases until then."""
        after = {key: peers.served.get(key) for key in before}
        log_errors(peers.errors, before)
        log_changes(before, after)
        self._note_times(before, after)
        for key, lease in after.items():
            if lease is None:
                self._named.pop(key, None)
            else:
                self._named[key] = lease

    def _note_times(self, before: Mapping[str, Lease | None], after: Mapping[str, Lease | None]) -> None:
        now = time.time()
        for key in _changed(before, after):
            if after.get(key) is None:
                self.changed_at.pop(key, None)
            else:
                self.changed_at[key] = now


def _changed(before: Mapping[str, Lease | None], after: Mapping[str, Lease | None]) -> list[str]:
    return [key for key in {**before, **after} if _endpoints(before.get(key)) != _endpoints(after.get(key))]


def log_changes(before: Mapping[str, Lease | None], after: Mapping[str, Lease | None]) -> None:
    """Logs the differences between the peers that were served and those that are, by their key."""
    changed = _changed(before, after)
    if len(changed) > ONE_BY_ONE:
        added = sum(not before.get(key) for key in changed)
        removed = sum(not after.get(key) for key in changed)
        log.info("added %d peers, changed %d, removed %d", added, len(changed) - added - removed, removed)
        return
    for key in changed:
        _log_change(before.get(key), after.get(key))


def _log_change(old: Lease | None, new: Lease | None) -> None:
    if new is None:
        log.info("removed peer %s", fields_of(old))
    elif old is None:
        log.info("added peer %s", fields_of(new))
    else:
        log.info("changed peer %s (was %s)", _all_fields_of(new), _all_fields_of(old))


def log_errors(errors: Mapping[str, str], keys: Iterable[str]) -> None:
    """Logs why leases are ignored, of those keys that have an error."""
    ignored = [key for key in keys if key in errors]
    for key in ignored[:ONE_BY_ONE]:
        log.warning("lease %s is ignored: %s", key[:LONGEST_KEY], errors[key][:LONGEST_KEY])
    if len(ignored) > ONE_BY_ONE:
        log.warning("%d leases are ignored", len(ignored))


def fields_of(lease: Lease | None) -> str:
    """Returns a lease's fields for the log: `subnet=10.5.2.0/24 public_ip=192.0.2.2`, with commas for two families."""
    endpoints = _endpoints(lease)
    subnets, ips = [endpoint.subnet.text for endpoint in endpoints], [endpoint.public_ip.text for endpoint in endpoints]
    return f"subnet={','.join(subnets)} public_ip={','.join(ips)}"


def _all_fields_of(lease: Lease) -> str:
    macs = [mac_text(endpoint.vtep_mac) for endpoint in lease.endpoints if endpoint.vtep_mac is not None]
    return f"{fields_of(lease)} vtep_mac={','.join(macs)}" if macs else fields_of(lease)


def _endpoints(lease: Lease | None) -> tuple[Endpoint, ...]:
    """Returns the part of a lease that the data plane follows from; empty without a lease."""
    return lease.endpoints if lease is not None else ()
