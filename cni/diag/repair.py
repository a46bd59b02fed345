"""`podwire repair`: restores what living attachments need, by the operations of their ADD."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, cast

import click
from click import style

from cni import HOST_LOCAL, kind_of
from cni.diag.check import HOST_ROUTE, REMOVE_ROUTE, expected, has_host_local, operations_of, own_configs, unknown
from cni.diag.node.attachments import GONE, named
from cni.diag.node.calls import call_of
from cni.diag.node.here import opened_host
from cni.diag.node.hostroutes import diversion
from cni.diag.output import FINDING, FINE, Outcome, outcome, printable
from cni.effects import veth
from cni.effects.engine import apply, compare
from cni.effects.journal import FAILURES, Journal, error_text
from cni.kernel import tc
from cni.kernel.netlink import NetlinkError
from cni.protocol.errors import CheckFailed, CniError
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.diag.node.attachments import Attached
    from cni.effects.host import Host
    from cni.plan.bandwidth import MirredRedirect, TokenBucket
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
RECREATE = "cannot be restored (recreate the pod)"
OTHERS = "another plugin of the chain may have changed it"
OF_CONTAINER = ("ContainerAddress", "ContainerRoute", "ContainerSysctl")


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
        seen = named(host, names)
    results = [(each, list(repaired(each, dry_run=dry_run))) for each in seen]
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
    if kept is None or attached.interface == GONE:
        yield Repair(attached.program, "", FAILED, unknown() if kept is None else RECREATE)
        return
    for config in own_configs(attached):
        program = str(config.get("type", ""))
        with opened_host() as host:
            try:
                host.lock.lock_exclusive()  # no ADD and no DEL meanwhile
                if host.rtnl.find(attached.host_interface) is None:
                    return
                call = call_of(kept, config, "CHECK", host)
                yield from _of_plugin(host, call, attached, dry_run=dry_run)
            except FAILURES as error:
                yield Repair(program, "", FAILED, error_text(error))
    with contextlib.suppress(*FAILURES):
        if reason := diversion(attached):
            yield Repair(HOST_ROUTE, "", FAILED, f"{reason} ({REMOVE_ROUTE})")


def _of_plugin(host: Host, call: Call, attached: Attached, *, dry_run: bool) -> Iterator[Repair]:
    """Ends at an interface that cannot be restored. Raises one of FAILURES where the kernel cannot be read."""
    made = expected(call)
    # A plugin that podwire does not know may have changed what the container has.
    configs = attached.kept.configs if attached.kept is not None else ()
    is_foreign = any(not kind_of(str(config.get("type", ""))) for config in configs)
    for operation in operations_of(host, made, attached, call.program):
        if not compare(host, operation):
            continue
        described = operation.describe()
        if is_foreign and type(operation).__name__ in OF_CONTAINER:
            yield Repair(call.program, described, FAILED, OTHERS)
            continue
        if dry_run:
            yield Repair(call.program, described, WOULD)
            continue
        error = _error_of(host, operation)
        yield Repair(call.program, described, FAILED if error else DONE, error)
        if error == RECREATE:
            return
    if has_host_local(call):
        try:
            made.check_leases()
        except CheckFailed as error:
            yield Repair(HOST_LOCAL, "", FAILED, f"{error.message} ({RECREATE})")


def _error_of(host: Host, operation: Operation) -> str:
    """Applies an operation, and returns why it still does not hold; empty if it does."""
    try:
        if type(operation).__name__ == "Veth":
            return RECREATE if not _is_restored(host, cast("Veth", operation)) else ""
        _clear(host, operation)
        with Journal(host, shared_stays=True) as journal:
            apply(host, (operation,), journal)
        return compare(host, operation)
    except CniError as error:
        return error.message


def _clear(host: Host, operation: Operation) -> None:
    """Deletes what is in the way of an operation on traffic control: another rate, a redirect to an ifb that is gone,
    behind which another one would get no packet.
    """
    message = None
    if type(operation).__name__ == "TokenBucket":
        message = tc.delete_root(host.rtnl.ifindex(cast("TokenBucket", operation).interface))
    elif type(operation).__name__ == "MirredRedirect":
        message = tc.delete_redirect(host.rtnl.ifindex(cast("MirredRedirect", operation).host_interface))
    if message is not None:
        with contextlib.suppress(NetlinkError):  # there is none
            host.rtnl.request(*message)


def _is_restored(host: Host, pair: Veth) -> bool:
    """Returns True if the host's end is what it was, and the pair is whole."""
    with contextlib.suppress(*FAILURES):
        veth.restore(host, pair)
    return not compare(host, pair)


def _lines(attached: Attached, steps: list[Repair]) -> Iterator[str]:
    if steps:
        yield printable(f"{attached.name} {attached.owner.ifname} ({attached.owner.network})")
    for step in steps:
        colour = {DONE: "green", WOULD: "yellow", FAILED: "red"}[step.state]
        described = ": ".join(filter(None, [step.operation or step.plugin, step.error]))
        yield f"  {style(step.state, fg=colour)}: {printable(described)}"
