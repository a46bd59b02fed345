"""Remnants: what is left on this node of attachments that are gone, since their DEL was never called or came to another
plugin.

An attachment lives as long as its host interface is there, a runtime keeps its result, the namespace of its ADD exists,
or a network namespace has one of its addresses that no other attachment has by now.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from cni.config.tuning import DATA_DIR
from cni.diag.node.attachments import PRESENT, attachments
from cni.diag.node.conflists import networks
from cni.diag.node.keptcalls import kept_calls
from cni.diag.node.pools import LEAKED, YOUNG_SECONDS, pools, reclaim
from cni.effects import nft_elements, policy, portmap, tuning
from cni.effects.nft_socket import LABELLED_SETS, MASQUERADE_SETS, PORT_MAPS, PORT_SETS, TARGET_BYTES
from cni.effects.portmap import PORT
from cni.effects.sourcecheck import IFNAME_BYTES
from cni.kernel import statefile
from cni.plan.nftables import SOURCES, TARGETS, standby_map
from cni.plan.tuning import saved_label
from cni.plugins.context import collect_errors, read_attachment_records
from cni.protocol.address import IP, parse_net
from cni.protocol.errors import IOFailure
from cni.protocol.owner import Owner, host_interface_of, label_keys
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from cni.diag.node.attachments import Attached
    from cni.diag.node.keptcalls import KeptCall
    from cni.diag.node.pools import Pool
    from cni.diag.node.sight import Sight
    from cni.effects.host import Host
    from cni.kernel.nft import Element, SetRef

    Json = dict[str, Any]

LEASE, RECORD, INTERFACE, ELEMENT, POLICY, SETTINGS = "lease", "record", "interface", "element", "policy", "settings"
ADDRESSED = {"hairpin4", "hairpin6", *MASQUERADE_SETS}  # their keys are addresses
SOURCED = (*SOURCES.values(), TARGETS)  # their keys are an interface and an address


class Remnant(Record):
    """An object of an attachment that is gone. `holder` is NETWORK/CONTAINER/INTERFACE, perhaps truncated."""

    kind: str
    object: str
    holder: str


class Labelled(Record):
    """An object with the label of an attachment, and the address that it is about, None if it is about none."""

    remnant: Remnant
    key: str
    ip: IP | None


class Remnants:
    """All remnants of a node: look, then perhaps remove while the host's lock is held."""

    def __init__(self, host: Host, sight: Sight, conf_dir: str) -> None:
        """Changes nothing. Raises one of FAILURES."""
        self._host = host
        self._attached = attachments(host)
        self._calls = {call.owner.key: call for call in kept_calls(host).values()}
        configs = [config for network in networks(conf_dir) for config in network.configs]
        configs += [config for call in self._calls.values() for config in call.configs]
        self._pools = pools(configs, self._attached, sight)
        self._records = read_attachment_records(host)
        labelled = [*_elements(host), *_links(host), *_pod_records(host), *_saved_settings(configs)]
        self._judge = _Judge(host, sight, self._attached, self._calls, self._pools, labelled)
        self._stale = [each for each in labelled if self._judge.is_gone(each.key)]
        self._keys = {each.key for each in self._stale}
        self._folders = _folders(configs)

    def all(self) -> list[Remnant]:
        leases = [
            Remnant(LEASE, f"{pool.folder}/{each.lease.ip.text}", _name(pool.network, *each.lease[1:]))
            for pool in self._pools
            for each in pool.leases
            if each.state == LEAKED
        ]
        records = [Remnant(RECORD, path, _name(*record.owner)) for path, record in self._stale_records()]
        return [*leases, *records, *[each.remnant for each in self._stale]]

    def _stale_records(self) -> Iterator[tuple[str, Any]]:
        for path, record in self._records:
            if self._judge.is_gone(record.owner.key) or self._judge.is_detached(record.owner.key):
                yield path, record

    def remove(self) -> list[str]:
        """Removes all by the functions of the GC verb, and what has leaked of pools. Returns errors. Raises nothing."""
        host, errors, keys = self._host, list[str](), self._keys

        def matches(label: str) -> bool:
            owner = label_keys(label)
            return owner is not None and owner[1] in keys

        if keys:
            collect_errors(errors, lambda: nft_elements.remove_labelled(host, matches))
            collect_errors(errors, lambda: portmap.release_labelled(host, matches))
            collect_errors(errors, lambda: policy.release_labelled(host, matches))
        for folder in self._folders if keys else ():
            collect_errors(errors, lambda: tuning.release_labelled(folder, matches))  # noqa: B023  # called at once
        for name in [each.remnant.object for each in self._stale if each.remnant.kind == INTERFACE]:
            collect_errors(errors, lambda: host.rtnl.delete(name))  # noqa: B023
        for path, _ in self._stale_records():
            collect_errors(errors, lambda: statefile.remove(path))  # noqa: B023
        for pool in self._pools:
            collect_errors(errors, lambda: _reclaim(pool))  # noqa: B023
        return errors


class _Judge:
    """Says which attachments are gone."""

    def __init__(
        self,
        host: Host,
        sight: Sight,
        attached: Sequence[Attached],
        calls: dict[str, KeptCall],
        seen: Sequence[Pool],
        labelled: Iterable[Labelled],
    ) -> None:
        self._sight, self._calls = sight, calls
        self._links = {link.name for link in host.rtnl.links()}
        present = [each for each in attached if each.interface == PRESENT]
        self._holders = {ip: each.owner.key for each in present for ip in _ips(each.addresses)}
        self._addresses: dict[str, set[IP]] = {}
        for each in labelled:
            if each.ip is not None:
                self._addresses.setdefault(each.key, set()).add(each.ip)
        self._held = {
            Owner(pool.network, *each.lease[1:]).key for pool in seen for each in pool.leases if each.state != LEAKED
        }

    def is_gone(self, key: str) -> bool:
        """Returns True if nothing is left of an attachment that lives."""
        call = self._calls.get(key)
        if self._is_attached(key) or key in self._held or (call is not None and os.path.lexists(call.netns)):
            return False
        kept = [str(ip.get("address", "")) for ip in call.result.get("ips") or ()] if call is not None else []
        return not any(self._is_used(ip, key) for ip in {*_ips(kept), *self._addresses.get(key, ())})

    def is_detached(self, key: str) -> bool:
        """Returns True if a reference plugin has detached it: its lease and its interface are gone, and podwire's
        record is left.
        """
        return not self._is_attached(key) and key not in self._held

    def _is_attached(self, key: str) -> bool:
        call = self._calls.get(key)
        is_young = call is not None and time.time() - call.since < YOUNG_SECONDS
        return host_interface_of(key) in self._links or is_young or (call is not None and call.by_runtime)

    def _is_used(self, ip: IP, key: str) -> bool:
        return ip in self._sight.addresses and self._holders.get(ip, key) == key


def _name(*owner: str) -> str:
    return "/".join(owner)


def _ips(addresses: Iterable[str]) -> Iterator[IP]:
    """Yields the addresses of a result; what is none is left out."""
    for address in addresses:
        with contextlib.suppress(ValueError):
            yield parse_net(address).ip


def _reclaim(pool: Pool) -> None:
    reclaim(pool)


def _labelled(kind: str, name: str, label: str, ip: IP | None = None) -> Iterator[Labelled]:
    keys = label_keys(label)
    if keys is not None:
        yield Labelled(Remnant(kind, name, label.split(" ", 3)[-1]), keys[1], ip)


def _elements(host: Host) -> Iterator[Labelled]:
    """Yields the elements of all containers. Raises NetlinkError, OSError."""
    for set_ref in (*LABELLED_SETS, *PORT_SETS.values()):
        for element in host.nft.elements(set_ref):
            ip = _address_of(set_ref, element)
            text = f" {ip.text}" if ip is not None else ""
            yield from _labelled(ELEMENT, f"{set_ref.name}{text}", element.label, ip)


def _address_of(set_ref: SetRef, element: Element) -> IP | None:
    """Returns the address of its container that an element has."""
    name = set_ref.name
    if name in ADDRESSED:
        packed = element.key
    elif name in SOURCED:
        packed = element.key[IFNAME_BYTES:]
    elif name in PORT_MAPS:
        packed = element.value[: -PORT.size]
    elif name in map(standby_map, PORT_MAPS):
        packed = element.key[-TARGET_BYTES[name.removeprefix(standby_map(""))] : -PORT.size]
    else:
        return None
    return IP.from_packed(packed)


def _links(host: Host) -> Iterator[Labelled]:
    for link in host.rtnl.links():
        yield from _labelled(INTERFACE, link.name, link.alias)


def _pod_records(host: Host) -> Iterator[Labelled]:
    """Yields the records of pods that podwired has for NetworkPolicy. Raises IOFailure."""
    for name in statefile.names(host.pod_records):
        path = f"{host.pod_records}/{name}"
        record = policy.read_record(path)
        if record is not None:
            yield from _labelled(POLICY, path, record.label)


def _folders(configs: Iterable[Json]) -> list[str]:
    """Returns the folders in which `tuning` saves settings."""
    named = [str(config.get("dataDir") or DATA_DIR) for config in configs if config.get("type") == "tuning"]
    return [*dict.fromkeys([DATA_DIR, *named])]


def _saved_settings(configs: Iterable[Json]) -> Iterator[Labelled]:
    for folder in _folders(configs):
        for name in statefile.names(folder):
            path = f"{folder}/{name}"
            if name.endswith(".json"):
                with contextlib.suppress(IOFailure):  # not one of ours
                    yield from _labelled(SETTINGS, path, saved_label(statefile.read(path) or b""))
