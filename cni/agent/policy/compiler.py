"""Compiler of policies: each becomes a chain per direction; and what a policy's rules become, of whichever kind it is.

What a rule looks up are sets: pods by a selector, ports by a name, networks without their excepts. A set's name follows
from what is in it, so that rules that mean the same share it.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from cni.agent.policy.blocks import spans_of
from cni.agent.policy.objects import INGRESS, PROTOCOLS, IpBlock, NodePeer, PodPeer
from cni.plan.nftrule import ACCEPT, AnonymousSet, Counter, Lookup, Match, NamedSet, Range, Rule, Verdict, merged
from cni.plan.policy import IN, OUT
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni.agent.policy.blocks import Span
    from cni.agent.policy.objects import NetworkPolicy, Peer, PortRange
    from cni.agent.policy.objects import Rule as PolicyRule
    from cni.plan.nftrule import Constant, Statement

ADDRESS_TYPES = {4: "ipv4_addr", 6: "ipv6_addr"}
HEADERS = {4: "ip", 6: "ip6"}
NFPROTOS = {4: "ipv4", 6: "ipv6"}
DIGEST_BYTES = 16
TITLE_LIMIT = 200  # bytes: a chain's name has at most 255 (kernel, NFT_NAME_MAXLEN)
TO_POD = Verdict("goto", "to-pod")  # egress is allowed: then ingress of the destination is asked


class PodSet(Record):
    """The addresses of the pods that a peer selects."""

    peer: PodPeer
    family: int

    @property
    def name(self) -> str:
        return f"pods/{digest(self.peer)}_{self.family}"

    @property
    def definition(self) -> NamedSet:
        return NamedSet(self.name, ADDRESS_TYPES[self.family])


class PortSet(Record):
    """The addresses of pods with their ports of a protocol and a name."""

    protocol: str
    port: str
    family: int

    @property
    def name(self) -> str:
        return f"named/{self.protocol.lower()}/{self.port}_{self.family}"

    @property
    def definition(self) -> NamedSet:
        return NamedSet(self.name, f"{ADDRESS_TYPES[self.family]} . inet_service")


class NodeSet(Record):
    """The addresses of the nodes that a peer selects."""

    peer: NodePeer
    family: int

    @property
    def name(self) -> str:
        return f"nodes/{digest(self.peer)}_{self.family}"

    @property
    def definition(self) -> NamedSet:
        return NamedSet(self.name, ADDRESS_TYPES[self.family])


class BlockSet(Record):
    """The addresses of ipBlocks, as spans from first to last."""

    spans: tuple[Span, ...]
    family: int

    @property
    def name(self) -> str:
        return f"cidr/{digest(self.spans)}_{self.family}"

    @property
    def definition(self) -> NamedSet:
        return NamedSet(self.name, ADDRESS_TYPES[self.family], interval=True)


SetSource = PodSet | PortSet | NodeSet | BlockSet


class CompiledChain(Record):
    """The rules of a chain, and the sets that they look up."""

    rules: tuple[Rule, ...]
    sets: tuple[SetSource, ...]  # each once


class Part(Record):
    """A part of a rule: statements, for one family or (0) for both, and the set that they look up."""

    statements: tuple[Statement, ...]
    family: int = 0
    source: SetSource | None = None


def digest(value: object) -> str:
    """Returns 32 hexadecimal digits that follow from a value made of records, tuples, texts, numbers and bytes.

    Half as many would let anybody who may write policies find two selectors that share a set.
    """
    return blake2b(repr(value).encode(), digest_size=DIGEST_BYTES).hexdigest()


def suffix(direction: str) -> str:
    return IN if direction == INGRESS else OUT


def policy_chain(title: str, direction: str) -> str:
    """Returns the name of a policy's chain."""
    shown = title if len(title) <= TITLE_LIMIT else f"{title[: TITLE_LIMIT - 2 * DIGEST_BYTES - 1]}-{digest(title)}"
    return f"policy/{shown}/{suffix(direction)}"


def allowing(direction: str) -> Verdict:
    """Returns the verdict of what is allowed in a direction."""
    return ACCEPT if direction == INGRESS else TO_POD


def compile_policy(policy: NetworkPolicy, direction: str, families: tuple[int, ...]) -> CompiledChain:
    """Returns the rules for a direction that the policy isolates, for packets of these families."""
    verdict = allowing(direction)
    matches = [
        (rule, verdict, f"{direction.lower()} {position}")
        for position, rule in enumerate(policy.rules(direction) or ())
    ]
    return compile_matches(matches, direction, families)


def compile_matches(
    matches: Iterable[tuple[PolicyRule, Verdict, str]], direction: str, families: tuple[int, ...]
) -> CompiledChain:
    """Returns the rules of a chain: what a policy's rule matches, the verdict on that, and the comment."""
    rules, sets = [], dict[SetSource, None]()
    for match, verdict, comment in matches:
        for peer, port in _parts_of(match, direction, families):
            rules.append(Rule((*peer.statements, *port.statements, Counter(), verdict), comment))
            sets.update([(part.source, None) for part in (peer, port) if part.source is not None])
    return CompiledChain(tuple(rules), tuple(sets))


def _parts_of(rule: PolicyRule, direction: str, families: tuple[int, ...]) -> Iterator[tuple[Part, Part]]:
    ports = list(_ports_of(rule.ports, families))
    for peer in _peers_of(rule.peers, "saddr" if direction == INGRESS else "daddr", families):
        for port in ports:
            if not (peer.family and port.family) or peer.family == port.family:
                yield peer, port


def _peers_of(peers: tuple[Peer, ...], end: str, families: tuple[int, ...]) -> Iterator[Part]:
    if not peers:
        yield Part(())
    for family in families:
        field = f"{HEADERS[family]} {end}"
        for peer in dict.fromkeys(peers):
            if not isinstance(peer, IpBlock):
                source = PodSet(peer, family) if isinstance(peer, PodPeer) else NodeSet(peer, family)
                yield Part((Lookup(field, source.name),), family, source)
        blocks = [peer for peer in peers if isinstance(peer, IpBlock) and peer.net.family == family]
        if blocks:
            yield from _blocks_of(blocks, field, family)


def _blocks_of(blocks: list[IpBlock], field: str, family: int) -> Iterator[Part]:
    """Yields what matches any of the blocks: all are one set, however many there are."""
    whole = next((block for block in blocks if not (block.net.prefix or block.excepts)), None)
    spans = spans_of(blocks)
    if whole is not None:
        yield Part((Match("meta nfproto", NFPROTOS[family]),), family)
    elif len(blocks) == 1 and not blocks[0].excepts:
        yield Part((Match(field, blocks[0].net),), family)
    elif spans:
        source = BlockSet(spans, family)
        yield Part((Lookup(field, source.name),), family, source)


def _ports_of(ports: tuple[PortRange, ...], families: tuple[int, ...]) -> Iterator[Part]:
    if not ports:
        yield Part(())
    for protocol in PROTOCOLS:
        ranges = [port for port in ports if port.protocol == protocol]
        if any(port.is_any for port in ranges):
            yield Part((Match("meta l4proto", protocol.lower()),))
            continue
        numbers = merged([(port.first, port.last) for port in ranges if not port.name])
        if numbers:
            field = f"{protocol.lower()} dport"
            elements: list[Constant | Range] = [
                first if first == last else Range(first, last) for first, last in numbers
            ]
            yield Part((Match(field, elements[0] if len(elements) == 1 else AnonymousSet(tuple(elements))),))
        for name in dict.fromkeys([port.name for port in ranges if port.name]):
            for family in families:
                source = PortSet(protocol, name, family)
                yield Part(
                    (Lookup(f"{HEADERS[family]} daddr . {protocol.lower()} dport", source.name),), family, source
                )
