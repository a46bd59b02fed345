"""ClusterNetworkPolicy of policy.networking.k8s.io: rules of administrators before and behind all NetworkPolicies.

A rule with a part that cannot be understood, perhaps of a newer version of the API, closes: if it accepts, it matches
nothing, else it denies everything.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from cni.agent.policy.jsonobject import raise_if_any, read_object
from cni.agent.policy.objects import (
    EGRESS,
    INGRESS,
    NAME_LIMIT,
    PROTOCOLS,
    IpBlock,
    NodePeer,
    PodPeer,
    PortRange,
    Rule,
    read_net,
)
from cni.agent.policy.selectors import EVERYTHING, read_selector
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.agent.policy.jsonobject import JsonObject
    from cni.agent.policy.objects import Peer
    from cni.protocol.jsontext import JsonValue

ADMIN, BASELINE = "Admin", "Baseline"
TIERS = (ADMIN, BASELINE)
ACCEPT, DENY, PASS = "Accept", "Deny", "Pass"
ACTIONS = (ACCEPT, DENY, PASS)
LAST_PRIORITY = 1000
NAMESPACES, PODS, NETWORKS, NODES, DOMAINS = "namespaces", "pods", "networks", "nodes", "domainNames"
SUBJECTS = (NAMESPACES, PODS)
PEERS = {INGRESS: SUBJECTS, EGRESS: (*SUBJECTS, NETWORKS, NODES, DOMAINS)}
NAMED = "destinationNamedPort"
EVERYTHING_DENIED = Rule()


class ClusterRule(Record):
    """A rule: traffic that matches, and the action on it; `number` is its place in its list."""

    number: int
    action: str
    match: Rule
    name: str = ""


class ClusterPolicy(Record):
    """A policy. `error`: why some rules close; `unserved`: what matches nothing, as podwire does not serve it."""

    name: str
    tier: str
    priority: int
    subject: PodPeer
    ingress: tuple[ClusterRule, ...] = ()
    egress: tuple[ClusterRule, ...] = ()
    error: str = ""
    unserved: str = ""

    def rules(self, direction: str) -> tuple[ClusterRule, ...]:
        return self.ingress if direction == INGRESS else self.egress

    @property
    def namespace(self) -> str:
        """Empty: it is in none."""
        return ""

    @property
    def title(self) -> str:
        """Its name, which differs from all of NetworkPolicies, as these have a slash."""
        return self.name

    @property
    def selection(self) -> tuple[object, ...]:
        """The pods that it selects, the directions about which it has rules, and when it is asked."""
        return self.subject, bool(self.ingress), bool(self.egress), self.tier, self.rank

    @property
    def rank(self) -> tuple[int, str]:
        """The order in which those of a tier are asked."""
        return self.priority, self.name


class Tie(Record):
    """Policies of one tier and priority that select the same pods: the order of their names decides."""

    tier: str
    priority: int
    names: tuple[str, ...]


def ties_in(policies: Iterable[ClusterPolicy]) -> list[Tie]:
    """Returns the ties among policies of one tier, which are in the order in which they are asked."""
    groups = groupby(policies, key=lambda policy: (policy.tier, policy.priority))
    ties = [Tie(*place, tuple([policy.name for policy in group])) for place, group in groups]
    return [tie for tie in ties if len(tie.names) > 1]


def parse_cluster_policy(value: JsonValue) -> ClusterPolicy:
    """Returns a ClusterPolicy. Raises Invalid if its name, tier, priority or subject cannot be read."""
    fields = read_object(value)
    metadata, spec = fields.object("metadata"), fields.object("spec")
    name, tier = metadata.name("name", "", NAME_LIMIT), spec.text("tier")
    if tier not in TIERS:
        spec.error("tier", f"{tier!r} is neither {ADMIN} nor {BASELINE}")
    if not spec.has("priority"):
        spec.error("priority", "is missing")
    priority = spec.number("priority", 0, LAST_PRIORITY) or 0
    subject = spec.object("subject")
    kind = _only_key(subject, SUBJECTS)
    pods = _pods(subject, kind)
    raise_if_any(fields.errors)
    spec.unknown_keys("tier", "priority", "subject", "ingress", "egress")
    unserved: list[str] = []
    ingress = _rules(spec, "ingress", INGRESS, unserved)
    egress = _rules(spec, "egress", EGRESS, unserved)
    return ClusterPolicy(name, tier, priority, pods, ingress, egress, fields.errors.summary, "; ".join(unserved))


def _only_key(fields: JsonObject, known: tuple[str, ...]) -> str:
    """Returns the one key that an object has; a known one, if there is no error."""
    fields.unknown_keys(*known)
    given = [key for key in known if fields.has(key)]
    if len(given) == 1:
        return given[0]
    fields.error(" and ".join(given) or known[0], f"one of {', '.join(known)} has to be there")
    return ""


def _pods(fields: JsonObject, key: str) -> PodPeer:
    if key == NAMESPACES:
        return PodPeer(read_selector(fields.object(key)), EVERYTHING)
    pods = fields.object(key)
    pods.unknown_keys("namespaceSelector", "podSelector")
    if key and not pods.has("podSelector"):
        pods.error("podSelector", "is missing")
    return PodPeer(read_selector(pods.object("namespaceSelector")), read_selector(pods.object("podSelector")))


def _rules(spec: JsonObject, key: str, direction: str, unserved: list[str]) -> tuple[ClusterRule, ...]:
    before = spec.errors.count
    entries = spec.objects(key)
    is_whole = spec.errors.count == before
    rules = [_rule(fields, number, direction, unserved) for number, fields in enumerate(entries)]
    if not is_whole:  # there are others, whatever they say
        rules.append(ClusterRule(len(rules), DENY, EVERYTHING_DENIED))
    return tuple([rule for rule in rules if rule is not None])


def _rule(fields: JsonObject, number: int, direction: str, unserved: list[str]) -> ClusterRule | None:
    """Returns a rule; None if it matches nothing."""
    before = fields.errors.count
    action, name = fields.text("action"), fields.text("name")
    if action not in ACTIONS:
        fields.error("action", f"{action!r} is not one of {', '.join(ACTIONS)}")
    peers_key = "from" if direction == INGRESS else "to"
    fields.unknown_keys("name", "action", peers_key, "protocols")
    peers: list[Peer] = []
    for entry in fields.objects(peers_key):
        kind = _only_key(entry, PEERS[direction])
        if kind == DOMAINS and action == ACCEPT:
            unserved.append(f"{entry.path_of(kind)}: not supported, matches nothing")
        else:
            peers += _peers(entry, kind)
    for key in (peers_key, "protocols"):
        if not fields.is_filled(key) and (key == peers_key or fields.has(key)):
            fields.error(key, "is empty")
    ports = [port for entry in fields.objects("protocols") for port in _ports(entry)]
    if fields.errors.count > before:
        return None if action == ACCEPT else ClusterRule(number, DENY, EVERYTHING_DENIED, name)
    return ClusterRule(number, action, Rule(tuple(peers), tuple(ports)), name) if peers else None


def _peers(fields: JsonObject, kind: str) -> list[Peer]:
    if kind == NETWORKS:
        texts = fields.texts(kind)
        if not texts:
            fields.error(kind, "is empty")
        return [IpBlock(read_net(fields, f"{kind}[{place}]", text), ()) for place, text in enumerate(texts)]
    if kind == NODES:
        return [NodePeer(read_selector(fields.object(kind)))]
    if kind == DOMAINS:
        fields.error(kind, f"only rules that {ACCEPT.lower()} may have them")
    return [_pods(fields, kind)] if kind in SUBJECTS else []


def _ports(fields: JsonObject) -> list[PortRange]:
    kind = _only_key(fields, (*[protocol.lower() for protocol in PROTOCOLS], NAMED))
    if kind == NAMED:  # whichever protocol has it
        name = fields.port_name(kind)
        return [PortRange(protocol, name=name) for protocol in PROTOCOLS]
    protocol = fields.object(kind)
    protocol.unknown_keys("destinationPort")
    if not protocol.has("destinationPort"):
        return [PortRange(kind.upper())]
    port = protocol.object("destinationPort")
    if _only_key(port, ("number", "range")) != "range":
        first = last = port.port("number")
    else:
        range_ = port.object("range")
        range_.unknown_keys("start", "end")
        first, last = range_.port("start"), range_.port("end")
        if not 0 < first <= last:
            range_.error("end", f"{last or 'nothing'} is less than start {first or 'nothing'}")
    return [PortRange(kind.upper(), first, last)]
