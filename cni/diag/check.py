"""`podwire check`: attachments compared with what ADD made of them, without a runtime's help."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

import click
from click import style

from cni import CHAINED, HOST_LOCAL, INTERFACE, PODWIRE, PROGRAMS, kind_of
from cni.diag.node.attachments import GONE, OWN, named
from cni.diag.node.calls import call_of
from cni.diag.node.here import opened_host
from cni.diag.node.hostroutes import diversion, interface_towards
from cni.diag.node.sight import foreign_namespace
from cni.diag.output import FINDING, FINE, UNANSWERED, Outcome, outcome, printable
from cni.effects.engine import compare
from cni.effects.journal import FAILURES, error_text
from cni.protocol.errors import CheckFailed, CniError
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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
2 usage, or no attachment has that name; {UNANSWERED} an ADD was not kept, or
something cannot be compared."""
FOLDERS = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")  # of plugins, where the runtime's CNI_PATH was not kept
HOST_ROUTE = "host route"
REMOVE_ROUTE = "remove that route or address: ip route show table all; ip rule"
OF_PODWIRE = ("HostPort", "Hairpin", "Ifb")  # operations of chained plugins of which a reference plugin makes others
LOST = "the host interface is gone, and DEL was never called (recreate the pod, or podwire gc if it is gone)"
FOREIGN_ALONE = "nothing of podwire's: its plugins' own CHECK compares it"
UNKNOWN = "neither the runtime nor podwire has kept its ADD: nothing to compare with (recreate the pod)"


def unknown() -> str:
    """Returns why nothing of an attachment can be compared whose ADD was not kept, with the remedy."""
    hidden = foreign_namespace()
    return f"its ADD is not known: {hidden}" if hidden else UNKNOWN


class Compared(Record):
    """An effect of a plugin. `operation` is a shell command, empty for leases; `difference` is empty if it holds;
    `error` says why it could not be compared.
    """

    plugin: str
    operation: str
    difference: str = ""
    error: str = ""


def status_of(results: Iterable[tuple[Attached, Sequence[Compared]]]) -> int:
    """Returns the exit status for attachments and their effects."""
    effects = [each for _, each in results]
    if any(each.difference for of_one in effects for each in of_one):
        return FINDING
    unknown = any(attached.kept is None for attached, _ in results)
    return UNANSWERED if unknown or any(each.error for of_one in effects for each in of_one) else FINE


@click.command("check", help=HELP, epilog=STATUSES)
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON (version 1: a list `attachments`).")
def check(names: tuple[str, ...], as_json: bool) -> Outcome:
    with opened_host() as host:
        seen = named(host, names)
    results = [(attached, compared(attached)) for attached in seen]
    return outcome(
        status_of(results),
        as_json,
        {"attachments": [_members(*result) for result in results]},
        lambda: "\n".join([line for result in results for line in _lines(*result)]) or "nothing is attached",
    )


def compared(attached: Attached) -> list[Compared]:
    """Returns each effect of the plugins that attached a container, with how the kernel differs from it.

    A plugin that is not podwire's is left out: its own CHECK knows what it made.
    """
    kept = attached.kept
    if kept is None:
        return []
    if attached.interface == GONE:
        return [Compared(attached.program, "", LOST)]
    effects = [each for config in own_configs(attached) for each in _of_plugin(attached, kept, config)]
    if not any(each.difference or each.error for each in effects):  # else that may be why
        effects += _of_routes(attached)
    if any(each.difference or each.error for each in effects) and not _is_there(attached):
        return []  # it has just been detached
    return effects


def _of_routes(attached: Attached) -> Iterator[Compared]:
    try:
        reason = diversion(attached)
    except FAILURES as error:
        yield Compared(HOST_ROUTE, "", error=error_text(error))
        return
    if reason:
        yield Compared(HOST_ROUTE, "", reason)


def own_configs(attached: Attached) -> Iterator[Json]:
    """Yields the configurations of the plugins that are podwire's: a reference plugin leaves other rules."""
    kept = attached.kept
    for config in kept.configs if kept is not None else ():
        program = str(config.get("type", ""))
        if kind_of(program) == INTERFACE:
            is_own = attached.made_by == OWN
        else:
            is_own = kind_of(program) == CHAINED and kept is not None and _is_installed(program, kept)
        if is_own:
            yield config


def _is_installed(program: str, kept: KeptCall) -> bool:
    """Returns True if the first program of that name, in the runtime's folder of plugins, is podwire."""
    path = _path_of(program, kept)
    return bool(path) and os.path.basename(os.path.realpath(path)) == PODWIRE


def _path_of(program: str, kept: KeptCall) -> str:
    """Returns the path of the program that the runtime finds; empty if there is none."""
    paths = [f"{folder}/{program}" for folder in (*kept.path.split(":"), *FOLDERS) if folder]
    return next(filter(os.path.exists, paths), "")


def _is_predecessors(attached: Attached, program: str) -> bool:
    """Returns True if a chained plugin may have been another program at an ADD: podwire was installed later, or again,
    and has not made the interface.
    """
    if attached.made_by == OWN or attached.kept is None:
        return False
    try:
        return os.lstat(_path_of(program, attached.kept)).st_mtime > attached.since
    except OSError:
        return False


def _is_there(attached: Attached) -> bool:
    with opened_host() as host:
        return host.rtnl.find(attached.host_interface) is not None


def operations_of(host: Host, made: Expected, attached: Attached, program: str) -> list[Operation]:
    """Returns the operations of an ADD, none if another program of that name has served it; except those on an
    interface that the container is not behind: portmap takes that of the host's route, which leads to the uplink where
    a bridge is down or somebody has added another route. Raises one of FAILURES.
    """
    if _is_predecessors(attached, program):
        specific = [operation for operation in made.operations if type(operation).__name__ in OF_PODWIRE]
        if all(compare(host, operation) for operation in specific):
            return []
    own = interface_towards(attached)
    return [
        operation
        for operation in made.operations
        if type(operation).__name__ != "LoopbackRouting" or getattr(operation, "interface", "") == own or not own
    ]


def _of_plugin(attached: Attached, kept: KeptCall, config: Json) -> Iterator[Compared]:
    program = str(config.get("type", ""))
    with opened_host() as host:
        try:
            call = call_of(kept, config, "CHECK", host)
            made = expected(call)
            host.remember()
            for operation in operations_of(host, made, attached, program):
                yield _compared(host, program, operation)
            if has_host_local(call):
                yield from _of_leases(made)
        except FAILURES as error:
            yield Compared(program, "", error=error_text(error))


def _of_leases(made: Expected) -> Iterator[Compared]:
    try:
        made.check_leases()
    except CheckFailed as error:
        yield Compared(HOST_LOCAL, "", error.message)
    except FAILURES as error:
        yield Compared(HOST_LOCAL, "", error=error_text(error))


def _compared(host: Host, program: str, operation: Operation) -> Compared:
    """Compares one; what cannot be compared does not end the comparison of the others."""
    try:
        return Compared(program, operation.describe(), compare(host, operation))
    except CniError as error:
        return Compared(program, operation.describe(), error=error.message)


def has_host_local(call: Call) -> bool:
    """Returns True if the leases can be checked in this process: no program is executed from a path that was kept."""
    return _ipam_of(call.config.members) == HOST_LOCAL


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
    wrong = [each._asdict() for each in effects if each.difference or each.error]
    return {**attached.members, "compared": len(effects), "known": attached.kept is not None, "differences": wrong}


def _lines(attached: Attached, effects: list[Compared]) -> Iterator[str]:
    name = printable(f"{attached.name} {attached.owner.ifname} ({attached.owner.network})")
    differing = [each for each in effects if each.difference]
    uncompared = [each for each in effects if each.error]
    if attached.kept is None:
        yield f"{name}: {style('unknown', fg='yellow')}: {printable(unknown())}"
    elif not effects:
        yield f"{name}: {FOREIGN_ALONE}"
    elif differing:
        yield f"{name}: {style(f'{len(differing)} of {len(effects)} differ', fg='red')}"
    elif uncompared:
        yield f"{name}: {style(f'{len(uncompared)} of {len(effects)} cannot be compared', fg='yellow')}"
    else:
        yield f"{name}: {style('as ADD made it', fg='green')} ({len(effects)} compared)"
    for each in (*differing, *uncompared):
        text = each.difference or f"cannot be compared: {each.error}"
        yield f"  {each.plugin}: {style(printable(text), fg='red' if each.difference else 'yellow')}"
        if each.operation:
            yield f"    {printable(each.operation)}"
