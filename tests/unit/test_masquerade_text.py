"""The texts of masquerading: the alias that remembers it, the rules that nft loads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.config.netconf import parse_netconf
from cni.plan.alias import Alias, parse_alias
from cni.plan.attachment import Attachment, Facts, names_of
from cni.plan.operations import Veth, masquerade_chain
from cni.plan.plan import plan_attachment
from cni.plan.ruleset import masquerade, spoof_guard
from cni.spec.address import IP, Net, mac_text, parse_net
from cni.spec.fields import Faults
from cni.spec.network import Network
from cni.spec.owner import Owner, label_keys
from cni.spec.result import IPConfig, Result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.spec.jsontext import JsonValue

SHORT = Owner("net", "c1", "eth0")
LONG = Owner("n" * 200, "c" * 64, "eth0")


def alias(owner: Owner, addresses: Sequence[Net], ip_masq: bool = True, guarded: bool = False) -> str:
    """What the plan writes on the host's interface."""
    members: dict[str, JsonValue] = {"ipMasq": ip_masq, "macspoofchk": guarded}
    conf = parse_netconf(Network(owner.network, "1.1.0", members, b""), {}, Faults())
    lease = Result(ips=tuple([IPConfig(one) for one in addresses]))
    attachment = Attachment(owner, "", conf, Facts("node", None, ipv6=True), names_of(owner, None, lease), lease)
    (veth,) = [one for one in plan_attachment(attachment).operations if isinstance(one, Veth)]
    return veth.alias


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("owner", [SHORT, LONG])
@pytest.mark.parametrize("texts", [["10.1.2.3/24"], ["2001:db8::3/64"], ["10.1.2.3/24", "2001:db8::3/64"]])
def test_an_alias_reads_back_as_it_was_written(owner: Owner, texts: list[str], guarded: bool) -> None:
    addresses = tuple(map(parse_net, texts))
    written = alias(owner, addresses, guarded=guarded)
    mac = names_of(owner, None, Result(ips=(IPConfig(addresses[0]),))).container_mac
    assert parse_alias(written) == Alias(owner.label, mac if guarded else None, addresses)
    assert label_keys(written) == label_keys(owner.label)


def test_without_masquerading_the_alias_is_the_label() -> None:
    assert alias(SHORT, [parse_net("10.1.2.3/24")], ip_masq=False) == SHORT.label
    assert alias(SHORT, []) == SHORT.label
    assert alias(SHORT, [], guarded=True) == f"{SHORT.label}; guarded {mac_text(SHORT.container_mac)}"


@pytest.mark.parametrize("guarded", [False, True])
@pytest.mark.parametrize("shift", range(20))
def test_an_alias_that_is_full_holds_as_many_whole_addresses_as_it_can(shift: int, guarded: bool) -> None:
    """A part of an address would be taken for another one when the rules are restored."""
    addresses = [Net(IP(6, (0x20010DB8 << 96) + (1 << 20) + number), 112 + shift % 16) for number in range(20)]
    full = alias(Owner("net", "c" * shift, "eth0"), addresses, guarded=guarded)
    found = parse_alias(full).masqueraded
    assert found == tuple(addresses[: len(found)])
    assert 2 < len(found) < 20
    assert len(full) <= 255 < len(f"{full} {addresses[len(found)].text}")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", Alias("")),
        ("uplink of rack 3", Alias("uplink of rack 3")),
        ("podwire a b c; masquerade ", Alias("podwire a b c")),
        ("podwire a b c; guarded x", Alias("podwire a b c; guarded x")),
        (
            "podwire a b c; masquerade x 10.1.2.3/24 10.1.2.4 y/z",
            Alias("podwire a b c", masqueraded=(parse_net("10.1.2.3/24"),)),
        ),
    ],
)
def test_an_alias_by_others_does_no_harm(text: str, found: Alias) -> None:
    assert parse_alias(text) == found


@pytest.mark.parametrize(
    ("address", "chain"),
    [("10.1.2.3/24", "masquerade-10.1.2.0/24"), ("2001:db8::3/64", "masquerade-2001_db8__/64")],
)
def test_a_subnet_has_one_chain(address: str, chain: str) -> None:
    assert masquerade_chain(parse_net(address)) == chain


STATIC = """\
add table inet podwire
add map inet podwire masquerade4 { type ipv4_addr : verdict ; }
add map inet podwire masquerade6 { type ipv6_addr : verdict ; }
add chain inet podwire postrouting { type nat hook postrouting priority srcnat ; }
flush chain inet podwire postrouting
add rule inet podwire postrouting ip saddr vmap @masquerade4
add rule inet podwire postrouting ip6 saddr vmap @masquerade6
flush map inet podwire masquerade4
flush map inet podwire masquerade6
"""
ELEMENTS = """\
add chain inet podwire masquerade-10.1.2.0/24
flush chain inet podwire masquerade-10.1.2.0/24
add rule inet podwire masquerade-10.1.2.0/24 ip daddr { 10.1.2.0/24, 224.0.0.0/4 } return
add rule inet podwire masquerade-10.1.2.0/24 masquerade
add chain inet podwire masquerade-2001_db8__/64
flush chain inet podwire masquerade-2001_db8__/64
add rule inet podwire masquerade-2001_db8__/64 ip6 daddr { 2001:db8::/64, ff00::/8 } return
add rule inet podwire masquerade-2001_db8__/64 masquerade
add element inet podwire masquerade4 { 10.1.2.3 comment "podwire a" : jump masquerade-10.1.2.0/24 }
add element inet podwire masquerade4 { 10.1.2.4 comment "podwire b" : jump masquerade-10.1.2.0/24 }
add element inet podwire masquerade6 { 2001:db8::3 comment "podwire a" : jump masquerade-2001_db8__/64 }
"""


def test_the_empty_table() -> None:
    assert masquerade([]) == STATIC


def test_a_table_with_elements_has_each_subnets_rules_once() -> None:
    held = [("10.1.2.3/24", "podwire a"), ("10.1.2.4/24", "podwire b"), ("2001:db8::3/64", "podwire a")]
    assert masquerade([(parse_net(address), label) for address, label in held]) == STATIC + ELEMENTS


def test_the_table_of_the_guard() -> None:
    assert spoof_guard([("veth1", b"\x0a\0\0\0\0\x01", "podwire a")]) == (
        "add table bridge podwire\n"
        "add set bridge podwire guarded { type ifname ; }\n"
        "add set bridge podwire allowed { type ifname . ether_addr ; }\n"
        "add chain bridge podwire prerouting { type filter hook prerouting priority dstnat ; }\n"
        "flush chain bridge podwire prerouting\n"
        "add rule bridge podwire prerouting iifname @guarded iifname . ether saddr != @allowed drop\n"
        "flush set bridge podwire guarded\n"
        "flush set bridge podwire allowed\n"
        'add element bridge podwire allowed { veth1 . 0a:00:00:00:00:01 comment "podwire a" }\n'
        'add element bridge podwire guarded { veth1 comment "podwire a" }\n'
    )
