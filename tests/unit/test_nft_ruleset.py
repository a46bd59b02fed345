"""Messages that create tables, compared with what nft makes of the same values' text: every statement and set."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni.effects.nft_socket import Nft
from cni.kernel import nft, nft_fields, nft_ruleset
from cni.kernel.netlink import NetlinkError, attributes, each_attribute
from cni.plan import nftrule
from cni.plan.nftrule import (
    ACCEPT,
    DROP,
    RETURN,
    AnonymousSet,
    Chain,
    Counter,
    Dnat,
    Hook,
    Limit,
    Log,
    Lookup,
    Masq,
    Match,
    NamedSet,
    Range,
    Reject,
    Rule,
    SetLabel,
    SetMark,
    Table,
    Verdict,
    VerdictMap,
)
from cni.protocol.address import IP, Net, parse_ip, parse_net
from tests.machine import Machine, missing
from tests.unit.strategies import PROFILE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.plan.nftrule import Statement


SETS = (
    NamedSet("map4", "ipv4_addr", "verdict"),
    NamedSet("map6", "ipv6_addr", "verdict"),
    NamedSet("ports", "inet_proto . inet_service", "ipv4_addr . inet_service"),
    NamedSet("ports4", "ipv4_addr . inet_proto . inet_service", "ipv4_addr . inet_service"),
    NamedSet("ports6", "ipv6_addr . inet_proto . inet_service", "ipv6_addr . inet_service"),
    NamedSet("pairs", "ipv4_addr . ipv4_addr"),
    NamedSet("spans", "ipv4_addr", interval=True),
    NamedSet("spans6", "ipv6_addr", interval=True),
    NamedSet("named", "ipv4_addr . inet_proto . inet_service"),
    NamedSet("boxes", "ipv4_addr . inet_service", interval=True),
    NamedSet("services", "inet_service"),
    NamedSet("interfaces", "ifname"),
    NamedSet("marks", "mark"),
    NamedSet("bridges", "ifname . ifname"),
    NamedSet("standby", "ipv4_addr . inet_proto . inet_service . ipv4_addr . inet_service", "verdict"),
)
HOST, MAC = parse_ip("10.0.0.1"), b"\0\x11\x22\x33\x44\x55"
N10, N127, N23 = parse_net("10.244.0.0/16"), parse_net("127.0.0.0/8"), parse_net("10.1.0.0/23")
V6, LINK_LOCAL, MULTICAST6 = parse_net("2001:db8::/64"), parse_net("fe80::/10"), parse_net("ff00::/8")
GO, JUMP = Verdict("goto", "known"), Verdict("jump", "known")
FILTERING: list[tuple[Statement, ...]] = [
    (Match("ct state", "established,related"), GO),
    (Match("ct state", "new"), ACCEPT),
    (Match("ct state", "invalid"), DROP),
    (Match("ct state", "established", negated=True), DROP),
    (Match("ct status", "dnat"), ACCEPT),
    (Match("ct direction", "reply"), JUMP),
    (Match("ct mark", 5), ACCEPT),
    (Match("ct label", 77), DROP),
    (SetLabel(77),),
    (SetLabel(3),),
    (Match("icmpv6 type", AnonymousSet((Range(133, 137),))), ACCEPT),
    (Match("icmpv6 type", AnonymousSet((133, Range(135, 137)))), ACCEPT),
    (Match("icmp type", "echo-request"), ACCEPT),
    (Match("ip6 saddr", LINK_LOCAL), DROP),
    (Match("meta pkttype", AnonymousSet(("broadcast", "multicast"))), DROP),
    (Lookup("ip saddr . ip daddr", "pairs"), ACCEPT),
    (VerdictMap("ip saddr", "map4"),),
    (VerdictMap("ip6 saddr", "map6"),),
    (Match("tcp dport", AnonymousSet((80, Range(8080, 8090)))), Counter(), ACCEPT),
    (Match("tcp dport", AnonymousSet((80, Range(81, 90), Range(85, 95)))), ACCEPT),
    (Match("tcp dport", AnonymousSet((80, 443)), negated=True), ACCEPT),
    (Match("sctp dport", AnonymousSet((80, 443))), ACCEPT),
    (Match("tcp dport", Range(80, 90)), Counter(), ACCEPT),
    (Match("udp sport", Range(80, 90), negated=True), Counter(), ACCEPT),
    (Lookup("ip daddr . meta l4proto . th dport", "named"), Counter(), GO),
    (Lookup("ip daddr . th dport", "boxes"), GO),
    (Lookup("ip daddr", "spans"), ACCEPT),
    (Lookup("ip6 daddr", "spans6", negated=True), ACCEPT),
    (Limit(10), Log(77), DROP),
    (Limit(10, 7), Log(77, "in"), DROP),
    (Match("fib saddr . iif oif", "missing"), DROP),
    (Match("fib daddr type", "local"), JUMP),
    (Match("fib saddr type", "local"), ACCEPT),
    (Reject(),),
    (Reject("admin-prohibited"),),
    (Match("tcp dport", 5), Reject("tcp reset")),
    (Match("iifname", "lo"), Match("ip daddr", N127), DROP),
    (Match("iifname", "lo", negated=True), Match("ct direction", "reply"), SetMark(0x2000)),
    (SetMark(0x2000, on=False),),
    (Match("meta mark", 0x2000, mask=0x2000), ACCEPT),
    (Match("meta mark", 7), ACCEPT),
    (Match("@th,96,24", 5, negated=True), RETURN),
    (Match("ip saddr", N10, negated=True), Match("ip daddr", N23), ACCEPT),
    (Match("ip saddr", parse_net("0.0.0.0/0")), ACCEPT),
    (Match("ip saddr", parse_net("10.0.0.1/32")), ACCEPT),
    (Match("ip saddr", Range(HOST, parse_ip("10.0.0.9"))), ACCEPT),
    (Match("ip6 saddr", parse_ip("::1")), ACCEPT),
    (Match("ip6 saddr", parse_net("2001:db8::/61"), negated=True), ACCEPT),
    (Match("meta nfproto", "ipv4"), Match("ip daddr", HOST), ACCEPT),
    (Match("meta l4proto", "tcp"), Match("tcp dport", 5), Match("ip saddr", HOST), ACCEPT),
    (Match("meta l4proto", AnonymousSet(("tcp", "udp"))), Match("th dport", 53), ACCEPT),
    (Match("iifname", AnonymousSet(("a", "b"))), DROP),
    (Lookup("iifname . oifname", "bridges"), DROP),
    (Lookup("iifname", "interfaces"), Lookup("oifname", "interfaces"), DROP),
    (Lookup("udp dport", "services"), Lookup("iifname", "interfaces"), GO),
    (Match("ip daddr", AnonymousSet((parse_net("10.1.2.0/24"), parse_net("224.0.0.0/4")))), RETURN),
    (Match("ip daddr", AnonymousSet((parse_net("10.1.2.0/24"), parse_net("10.1.3.0/24"), HOST))), RETURN),
    (Match("ip6 daddr", AnonymousSet((V6, MULTICAST6))), RETURN),
    (Match("ip6 saddr", AnonymousSet((V6, parse_ip("::1")))), RETURN),
    (Match("ip daddr . tcp dport", AnonymousSet(((HOST, 80), (HOST, 81)))), ACCEPT),
    (Match("ether saddr", MAC), DROP),
]
BRIDGED: list[tuple[Statement, ...]] = [
    (Lookup("iifname . ip saddr", "addresses", negated=True), DROP),
    (Lookup("iifname . arp saddr ip", "addresses", negated=True), DROP),
    (Lookup("iifname", "guarded"), Lookup("iifname . ether saddr", "allowed", negated=True), DROP),
    (Match("arp saddr ip", HOST), DROP),
    (Match("arp saddr ether", MAC, negated=True), DROP),
    (Match("arp operation", "reply"), DROP),
    (Match("ether type", "arp"), ACCEPT),
    (Match("ip6 saddr", LINK_LOCAL), DROP),
    (Match("arp saddr ip", HOST), Lookup("iifname . arp daddr ip", "addresses"), ACCEPT),
    (Match("ip6 saddr", parse_ip("::")), Match("icmpv6 type", "nd-neighbor-solicit"), ACCEPT),
    (Match("meta protocol", "ip6"), Match("icmpv6 type", 135), Lookup("iifname . @th,64,128", "targets"), ACCEPT),
    (Match("meta protocol", AnonymousSet(("ip", "8021q", "8021ad"))), DROP),
    (Match("icmpv6 type", 136), Match("@th,64,128", parse_ip("fe80::1").value, negated=True), DROP),
    (Match("ether daddr", MAC), DROP),
    (Match("ip saddr", HOST), Match("udp dport", 5), DROP),
]
NAT: dict[str, list[tuple[Statement, ...]]] = {
    "prerouting": [
        (Dnat(4, "ip daddr . meta l4proto . th dport", "ports4"),),
        (Dnat(6, "ip6 daddr . meta l4proto . th dport", "ports6"),),
        (Match("meta nfproto", "ipv4"), Dnat(4, "meta l4proto . th dport", "ports")),
    ],
    "postrouting": [(Masq(),), (Match("ip saddr", N10), Masq(fully_random=True))],
}
KNOWN = Chain("known", (Rule((Match("ct label", 77), DROP)), Rule((ACCEPT,), "the rest")))
GUARD = (
    NamedSet("addresses", "ifname . ipv4_addr"),
    NamedSet("guarded", "ifname"),
    NamedSet("allowed", "ifname . ether_addr"),
    NamedSet("targets", "iifname . @th,64,128", by_fields=True),
)


def rules(statements: list[tuple[Statement, ...]]) -> tuple[Rule, ...]:
    return tuple([Rule(sequence, f"rule {number}") for number, sequence in enumerate(statements)])


TABLES = {
    "filter": Table("inet", "t", SETS, (KNOWN, Chain("f", rules(FILTERING), Hook("filter", "forward", 0, "drop")))),
    "bridge": Table("bridge", "t", GUARD, (Chain("f", rules(BRIDGED), Hook("filter", "prerouting", -300)),)),
    "ip": Table("ip", "t", (), (Chain("f", rules([(Match("ip saddr", HOST), Match("tcp dport", 80), DROP)])),)),
    **{
        hook: Table("inet", "t", SETS, (Chain("c", rules(statements), Hook("nat", hook, -100)),))
        for hook, statements in NAT.items()
    },
}
# What the kernel numbers as it likes, and what nft remembers of a set for itself.
COUNTED = {"table": (4, 5), "chain": (2, 6, 10), "set": (13, 16), "rule": (3, 6)}
GETTERS = {"table": 1, "chain": 4, "set": 10, "rule": 7}


def dumped() -> list[Any]:
    """Returns all nftables objects as the kernel gives them, rules by their expressions; to be called in a machine."""
    socket, objects = Nft(), list[Any]()
    for name, kind in GETTERS.items():
        for data in socket.dump(nft.NFNL_SUBSYS_NFTABLES << 8 | kind, nft.NFGENMSG.pack(0, 0, 0)):
            content = attributes(data, nft.NFGENMSG.size)
            kept = {number: value for number, value in content.items() if number not in COUNTED[name]}
            objects.append((name, data[0], sorted(kept.items())))
            if name == "set":
                place = nft.SetRef(data[0], nft.name_of(content[1]), nft.name_of(content[2]))
                objects.append(elements(socket, place))
    socket.close()
    return objects


def elements(socket: Nft, place: nft.SetRef) -> list[bytes]:
    answers = [attributes(data, nft.NFGENMSG.size) for data in socket.dump(*nft.all_elements(place))]
    return sorted(
        [element for answer in answers for _, element in each_attribute(answer.get(nft.NFTA_LIST_ELEMENTS, b""))]
    )


def send(steps: list[nft_ruleset.Step]) -> NetlinkError | None:
    socket = Nft()
    try:
        return socket.change(*[step.message for step in steps])
    finally:
        socket.close()


def create(table: Table) -> NetlinkError | None:
    return send(nft_ruleset.create(table))


def load(machine: Machine, table: Table) -> None:
    machine.run("nft", "-f", "-", stdin="\n".join(nftrule.commands(table)) + "\n")


def listed(machine: Machine) -> str:
    return machine.run("nft", "list", "ruleset").stdout


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_table_is_what_nft_makes_of_its_text(machine: Machine, table: Table) -> None:
    load(machine, table)
    by_nft, shown = machine.call(dumped), listed(machine)
    machine.run("nft", "flush", "ruleset")
    assert machine.call(create, table) is None
    for theirs, ours in zip(by_nft, machine.call(dumped), strict=True):
        assert ours == theirs
    assert listed(machine) == shown


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_table_that_is_created_again_changes_nothing(machine: Machine, table: Table) -> None:
    """Also upon one that nft has loaded, as older versions did."""
    load(machine, table)
    shown = listed(machine)
    for _ in range(2):
        assert machine.call(create, table) is None
        assert listed(machine) == shown


def test_several_parts_are_created_in_one_transaction(machine: Machine) -> None:
    """Each lookup finds the anonymous set of its own rule."""
    tables = [TABLES["filter"], TABLES["bridge"], TABLES["prerouting"]]
    for table in tables:
        assert machine.call(create, table) is None
    apart = listed(machine)
    machine.run("nft", "flush", "ruleset")
    assert machine.call(send, nft_ruleset.create(*tables)) is None
    assert listed(machine) == apart


def random_rule(random: Random) -> tuple[Statement, ...]:
    """Returns a rule for addresses and ports, as policies have them: prefixes, ranges, and sets that overlap."""
    family = random.choice((4, 6))
    bits = 32 if family == 4 else 128

    def network() -> Net:
        return Net(IP(family, random.getrandbits(bits)), random.randint(1, bits))

    def span(limit: int) -> Range:
        first, last = sorted(random.sample(range(1, limit), 2))
        return Range(first, last)

    def port() -> int | Range:
        return random.choice((random.randrange(1, 65535), span(65535)))

    many, negated = range(random.randint(2, 9)), random.random() < 0.3
    field = random.choice(("ip saddr", "ip daddr") if family == 4 else ("ip6 saddr", "ip6 daddr"))
    to = Match(field, random.choice((network(), AnonymousSet(tuple([network() for _ in many])))), negated)
    if family == 6 and random.random() < 0.2:
        return to, Match("icmpv6 type", AnonymousSet((span(255), random.randrange(255)))), DROP
    ports = random.choice((port(), AnonymousSet(tuple([port() for _ in many]))))
    return to, Match(random.choice(("tcp dport", "udp sport")), ports, random.random() < 0.3), DROP


@pytest.mark.parametrize("seed", range(4))
def test_random_rules_are_what_nft_makes_of_their_text(machine: Machine, seed: int) -> None:
    random = Random(seed)
    statements: list[tuple[Statement, ...]] = [random_rule(random) for _ in range(60)]
    table = Table("inet", "t", (), (Chain("c", rules(statements)),))
    load(machine, table)
    by_nft = machine.call(dumped)
    machine.run("nft", "flush", "ruleset")
    assert machine.call(create, table) is None
    for theirs, ours in zip(by_nft, machine.call(dumped), strict=True):
        assert ours == theirs


MANY = 1000


@pytest.fixture(params=["root", "rootless"])
def host(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """Gives a host, once as root and once in a user namespace: there nobody may exceed the limits of sockets."""
    rootless = request.param == "rootless"
    if reason := missing(user_namespace=rootless or None):
        pytest.skip(reason)
    with Machine(user_namespace=rootless or None) as machine:
        yield machine


def test_a_transaction_may_be_larger_than_the_buffers_of_a_socket(host: Machine) -> None:
    ports = tuple([Rule((Match("tcp dport", AnonymousSet((number, number + 2))), DROP)) for number in range(MANY)])
    assert host.call(create, Table("inet", "t", (), (Chain("c", ports),))) is None
    assert listed(host).count(" drop") == MANY
    lost = Table("inet", "u", (), (Chain("c", (*ports, Rule((Lookup("ip saddr", "absent"), DROP)))),))
    refusal = host.call(create, lost)
    assert refusal is not None
    assert refusal.position == len(nft_ruleset.create(lost))
    assert "inet u" not in listed(host)


def test_every_field_is_read_by_a_rule() -> None:
    tried = {
        op.field
        for statements in [*FILTERING, *BRIDGED, *NAT["prerouting"]]
        for op in statements
        if isinstance(op, (Match, Lookup, VerdictMap, Dnat))
    }
    names = {name for field in tried for name in ([field] if field in nft_fields.FIELDS else field.split(" . "))}
    asked_first = {"meta iiftype"}
    same = {"th sport", "tcp sport", "sctp sport"}  # as those of the other protocols
    assert set(nft_fields.FIELDS) - names == asked_first | same


def test_every_statement_is_tried() -> None:
    tried = {type(op).__name__ for table in TABLES.values() for chain in table.chains for rule in chain.rules
             for op in rule.statements}  # fmt: skip
    encoders = __import__("cni.kernel.nft_statements", fromlist=["ENCODERS"]).ENCODERS
    assert tried == set(encoders)


def test_a_refused_rule_leaves_nothing(machine: Machine) -> None:
    lost = Table("inet", "t", (), (Chain("c", (Rule((Lookup("ip saddr", "absent"), DROP)),)),))
    refusal = machine.call(create, lost)
    assert isinstance(refusal, NetlinkError)
    assert listed(machine) == ""


def test_rules_are_replaced_and_elements_stay(machine: Machine) -> None:
    before = Table("inet", "t", (NamedSet("s", "ipv4_addr"),), (Chain("c", (Rule((ACCEPT,)), Rule((DROP,)))),))
    assert machine.call(create, before) is None
    machine.run("nft", "add", "element", "inet", "t", "s", "{ 10.0.0.1 }")
    assert machine.call(create, before._replace(chains=(Chain("c", (Rule((RETURN,)),)),))) is None
    shown = listed(machine)
    assert ("return" in shown, "accept" in shown, "10.0.0.1" in shown) == (True, False, True)


def test_a_table_is_replaced_as_a_whole_or_removed(machine: Machine) -> None:
    for table in (TABLES["filter"], TABLES["postrouting"]):
        assert machine.call(send, nft_ruleset.replace(table)) is None
    assert "chain c" in listed(machine)
    assert "chain known" not in listed(machine)
    for _ in range(2):
        assert machine.call(send, nft_ruleset.replace(Table("inet", "t"))) is None
        assert listed(machine) == ""


SPANS = NamedSet("s", "ipv4_addr", interval=True)
CIDRS = ["10.0.0.0/8", "0.0.0.0/8", "192.0.2.1/32", "10.1.0.0/16", "11.0.0.0/8", "240.0.0.0/4"]


def fill(cidrs: list[str]) -> NetlinkError | None:
    nets = [parse_net(text) for text in cidrs]
    place = nft.SetRef(nft.NFPROTO_INET, "t", "s")
    socket = Nft()
    try:
        spans = [(net.network.ip.packed, net.last.packed) for net in nets]
        return socket.change(*nft_ruleset.add_intervals(place, spans))
    finally:
        socket.close()


@pytest.mark.parametrize("cidrs", [CIDRS, CIDRS[:1], CIDRS[-1:], ["0.0.0.0/0"], CIDRS[1:3]], ids=" ".join)
def test_networks_of_an_interval_set_are_those_that_nft_adds(machine: Machine, cidrs: list[str]) -> None:
    table = Table("inet", "t", (SPANS,))
    assert machine.call(create, table) is None
    assert machine.call(fill, cidrs) is None
    ours = machine.call(dumped)
    machine.run("nft", "flush", "ruleset")
    members = ", ".join(cidrs)
    text = f"table inet t {{ set s {{ type ipv4_addr; flags interval; auto-merge; elements = {{ {members} }}; }}; }}"
    machine.run("nft", "-f", "-", stdin=text)
    assert machine.call(dumped)[-1] == ours[-1]


@settings(PROFILE)
@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)).map(sorted), max_size=8))
def test_merged_spans_hold_the_same_keys_and_do_not_touch(spans: list[list[int]]) -> None:
    merged = nftrule.merged([(first, last) for first, last in spans])
    held = {key for first, last in spans for key in range(first, last + 1)}
    assert {key for first, last in merged for key in range(first, last + 1)} == held
    assert all(after[0] > before[1] + 1 for before, after in pairwise(merged))


@pytest.mark.parametrize(
    "statement", [Match("ip ttl", 1), Match("ct state", "nonsense"), Lookup("ip saddr . nothing", "x")]
)
def test_what_the_codec_does_not_know_is_an_error(statement: Statement) -> None:
    with pytest.raises(KeyError):
        nft_ruleset.create(Table("inet", "t", (), (Chain("c", (Rule((statement,)),)),)))


def test_a_step_tells_what_it_creates() -> None:
    table = Table("inet", "t", (NamedSet("m", "mark", "verdict"),), (Chain("c", (Rule((Counter(), DROP)),)),))
    assert [step.title for step in nft_ruleset.create(table)] == [
        "table inet t", "map inet t m", "chain inet t c", "chain inet t c", "chain inet t c: counter drop",
    ]  # fmt: skip
