"""`podwire policy`: asks podwired why a connection is allowed or denied, and what the policies of a pod are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from cni.diag import policytext
from cni.diag.asking import ask
from cni.diag.output import FINDING, FINE, UNANSWERED, Outcome
from cni.protocol.address import PORT_LIMIT
from cni.protocol.control import ALLOWED, DENIED, PROTOCOLS, SHOW, WHY, pod_or_address
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable

# Help is not in docstrings: the bundle has none.
GROUP_HELP = """Explain why NetworkPolicies allow or deny a connection, and what isolates a pod.

\b
Examples:
  podwire policy why shop/web shop/db:5432
  podwire policy show shop/db
"""
WHY_HELP = """Explain why a connection is allowed or denied, for both directions.

FROM and TO are NAMESPACE/NAME of a pod, or an address; an IPv6 address with a port has brackets. The port is the
pod's, not a service's; without one every port and protocol is meant. The node of a pod judges what concerns the pod:
ask on both nodes about a connection between two.

\b
Examples:
  podwire policy why shop/web shop/db:5432
  podwire policy why 192.0.2.7 '[fd00::9]:53/udp' --json
"""
SHOW_HELP = """Show what isolates a pod: policies, what their rules allow, their chains and sets.

POD is NAMESPACE/NAME, or the pod's address.

\b
Examples:
  podwire policy show shop/db
  podwire policy show 10.244.1.9 --json
"""
STATUSES = f"""\b
Exit status: {FINE} allowed, or nothing is wrong; {FINDING} denied, or the kernel does not
agree; 2 usage; {UNANSWERED} podwired cannot answer."""


class Target(Record):
    """The destination of a connection: a pod or an address; protocol and port are empty where all are meant."""

    end: str
    protocol: str = ""
    port: int = 0


class End(click.ParamType[str]):
    """A pod or an address."""

    name = "end"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            pod_or_address(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)


class Destination(click.ParamType[Target]):
    """A pod or an address, perhaps with a port and a protocol."""

    name = "destination"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Target:
        try:
            return parse_target(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def parse_target(text: str) -> Target:
    """Parses `TO[:PORT[/PROTOCOL]]`; an IPv6 address with a port has brackets. Raises ValueError."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        pod_or_address(bare)
    except ValueError:
        front, colon, rest = text.rpartition(":")
    else:
        return Target(bare)
    end = front[1:-1] if front.startswith("[") and front.endswith("]") else front
    pod_or_address(end if colon else text)
    number, slash, protocol = rest.partition("/")
    port = int(number) if number.isascii() and number.isdecimal() and len(number) < 6 else 0
    if not 1 <= port <= PORT_LIMIT:
        raise ValueError(f"{number!r} is not a port from 1 to {PORT_LIMIT}")
    if slash and protocol.upper() not in PROTOCOLS:
        raise ValueError(f"{protocol!r} is not one of {', '.join(PROTOCOLS).lower()}")
    return Target(end, protocol.upper() or PROTOCOLS[0], port)


def options(command: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """Adds the options that all questions have."""
    json_help = "Print podwired's answer as JSON (version 1)."
    socket_help = "podwired's socket, where it is not the usual one in /run/podwire."
    command = click.option("--json", "as_json", is_flag=True, help=json_help)(command)
    return click.option("--socket", "path", default="", metavar="PATH", help=socket_help)(command)


@click.group("policy", help=GROUP_HELP, epilog=STATUSES)
def policy() -> None: ...


@policy.command("why", help=WHY_HELP, epilog=STATUSES)
@click.argument("source", metavar="FROM", type=End())
@click.argument("destination", metavar="TO[:PORT[/PROTOCOL]]", type=Destination())
@options
def why(source: str, destination: Target, path: str, as_json: bool) -> Outcome:
    ends = {"from": source, "to": destination.end}
    answer = ask(path, ask=WHY, **ends, protocol=destination.protocol, port=destination.port)
    connections = answer["connections"]
    kernels = [direction["kernel"] for each in connections for direction in each["directions"] if direction["kernel"]]
    verdicts = {each["verdict"] for each in connections}
    if DENIED in verdicts or not all(kernel["agrees"] for kernel in kernels):
        status = FINDING
    else:
        status = FINE if ALLOWED in verdicts else UNANSWERED
    return _outcome(status, answer, policytext.why if not as_json else None)


@policy.command("show", help=SHOW_HELP, epilog=STATUSES)
@click.argument("pod", metavar="POD", type=End())
@options
def show(pod: str, path: str, as_json: bool) -> Outcome:
    answer = ask(path, ask=SHOW, pod=pod)
    agree = all(kernel["agrees"] for direction in answer["directions"] for kernel in direction["kernel"])
    return _outcome(FINE if agree else FINDING, answer, policytext.show if not as_json else None)


def _outcome(status: int, answer: dict[str, Any], text: Callable[[dict[str, Any]], Any] | None) -> Outcome:
    """Returns the answer as text, or without one as JSON."""
    return Outcome(status, "\n".join(text(answer)) if text is not None else json.dumps(answer, indent=2))
