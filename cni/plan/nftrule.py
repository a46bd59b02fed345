"""nftables objects as values: tables, sets, maps, chains and rules. They render as text for nft, for people to read;
cni.kernel.nft_ruleset makes the messages of them that the kernel gets.

A rule is a tuple of statements. What a statement reads from a packet is named by nft's own words (`ip saddr`,
`meta mark`, `@th,96,24`; several joined by ` . ` are a concatenation), and the codec knows them all
(cni.kernel.nft_fields.FIELDS). As with nft, nobody writes what a field takes for granted: in a table of family inet
`ip saddr` matches packets of IPv4 alone, and `tcp dport` those of TCP.

    Chain("input", (Rule((Lookup("ip saddr", "blocked"), Counter(), DROP)),), Hook("filter", "input", 0))
"""

from __future__ import annotations

from cni.protocol.address import IP, Net
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

    Constant: TypeAlias = str | int | bytes | IP | Net  # symbols and interface names are str, MAC addresses bytes
    Element: TypeAlias = "Constant | Range | tuple[Constant, ...]"  # a tuple for a concatenation
    Matching: TypeAlias = "Match | Lookup | VerdictMap | Limit"
    Changing: TypeAlias = "Masq | Dnat | SetMark | SetLabel"
    Statement: TypeAlias = "Matching | Changing | Verdict | Counter | Log | Reject | Raw"

RAW, DSTNAT, FILTER, SRCNAT = -300, -100, 0, 100  # priorities of families ip, ip6 and inet
BRIDGE_DSTNAT = -300  # nft calls it dstnat, too
NAMED = ("iifname", "oifname")  # fields with interface names


class Range(Record):
    """All values from `first` to `last`, both included."""

    first: int | IP
    last: int | IP


class AnonymousSet(Record):
    """Constants, ranges or networks, of which one has to match; of a concatenation, tuples of constants. They may
    overlap.
    """

    elements: tuple[Element, ...]


class Match(Record):
    """Compares a field with a constant, a range, a network or an anonymous set; with `mask`, only these bits of a
    number.

    A list of flags (`ct state`, `established,related`) matches if any is set; negated, if not exactly these are.
    """

    field: str
    value: Element | AnonymousSet
    negated: bool = False
    mask: int = 0

    @property
    def text(self) -> str:
        if self.mask:
            wanted = f"{self.value:#x}" if isinstance(self.value, int) else str(self.value)
            return f"{self.field} & {self.mask:#x} {'!=' if self.negated else '=='} {wanted}"
        return f"{self.field} {'!= ' if self.negated else ''}{_value_text(self.field, self.value)}"


class Lookup(Record):
    """Matches if the field, or concatenation, is in a set of the table."""

    field: str
    set_name: str
    negated: bool = False

    @property
    def text(self) -> str:
        return f"{self.field} {'!= ' if self.negated else ''}@{self.set_name}"


class VerdictMap(Record):
    """Ends with the verdict that a map of the table has for the field, or concatenation; goes on where it has none."""

    field: str
    map_name: str

    @property
    def text(self) -> str:
        return f"{self.field} vmap @{self.map_name}"


class Verdict(Record):
    """`accept`, `drop`, `return`, or `jump` and `goto` with a chain."""

    kind: str
    chain: str = ""

    @property
    def text(self) -> str:
        return f"{self.kind} {self.chain}".rstrip()


ACCEPT, DROP, RETURN = Verdict("accept"), Verdict("drop"), Verdict("return")


class Counter(Record):
    """Counts packets and bytes."""

    @property
    def text(self) -> str:
        return "counter"


class Limit(Record):
    """Matches at most `rate` packets a second, after the first `burst`."""

    rate: int
    burst: int = 5

    @property
    def text(self) -> str:
        return f"limit rate {self.rate}/second burst {self.burst} packets"


class Log(Record):
    """Hands the packet to a group of NFLOG, with a prefix."""

    group: int
    prefix: str = ""

    @property
    def text(self) -> str:
        return f'log prefix "{self.prefix}" group {self.group}' if self.prefix else f"log group {self.group}"


class Masq(Record):
    """Source NAT to the address of the outgoing interface."""

    fully_random: bool = False

    @property
    def text(self) -> str:
        return "masquerade fully-random" if self.fully_random else "masquerade"


class Dnat(Record):
    """Destination NAT to the address and port that a map has for the field, or concatenation; goes on where it has
    none.
    """

    family: int
    field: str
    map_name: str

    @property
    def text(self) -> str:
        return f"dnat {'ip' if self.family == 4 else 'ip6'} to {self.field} map @{self.map_name}"


class SetMark(Record):
    """Sets bits of the packet's mark, or clears them."""

    bits: int
    on: bool = True

    @property
    def text(self) -> str:
        return f"meta mark set meta mark {f'| {self.bits:#x}' if self.on else f'& {0xFFFFFFFF ^ self.bits:#x}'}"


class SetLabel(Record):
    """Sets a label of the connection (a bit, 0 to 127)."""

    label: int

    @property
    def text(self) -> str:
        return f"ct label set {self.label}"


class Reject(Record):
    """Drops the packet and answers: `port-unreachable` or `admin-prohibited` (ICMP of the packet's family), or
    `tcp reset`, after a match for TCP.
    """

    answer: str = "port-unreachable"

    @property
    def text(self) -> str:
        return f"reject with {self.answer if self.answer == 'tcp reset' else f'icmpx {self.answer}'}"


class Raw(Record):
    """A user's expression, which nothing but nft understands: a chain with one is loaded by nft."""

    expression: str

    @property
    def text(self) -> str:
        return self.expression


class Rule(Record):
    """Statements that a packet passes until one does not match or ends the rule. nft lists the comment."""

    statements: tuple[Statement, ...]
    comment: str = ""

    @property
    def text(self) -> str:
        statements = " ".join([statement.text for statement in self.statements])
        return f'{statements} comment "{self.comment}"' if self.comment else statements

    @property
    def needs_nft(self) -> bool:
        """True if only nft can make a message of it."""
        return any(isinstance(statement, Raw) for statement in self.statements)


class Hook(Record):
    """The hook of a base chain. `kind`: filter or nat."""

    kind: str
    hook: str
    priority: int
    policy: str = "accept"

    @property
    def text(self) -> str:
        return f"type {self.kind} hook {self.hook} priority {self.priority} ; policy {self.policy} ;"


class Chain(Record):
    """A chain, with all of its rules; a base chain if it has a hook."""

    name: str
    rules: tuple[Rule, ...] = ()
    hook: Hook | None = None


class NamedSet(Record):
    """A set, or a map to `data` (`verdict`, or types). `key`: types joined by ` . `, or, with `by_fields`, fields."""

    name: str
    key: str
    data: str = ""
    interval: bool = False
    by_fields: bool = False

    @property
    def kind(self) -> str:
        return "map" if self.data else "set"

    @property
    def text(self) -> str:
        word, data = "typeof" if self.by_fields else "type", f" : {self.data}" if self.data else ""
        return f"{{ {word} {self.key}{data} ;{' flags interval ;' if self.interval else ''} }}"


class Table(Record):
    """A table, or a part of one. `family`: inet, bridge, ip or ip6."""

    family: str
    name: str
    sets: tuple[NamedSet, ...] = ()
    chains: tuple[Chain, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.family} {self.name}"


def merged(intervals: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Returns intervals (first, last) in order, those that overlap or follow one another as one: the kernel rejects
    overlaps.
    """
    result: list[tuple[int, int]] = []
    for first, last in sorted(intervals):
        if result and first <= result[-1][1] + 1:
            result[-1] = result[-1][0], max(last, result[-1][1])
        else:
            result.append((first, last))
    return result


def commands(table: Table) -> list[str]:
    """Returns nft's commands. Table, sets and chains that are there stay, rules are flushed and written: they can be
    given again at any time.
    """
    lines = [f"add table {table.title}"]
    lines += [f"add {named.kind} {table.title} {named.name} {named.text}" for named in table.sets]
    for chain in table.chains:
        hook = f" {{ {chain.hook.text} }}" if chain.hook is not None else ""
        lines.append(f"add chain {table.title} {chain.name}{hook}")
    for chain in table.chains:
        lines.append(f"flush chain {table.title} {chain.name}")
        lines += [f"add rule {table.title} {chain.name} {rule.text}" for rule in chain.rules]
    return lines


def _value_text(field: str, value: Element | AnonymousSet) -> str:
    if not isinstance(value, AnonymousSet):
        return _element_text(field, value)
    return f"{{ {', '.join([_element_text(field, element) for element in value.elements])} }}"


def _element_text(field: str, value: Element) -> str:
    if isinstance(value, Range):
        return f"{_constant_text(field, value.first)}-{_constant_text(field, value.last)}"
    if isinstance(value, tuple) and not isinstance(value, (IP, Net)):
        return " . ".join([_constant_text(*pair) for pair in zip(field.split(" . "), value, strict=True)])
    return _constant_text(field, value)


def _constant_text(field: str, value: Constant) -> str:
    if isinstance(value, (IP, Net)):
        return value.text
    if isinstance(value, bytes):
        return value.hex(":")
    return f'"{value}"' if field in NAMED else str(value)
