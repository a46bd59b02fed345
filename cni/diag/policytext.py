"""Answers about policies as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from click import style

from cni.protocol.control import ALLOWED, DENIED

if TYPE_CHECKING:
    from collections.abc import Iterator

    Object = dict[str, Any]

COLOURS = {ALLOWED: "green", DENIED: "red"}
NOT_IN_FORCE = "The table of policies is not in the kernel yet: podwired's log and /readyz say why."
CLOSED = "a rule that cannot be understood accepts nothing, or denies everything"
REASONS = {
    "peer": "the peer is another",
    "protocol": "the protocol is another",
    "port": "the port is another",
    "no rules": "it has no rules for this direction",
    "some": "it is about some ports alone",
    "passes": "it matches, and leaves the decision to the next tier",
    "error": "it cannot be understood and allows nothing",
}


def why(answer: Object) -> Iterator[str]:
    """Yields lines for a connection in each family."""
    if not answer["in_force"]:
        yield style(NOT_IN_FORCE, fg="yellow")
    traffic = f"{answer['protocol']}/{answer['port']}" if answer["protocol"] else "every port and protocol"
    for connection in answer["connections"]:
        ends = f"{_end(connection['from'])} -> {_end(connection['to'])}"
        yield f"{ends} {traffic}: {_verdict(connection['verdict'])}"
        if not connection["directions"]:
            yield f"  {connection['reason']}"
        for direction in connection["directions"]:
            yield from _direction(direction, every_port=not answer["protocol"])


def show(answer: Object) -> Iterator[str]:
    """Yields lines for a pod."""
    if not answer["in_force"]:
        yield style(NOT_IN_FORCE, fg="yellow")
    yield f"pod {answer['pod']} ({', '.join(answer['addresses'])}), {'this' if answer['here'] else 'another'} node"
    yield f"labels: {', '.join([f'{key}={value}' for key, value in answer['labels'].items()]) or 'none'}"
    for ignored in answer.get("ignored", ()):
        yield style(f"ignored: {ignored}", fg="yellow")
    for direction in answer["directions"]:
        yield f"{direction['direction']}: {'isolated' if direction['isolated'] else 'not isolated'}"
        for policy in direction["policies"]:
            yield from _policy(policy)
        for kernel in direction["kernel"]:
            yield f"  {_kernel(kernel)}"


def _end(end: Object) -> str:
    return f"{end['pod']} ({end['address']})" if end["pod"] else str(end["address"])


def _verdict(verdict: str) -> str:
    return style(verdict, fg=COLOURS.get(verdict, "yellow"), bold=True)


def _direction(direction: Object, *, every_port: bool) -> Iterator[str]:
    reason = direction["reason"].partition(": ")[2].removeprefix("allowed ").removeprefix("denied ")
    of = f" of {direction['pod']}" if direction["pod"] else ""
    yield f"  {direction['direction']}{of}: {_verdict(direction['verdict'])}: {reason}"
    if direction["rule"]:
        yield f"    {direction['rule']['rule']} matches: {direction['rule']['allows']}"
    for miss in direction["misses"]:
        allowance = f": {miss['allows']}" if miss["allows"] else ""
        because = "some" if every_port and miss["because"] == "protocol" else miss["because"]
        yield f"    {miss['rule']}: {REASONS.get(because, because)}{allowance}"
    if direction["left_out"]:
        yield f"    and {direction['left_out']} more that do not match"
    if direction["kernel"]:
        yield f"    {_kernel(direction['kernel'])}"


def _kernel(kernel: Object) -> str:
    if not kernel["agrees"]:
        return style(f"the kernel does not agree: map {kernel['map']}: {kernel['difference']}", fg="red")
    where = kernel["chain"] or "no chain (not isolated)"
    return f"the kernel agrees: map {kernel['map']} leads {kernel['address']} to {where}"


def _policy(policy: Object) -> Iterator[str]:
    tier = policy.get("tier")
    kind = f"ClusterNetworkPolicy of tier {tier}, " if tier else ""
    chain = f"chain {policy['chain']}" if policy["chain"] else "no chain"
    yield f"  {policy['policy']} ({kind}{chain})"
    if policy["error"]:
        yield style(f"    {CLOSED if tier else REASONS['error']}: {policy['error']}", fg="red")
    if policy.get("unsupported"):
        yield style(f"    {policy['unsupported']}", fg="yellow")
    if policy.get("same_priority"):
        others = ", ".join(policy["same_priority"])
        yield style(f"    has the priority of {others}: the order of their names decides", fg="yellow")
    if not policy["rules"] and not policy["error"]:
        yield "    has no rules for this direction" if tier else "    allows nothing"
    for rule in policy["rules"]:
        yield f"    {'' if tier else 'allows '}{rule}"
    for members in policy["sets"]:
        yield f"    set {members['name']}: {members['size']} ({members['of']})"
