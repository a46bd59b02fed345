"""Sends a probe while the kernel traces it, and says where it ended."""

from __future__ import annotations

import contextlib
import select
import time
from typing import TYPE_CHECKING

from cni.diag.path.probe import Answer, Probe
from cni.diag.path.tracing import REPLY, REQUEST, TUNNEL, Tracer
from cni.effects.journal import FAILURES, error_text
from cni.kernel import nft
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni.diag.path.ends import Connection
    from cni.diag.path.tracing import Packet, Step
    from cni.effects.host import Host

QUIET_SECONDS = 0.2  # without an event after the answer: the trace is whole
NO_ANSWER = "no answer"
WORDS = {REQUEST: REQUEST, REPLY: REPLY, TUNNEL: "tunnelled request"}


class Sent(Record):
    """A probe that was sent, what came back, and its packets. `untraced` says why the kernel has traced none, empty if
    it was asked to. `number` is the source port, for ICMP the identifier.
    """

    number: int
    answer: Answer
    packets: tuple[Packet, ...]
    untraced: str


def send(host: Host, path: Connection, seconds: float) -> Sent:
    """Sends a probe from the container, whose namespace is opened. Raises one of FAILURES where it cannot be sent."""
    with contextlib.closing(Probe(host, path)) as probe, contextlib.ExitStack() as stack:
        tracer, untraced = None, ""
        try:
            tracer = stack.enter_context(contextlib.closing(Tracer(path, probe)))
        except FAILURES as error:
            untraced = _reason(error)
        answer = _exchange(probe, tracer, seconds)
        if tracer is None:
            return Sent(probe.number, answer, (), untraced)
        return Sent(probe.number, answer, tuple(tracer.packets), tracer.lost)


def _reason(error: BaseException) -> str:
    number = getattr(error, "errno", None)
    return "nftables: not supported by the kernel" if number in nft.NOT_FOUND_OR_EINVAL else error_text(error)


def _exchange(probe: Probe, tracer: Tracer | None, seconds: float) -> Answer:
    """Sends, and waits for an answer and the events, not longer than `seconds`. Raises one of FAILURES."""
    waiting = select.poll()
    waiting.register(probe.socket, select.POLLOUT if probe.waits_to_write else select.POLLIN)
    if tracer is not None:
        waiting.register(tracer, select.POLLIN)
    refusal = probe.send()
    answer = Answer(passes=False, text=refusal, is_sent=False) if refusal else None
    last = time.monotonic()  # of the answer, or of an event after it
    end = last + seconds
    while (left := (end if answer is None else min(end, last + QUIET_SECONDS)) - time.monotonic()) > 0:
        ready = dict(waiting.poll(left * 1000))
        if tracer is not None and tracer.fileno() in ready and tracer.read():
            last = time.monotonic()
        if probe.socket.fileno() in ready and answer is None:
            answer = probe.answer()
            if answer is not None:
                last = time.monotonic()
                waiting.unregister(probe.socket)
    return answer or Answer(passes=False, text=f"{NO_ANSWER} within {seconds:g} s")


def ending(sent: Sent, names: Mapping[int, str]) -> str:
    """Returns where the probe ended, as far as the trace shows it; `names` are those of interfaces by index."""
    if sent.answer.passes:
        return f"the connection passes: {sent.answer.text}"
    for packet in sent.packets:
        if packet.drop is not None:
            return f"the {WORDS[packet.direction]} is dropped by {place(packet.drop)}"
    by_direction = {packet.direction: packet for packet in sent.packets}
    if not sent.answer.text.startswith(NO_ANSWER):
        who = "the destination or a router answers" if sent.answer.is_sent else "the probe did not leave the container"
        return f"{who}: {sent.answer.text}"
    if sent.untraced:
        return sent.answer.text
    if REQUEST not in by_direction:
        return f"the probe did not reach the node: {sent.answer.text}"
    return f"{_last_seen(by_direction, names)}: {sent.answer.text}"


def _last_seen(packets: Mapping[str, Packet], names: Mapping[int, str]) -> str:
    if REPLY in packets:
        return _reply_seen(packets[REPLY], names)
    out, inside = [_hooks_of(packets.get(direction), names) for direction in (TUNNEL, REQUEST)]
    if "postrouting" in out:
        return f"it has left the node in the tunnel, by {out['postrouting']}"
    if "postrouting" in inside:
        return f"it has left by {inside['postrouting']}"
    if "input" in inside:
        return "it has reached this node's own sockets"
    if "forward" in inside:
        return "it was forwarded, and is gone before it left"
    return "the node received it and did not route it (no route, rp_filter, or forwarding is off)"


def _reply_seen(packet: Packet, names: Mapping[int, str]) -> str:
    hooks = _hooks_of(packet, names)
    if "postrouting" in hooks:
        return f"a reply has left by {hooks['postrouting']}, and the container does not take it"
    if "forward" in hooks:
        return "a reply was forwarded, and is gone before it left"
    return "a reply has come back, and the node did not route it (rp_filter, or forwarding is off where it arrives)"


def _hooks_of(packet: Packet | None, names: Mapping[int, str]) -> dict[str, str]:
    """Returns the hooks whose end a packet has passed, with the outgoing interface. A bridge's own input leads on to
    the hooks of IP.
    """
    steps = packet.steps if packet is not None else []
    ends = [step for step in steps if step.kind == "passed" and (step.family, step.chain) != ("bridge", "input")]
    return {step.chain: names.get(step.oif, str(step.oif)) for step in ends}


def place(step: Step) -> str:
    """Returns table, chain, and rule or policy of a verdict."""
    by = f"rule {step.handle}" if step.kind == "rule" else "policy"
    return f"{step.family} {step.table} {step.chain} ({by})"
