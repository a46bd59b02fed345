"""`podwire explain`: each operation of an attachment's ADD, and whether it holds now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click import style

from cni.diag.check import FOREIGN_ALONE, compared, status_of, unknown
from cni.diag.node.attachments import named
from cni.diag.node.here import opened_host
from cni.diag.output import FINDING, FINE, UNANSWERED, Outcome, outcome, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.diag.check import Compared
    from cni.diag.node.attachments import Attached

HELP = """Show what ADD did for a pod, as the commands that a person would type, and whether it holds now.

NAME is as for `podwire check`. CONTAINER stands for the pod's network namespace.

\b
Examples:
  podwire explain shop/web
  podwire explain 10.244.1.9 --json
"""
STATUSES = f"""\b
Exit status: {FINE} all holds; {FINDING} something does not; 2 usage, or no attachment
has that name; {UNANSWERED} an ADD was not kept."""


YES = style("yes", fg="green")


@click.command("explain", help=HELP, epilog=STATUSES)
@click.argument("name", metavar="NAME")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (version 1: a list `attachments`).")
def explain(name: str, as_json: bool) -> Outcome:
    with opened_host() as host:
        results = [(attached, compared(attached)) for attached in named(host, (name,))]
    members: dict[str, object] = {
        "attachments": [
            {**attached.members, "operations": [each._asdict() for each in effects]} for attached, effects in results
        ]
    }
    lines = [line for result in results for line in _lines(*result)]
    return outcome(status_of(results), as_json, members, lambda: "\n".join(lines))


def _lines(attached: Attached, effects: list[Compared]) -> Iterator[str]:
    name = f"{attached.name} {attached.owner.ifname} ({attached.owner.network})"
    yield style(printable(name), bold=True)
    if attached.kept is None:
        yield f"  {printable(unknown())}"
    elif not effects:
        yield f"  {FOREIGN_ALONE}"
    plugin = ""
    for each in effects:
        if each.plugin != plugin:
            plugin = each.plugin
            yield f"  {printable(plugin)}:"
        mark = style("no ", fg="red") if each.difference else style("?  ", fg="yellow") if each.error else YES
        yield f"    {mark} {printable(each.operation or 'the plugin as a whole')}"
        if each.difference or each.error:
            yield style(f"        {printable(each.difference or each.error)}", fg="red")
