"""`podwire trace`: the path of a connection from a container, hop by hop, and where it stops."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click
from click import style

from cni.diag.asking import NoAnswer
from cni.diag.node.attachments import attachments, without_loopbacks
from cni.diag.node.here import opened_host
from cni.diag.node.links import links
from cni.diag.output import FINDING, FINE, UNANSWERED, Outcome, outcome, printable
from cni.diag.path import leaving, sending
from cni.diag.path.ends import connection
from cni.diag.path.hop import PASSES, STOPS, UNKNOWN
from cni.diag.path.ruletext import rule_texts
from cni.diag.path.walk import stop_of, walk
from cni.effects.journal import error_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cni.diag.path.ends import Connection
    from cni.diag.path.hop import Hop
    from cni.diag.path.sending import Sent
    from cni.diag.path.tracing import Packet, Step

    Json = dict[str, Any]

# Help is not in docstrings: the bundle has none.
HELP = """Show the path of a connection from a container hop by hop, and where it stops.

FROM is an attachment's NAME as for `podwire ps`; TO is one, or any address; PROTOCOL is tcp, udp, sctp or icmp: without
a port an echo request is meant. Without --send nothing is sent or changed: routes, links, neighbours, rules of podwire,
firewalls that drop, and podwired's policies are read. With --send one probe is sent from inside the container, and the
kernel traces it through all tables of nftables.

\b
Examples:
  podwire trace shop/web shop/db:5432
  podwire trace --send 10.244.1.9 192.0.2.7:53/udp
"""
STATUSES = f"""\b
Exit status: {FINE} nothing that can be read stops it, with --send the probe was
answered; {FINDING} it stops at a hop, or the probe was not answered; 2 usage;
{UNANSWERED} the kernel cannot be read, or no probe can be sent."""
SEND_HELP = "Send one probe from inside the container (TCP SYN, SCTP INIT, UDP datagram, ICMP echo), and trace it."
LONGEST = 30.0  # seconds
COLOURS = {PASSES: "green", STOPS: "red", UNKNOWN: "yellow"}
FREE = "nothing that can be read stops it (--send sends a probe)"


@click.command("trace", help=HELP, epilog=STATUSES)
@click.argument("source", metavar="FROM")
@click.argument("destination", metavar="TO[:PORT][/PROTOCOL]")
@click.option("--send", "sends", is_flag=True, help=SEND_HELP)
@click.option(
    "--wait",
    "seconds",
    type=click.FloatRange(0.1, LONGEST),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="With --send: how long to wait for an answer.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON (version 1: a list `hops`, and `probe`).")
def trace(source: str, destination: str, sends: bool, seconds: float, as_json: bool) -> Outcome:
    with opened_host() as host:
        seen = without_loopbacks(attachments(host))
    path = connection(seen, source, destination)
    hops = walk(path, seen)
    sent = _send(path, seconds) if sends else None
    names = {link.ifindex: link.name for link in links()}
    texts = rule_texts(sent.packets, os.environ) if sent is not None else {}
    end = sending.ending(sent, names) if sent is not None else _end(hops)
    passes = sent.answer.passes if sent is not None else stop_of(hops) is None
    members: Json = {
        "from": {"name": path.source.name, "address": path.source_ip.text},
        "to": {"name": path.target.name if path.target is not None else "", "address": path.target_ip.text},
        "protocol": path.protocol,
        "port": path.port,
        "hops": [hop._asdict() for hop in hops],
        "probe": _members(sent, names, texts) if sent is not None else None,
        "end": end,
    }

    def text() -> str:
        lines = [_heading(path), *[line for hop in hops for line in _hop_lines(hop)]]
        lines += _sent_lines(sent, names, texts) if sent is not None else []
        return "\n".join([*lines, style(printable(end), fg="green" if passes else "red", bold=True)])

    return outcome(FINE if passes else FINDING, as_json, members, text)


def _send(path: Connection, seconds: float) -> Sent:
    """Raises NoAnswer where the container's namespace cannot be entered; one of FAILURES."""
    with opened_host() as host:
        lack = leaving.opened(host, path.source)
        if lack is not None:
            raise NoAnswer(f"no probe can be sent: {lack.subject}: {lack.evidence}")
        try:
            return sending.send(host, path, seconds)
        except OSError as error:  # the socket cannot be had
            raise NoAnswer(f"no probe can be sent from {path.source_ip.text}: {error_text(error)}") from None


def _end(hops: Sequence[Hop]) -> str:
    stop = stop_of(hops)
    return f"it stops at {stop.hop} {stop.subject}: {stop.evidence}" if stop is not None else FREE


def _members(sent: Sent, names: Mapping[int, str], texts: Mapping[tuple[str, ...], str]) -> Json:
    packets = [
        {"direction": packet.direction, "steps": [_step_members(step, names, texts) for step in packet.steps]}
        for packet in sent.packets
    ]
    answered = {"answered": sent.answer.passes, "answer": sent.answer.text, "untraced": sent.untraced}
    return {"number": sent.number, **answered, "packets": packets}


def _step_members(step: Step, names: Mapping[int, str], texts: Mapping[tuple[str, ...], str]) -> Json:
    shown = step._asdict() | {"rule": _rule_of(step, texts)}
    return shown | {key: names.get(shown[key], "") for key in ("iif", "oif")}


def _rule_of(step: Step, texts: Mapping[tuple[str, ...], str]) -> str:
    return texts.get((step.family, step.table, step.chain, str(step.handle)), "") if step.kind == "rule" else ""


def _heading(path: Connection) -> str:
    source, target = f"{path.source.name} ({path.source_ip.text})", path.target_ip.text
    target = f"{path.target.name} ({target})" if path.target is not None else target
    return style(printable(f"{source} -> {target} {path.traffic}"), bold=True)


def _hop_lines(hop: Hop) -> Iterator[str]:
    state = style(f"{hop.state:7}", fg=COLOURS[hop.state])
    yield f"  {state} {hop.hop:13}{printable(f'{hop.subject}: {hop.evidence}')}"
    if hop.remedy and hop.state != PASSES:
        yield f"  {'':21}remedy: {printable(hop.remedy)}"


def _sent_lines(sent: Sent, names: Mapping[int, str], texts: Mapping[tuple[str, ...], str]) -> Iterator[str]:
    state = "sent" if sent.answer.is_sent else "not sent"
    yield f"probe {state} (source port or identifier {sent.number}): {printable(sent.answer.text)}"
    if sent.untraced:
        yield style(f"  not traced: {printable(sent.untraced)}", fg="yellow")
    for packet in sent.packets:
        yield f"  {packet.direction}"
        yield from _packet_lines(packet, names, texts)


def _packet_lines(packet: Packet, names: Mapping[int, str], texts: Mapping[tuple[str, ...], str]) -> Iterator[str]:
    for step in packet.steps:
        if step.kind == "passed":
            ends = [("from", step.iif), ("to", step.oif)]
            interfaces = " ".join([f"{word} {names.get(index, index)}" for word, index in ends if index])
            yield printable(f"    {step.family} {step.chain}: passed {interfaces}".rstrip())
            continue
        rule = _rule_of(step, texts)
        line = printable(f"    {sending.place(step)}: {step.verdict}{f' [{rule}]' if rule else ''}")
        yield style(line, fg="red") if step.is_drop else line
