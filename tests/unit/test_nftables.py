"""The parts of podwire's tables: complete, the same as nft makes of their text, and loaded again without a change."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from cni.config.portmap import PortMapping
from cni.effects import masquerade as masquerade_effects
from cni.effects import nft_load
from cni.effects import portmap as portmap_effects
from cni.effects import sourcecheck as sourcecheck_effects
from cni.effects import spoofcheck as spoofcheck_effects
from cni.effects.host import Host
from cni.effects.journal import Journal
from cni.effects.nft_socket import Nft
from cni.kernel.nft import SetRef
from cni.plan import isolation, masquerade, nftrule, portmap, sourcecheck, spoofcheck
from cni.plan.masquerade import Masquerade, masquerade_chain
from cni.plan.nftables import RulesetFragment
from cni.plan.portmap import Condition, Hairpin, HostPort
from cni.plan.sourcecheck import SourceGuard
from cni.plan.spoofcheck import SpoofGuard
from cni.protocol.address import parse_ip, parse_net
from cni.protocol.errors import OperationFailed
from cni.protocol.owner import Owner
from tests.unit.test_nft_ruleset import dumped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.kernel.nft import Element
    from cni.plan.nftrule import Table
    from tests.machine import Machine

    Owned = tuple[SetRef, Element]

V4, V6 = parse_net("10.1.2.3/24"), parse_net("2001:db8::3/64")
LABEL = Owner("net", "c1", "eth0").label
HTTP = HostPort(PortMapping("tcp", None, 0, 80, 8080), V4.ip, LABEL)
PORTS = [
    HTTP,
    HostPort(PortMapping("udp", parse_ip("192.0.2.1"), 4, 53, 5353), V4.ip, LABEL),
    HostPort(PortMapping("sctp", None, 6, 65535, 1), V6.ip, LABEL),
    HostPort(PortMapping("tcp", parse_ip("2001:db8:2::1"), 6, 1, 65535), V6.ip, LABEL),
]
HAIRPINS = [Hairpin(V4, everybody=False, label=LABEL), Hairpin(V6, everybody=True, label=LABEL)]
CONDITIONS = [Condition(PORTS[0], "ip saddr 192.0.2.0/24", 13), Condition(PORTS[3], "", 5)]
MASQUERADES = [Masquerade(V4, LABEL), Masquerade(V6, LABEL)]
GUARD = SpoofGuard("veth888cf680c74", b"\x0a\0\0\0\0\x01", LABEL)
SOURCES = SourceGuard("veth888cf680c74", (V4.ip, V6.ip, parse_ip("fe80::7")), routed=False, label=LABEL)
ROUTED = SourceGuard("veth888cf680c74", (), routed=True, label=LABEL)
BRIDGE_SOURCES, BRIDGED_SOURCES, ROUTED_SOURCES = (
    *sourcecheck.rulesets(routed=False),
    *sourcecheck.rulesets(routed=True),
)
PARTS = {
    "masquerade, empty": masquerade.ruleset([]),
    "masquerade": masquerade.ruleset([V4, V6, V4]),
    "guard": spoofcheck.ruleset(),
    "sources": BRIDGE_SOURCES,
    "sources of bridged ones": BRIDGED_SOURCES,
    "sources of routed ones": ROUTED_SOURCES,
    "isolation": isolation.ruleset(),
    "ports, empty": portmap.ruleset([], []),
    "ports": portmap.ruleset([*HAIRPINS, HAIRPINS[0]], [*CONDITIONS, CONDITIONS[0]]),
}


def send(title: str, content: Table, owned: Sequence[Owned]) -> None:
    """Loads a part as an ADD does, with elements that were lost; to be called inside a machine."""
    host = Host(os.environ, print)
    try:
        part = RulesetFragment(title, (), lambda: content)
        nft_load.load(host, part, owned, Journal(host, shared_stays=True))
    finally:
        host.close()


def load(machine: Machine, part: RulesetFragment, owned: Sequence[Owned] = ()) -> None:
    machine.call(send, part.table, part.content(), owned)


def text_of(part: RulesetFragment) -> str:
    return "\n".join([*nftrule.commands(part.content()), ""])


def listed(machine: Machine) -> list[dict[str, Any]]:
    """Returns the kernel's objects one by one, without nft's handles and indexes."""
    objects = json.loads(machine.run("nft", "-j", "list", "ruleset").stdout)["nftables"]
    bodies = [(kind, body) for item in objects for kind, body in item.items() if kind != "metainfo"]
    return [{"is": kind} | {key: body[key] for key in body if key not in ("handle", "index")} for kind, body in bodies]


def chains_with_rules(machine: Machine) -> set[str]:
    return {line["chain"] for line in listed(machine) if line["is"] == "rule"}


def elements_of(family: int, table: str, name: str) -> list[dict[str, Any]]:
    """Returns the elements of a set; to be called inside a machine."""
    nft = Nft()
    try:
        return [element._asdict() for element in nft.elements(SetRef(family, table, name))]
    finally:
        nft.close()


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_part_is_whole_when_it_is_loaded_and_not_without_any_of_its_chains(
    machine: Machine, part: RulesetFragment
) -> None:
    """The chains that it names are those that its text fills, all of them."""
    load(machine, part)
    assert chains_with_rules(machine) == set(part.chains)
    assert {f"{line['family']} {line['name']}" for line in listed(machine) if line["is"] == "table"} == {part.table}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_a_part_that_is_loaded_again_changes_nothing(machine: Machine, part: RulesetFragment) -> None:
    load(machine, part)
    before = listed(machine)
    load(machine, part)
    assert listed(machine) == before


@pytest.mark.parametrize("part", [part for name, part in PARTS.items() if name != "ports"])
def test_a_part_is_what_nft_makes_of_its_text(machine: Machine, part: RulesetFragment) -> None:
    """Parts with users' conditions are left out: nft loads these anyway."""
    load(machine, part)
    ours, shown = machine.call(dumped), machine.run("nft", "list", "ruleset").stdout
    machine.run("nft", "flush", "ruleset")
    machine.run("nft", "-f", "-", stdin=text_of(part))
    assert machine.call(dumped) == ours
    assert machine.run("nft", "list", "ruleset").stdout == shown


def test_elements_stay_when_rules_are_loaded_anew(machine: Machine) -> None:
    """Also where another's part is loaded into the same table, and where somebody has flushed its rules."""
    load(machine, PARTS["ports"], [portmap_effects._port_element(HTTP), portmap_effects._hairpin_element(HAIRPINS[0])])
    load(machine, masquerade.ruleset([V4]), [masquerade_effects._element(MASQUERADES[0])])
    before = sorted(map(str, listed(machine)))
    machine.run("nft", "flush", "table", "inet", "podwire")
    assert chains_with_rules(machine) == set()
    for part in (masquerade.ruleset([V4]), PARTS["ports"]):
        load(machine, part)
    assert sorted(map(str, listed(machine))) == before


BUILT: list[tuple[RulesetFragment, list[Owned]]] = [
    (masquerade.ruleset([V4, V6]), [masquerade_effects._element(op) for op in MASQUERADES]),
    (spoofcheck.ruleset(), spoofcheck_effects._elements(GUARD)),
    (ROUTED_SOURCES, sourcecheck_effects._elements(ROUTED)),
    (PARTS["ports"], [portmap_effects._port_element(op) for op in PORTS]),
    (PARTS["ports"], [portmap_effects._hairpin_element(op) for op in HAIRPINS]),
]


@pytest.mark.parametrize(("part", "built"), BUILT, ids=["masquerade", "guard", "sources", "ports", "hairpins"])
def test_elements_that_were_lost_come_with_the_rules(
    machine: Machine, part: RulesetFragment, built: Sequence[Owned]
) -> None:
    """They are found, compared and removed as if they had been added. Those that are there are kept."""
    for _ in range(2):
        load(machine, part, built)
        for place, element in built:
            assert machine.call(elements_of, *place) == [element._asdict()]


@pytest.mark.parametrize(
    "op", [*MASQUERADES, GUARD, SOURCES, ROUTED, *PORTS, *HAIRPINS, *CONDITIONS], ids=lambda op: op.describe()
)
def test_an_operation_describes_itself_as_a_command_that_nft_takes(
    machine: Machine, op: Masquerade | SpoofGuard | SourceGuard | HostPort | Hairpin | Condition
) -> None:
    for part in (masquerade.ruleset([V4, V6]), spoofcheck.ruleset(), BRIDGE_SOURCES, ROUTED_SOURCES, PARTS["ports"]):
        load(machine, part)
    before = listed(machine)
    machine.run("sh", "-c", op.describe().replace("nft ", "nft '", 1) + "'")
    assert listed(machine) != before


def test_a_condition_that_nft_writes_is_the_one_that_is_sent(machine: Machine) -> None:
    load(machine, PARTS["ports"])
    for op in CONDITIONS:
        machine.run("nft", op.describe().removeprefix("nft "))
        place, element = portmap_effects._condition_element(op)
        assert machine.call(elements_of, *place) == [element._asdict() | {"label": ""}]


@pytest.mark.parametrize(
    ("address", "chain"),
    [("10.1.2.3/24", "masquerade-10.1.2.0/24"), ("2001:db8::3/64", "masquerade-2001_db8__/64")],
)
def test_a_subnet_has_one_chain(address: str, chain: str) -> None:
    assert masquerade_chain(parse_net(address)) == chain


def rules(part: RulesetFragment, name: str) -> list[str]:
    """Returns the text of the rules of a chain, which is there once."""
    (chain,) = [chain for chain in part.content().chains if chain.name == name]
    return [rule.text for rule in chain.rules]


def test_the_rules_of_masquerading() -> None:
    neighbours = masquerade.ruleset([V4, parse_net("10.1.2.4/24"), V6])
    assert rules(neighbours, "postrouting") == ["ip saddr vmap @masquerade4", "ip6 saddr vmap @masquerade6"]
    four, six = "masquerade-10.1.2.0/24", "masquerade-2001_db8__/64"
    assert rules(neighbours, four) == ["ip daddr { 10.1.2.0/24, 224.0.0.0/4 } return", "masquerade"]
    assert rules(neighbours, six) == ["ip6 daddr { 2001:db8::/64, ff00::/8 } return", "masquerade"]
    assert [chain.name for chain in neighbours.content().chains] == ["postrouting", four, six]


def test_the_text_of_the_guard() -> None:
    assert text_of(spoofcheck.ruleset()) == (
        "add table bridge podwire\n"
        "add set bridge podwire guarded { type ifname ; }\n"
        "add set bridge podwire allowed { type ifname . ether_addr ; }\n"
        "add chain bridge podwire prerouting { type filter hook prerouting priority -300 ; policy accept ; }\n"
        "flush chain bridge podwire prerouting\n"
        "add rule bridge podwire prerouting iifname @guarded iifname . ether saddr != @allowed drop\n"
    )


def test_the_rules_of_the_source_check() -> None:
    assert rules(BRIDGE_SOURCES, "sources") == [
        "iifname != @checked accept",
        "iifname . ip saddr @sources4 accept",
        "iifname . arp saddr ip @sources4 accept",
        "arp saddr ip 0.0.0.0 iifname . arp daddr ip @sources4 accept",
        "ip6 saddr != :: icmpv6 type nd-neighbor-advert iifname . @th,64,128 != @targets6 counter drop",
        "iifname . ip6 saddr @sources6 accept",
        "ip6 saddr :: icmpv6 type nd-neighbor-solicit iifname . @th,64,128 @targets6 accept",
        "ip6 saddr :: icmpv6 type { nd-router-solicit, mld-listener-report, mld2-listener-report } accept",
        "meta protocol { ip, ip6, arp, 8021q, 8021ad } counter drop",
    ]
    assert rules(BRIDGED_SOURCES, "bridged") == ["iifname @bridged counter drop"]
    assert rules(ROUTED_SOURCES, "routed") == ["iifname @routed fib saddr . iif oif missing counter drop"]


def test_the_elements_of_the_source_check_end_with_the_interface() -> None:
    """So that no packet is dropped for lack of an address."""
    name = b"veth888cf680c74\0"
    built = sourcecheck_effects._elements(SOURCES)
    assert [(place.name, element.key.removeprefix(name)) for place, element in built] == [
        ("sources4", V4.ip.packed),
        ("sources6", V6.ip.packed),
        ("targets6", V6.ip.packed),
        ("sources6", parse_ip("fe80::7").packed),
        ("targets6", parse_ip("fe80::7").packed),
        ("bridged", b""),
        ("checked", b""),
    ]
    assert {element.label for _, element in built} == {LABEL}


def test_a_host_port_is_looked_for_by_its_address_first_and_what_finds_none_loses_its_mark() -> None:
    first, *searches, last = rules(PARTS["ports"], "hostports-13")
    assert (first, last) == ("meta mark set meta mark | 0x2000", "meta mark set meta mark & 0xffffdfff")
    assert [line.rpartition("@")[2] for line in searches] == [
        "hostip_hostports4", "hostports4", "hostip_hostports6", "hostports6",
    ]  # fmt: skip


def test_conditions_come_before_the_ports_that_have_none() -> None:
    *conditional, last = rules(PARTS["ports"], "hostports")
    assert last == "goto hostports-13"
    assert [line.rpartition("@")[2] for line in conditional] == [
        "condition_hostip_hostports4", "condition_hostports4", "condition_hostip_hostports6", "condition_hostports6",
    ]  # fmt: skip


def test_a_condition_leads_to_the_ports_of_its_mark() -> None:
    assert rules(PARTS["ports"], CONDITIONS[0].chain) == ["ip saddr 192.0.2.0/24 goto hostports-13"]
    assert [line.strip() for line in rules(PARTS["ports"], CONDITIONS[1].chain)] == ["goto hostports-5"]
    assert rules(PARTS["ports"], "hostports-5")[0] == "meta mark set meta mark | 0x20"
    assert rules(PARTS["ports"], "hairpin-bit5")[0] == "meta mark & 0x20 == 0x20 ip daddr vmap @hairpin4"


def test_who_goes_through_a_hairpin_takes_the_hosts_address() -> None:
    assert rules(PARTS["ports"], HAIRPINS[0].chain) == ["ip saddr { 10.1.2.0/24, 127.0.0.0/8 } masquerade"]
    assert rules(PARTS["ports"], HAIRPINS[1].chain) == ["masquerade"]
    six = Hairpin(V6, everybody=False, label=LABEL)
    assert rules(portmap.ruleset([six], []), six.chain) == ["ip6 saddr { 2001:db8::/64, ::1 } masquerade"]


def test_loopback_addresses_are_not_for_the_wire() -> None:
    assert rules(PARTS["ports, empty"], "loopback") == ['iifname != "lo" ip daddr 127.0.0.0/8 drop']


@pytest.mark.parametrize(
    "expression",
    [
        'iifname "', 'ip saddr 192.0.2.1 comment "', "ip saddr { 192.0.2.1", "}", "{ }", "\\", "accept", "drop", "$x",
        "goto prerouting", "@x", 'include "/etc/hosts"', "ip saddr 192.0.2.1 drop", "flush ruleset", "| reset", "'",
        "add table ip evil", "ip saddr 192.0.2.1 goto x }", "(", "é",
    ],
)  # fmt: skip
def test_a_condition_that_is_no_expression_changes_nothing(machine: Machine, expression: str) -> None:
    load(machine, PARTS["ports"], [portmap_effects._port_element(HTTP)])
    before = listed(machine)
    with pytest.raises(OperationFailed, match="nft refused"):
        load(machine, portmap.ruleset([], [Condition(HTTP, expression, 13)]))
    assert listed(machine) == before


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_only_conditions_of_users_need_nft(part: RulesetFragment) -> None:
    chains = {chain.name for chain in part.content().chains if any(rule.needs_nft for rule in chain.rules)}
    assert chains == ({CONDITIONS[0].chain} if part is PARTS["ports"] else set())
