"""`podwire ps`: the attachments of this node."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from cni.diag.node.attachments import GONE, OWN, named, without_loopbacks
from cni.diag.node.here import opened_host
from cni.diag.output import FINDING, FINE, UNANSWERED, Outcome, age, outcome, print_now, table
from cni.protocol.owner import SHORT_ID_LENGTH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.diag.node.attachments import Attached

# Help is not in docstrings: the bundle has none.
HELP = """List the pods and containers that are attached on this node, with addresses, ports and limits.

What reference plugins have attached is listed as well, where the runtime has kept its results (/var/lib/cni/results),
and marked with the plugin's type. Each pod's loopback interface is left out, except with --all.

\b
Examples:
  podwire ps
  podwire ps -w shop/web
"""
STATUSES = f"""\b
Exit status: {FINE} all have their interface; {FINDING} an attachment's host
interface is gone (DEL was never called); 2 usage, or
no attachment has that name; {UNANSWERED} the kernel cannot be asked."""
COLUMNS = ("POD", "CONTAINER", "IF", "ADDRESSES", "HOST IF", "NETWORK", "PORTS", "LIMITS", "AGE", "BY")
SECONDS = 2.0  # between two looks


@click.command("ps", help=HELP, epilog=STATUSES)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("-a", "--all", "has_all", is_flag=True, help="List loopback interfaces, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (version 1: a list `attachments`).")
@click.option("-w", "--watch", is_flag=True, help="Print the list again whenever it changes, until interrupted.")
def ps(names: tuple[str, ...], has_all: bool, as_json: bool, watch: bool) -> Outcome:
    seen = _look(names, has_all=has_all)
    while watch:
        print_now(f"{_shown(seen, as_json).text}\n")
        before = [each.members for each in seen]
        while [each.members for each in seen] == before:
            time.sleep(SECONDS)
            seen = _look(names, has_all=has_all)
    return _shown(seen, as_json)


def _look(names: Sequence[str], *, has_all: bool) -> list[Attached]:
    with opened_host() as host:
        seen = named(host, names)
    return seen if has_all else without_loopbacks(seen)


def _shown(seen: Sequence[Attached], as_json: bool) -> Outcome:
    status = FINDING if any(each.interface == GONE for each in seen) else FINE
    members: dict[str, object] = {"attachments": [each.members for each in seen]}
    return outcome(status, as_json, members, lambda: table(COLUMNS, map(_row, seen)))


def _row(attached: Attached) -> Sequence[str]:
    network, container_id, ifname = attached.owner
    host_interface = (attached.host_interface or "-") + (" (gone)" if attached.interface == GONE else "")
    return (
        attached.pod or "-",
        container_id[:SHORT_ID_LENGTH],
        ifname,
        ",".join(attached.addresses) or "-",
        host_interface,
        network,
        ",".join(attached.ports) or "-",
        ",".join(attached.limits) or "-",
        age(attached.since),
        "podwire" if attached.made_by == OWN else attached.program or "-",
    )
