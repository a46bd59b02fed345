"""`podwire status`, which is `podwired status` as well: asks podwired for its node's state, its peers and its store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from cni.diag.asking import ask
from cni.diag.output import FINDING, FINE, UNANSWERED, Outcome
from cni.diag.statustext import lines
from cni.protocol.control import STATUS

if TYPE_CHECKING:
    Object = dict[str, Any]

# Help is not in docstrings: the bundle has none.
HELP = """Show the state of this node's podwired: is it ready, its lease, its peers, its store, its last warnings.

It asks podwired at its local socket. `podwired status` is the same.

\b
Examples:
  podwire status
  podwired status --json
"""
STATUSES = f"""\b
Exit status: {FINE} ready; {FINDING} not ready, a lease is refused, or a peer is
not reached; 2 usage; {UNANSWERED} podwired cannot answer."""
JSON_HELP = "Print podwired's answer as JSON (version 1)."
SOCKET_HELP = "podwired's socket, where it is not the usual one in /run/podwire."


@click.command("status", help=HELP, epilog=STATUSES)
@click.option("--json", "as_json", is_flag=True, help=JSON_HELP)
@click.option("--socket", "path", default="", metavar="PATH", help=SOCKET_HELP)
def status(path: str, as_json: bool) -> Outcome:
    answer = ask(path, ask=STATUS)
    text = json.dumps(answer, indent=2) if as_json else "\n".join(lines(answer))
    return Outcome(FINE if is_fine(answer) else FINDING, text)


def is_fine(answer: Object) -> bool:
    counts = answer["counts"]
    return bool(answer["ready"]) and not any(counts[name] for name in ("refused", "failed", "unreachable"))
