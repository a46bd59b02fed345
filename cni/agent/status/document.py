"""The answer to the question `status`: a snapshot as JSON (cni/agent/README.md, Operations, has the shape).

Without details it has what /metrics and /readyz show to anybody: numbers, and the reasons why the node is not ready,
which can name an interface and its address. No other name or address is in it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cni import VERSION
from cni.agent.backends.vxlan import DEFAULT_PORT
from cni.agent.model.network import VXLAN
from cni.agent.secrets import without_credentials
from cni.protocol.address import mac_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cni.agent.logs import LoggedEvent
    from cni.agent.model.lease import Endpoint, Lease
    from cni.agent.model.network import NetworkConfig
    from cni.agent.status.snapshot import Snapshot
    from cni.protocol.jsontext import JsonValue

    Object = dict[str, JsonValue]

SHAPE = 1  # its version; members may be added without another one
TUNNEL, DIRECT = "vxlan", "direct"  # a peer's ways
UNREACHABLE = "unreachable"  # it has neither: no direct route, and no tunnel
FAILED = "failed"  # one of its entries is not in the kernel
STATES = (FAILED, UNREACHABLE, TUNNEL, DIRECT)  # the worst first


def document(
    snapshot: Snapshot, reasons: Iterable[str], events: Iterable[LoggedEvent], *, detailed: bool = True
) -> Object:
    """Returns the state. `reasons` says why the node is not ready."""
    texts = [without_credentials(reason) for reason in reasons if reason]
    shown: Object = {
        "version": SHAPE,
        "time": moment(snapshot.time),
        "detailed": detailed,
        "podwired": VERSION,
        "ready": not texts,
        "reasons": [*texts],
        "counts": {"peers": len(snapshot.served), **states(snapshot), "refused": len(snapshot.refused)},
        "store_up": not snapshot.store.error,
        "lease_expires": moment(snapshot.expires) if snapshot.expires else None,
        "policies": _policies(snapshot),
    }
    return {**shown, **_details(snapshot, events)} if detailed else shown


def states(snapshot: Snapshot) -> dict[str, int]:
    """Returns the number of peers by state, of all states."""
    counts = dict.fromkeys(STATES, 0)
    for lease in snapshot.served.values():
        counts[state_of(lease, snapshot)] += 1
    return counts


def state_of(lease: Lease, snapshot: Snapshot) -> str:
    """Returns a peer's state: of two families the worse one."""
    seen = [_state(endpoint, snapshot) for endpoint in lease.endpoints]
    return next((state for state in STATES if state in seen), FAILED)


def _state(endpoint: Endpoint, snapshot: Snapshot) -> str:
    forwarding = snapshot.forwarding.get(endpoint.subnet.family)
    if forwarding is None:
        return FAILED
    next_hop = forwarding.routes.get(endpoint.subnet)
    if next_hop is None:
        return UNREACHABLE
    if forwarding.refused and not all(_applied(endpoint, snapshot).values()):
        return FAILED
    return TUNNEL if next_hop.ifindex == forwarding.device else DIRECT


def _applied(endpoint: Endpoint, snapshot: Snapshot) -> dict[str, bool]:
    """Returns for each entry that a peer needs if the kernel has it."""
    subnet = endpoint.subnet
    forwarding = snapshot.forwarding.get(subnet.family)
    if forwarding is None or subnet not in forwarding.routes:
        return {"route": False}
    applied = {"route": subnet not in forwarding.refused}
    if forwarding.routes[subnet].ifindex == forwarding.device and endpoint.vtep_mac is not None:
        applied["neighbour"] = subnet.ip not in forwarding.refused
        applied["fdb"] = (endpoint.vtep_mac, endpoint.public_ip) not in forwarding.refused
    return applied


def moment(seconds: float) -> str:
    """Returns a time in UTC as RFC 3339 has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _policies(snapshot: Snapshot) -> Object | None:
    policies = snapshot.policies
    if policies is None:
        return None
    return {**policies._asdict(), "faults": dict(policies.faults)}


def _details(snapshot: Snapshot, events: Iterable[LoggedEvent]) -> Object:
    store = snapshot.store
    return {
        "node": snapshot.node,
        "network": _network(snapshot.config) if snapshot.config is not None else None,
        "lease": _lease(snapshot.lease) if snapshot.lease is not None else None,
        "uplink": _uplink(snapshot),
        "tunnels": _tunnels(snapshot),
        "store": {
            "kind": store.kind,
            "error": without_credentials(store.error),
            "last_error": without_credentials(store.last_error),
            "last_error_time": moment(store.last_error_time) if store.last_error_time else None,
        },
        "peers": [_peer(key, lease, snapshot) for key, lease in snapshot.served.items()],
        "refused": [{"key": key, "reason": reason} for key, reason in snapshot.refused.items()],
        "events": [{"time": moment(event.time), "level": event.level, "message": event.message} for event in events],
    }


def _network(config: NetworkConfig) -> Object:
    backend = config.backend
    shown: Object = {
        "networks": [config.network(family).text for family in config.families],
        "backend": backend.kind,
    }
    if backend.kind == VXLAN:
        shown |= {"vni": backend.vni, "port": backend.port or DEFAULT_PORT, "direct_routing": backend.direct_routing}
    return shown


def _lease(lease: Lease) -> Object:
    return {
        "subnets": [endpoint.subnet.text for endpoint in lease.endpoints],
        "public_ips": [endpoint.public_ip.text for endpoint in lease.endpoints],
    }


def _uplink(snapshot: Snapshot) -> Object | None:
    underlay = snapshot.underlay
    if underlay is None:
        return None
    addresses: list[JsonValue] = [net.text for net in underlay.addresses]
    return {"interface": underlay.name, "addresses": addresses, "mtu": underlay.mtu, "up": underlay.up}


def _tunnels(snapshot: Snapshot) -> list[JsonValue]:
    tunnels: list[JsonValue] = []
    for link in snapshot.tunnels:
        vni, port = (link.tunnel.vni, link.tunnel.port) if link.tunnel is not None else (None, None)
        tunnels.append({"device": link.name, "mtu": link.mtu, "vni": vni, "port": port, "mac": mac_text(link.mac)})
    return tunnels


def _peer(key: str, lease: Lease, snapshot: Snapshot) -> Object:
    changed: Mapping[str, float] = snapshot.changed_at
    return {
        "key": key,
        "name": lease.name or None,
        "state": state_of(lease, snapshot),
        "changed": moment(changed[key]) if key in changed else None,
        "endpoints": [_endpoint(endpoint, snapshot) for endpoint in lease.endpoints],
    }


def _endpoint(endpoint: Endpoint, snapshot: Snapshot) -> Object:
    forwarding = snapshot.forwarding.get(endpoint.subnet.family)
    next_hop = forwarding.routes.get(endpoint.subnet) if forwarding is not None else None
    way = None
    if forwarding is not None and next_hop is not None:
        way = TUNNEL if next_hop.ifindex == forwarding.device else DIRECT
    applied: Object = {**_applied(endpoint, snapshot)}
    return {"subnet": endpoint.subnet.text, "public_ip": endpoint.public_ip.text, "way": way, "applied": applied}
