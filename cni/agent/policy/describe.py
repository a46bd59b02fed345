"""Texts of policies for people: selectors as kubectl writes them, peers and ports of rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.policy.objects import INGRESS, IpBlock, NodePeer
from cni.agent.policy.selectors import DOES_NOT_EXIST, EXISTS, IN, Selector

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cni.agent.policy.objects import Peer, PortRange, Rule
    from cni.agent.policy.selectors import Requirement

SHOWN = 8  # of a list; a policy may name thousands


def rule_text(rule: Rule, direction: str) -> str:
    """Returns what a rule is about, as `from pods app=web in shop, TCP 80`."""
    preposition = "from" if direction == INGRESS else "to"
    peers = _listed([peer_text(peer) for peer in rule.peers], " or ") if rule.peers else "anybody"
    ports = _listed([port_text(port) for port in rule.ports], ", ") if rule.ports else "every port and protocol"
    return f"{preposition} {peers}, {ports}"


def peer_text(peer: Peer) -> str:
    """Returns a peer, as `pods app=web in namespaces team=red`."""
    if isinstance(peer, IpBlock):
        excepts = f" without {_listed([part.text for part in peer.excepts], ', ')}" if peer.excepts else ""
        return f"{peer.net.text}{excepts}"
    if isinstance(peer, NodePeer):
        return f"nodes {selector_text(peer.nodes)}" if peer.nodes.requirements else "all nodes"
    pods = f"pods {selector_text(peer.pods)}" if peer.pods.requirements else "all pods"
    if not isinstance(peer.namespaces, Selector):
        return f"{pods} in {peer.namespaces}"
    if not peer.namespaces.requirements:
        return f"{pods} in all namespaces"
    return f"{pods} in namespaces {selector_text(peer.namespaces)}"


def selector_text(selector: Selector) -> str:
    """Returns a selector as kubectl takes it."""
    return _listed([_requirement_text(requirement) for requirement in selector.requirements], ",")


def port_text(port: PortRange) -> str:
    """Returns ports, as `TCP 80-90`."""
    if port.is_any:
        return port.protocol
    numbers = f"{port.first}-{port.last}" if port.first != port.last else f"{port.first}"
    return f"{port.protocol} {port.name or numbers}"


def _requirement_text(requirement: Requirement) -> str:
    key, operator, values = requirement
    if operator in (EXISTS, DOES_NOT_EXIST):
        return key if operator == EXISTS else f"!{key}"
    if len(values) == 1:
        return f"{key}{'=' if operator == IN else '!='}{values[0]}"
    return f"{key} {'in' if operator == IN else 'notin'} ({_listed(values, ',')})"


def _listed(texts: Sequence[str], separator: str) -> str:
    shown: Iterable[str] = texts[:SHOWN]
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return separator.join(shown) + more
