"""`podwire check`: attachments compared with what ADD made of them, without a runtime's help."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import click
from click import style

from cni import CHAINED, INTERFACE, PROGRAMS, kind_of
from cni.diag.node.attachments import named
from cni.diag.node.calls import call_of
from cni.diag.node.here import opened_host
from cni.diag.output import FINDING, FINE, UNANSWERED, Outcome, outcome
from cni.effects.engine import compare
from cni.protocol.errors import CheckFailed, CniError
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.diag.node.attachments import Attached
    from cni.diag.node.keptcalls import KeptCall
    from cni.effects.host import Host
    from cni.plan.operations import Operation
    from cni.plugins.context import Call, Expected

    Json = dict[str, Any]

HELP = """Compare attachments with what ADD made of them: all, or those that are named.

NAME is a pod's NAME or NAMESPACE/NAME, the first digits of a container's ID, a network namespace, a host interface or
an address. The
configuration and the result of ADD are those that the runtime has kept (/var/lib/cni/results), else those that podwire
has. Nothing is changed.

\b
Examples:
  podwire check
  podwire check shop/web
"""
STATUSES = f"""\b
Exit status: {FINE} all are as ADD made them; {FINDING} there are differences;
2 usage, or no attachment has that name; {UNANSWERED} an ADD was not kept."""
UNCOMPARED = "cannot be compared"
FOREIGN_ALONE = "nothing of podwire's: its plugins' own CHECK compares it"
UNKNOWN = "neither the runtime nor podwire has kept its ADD: nothing to compare with (recreate the pod)"


class Compared(Record):
    """An effect of a plugin. `operation` is a shell command, empty for leases; `difference` is empty if it holds."""

    plugin: str
    operation: str
    difference: str


@click.command("check", help=HELP, epilog=STATUSES)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON (version 1: a list `attachments`).")
def check(names: tuple[str, ...], as_json: bool) -> Outcome:
    with opened_host() as host:
        seen = named(host, names)
    results = [(attached, compared(attached)) for attached in seen]
    differing = any(each.difference for _, effects in results for each in effects)
    known = all(attached.kept is not None for attached in seen)
    status = FINDING if differing else FINE if known else UNANSWERED
    return outcome(
        status,
        as_json,
        {"attachments": [_members(*result) for result in results]},
        lambda: "\n".join([line for result in results for line in _lines(*result)]) or "nothing is attached",
    )


def compared(attached: Attached) -> list[Compared]:
    """Returns each effect of the plugins that attached a container, with how the kernel differs from it.

    A plugin that is not podwire's is left out: its own CHECK knows what it made.
    """
    kept = attached.kept
    return [] if kept is None else [each for config in kept.configs for each in _of_plugin(kept, config)]


def _of_plugin(kept: KeptCall, config: Json) -> Iterator[Compared]:
    program = str(config.get("type", ""))
    if kind_of(program) not in (INTERFACE, CHAINED):
        return
    with opened_host() as host:
        try:
            made = expected(call_of(kept, config, "CHECK", host))
            host.remember()
            for operation in made.operations:
                yield Compared(program, operation.describe(), _difference(host, operation))
            made.check_leases()
        except CheckFailed as error:
            yield Compared(_ipam_of(config), "", error.message)
        except CniError as error:
            yield Compared(program, "", f"{UNCOMPARED}: {error.message}")


def _difference(host: Host, operation: Operation) -> str:
    """Returns how the kernel differs; what cannot be compared does not end the comparison of the others."""
    try:
        return compare(host, operation)
    except CniError as error:
        return f"{UNCOMPARED}: {error.message}"


def _ipam_of(config: Json) -> str:
    """Returns the type of a configuration's IPAM plugin."""
    ipam = config.get("ipam")
    return str(ipam.get("type", "")) if isinstance(ipam, dict) else ""


def expected(call: Call) -> Expected:
    """Returns what a plugin's ADD made. Raises CniError."""
    kind, module, _ = PROGRAMS[call.program]
    made: Expected = importlib.import_module("cni.plugins.chained" if kind == CHAINED else module).expected(call)
    return made


def _members(attached: Attached, effects: list[Compared]) -> dict[str, object]:
    differences = [each._asdict() for each in effects if each.difference]
    return {
        **attached.members,
        "compared": len(effects),
        "known": attached.kept is not None,
        "differences": differences,
    }


def _lines(attached: Attached, effects: list[Compared]) -> Iterator[str]:
    name = f"{attached.name} {attached.owner.ifname} ({attached.owner.network})"
    differences = [each for each in effects if each.difference]
    if attached.kept is None:
        yield f"{name}: {style('unknown', fg='yellow')}: {UNKNOWN}"
    elif not effects:
        yield f"{name}: {FOREIGN_ALONE}"
    elif differences:
        yield f"{name}: {style(f'{len(differences)} of {len(effects)} differ', fg='red')}"
    else:
        yield f"{name}: {style('as ADD made it', fg='green')} ({len(effects)} compared)"
    for each in differences:
        yield f"  {each.plugin}: {style(each.difference, fg='red')}"
        if each.operation:
            yield f"    {each.operation}"
