"""A model of the kernel's table: it takes changes as strictly as the kernel, and sends packets through chains."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cni.agent.policy import desired
from cni.plan.nftrule import AnonymousSet, Lookup, Match, Range, Rule, Verdict, VerdictMap
from cni.protocol.address import IP, Net

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cni.agent.policy.desired import Change
    from cni.plan.nftrule import Statement, Table

NAMES_LIMIT = 255


class Packet(NamedTuple):
    """The first packet of a connection; `protocol` as the evaluator has it, `kind` as `meta pkttype`."""

    source: IP
    destination: IP
    protocol: str
    port: int = 0
    kind: str = "host"
    state: str = "new"


class KernelTable:
    """Chains, sets, maps, and the spans of interval sets, by name."""

    def __init__(self, base: Table) -> None:
        self.hooks = {chain.hook.hook: chain.name for chain in base.chains if chain.hook}
        self.chains = {chain.name: chain.rules for chain in base.chains}
        self.sets: dict[str, set[bytes]] = {named.name: set() for named in base.sets if not named.data}
        self.maps: dict[str, dict[bytes, str]] = {named.name: {} for named in base.sets if named.data}
        self.spans: dict[str, tuple[tuple[bytes, bytes], ...]] = {}
        for chain in base.chains:
            self._check(chain.rules)

    def apply(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self._apply(change)

    def _apply(self, change: Change) -> None:
        match change:
            case desired.AddSet(definition, spans):
                assert definition.name not in {**self.sets, **self.spans}
                assert len(definition.name) <= NAMES_LIMIT
                if definition.interval:
                    self.spans[definition.name] = spans
                else:
                    self.sets[definition.name] = set()
            case desired.AddElements(name, keys):
                assert not self.sets[name].intersection(keys)
                self.sets[name].update(keys)
            case desired.DeleteElements(name, keys):
                place: set[bytes] | dict[bytes, str] = self.maps[name] if name in self.maps else self.sets[name]
                assert set(keys) <= set(place)
                for key in keys:
                    place.remove(key) if isinstance(place, set) else place.pop(key)
            case desired.AddVerdicts(name, chains):
                assert all(self.maps[name].get(key, chain) == chain for key, chain in chains)
                assert {chain for _, chain in chains} <= self.chains.keys()
                self.maps[name].update(chains)
            case _:
                self._apply_to_chain(change)

    def _apply_to_chain(self, change: Change) -> None:
        match change:
            case desired.AddChain(name):
                assert name not in self.chains
                assert len(name) <= NAMES_LIMIT
                self.chains[name] = ()
            case desired.SetRules(name, rules):
                assert name in self.chains
                self._check(rules)
                self.chains[name] = rules
            case desired.DeleteChain(name):
                assert not self.chains.pop(name)
                assert name not in self._targets()
            case desired.DeleteSet(name):
                (self.spans if name in self.spans else self.sets).pop(name)
                assert name not in [
                    statement.set_name for statement in self._statements() if isinstance(statement, Lookup)
                ]
            case _:
                raise AssertionError(change)

    def _check(self, rules: Iterable[Rule]) -> None:
        """Raises AssertionError if a rule refers to what is not there."""
        for statement in [statement for rule in rules for statement in rule.statements]:
            if isinstance(statement, Lookup):
                assert statement.set_name in {**self.sets, **self.spans}
            if isinstance(statement, VerdictMap):
                assert statement.map_name in self.maps
            if isinstance(statement, Verdict) and statement.chain:
                assert statement.chain in self.chains

    def _statements(self) -> list[Statement]:
        return [statement for rules in self.chains.values() for rule in rules for statement in rule.statements]

    def _targets(self) -> set[str]:
        jumps = {statement.chain for statement in self._statements() if isinstance(statement, Verdict)}
        return jumps.union(*[verdicts.values() for verdicts in self.maps.values()])

    def passes(self, hook: str, packet: Packet) -> bool:
        return (self._run(self.hooks[hook], packet) or "accept") == "accept"

    def _run(self, name: str, packet: Packet) -> str:
        """Returns the verdict of a chain; empty if its end is reached."""
        for rule in self.chains[name]:
            verdict = self._rule(rule, packet)
            if verdict is None:
                continue
            if not verdict.chain:
                return "" if verdict.kind == "return" else verdict.kind
            result = self._run(verdict.chain, packet)
            if result or verdict.kind == "goto":
                return result
        return ""

    def _rule(self, rule: Rule, packet: Packet) -> Verdict | None:
        for statement in rule.statements:
            if isinstance(statement, Verdict):
                return statement
            if isinstance(statement, VerdictMap):
                key = _key(statement.field, packet)
                chain = self.maps[statement.map_name].get(key or b"")
                return Verdict("goto", chain) if chain else None
            if isinstance(statement, Lookup) and not self._is_in(statement.set_name, _key(statement.field, packet)):
                return None
            if isinstance(statement, Match) and not _matches(statement.value, _value(statement.field, packet)):
                return None
        return None

    def _is_in(self, name: str, key: bytes | None) -> bool:
        if key is None:
            return False
        if name in self.spans:
            return any(first <= key <= last for first, last in self.spans[name])
        return key in self.sets[name]


OTHER_FIELDS: dict[str, Callable[[Packet], int | str | None]] = {
    "meta nfproto": lambda packet: f"ipv{packet.source.family}",
    "meta l4proto": lambda packet: packet.protocol.lower(),
    "meta pkttype": lambda packet: packet.kind,
    "ct state": lambda packet: packet.state,
    "ct label": lambda _: 0,
    "icmpv6 type": lambda packet: packet.port if packet.protocol == "ICMPv6" else None,
}


def _value(field: str, packet: Packet) -> IP | int | str | None:
    """Returns a field of a packet; None if it has no such field."""
    head, _, name = field.partition(" ")
    if head in ("ip", "ip6"):
        end = packet.source if name == "saddr" else packet.destination
        return end if end.family == (4 if head == "ip" else 6) else None
    if name == "dport":
        return packet.port if packet.protocol.lower() == head else None
    return OTHER_FIELDS[field](packet)


def _key(fields: str, packet: Packet) -> bytes | None:
    parts = [_value(field, packet) for field in fields.split(" . ")]
    if None in parts:
        return None
    return b"".join(
        [part.packed if isinstance(part, IP) else int(part or 0).to_bytes(2, "big") + bytes(2) for part in parts]
    )


def _matches(wanted: object, value: IP | int | str | None) -> bool:
    if value is None:
        return False
    if isinstance(wanted, AnonymousSet):
        return any(_matches(element, value) for element in wanted.elements)
    if isinstance(wanted, Net):
        return isinstance(value, IP) and wanted.contains(value)
    if isinstance(wanted, Range):
        return value in range(int(str(wanted.first)), int(str(wanted.last)) + 1)
    return value in wanted.split(",") if isinstance(wanted, str) else value == wanted
