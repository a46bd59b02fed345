"""The status page: the document of the state as HTML, self-contained and without scripts.

Everything in it is escaped, since other nodes and programs write a part of it; and it is of a bounded size.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from cni.agent.status.document import STATES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    Object = dict[str, Any]

SHOWN = 200  # rows of a table; the worst peers come first
CELL = 300  # characters
REFRESH_SECONDS = 10
STYLE = """
:root{color-scheme:light dark;--text:#1b1f24;--dim:#57606a;--back:#fff;--line:#d0d7de;--good:#116329;--bad:#b3261e}
@media(prefers-color-scheme:dark){
:root{--text:#e6edf3;--dim:#9da7b1;--back:#0d1117;--line:#30363d;--good:#56d364;--bad:#ff8a80}}
body{margin:0 auto;padding:1.5rem;max-width:72rem;background:var(--back);color:var(--text);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;margin:0;overflow-wrap:anywhere}h2{font-size:1.1rem;margin:2rem 0 .5rem}p{margin:.3rem 0}
.good{color:var(--good)}.bad{color:var(--bad)}.dim{color:var(--dim)}div{overflow-x:auto}
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.25rem .8rem .25rem 0;
border-bottom:1px solid var(--line)}thead th{color:var(--dim);white-space:nowrap}
td{white-space:nowrap}td:last-child{white-space:normal;overflow-wrap:anywhere;min-width:8rem}
tbody th{font-weight:normal;color:var(--dim);white-space:nowrap;width:8rem}
"""
HINT = (
    "All else (names, addresses, peers, events) is shown to callers at this node's loopback address alone"
    " (kubectl port-forward, ssh -L), and by podwire status."
)
PEER_COLUMNS = ("Node", "Subnet", "Public IP", "Way", "State", "Changed", "Lacks")


def page(document: Object) -> bytes:
    """Returns the page of a document."""
    node = document.get("node", "podwired")
    state = _mark("ready", "good") if document["ready"] else _mark("not ready", "bad")
    parts = [
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{_text(node)}: podwired</title>',
        f'<meta name="viewport" content="width=device-width"><meta http-equiv="refresh" content="{REFRESH_SECONDS}">',
        f"<style>{STYLE}</style></head><body><h1>{_text(node)}: {state}</h1>",
        f'<p class="dim">podwired {_text(document["podwired"])}, as of {_text(document["time"])}</p>',
        *[f'<p class="bad">{_text(reason)}</p>' for reason in document["reasons"]],
        _table((), _facts(document)),
        *(_details(document) if document["detailed"] else [f'<p class="dim">{HINT}</p>']),
        "</body></html>\n",
    ]
    return "".join(parts).encode("utf-8", "replace")


def _text(value: object) -> str:
    text = str(value)
    return escape(text if len(text) <= CELL else f"{text[:CELL]} ...")


def _mark(text: object, kind: str) -> str:
    return f'<span class="{kind}">{_text(text)}</span>'


def _facts(document: Object) -> Iterator[Sequence[str]]:
    """Yields rows of a name and its value."""
    if document["detailed"]:
        yield from _facts_of_node(document)
    else:
        yield "store", _mark("up", "good") if document["store_up"] else _mark("down", "bad")
    if document["lease_expires"]:
        yield "lease expires", _text(document["lease_expires"])
    policies = document["policies"]
    if policies is not None:
        counts = ", ".join([f"{policies[name]} {name}" for name in ("policies", "pods", "sets")])
        force = _mark("in force", "good") if policies["in_force"] else _mark("not in force", "bad")
        wrong = [f"{count} {name}" for name, count in policies["faults"].items() if count]
        yield "policies", f"{force}: {_text(', '.join([counts, *wrong]))}"
    counts = document["counts"]
    states = [_mark(f"{counts[state]} {state}", _kind(state)) for state in STATES if counts[state]]
    yield "peers", ", ".join([_text(counts["peers"]), *states])
    yield "refused leases", _mark(counts["refused"], "bad" if counts["refused"] else "dim")


def _facts_of_node(document: Object) -> Iterator[Sequence[str]]:
    network, lease, uplink, store = (document[name] for name in ("network", "lease", "uplink", "store"))
    if network is not None:
        vni = f", VNI {network['vni']}, UDP port {network['port']}" if "vni" in network else ""
        yield "network", _text(f"{', '.join(network['networks'])} by {network['backend']}{vni}")
    if lease is not None:
        yield "lease", _text(f"{', '.join(lease['subnets'])} behind {', '.join(lease['public_ips'])}")
    if uplink is not None:
        down = "" if uplink["up"] else f" {_mark('down', 'bad')}"
        yield "uplink", _text(f"{uplink['interface']} {', '.join(uplink['addresses'])}, MTU {uplink['mtu']}") + down
    for tunnel in document["tunnels"]:
        yield "tunnel", _text(f"{tunnel['device']}, MTU {tunnel['mtu']}, {tunnel['mac']}")
    if store["error"]:
        yield "store", f"{_text(store['kind'])}: {_mark(store['error'], 'bad')}"
    else:
        last = f" (last error {store['last_error_time']}: {store['last_error']})" if store["last_error"] else ""
        yield "store", _text(f"{store['kind']}{last}")


def _details(document: Object) -> Iterator[str]:
    peers = sorted(document["peers"], key=lambda peer: STATES.index(peer["state"]))
    yield from _section("Peers", PEER_COLUMNS, [row for peer in peers[:SHOWN] for row in _peer_rows(peer)], len(peers))
    refused = document["refused"]
    rows: list[list[str]] = [[_text(each["key"]), _text(each["reason"])] for each in refused[:SHOWN]]
    yield from _section("Refused leases", ("Lease", "Reason"), rows, len(refused))
    events = [[_text(event[name]) for name in ("time", "level", "message")] for event in reversed(document["events"])]
    yield from _section("Last warnings and errors", ("Time", "Level", "Message"), events, len(events))


def _section(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], count: int) -> Iterator[str]:
    """Yields a table with its title; nothing without rows."""
    if rows:
        yield f"<h2>{title}</h2>{_table(columns, rows)}"
    if count > SHOWN:
        yield f'<p class="dim">and {count - SHOWN} more (/api/v1/status, podwire status)</p>'


def _peer_rows(peer: Object) -> Iterator[list[str]]:
    for endpoint in peer["endpoints"]:
        lacking = ", ".join([name for name, is_there in endpoint["applied"].items() if not is_there])
        cells = (peer["name"] or "-", endpoint["subnet"], endpoint["public_ip"], endpoint["way"] or "-")
        state = _mark(peer["state"], _kind(peer["state"]))
        yield [*map(_text, cells), state, _text(peer["changed"] or "-"), _text(lacking)]


def _kind(state: str) -> str:
    return "bad" if state in STATES[:2] else "good"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table of cells that are HTML already; without columns the first cell of a row is its heading."""
    head = "".join([f'<th scope="col">{column}</th>' for column in columns])
    lines = []
    for row in rows:
        first = f"<td>{row[0]}</td>" if columns else f'<th scope="row">{row[0]}</th>'
        lines.append(f"<tr>{first}{''.join([f'<td>{cell}</td>' for cell in row[1:]])}</tr>")
    thead = f"<thead><tr>{head}</tr></thead>" if columns else ""
    return f"<div><table>{thead}<tbody>{''.join(lines)}</tbody></table></div>"
