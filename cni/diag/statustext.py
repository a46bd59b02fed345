"""podwired's state as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from click import style

from cni.diag.output import printable, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    Object = dict[str, Any]

COLOURS = {"vxlan": "green", "direct": "green", "unreachable": "red", "failed": "red"}
COLUMNS = ("NODE", "SUBNET", "PUBLIC IP", "WAY", "STATE", "CHANGED", "LACKS")


def lines(answer: Object) -> Iterator[str]:
    """Yields the lines: the node, its peers, what is wrong."""
    is_ready = style("ready", fg="green", bold=True) if answer["ready"] else style("not ready", fg="red", bold=True)
    yield f"{printable(answer['node'])}: {is_ready} (podwired {answer['podwired']}, {answer['time']})"
    for reason in answer["reasons"]:
        yield style(f"  {printable(reason)}", fg="red")
    yield from _node(answer)
    yield _store(answer["store"])
    if answer["policies"] is not None:
        yield _policies(answer["policies"])
    yield _counts(answer["counts"])
    if answer["peers"]:
        yield ""
        yield table(COLUMNS, [row for peer in answer["peers"] for row in _rows(peer)])
    if answer["refused"]:
        yield ""
        yield "refused leases:"
        for refused in answer["refused"]:
            yield style(f"  {printable(refused['key'])}: {printable(refused['reason'])}", fg="yellow")
    if answer["events"]:
        yield ""
        yield "last warnings and errors:"
        for event in answer["events"]:
            yield f"  {event['time']} {event['level']}: {printable(event['message'])}"


def _node(answer: Object) -> Iterator[str]:
    network, lease, uplink = answer["network"], answer["lease"], answer["uplink"]
    if network is None:
        yield "network: not known yet"
    else:
        vni = f" VNI {network['vni']} port {network['port']}" if "vni" in network else ""
        direct = ", direct routes where possible" if network.get("direct_routing") else ""
        yield f"network: {', '.join(network['networks'])} by {network['backend']}{vni}{direct}"
    if lease is None:
        yield "lease: none yet"
    else:
        expiry = f", expires {answer['lease_expires']}" if answer["lease_expires"] else ""
        yield f"lease: {', '.join(lease['subnets'])} behind {', '.join(lease['public_ips'])}{expiry}"
    if uplink is not None:
        down = "" if uplink["up"] else style(" (down)", fg="red")
        yield f"uplink: {uplink['interface']} {', '.join(uplink['addresses'])} MTU {uplink['mtu']}{down}"
    for tunnel in answer["tunnels"]:
        vni = f"VNI {tunnel['vni']} port {tunnel['port']}"
        yield f"tunnel: {tunnel['device']} {tunnel['mac']} MTU {tunnel['mtu']} {vni}"


def _store(store: Object) -> str:
    if store["error"]:
        return f"store: {store['kind']}: {style(printable(store['error']), fg='red')}"
    before = (
        f" (last error {store['last_error_time']}: {printable(store['last_error'])})" if store["last_error"] else ""
    )
    return f"store: {store['kind']}{before}"


def _policies(policies: Object) -> str:
    force = "in force" if policies["in_force"] else style("not in force yet", fg="red")
    faults = [f"{count} {fault}" for fault, count in policies["faults"].items() if count]
    trouble = style(f"; at fault: {', '.join(faults)}", fg="yellow") if faults else ""
    return (
        f"policies: {force}: {policies['policies']} policies, {policies['pods']} pods, {policies['sets']} sets{trouble}"
    )


def _counts(counts: Object) -> str:
    states = [f"{counts[state]} {state}" for state in COLOURS if counts[state]]
    shown = f" ({', '.join(states)})" if states else ""
    return f"peers: {counts['peers']}{shown}, refused leases: {counts['refused']}"


def _rows(peer: Object) -> Iterator[tuple[str, ...]]:
    for endpoint in peer["endpoints"]:
        lacking = [name for name, is_there in endpoint["applied"].items() if not is_there]
        way, changed = endpoint["way"] or "-", peer["changed"] or "-"
        name = peer.get("name") or "-"  # podwired may be of an earlier build
        yield (name, endpoint["subnet"], endpoint["public_ip"], way, peer["state"], changed, ", ".join(lacking))
