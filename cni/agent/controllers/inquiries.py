"""Answers to questions: why a connection is allowed or denied, what isolates a pod, and the agent's state.

cni.protocol.control has the protocol; cni/agent/README.md, Operations, the shape of the answers.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cni.agent.controllers.base import NEVER, Listener
from cni.agent.dataplane import policy_lookup
from cni.agent.logs import error_text, log
from cni.agent.policy.explain import MISSES_SHOWN, explain, show
from cni.agent.runtime.control import Asked
from cni.agent.uplink.select import local_addresses
from cni.effects.journal import FAILURES
from cni.protocol.address import IP, PORT_LIMIT
from cni.protocol.control import DENIED, PROTOCOLS, SHOW, STATUS, WHY, pod_or_address

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cni.agent.controllers.base import AgentEvent
    from cni.agent.controllers.policy import PolicyController
    from cni.agent.policy.explain import Direction, Element, End, Explanation, Miss, PolicyView
    from cni.effects.host import Host
    from cni.protocol.jsontext import JsonValue

    Object = dict[str, JsonValue]

SETTLING_SECONDS = 0.1  # a question waits so long for changes that are about to be applied
OFF = "NetworkPolicy is not enforced: podwired runs without --network-policy"
UNKNOWN_POD = (
    "is not known here. Pods of other nodes are known while a policy of this node needs them, pods in the host's"
    " network never (an address may stand in the place of a name)"
)


class Inquiries(Listener):
    """Answers questions. `status` returns a function that another thread calls for the agent's state; `policies` is
    None if policies are off; `unknown` is the verdict on pods that are attached and not known yet.
    """

    def __init__(
        self,
        host: Host,
        status: Callable[[], Callable[[], Object]],
        policies: PolicyController | None,
        unknown: str = DENIED,
    ) -> None:
        self._host, self._status, self._policies, self._unknown = host, status, policies, unknown
        self._questions: list[Asked] = []

    @property
    def due_at(self) -> float:
        """The moment of the next answer: after what is about to be applied, so that the kernel can agree."""
        if not self._questions:
            return NEVER
        first = self._questions[0].at
        pending = self._policies.due_at if self._policies is not None else NEVER
        return first if pending == NEVER else min(pending, first + SETTLING_SECONDS)

    def handle(self, event: AgentEvent) -> None:
        """Takes in a question; `sync` answers it."""
        if isinstance(event, Asked):
            self._questions.append(event)

    def sync(self) -> bool:
        """Answers what was asked. Returns True: an error is an answer."""
        questions, self._questions = self._questions, []
        for question in questions:
            if not question.is_late:
                began = time.monotonic()
                answer = self._answer(question.request)
                question.seconds = time.monotonic() - began
                question.answer(answer)
        return True

    def _answer(self, request: Mapping[str, JsonValue]) -> Object | Callable[[], Object]:
        ask = request.get("ask")
        answers = {WHY: self._why, SHOW: self._show}
        try:
            if ask == STATUS:
                document = self._status()
                return lambda: {"ask": STATUS, **document()}
            answer = answers.get(str(ask), _refuse)
            return {"ask": str(ask), **answer(request)}
        except ValueError as error:
            return {"ask": str(ask), "error": str(error)}
        except FAILURES as failure:
            return {"ask": str(ask), "error": error_text(failure)}
        except Exception as defect:  # noqa: BLE001  # a question must not end the agent
            log.error("question %r: %s", request, error_text(defect))
            log.debug("traceback", exc_info=defect)
            return {"ask": str(ask), "error": error_text(defect)}

    def _known(self) -> PolicyController:
        if self._policies is None:
            raise ValueError(OFF)
        return self._policies

    def _addresses(self, text: JsonValue, key: str) -> dict[int, IP]:
        """Returns an end's addresses by family. Raises ValueError."""
        if not isinstance(text, str):
            raise ValueError(f"{key}: expected a text")  # noqa: TRY004  # a request's error as others
        end = pod_or_address(text)
        if isinstance(end, IP):
            return {end.family: end}
        pod = self._known().index.pod_named(*end)
        if pod is None:
            raise ValueError(f"pod {text} {UNKNOWN_POD}")
        return {ip.family: ip for ip in map(IP.from_packed, reversed(pod.addresses))}

    # Why a connection is allowed or denied

    def _why(self, request: Mapping[str, JsonValue]) -> Object:
        policies = self._known()
        protocol, port = _protocol_and_port(request)
        sources, destinations = self._addresses(request.get("from"), "from"), self._addresses(request.get("to"), "to")
        families = sorted(sources.keys() & destinations.keys())
        if not families:
            raise ValueError("the two ends have no addresses of one family")
        policies.index.node_addresses = frozenset([ip.packed for ip in local_addresses(self._host.rtnl)])
        explanations = [
            explain(policies.index, sources[family], destinations[family], protocol, port, unknown=self._unknown)
            for family in families
        ]
        return {
            "protocol": protocol,
            "port": port,
            "in_force": policies.in_force,
            "connections": [self._connection(explanation) for explanation in explanations],
        }

    def _connection(self, explanation: Explanation) -> Object:
        return {
            "from": _end(explanation.source),
            "to": _end(explanation.destination),
            "verdict": explanation.verdict,
            "reason": explanation.reason,
            "directions": [self._direction(direction) for direction in explanation.directions],
        }

    def _direction(self, direction: Direction) -> Object:
        return {
            "direction": direction.direction.lower(),
            "pod": direction.pod,
            "verdict": direction.verdict,
            "reason": direction.reason,
            "isolating": [*direction.isolating],
            "rule": _miss(direction.rule) if direction.rule is not None else None,
            "misses": [_miss(miss) for miss in direction.misses],
            "left_out": direction.left_out,
            "kernel": self._kernel(direction.element) if direction.element is not None else None,
        }

    def _kernel(self, element: Element) -> Object:
        """Returns how the kernel has an element and the chains behind it."""
        table = self._known().tracker.table
        names = [*([element.chain] if element.chain in table.chains else []), *element.parts]
        answer: Object = {"map": element.map_name, "address": element.address.text, "expected": element.chain}
        try:
            comparison = policy_lookup.compare(self._host.netfilter, element, names, table.chains)
        except FAILURES as failure:
            return {**answer, "chain": "", "agrees": False, "difference": error_text(failure)}
        return {
            **answer,
            "chain": comparison.chain,
            "agrees": not comparison.difference,
            "difference": comparison.difference,
        }

    # What the policies of a pod are

    def _show(self, request: Mapping[str, JsonValue]) -> Object:
        policies = self._known()
        addresses = self._addresses(request.get("pod"), "pod")
        pod = policies.index.pod_at(next(iter(addresses.values())).packed) if addresses else None
        if pod is None:
            raise ValueError(f"pod {request.get('pod')} {UNKNOWN_POD}")
        view = show(policies.index, policies.tracker, pod)
        return {
            "pod": f"{pod.namespace}/{pod.name}",
            "here": view.here,
            "in_force": policies.in_force,
            "labels": dict(pod.labels),
            "addresses": [IP.from_packed(address).text for address in pod.addresses],
            "ignored": [*policies.faults.ignored(pod.namespace)[:MISSES_SHOWN]],
            "directions": [
                self._isolation(direction, policies, view.elements[direction])
                for direction, policies in view.policies.items()
            ],
        }

    def _isolation(self, direction: str, policies: tuple[PolicyView, ...], elements: tuple[Element, ...]) -> Object:
        return {
            "direction": direction.lower(),
            "isolated": any(not policy.tier for policy in policies),
            "policies": [_policy(policy) for policy in policies],
            "kernel": [self._kernel(element) for element in elements],
        }


def _refuse(request: Mapping[str, JsonValue]) -> Object:
    raise ValueError(f"ask: {request.get('ask')!r} is not known (available: {WHY}, {SHOW}, {STATUS})")


def _protocol_and_port(request: Mapping[str, JsonValue]) -> tuple[str, int]:
    """Returns an empty protocol and 0 for all of them. Raises ValueError."""
    protocol, port = request.get("protocol", ""), request.get("port", 0)
    if protocol not in (*PROTOCOLS, ""):
        raise ValueError(f"protocol: {protocol!r} is not one of {', '.join(PROTOCOLS)}")
    if type(port) is not int or not 0 <= port <= PORT_LIMIT or bool(port) != bool(protocol):
        raise ValueError(f"port: {port!r} is not a port of the protocol {protocol!r}")
    return str(protocol), port


def _end(end: End) -> Object:
    return {"address": end.address.text, "pod": end.pod, "here": end.here}


def _miss(miss: Miss) -> Object:
    return {"rule": miss.rule, "because": miss.because, "allows": miss.text}


def _policy(policy: PolicyView) -> Object:
    return {
        "policy": policy.title,
        "tier": policy.tier,
        "chain": policy.chain,
        "error": policy.error,
        "unsupported": policy.unsupported,
        "same_priority": [*policy.same_priority],
        "rules": [*policy.rules],
        "sets": [{"name": members.name, "size": members.size, "of": members.text} for members in policy.sets],
    }
