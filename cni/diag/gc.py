"""`podwire gc`: removes what attachments have left that are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click import style

from cni.diag.asking import NoAnswer
from cni.diag.node import sight
from cni.diag.node.conflists import FOLDER
from cni.diag.node.here import opened_host
from cni.diag.node.remnants import Remnants
from cni.diag.output import FINDING, FINE, UNANSWERED, Outcome, outcome, printable, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni.diag.node.remnants import Remnant

# Help is not in docstrings: the bundle has none.
HELP = """Remove what is left of attachments that are gone: leases, interfaces, elements of rules, records, settings.

An attachment is gone if its host interface is not there, no runtime keeps its result (/var/lib/cni/results), the
namespace of its ADD does not exist, no network namespace has its address, and it is older than a minute. Meanwhile no
ADD and no DEL runs.

\b
Examples:
  podwire gc --dry-run
  podwire gc
"""
STATUSES = f"""\b
Exit status: {FINE} nothing is left; {FINDING} something could not be removed, or with
--dry-run is to be removed; 2 usage; {UNANSWERED} the node cannot be read, or
containers may be hidden, so nothing is removed."""
COLUMNS = ("KIND", "OBJECT", "HOLDER")
NOTHING = "nothing is left of attachments that are gone"


@click.command("gc", help=HELP, epilog=STATUSES)
@click.option("--conf-dir", default=FOLDER, metavar="DIR", help=f"The runtime's networks (default: {FOLDER}).")
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (version 1: lists `remnants`, `errors`).")
def gc(conf_dir: str, dry_run: bool, as_json: bool) -> Outcome:
    with opened_host() as host:
        if not dry_run:
            host.lock.lock_exclusive()  # no ADD and no DEL meanwhile
        seeing = sight.look()
        if seeing.hidden:
            raise NoAnswer(f"nothing is removed: {seeing.hidden}")
        remnants = Remnants(host, seeing, conf_dir)
        shown = remnants.all()
        errors = remnants.remove() if not dry_run else []
    members: dict[str, object] = {
        "remnants": [each._asdict() for each in shown],
        "removed": not dry_run,
        "errors": errors,
    }
    status = FINDING if errors or (dry_run and shown) else FINE
    return outcome(status, as_json, members, lambda: "\n".join(_lines(shown, errors, dry_run=dry_run)))


def _lines(shown: Sequence[Remnant], errors: Sequence[str], *, dry_run: bool) -> Iterator[str]:
    if not shown:
        yield style(NOTHING, fg="green")
        return
    yield table(COLUMNS, shown)
    for error in errors:
        yield style(f"not removed: {printable(error)}", fg="red")
    yield f"{'would be removed' if dry_run else 'removed'}: {len(shown)}"
