"""The kernel's trace of a probe (`meta nftrace`): a table of our own marks its packets, in both directions and in the
tunnel, and sees how far they come; the kernel reports each rule and policy that decides about them.
"""

from __future__ import annotations

import itertools
from errno import EPERM
from typing import TYPE_CHECKING

from cni.diag.path.ends import ICMP
from cni.kernel import nft, nft_rules, nft_ruleset, nft_trace, sysctl
from cni.kernel.events import Events, Overflowed
from cni.kernel.netlink import NETLINK_NETFILTER, Netlink, NetlinkError
from cni.kernel.nft import NFPROTO_BRIDGE, NFPROTO_INET
from cni.plan.nftrule import Chain, Hook, Match
from cni.protocol.errors import OperationFailed
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.diag.path.ends import Connection
    from cni.diag.path.probe import Probe
    from cni.kernel.nft_trace import TraceEvent
    from cni.kernel.rtnl import Message
    from cni.plan.nftrule import Statement

TABLE = "podwire-trace"
FIRST, AFTER_CONNTRACK, LAST = -500, -199, 500  # priorities: before and behind those that people use
REQUEST, REPLY, TUNNEL = "request", "reply", "tunnel"
HOOKS = ("input", "forward", "postrouting")  # the ends of which are watched
NETWORKS = {4: "ip", 6: "ip6"}
ICMP_NAMES = {4: "icmp", 6: "ipv6-icmp"}
# From the UDP header of a VXLAN packet to the inner IP header: 8 of UDP, 8 of VXLAN, 14 of Ethernet (RFC 7348).
INNER = 30
LOST = "the kernel's events were lost: another program traces a lot of packets (nft list ruleset)"
CONNTRACK = "net/netfilter/nf_conntrack_max"
FAMILIES = {number: name for name, number in nft_ruleset.FAMILIES.items()}


class Step(Record):
    """A verdict about a packet. `kind`: `rule`, `policy` or `passed`, the end of a hook; `verdict` is nft's word with
    its target; interfaces are indexes, 0 if unknown.
    """

    family: str
    table: str
    chain: str
    kind: str
    verdict: str
    handle: int
    iif: int
    oif: int

    @property
    def is_drop(self) -> bool:
        return self.verdict == "drop"


class Packet(Record):
    """The steps of a packet of the probe: REQUEST, REPLY, or the request in the TUNNEL."""

    direction: str
    steps: list[Step]

    @property
    def drop(self) -> Step | None:
        return next((step for step in self.steps if step.is_drop), None)


class Tracer:
    """The trace of one probe in the namespace of this thread. To be closed: its table ends with its socket. `lost` says
    why it is not whole.
    """

    def __init__(self, path: Connection, probe: Probe) -> None:
        """Raises OperationFailed where the kernel has no nf_tables or no traces; NetlinkError, OSError."""
        self.lost = ""
        self._packets: list[Packet] = []
        self._seen: set[tuple[int, str]] = set()
        self._interfaces = 0, 0
        self._source = path.source_ip.packed
        self._ends, self._numbers, self._runs = {self._source}, {probe.number}, set[int]()
        self._events = Events(NETLINK_NETFILTER, (nft_trace.NFNLGRP_NFTRACE,))
        self._owner: Netlink | None = None
        try:
            self._owner = Netlink(NETLINK_NETFILTER)
            for family in (NFPROTO_BRIDGE, NFPROTO_INET):
                self._create(family, path, probe)
        except BaseException:
            self.close()
            raise

    def _create(self, family: int, path: Connection, probe: Probe) -> None:
        """Creates the table of a family, as much of it as the kernel knows: it may lack bridges' hooks, tables with an
        owner (Linux 5.12) and nft_ct, which a reply needs whose addresses are translated. Raises OperationFailed.
        """
        assert self._owner is not None
        leftover = [nft_ruleset.add_table(family, TABLE), nft_rules.delete_table(family, TABLE)]
        tables = (nft_trace.add_owned_table(family, TABLE), nft_ruleset.add_table(family, TABLE))
        contents = [list(_content(family, path, probe, translated=translated)) for translated in (True, False)]
        refusal: NetlinkError | None = None
        for table, content in itertools.product(tables, contents):
            refusal = self._owner.batch(nft.transaction([*leftover, table, *content]))
            if refusal is None or refusal.errno == EPERM:
                break
        if refusal is not None and family == NFPROTO_INET:
            if refusal.errno == EPERM:
                raise OperationFailed(f"nftrace: table {TABLE} belongs to another podwire trace --send")
            raise refusal

    def close(self) -> None:
        """Removes the table. Raises nothing: it may be gone already, and ends with the process."""
        if self._owner is not None:
            for family in (NFPROTO_BRIDGE, NFPROTO_INET):
                self._owner.batch(nft.transaction([nft_rules.delete_table(family, TABLE)]))
            self._owner.close()
        self._events.close()

    def fileno(self) -> int:
        return self._events.fileno()

    def read(self) -> bool:
        """Takes in the events that have come; returns True if there is one of the probe. Raises OSError."""
        try:
            events = [
                nft_trace.parse_trace(payload) for kind, payload in self._events.read() if kind == nft_trace.TRACE
            ]
        except Overflowed:
            self.lost = LOST
            return False
        own = [event for event in events if self._is_own(event)]
        for event in own:
            self._take(event)
        return bool(own)

    def _is_own(self, event: TraceEvent) -> bool:
        """Returns False for packets that another program traces: they share no address or no port with the probe's.
        NAT may change one of each; those of marked packets are the probe's as well.
        """
        if event.addresses:
            is_mark = event.table == TABLE and bool(event.handle)
            is_own = not (self._ends.isdisjoint(event.addresses) or self._numbers.isdisjoint(event.numbers))
            if is_mark or (is_own and self._source in event.addresses):
                self._ends.update(event.addresses)
                self._numbers.update(event.numbers)
            (self._runs.add if is_mark or is_own else self._runs.discard)(event.run)
        return event.run in self._runs

    def _take(self, event: TraceEvent) -> None:
        """Adds an event to its packet: one begins with the rule that marks it, in a chain of the direction's name. The
        interfaces are in the first event of a chain.
        """
        if event.iif or event.oif:
            self._interfaces = event.iif, event.oif
        direction = event.chain.partition("-")[0] if event.table == TABLE else ""
        if direction in (REQUEST, REPLY, TUNNEL):
            if event.kind == "rule" and event.handle:  # else it is another packet's end of the chain
                self._begin(direction, event)
        elif self._packets and (step := _step(event, *self._interfaces)) is not None:
            self._packets[-1].steps.append(step)

    def _begin(self, direction: str, event: TraceEvent) -> None:
        """Begins a packet, unless it is the one before, marked again in another chain. Of those that were sent again
        only the first is kept.
        """
        mark = event.family, event.chain
        if mark in self._seen:
            self._packets.append(Packet("", []))
        elif not self._packets or self._packets[-1].direction != direction:
            self._packets.append(Packet(direction, []))
        self._seen.add(mark)

    @property
    def packets(self) -> list[Packet]:
        """The packets of the probe; none where events were lost, as half a trace would mislead."""
        return [packet for packet in self._packets if packet.direction and not self.lost]


def _step(event: TraceEvent, iif: int, oif: int) -> Step | None:
    """Returns None for what decides nothing: a rule that only counts, the end of a chain that was jumped to."""
    family = FAMILIES.get(event.family, str(event.family))
    if event.table == TABLE:
        return Step(family, "", event.chain, "passed", "", 0, iif, oif) if event.kind == "policy" else None
    if event.verdict in ("", "continue", "return"):
        return None
    verdict = f"{event.verdict} {event.target}".rstrip()
    return Step(family, event.table, event.chain, event.kind, verdict, event.handle, iif, oif)


def _content(family: int, path: Connection, probe: Probe, *, translated: bool) -> Iterator[Message]:
    """Yields the messages that fill the table: chains that mark, and those that see a packet behind all others.
    `translated`: replies with other addresses are marked as well.
    """
    for chain, expressions in _marks(family, path, probe, translated=translated):
        yield nft_ruleset.add_chain(family, TABLE, chain)
        yield nft_rules.append_rule(nft.Chain(family, TABLE, chain.name), expressions, "podwire trace")
    for hook in HOOKS:
        yield nft_ruleset.add_chain(family, TABLE, Chain(hook, (), Hook("filter", hook, LAST)))


def _marks(family: int, path: Connection, probe: Probe, *, translated: bool) -> Iterator[tuple[Chain, bytes]]:
    """Yields the chains that mark with the expressions of their rule."""

    def chain(name: str, hook: str, priority: int) -> Chain:
        return Chain(name, (), Hook("filter", hook, priority))

    request = chain(REQUEST, "prerouting", FIRST)
    yield request, nft_trace.marking(family, _flow(path, probe, reply=False))
    yield chain(REPLY, "prerouting", FIRST), nft_trace.marking(family, _flow(path, probe, reply=True))
    if family != NFPROTO_INET:
        return
    yield chain(TUNNEL, "output", FIRST), nft_trace.marking(family, _tunnelled(path, probe))
    if translated and sysctl.read(CONNTRACK) is not None:
        replies = nft_trace.replies_to(path.source_ip, probe.protocol, probe.number)
        yield chain(f"{REPLY}-nat", "prerouting", AFTER_CONNTRACK), nft_trace.marking(family, (), replies)


def _flow(path: Connection, probe: Probe, *, reply: bool) -> tuple[Statement, ...]:
    """Returns what matches the probe's packets of one direction where no address is translated."""
    network = NETWORKS[path.family]
    source, target = ("daddr", "saddr") if reply else ("saddr", "daddr")
    ends = (Match(f"{network} {source}", path.source_ip), Match(f"{network} {target}", path.target_ip))
    if path.protocol == ICMP:
        return (*ends, Match("meta l4proto", ICMP_NAMES[path.family]), Match("@th,32,16", probe.number))
    source, target = ("th dport", "th sport") if reply else ("th sport", "th dport")
    return (*ends, Match("meta l4proto", path.protocol), Match(source, probe.number), Match(target, path.port))


def _tunnelled(path: Connection, probe: Probe) -> tuple[Statement, ...]:
    """Returns what matches the probe in a VXLAN packet: its inner source, and its port or identifier. A source that was
    translated is not seen.
    """
    address, header = (12, 20) if path.family == 4 else (8, 40)
    number = (INNER + header + (4 if path.protocol == ICMP else 0)) * 8
    bits = path.source_ip.bits
    return (
        Match("meta l4proto", "udp"),
        Match(f"@th,{(INNER + address) * 8},{bits}", path.source_ip.value),
        Match(f"@th,{number},16", probe.number),
    )
