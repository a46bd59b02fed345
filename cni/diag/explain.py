"""`podwire explain`: each operation of an attachment's ADD, and whether it holds now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click import style

from cni.diag.check import UNKNOWN, compared
from cni.diag.node.attachments import named
from cni.diag.node.here import opened_host
from cni.diag.output import FINDING, FINE, UNANSWERED, Outcome, outcome

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


@click.command("explain", help=HELP, epilog=STATUSES)
@click.argument("name", metavar="NAME")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (version 1: a list `attachments`).")
def explain(name: str, as_json: bool) -> Outcome:
    with opened_host() as host:
        results = [(attached, compared(attached)) for attached in named(host, (name,))]
    if any(each.difference for _, effects in results for each in effects):
        status = FINDING
    else:
        status = FINE if all(attached.kept is not None for attached, _ in results) else UNANSWERED
    members: dict[str, object] = {
        "attachments": [
            {**attached.members, "operations": [each._asdict() for each in effects]} for attached, effects in results
        ]
    }
    return outcome(
        status, as_json, members, lambda: "\n".join([line for result in results for line in _lines(*result)])
    )


def _lines(attached: Attached, effects: list[Compared]) -> Iterator[str]:
    yield style(f"{attached.name} {attached.owner.ifname} ({attached.owner.network})", bold=True)
    if attached.kept is None:
        yield f"  {UNKNOWN}"
    plugin = ""
    for each in effects:
        if each.plugin != plugin:
            plugin = each.plugin
            yield f"  {plugin}:"
        mark = style("no ", fg="red") if each.difference else style("yes", fg="green")
        yield f"    {mark} {each.operation or 'lease of the addresses'}"
        if each.difference:
            yield style(f"        {each.difference}", fg="red")
