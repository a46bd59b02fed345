"""`podwire repair`: restores what living attachments need, by the operations of their ADD."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, cast

import click
from click import style

from cni import CHAINED, INTERFACE, kind_of
from cni.diag.check import expected
from cni.diag.node.attachments import PRESENT, named
from cni.diag.node.calls import call_of
from cni.diag.node.here import opened_host
from cni.diag.output import FINDING, FINE, Outcome, outcome
from cni.effects import veth
from cni.effects.engine import apply, compare
from cni.effects.journal import FAILURES, Journal
from cni.protocol.errors import CniError
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.diag.node.attachments import Attached
    from cni.effects.host import Host
    from cni.plan.operations import Operation, Veth
    from cni.plugins.context import Call

HELP = """Restore what attached containers need: rules after a flush, host ports, limits, addresses, routes, bridge.

Each difference that `podwire check` finds is mended by the operation of the ADD that it belongs to. A pair of
interfaces that is gone is not: recreate the pod. NAME is as for `podwire check`; without one all attachments are
repaired.

\b
Examples:
  podwire repair --dry-run
  podwire repair shop/web
"""
STATUSES = f"""\b
Exit status: {FINE} all is as ADD made it, now; {FINDING} something could not be repaired,
or with --dry-run is to be repaired; 2 usage, or no attachment has that name."""
DONE, WOULD, FAILED = "repaired", "would be repaired", "not repaired"
RECREATE = "an interface cannot be restored (recreate the pod)"


class Repair(Record):
    """The repair of a difference: DONE, WOULD or FAILED, then with the error."""

    plugin: str
    operation: str
    state: str
    error: str = ""


@click.command("repair", help=HELP, epilog=STATUSES)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Show what would be repaired, and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (version 1: a list `attachments`).")
def repair(names: tuple[str, ...], dry_run: bool, as_json: bool) -> Outcome:
    with opened_host() as host:
        living = [each for each in named(host, names) if each.interface == PRESENT]
    results = [(each, list(repaired(each, dry_run=dry_run))) for each in living]
    is_left = any(step.state != DONE for _, steps in results for step in steps)
    members: dict[str, object] = {
        "attachments": [{**each.members, "repairs": [step._asdict() for step in steps]} for each, steps in results]
    }

    def text() -> str:
        lines = [line for result in results for line in _lines(*result)]
        return "\n".join(lines) or "all attachments are as ADD made them"

    return outcome(FINDING if is_left else FINE, as_json, members, text)


def repaired(attached: Attached, *, dry_run: bool) -> Iterator[Repair]:
    """Yields what is done about each difference of an attachment."""
    kept = attached.kept
    for config in kept.configs if kept is not None else ():
        program = str(config.get("type", ""))
        if kept is None or kind_of(program) not in (INTERFACE, CHAINED):
            continue
        with opened_host() as host:
            try:
                yield from _of_plugin(host, call_of(kept, config, "CHECK", host), dry_run=dry_run)
            except CniError as error:
                yield Repair(program, "", FAILED, error.message)


def _of_plugin(host: Host, call: Call, *, dry_run: bool) -> Iterator[Repair]:
    """Raises CniError where the plugin's configuration or the kernel cannot be read."""
    host.lock.lock_shared()
    for operation in expected(call).operations:
        if not compare(host, operation):
            continue
        described = operation.describe()
        if dry_run:
            yield Repair(call.program, described, WOULD)
        else:
            error = _error_of(host, operation)
            yield Repair(call.program, described, FAILED if error else DONE, error)


def _error_of(host: Host, operation: Operation) -> str:
    """Applies an operation, and returns why it still does not hold; empty if it does."""
    try:
        if type(operation).__name__ == "Veth":
            return RECREATE if not _is_restored(host, cast("Veth", operation)) else ""
        with Journal(host, shared_stays=True) as journal:
            apply(host, (operation,), journal)
        return compare(host, operation)
    except CniError as error:
        return error.message


def _is_restored(host: Host, pair: Veth) -> bool:
    """Returns True if the host's end is what it was, and the pair is whole."""
    with contextlib.suppress(*FAILURES):
        veth.restore(host, pair)
    return not compare(host, pair)


def _lines(attached: Attached, steps: list[Repair]) -> Iterator[str]:
    if steps:
        yield f"{attached.name} {attached.owner.ifname} ({attached.owner.network})"
    for step in steps:
        colour = {DONE: "green", WOULD: "yellow", FAILED: "red"}[step.state]
        error = f": {step.error}" if step.error else ""
        yield f"  {style(step.state, fg=colour)}: {step.operation or step.plugin}{error}"
