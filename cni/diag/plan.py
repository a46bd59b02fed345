"""`podwire plan`: what an ADD would do, without doing it."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, cast

import click
from click import style

from cni import CHAINED, DELEGATING, HOST_LOCAL, INTERFACE, kind_of
from cni.diag.node.calls import call_of
from cni.diag.node.here import opened_host
from cni.diag.node.keptcalls import KeptCall
from cni.diag.output import FINE, UNANSWERED, Outcome, outcome, printable
from cni.plugins import bridge, chained, flannel
from cni.protocol.errors import InvalidConfig, OperationFailed, TryAgain
from cni.protocol.jsontext import parse_object
from cni.protocol.owner import Owner
from cni.protocol.record import Record
from cni.protocol.result import Result, result_json
from ipam.allocate import next_free
from ipam.config import parse_settings
from ipam.ledger import find_ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.effects.host import Host
    from cni.plan.operations import Operation
    from cni.plugins.context import Call
    from cni.protocol.result import IPConfig

    Json = dict[str, Any]

HELP = """Show what an ADD would do, as the commands that a person would type; nothing is done.

FILE is a network configuration or a list of plugins (default: standard input). Addresses are those that would be leased
now. CONTAINER stands for the pod's network namespace.

\b
Examples:
  podwire plan </etc/cni/net.d/10-net.conflist
  podwire plan --json my.conf
"""
STATUSES = f"""\b
Exit status: {FINE} an ADD would do this; 2 usage; {UNANSWERED} it would fail, with this error."""
EXAMPLE = Owner("", "example", "eth0")


class Step(Record):
    """An operation of a plugin, as a shell command."""

    plugin: str
    operation: str


@click.command("plan", help=HELP, epilog=STATUSES)
@click.argument("file", default="-", metavar="[FILE]", type=click.File("rb"))
@click.option("--json", "as_json", is_flag=True, help="Print JSON (version 1: list `operations`, object `result`).")
def plan(file: Any, as_json: bool) -> Outcome:
    network: Json = parse_object(file.read(), "the network configuration")
    steps, result = planned(network)
    members: dict[str, object] = {"operations": [step._asdict() for step in steps], "result": result}
    return outcome(FINE, as_json, members, lambda: "\n".join(_lines(steps, result)))


def planned(network: Json) -> tuple[list[Step], Json]:
    """Returns the operations of all plugins of a network, and the result of the last. Raises CniError."""
    plugins = network.get("plugins", [network])
    if not isinstance(plugins, list) or not plugins:
        raise InvalidConfig("plugins: expected a list of plugins")
    common = {"name": network.get("name", ""), "cniVersion": network.get("cniVersion", "")}
    owner = EXAMPLE._replace(network=str(common["name"]))
    steps: list[Step] = []
    result: Json = network.get("prevResult") or {}
    for plugin in plugins:
        config = {**plugin, **common} if isinstance(plugin, dict) else {}
        kept = KeptCall(owner, "CONTAINER", {}, "", (), result, 0.0)
        with opened_host() as host:
            call = _call_of(kept, config, host)
            is_chained = kind_of(call.program) == CHAINED
            operations, answer = chained.planned(call) if is_chained else _of_interface(call)
            steps += [Step(call.program, operation.describe()) for operation in operations]
            result = cast("Json", result_json(answer, call.config.version))
    return steps, result


def _call_of(kept: KeptCall, config: Json, host: Host) -> Call:
    """Returns the ADD of a plugin; for one that delegates, that of its delegate. Raises CniError."""
    program = str(config.get("type", ""))
    if kind_of(program) == DELEGATING:
        return _call_of(kept, flannel.delegate_of(call_of(kept, config, "ADD", host)), host)
    if kind_of(program) not in (INTERFACE, CHAINED):
        raise InvalidConfig(f"type {program!r}: not a plugin that podwire can plan")
    return call_of(kept, config, "ADD", host)


def _of_interface(call: Call) -> tuple[tuple[Operation, ...], Result]:
    conf, _, _ = bridge.validate(call)
    made = bridge.prepare(call, conf, lease_now(call, conf.ipam_type))
    return made.operations, made.result


def lease_now(call: Call, ipam_type: str) -> Result:
    """Returns what host-local would lease now. Raises CniError, also for a third-party plugin."""
    if not ipam_type:
        return Result()
    if ipam_type != HOST_LOCAL:
        raise OperationFailed(f"ipam.type {ipam_type}: it can say what it leases by leasing alone")
    settings = parse_settings(call.config, call.request.args)
    ledger = find_ledger(settings.folder, None)
    ips: list[IPConfig] = []
    with ledger or contextlib.nullcontext():
        for position, range_set in enumerate(settings.sets):
            last = ledger.last(position) if ledger is not None else None
            free = next_free(range_set, last, ledger.first_free if ledger is not None else lambda _, low, _high: low)
            if free is None:
                raise TryAgain(f"no IP addresses available in range set: {range_set.text}")
            ips.append(free)
    return Result((), tuple(ips), settings.routes)


def _lines(steps: list[Step], result: Json) -> Iterator[str]:
    plugin = ""
    for step in steps:
        if step.plugin != plugin:
            plugin = step.plugin
            yield style(f"# {plugin}", bold=True)
        yield printable(step.operation)
    yield style("# result", bold=True)
    yield json.dumps(result, indent=2)
