"""The alias of a host interface: what the plan writes there, what is read back, and what does not fit."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from cni.config.netconf import parse_netconf
from cni.config.portmap import ALL, NOBODY, PROTOCOLS, SUBNET, PortMapping
from cni.plan.alias import Alias, parse_alias
from cni.plan.attachment import Attachment, Facts, names_of
from cni.plan.operations import Veth
from cni.plan.plan import plan_attachment
from cni.protocol.address import IP, Net, mac_text, parse_ip, parse_net
from cni.protocol.fields import ConfigErrors
from cni.protocol.owner import Owner, label_keys, mac_of
from cni.protocol.plugin_config import PluginConfig
from cni.protocol.result import IPConfig, Result
from tests.unit.strategies import seeds

if TYPE_CHECKING:
    from collections.abc import Sequence

SHORT = Owner("net", "c1", "eth0")
LONG = Owner("n" * 200, "c" * 64, "eth0")
ROOM = 255  # what the kernel takes: IFALIASZ without its NUL
DUAL = [parse_net("10.1.2.3/24"), parse_net("2001:db8::3/64")]
HTTP = PortMapping("tcp", None, 0, 80, 8080)
HTTP_TEXT = "80:8080/tcp"


def alias(owner: Owner, addresses: Sequence[Net], **members: Any) -> str:
    """Returns the alias that the plan writes on the host's interface."""
    conf = parse_netconf(PluginConfig(owner.network, "1.1.0", members, b""), {}, ConfigErrors())
    lease = Result(ips=tuple([IPConfig(address) for address in addresses]))
    attachment = Attachment(owner, "", conf, Facts("node", None, ipv6=True), names_of(owner, conf.mac, lease), lease)
    (veth,) = [op for op in plan_attachment(attachment).operations if isinstance(op, Veth)]
    return veth.alias


def mapped(*mappings: dict[str, Any]) -> dict[str, Any]:
    return {"runtimeConfig": {"portMappings": list(mappings)}}


def random_ip(chance: random.Random, family: int) -> IP:
    bits = 32 if family == 4 else 128
    ip = IP(family, chance.getrandbits(chance.choice((8, 17, 20, bits))) or 1)
    return parse_ip(ip.text)  # ::ffff:a.b.c.d is an address of IPv4


def random_mapping(chance: random.Random) -> PortMapping:
    ip = random_ip(chance, chance.choice((4, 6))) if chance.random() < 0.4 else None
    family = ip.family if ip is not None else chance.choice((0, 4, 6))
    return PortMapping(chance.choice(list(PROTOCOLS)), ip, family, *[chance.randint(1, 65535) for _ in "ab"])


def random_alias(chance: random.Random, most: int) -> Alias:
    addresses = []
    for _ in range(chance.randrange(most)):
        ip = random_ip(chance, chance.choice((4, 6)))
        addresses.append(Net(ip, chance.randint(0, ip.bits)))
    ports = tuple([random_mapping(chance) for _ in range(chance.randrange(most))])
    return Alias(
        label=Owner("n" * chance.randint(1, 60), "c" * chance.randint(1, 20), "eth0").label,
        allowed_mac=chance.choice((None, mac_of(str(chance.random())))),
        addresses=tuple(addresses),
        ip_masq=chance.random() < 0.5,
        isolated=chance.random() < 0.3,
        further_sources=chance.choice((None, (), tuple([random_ip(chance, family) for family in (4, 6)]))),
        ports_masqueraded=chance.choice((SUBNET, ALL, NOBODY)) if ports else "",
        ports=ports,
        whole=chance.random() < 0.9,
    )


def starts(part: Sequence[object], whole: Sequence[object]) -> bool:
    return list(part) == list(whole[: len(part)])


@pytest.mark.parametrize("seed", seeds(200))
def test_an_alias_with_room_reads_back_as_it_was_written(seed: int) -> None:
    written = random_alias(random.Random(seed), 2)._replace(label=SHORT.label)
    assert parse_alias(written.text) == written
    assert label_keys(written.text) == label_keys(SHORT.label)


@pytest.mark.parametrize("seed", seeds(200))
def test_a_full_alias_holds_whole_words_and_says_that_there_is_more(seed: int) -> None:
    """A part of an address or a port would be taken for another one when the rules are restored."""
    written = random_alias(random.Random(seed), 30)
    unlimited = len(written.label) + sum(len(word) + 1 for phrase in written._phrases() for word in ["", *phrase])
    parsed = parse_alias(written.text)
    assert len(written.text) <= ROOM
    assert parsed.label == written.label
    assert starts(parsed.addresses, written.addresses)
    assert starts(parsed.ports, written.ports)
    assert parsed.ports_masqueraded in ("", written.ports_masqueraded)
    assert (parsed.allowed_mac, parsed.ip_masq) == (written.allowed_mac, written.ip_masq)
    assert parsed.further_sources in (None, written.further_sources)
    if parsed.whole:
        assert parsed == written
    else:
        assert written.text.endswith("; ...")
        assert not written.whole or unlimited > ROOM - len("; ports ...")


@pytest.mark.parametrize("shift", range(20))
def test_an_alias_takes_words_as_long_as_there_is_room(shift: int) -> None:
    """All but what another phrase and the word that there is more may need."""
    addresses = [Net(IP(6, (0x20010DB8 << 96) + (1 << 20) + number), 112) for number in range(20)]
    full = alias(Owner("net", "c" * shift, "eth0"), addresses, ipMasq=True)
    parsed = parse_alias(full)
    assert parsed.addresses == tuple(addresses[: len(parsed.addresses)])
    assert 2 < len(parsed.addresses) < 20
    assert len(full.removesuffix("; ...")) + len(f" {addresses[0].text}") > ROOM - len("; ports ...")
    assert (parsed.ip_masq, parsed.whole) == (True, False)


@pytest.mark.parametrize("length", range(ROOM - 45, ROOM - 5))
def test_whatever_the_length_of_the_label_a_port_is_reported_whole_or_not_at_all(length: int) -> None:
    written = Alias("l" * length, ports_masqueraded=ALL, ports=(HTTP,))
    parsed = parse_alias(written.text)
    assert len(written.text) <= ROOM
    assert parsed.whole == (length + len(f"; ports {ALL} {HTTP_TEXT}") <= ROOM - len("; ports ..."))
    assert (parsed == written) is parsed.whole
    assert parsed.ports == (written.ports if parsed.whole else ())


@pytest.mark.parametrize("owner", [SHORT, LONG])
def test_without_rules_to_remember_the_alias_is_the_label(owner: Owner) -> None:
    assert alias(owner, DUAL) == owner.label
    assert alias(owner, []) == owner.label
    assert alias(owner, [], ipMasq=True) == owner.label
    assert alias(owner, DUAL, mode="routed", isDefaultGateway=True) == owner.label


def test_the_guarded_address_is_reported() -> None:
    assert alias(SHORT, [], macspoofchk=True) == f"{SHORT.label}; guarded {mac_text(SHORT.container_mac)}"
    chosen = {"mac": "0a:00:00:00:00:01"}
    text = alias(SHORT, DUAL, macspoofchk=True, runtimeConfig=chosen)
    assert text == f"{SHORT.label}; guarded 0a:00:00:00:00:01"


@pytest.mark.parametrize(("mode", "own"), [("bridged", True), ("routed", False)])
def test_addresses_that_the_source_check_accepts_are_told(mode: str, *, own: bool) -> None:
    members: dict[str, Any] = {"ipSpoofCheck": True, "mode": mode, "ipam": {"type": "host-local"}}
    parsed = parse_alias(alias(SHORT, DUAL, runtimeConfig={"mac": "0a:00:00:00:00:01"}, **members))
    further = (parse_ip("fe80::800:ff:fe00:1"),) if own else ()
    assert parsed == Alias(SHORT.label, addresses=tuple(DUAL), further_sources=further)
    assert parsed.sources == (*[address.ip for address in DUAL], *further)


@pytest.mark.parametrize("length", range(ROOM - 75, ROOM - 5))
def test_an_alias_that_tells_of_the_source_check_tells_all_addresses(length: int) -> None:
    """Restored from less, the check would cut the container off."""
    written = Alias("l" * length, addresses=tuple(DUAL), further_sources=(parse_ip("fe80::7"),))
    parsed = parse_alias(written.text)
    assert len(written.text) <= ROOM
    assert parsed.further_sources in (None, written.further_sources)
    assert parsed.further_sources is None or parsed.addresses == written.addresses
    assert parsed.whole == (parsed == written)


@pytest.mark.parametrize("mode", ["bridged", "routed"])
def test_masqueraded_addresses_are_reported(mode: str) -> None:
    parsed = parse_alias(alias(SHORT, DUAL, ipMasq=True, mode=mode))
    assert parsed == Alias(SHORT.label, addresses=tuple(DUAL), ip_masq=True)


@pytest.mark.parametrize(
    ("members", "hairpin"), [({}, SUBNET), ({"masqAll": True}, ALL), ({"snat": False, "masqAll": True}, NOBODY)]
)
@pytest.mark.parametrize("masqueraded", [False, True])
def test_ports_are_reported_with_their_addresses_and_who_is_masqueraded(
    members: dict[str, Any], hairpin: str, masqueraded: bool
) -> None:
    both = mapped({"hostPort": 80, "containerPort": 8080}, {"hostPort": 53, "containerPort": 53, "hostIP": "::1"})
    parsed = parse_alias(alias(SHORT, DUAL, ipMasq=masqueraded, **both, **members))
    dns = PortMapping("tcp", parse_ip("::1"), 6, 53, 53)
    assert parsed == Alias(
        SHORT.label, addresses=tuple(DUAL), ip_masq=masqueraded, ports_masqueraded=hairpin, ports=(HTTP, dns)
    )


@pytest.mark.parametrize("members", [{"markMasqBit": 5}, {"conditionsV6": ["iif lo"]}, {"conditionsV4": ["iif lo"]}])
def test_ports_under_conditions_are_not_reported_but_that_there_is_something(members: dict[str, Any]) -> None:
    """DEL then looks for whatever has the attachment's label."""
    members_of_ports = mapped({"hostPort": 80, "containerPort": 8080})
    assert alias(SHORT, DUAL, **members_of_ports, **members) == f"{SHORT.label}; ..."
    parsed = parse_alias(alias(SHORT, DUAL, ipMasq=True, **members_of_ports, **members))
    assert parsed == Alias(SHORT.label, addresses=tuple(DUAL), ip_masq=True, whole=False)
    assert parse_alias(alias(SHORT, DUAL, **members)).whole


LABEL = "podwire a b c"


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("", Alias("")),
        ("uplink of rack 3", Alias("uplink of rack 3")),
        ("a;b ;c", Alias("a;b ;c")),
        ("; ", Alias("")),
        (f"{LABEL}; ", Alias(LABEL)),
        (f"{LABEL}; addresses", Alias(LABEL)),
        (f"{LABEL}; addresses ", Alias(LABEL)),
        (f"{LABEL}; masquerade 10.1.2.3/24", Alias(LABEL)),
        (f"{LABEL}; guarded", Alias(LABEL)),
        (f"{LABEL}; guarded x", Alias(LABEL)),
        (f"{LABEL}; guarded 0a:00:00:00:00:01 x", Alias(LABEL)),
        (f"{LABEL}; addresses x 10.1.2.3/24 10.1.2.4 y/z ::1/x", Alias(LABEL, addresses=(DUAL[0],))),
        ("; isolated", Alias("", isolated=True)),
        (f"{LABEL}; sources", Alias(LABEL, further_sources=())),
        (f"{LABEL}; sources x fe80::7 ::g", Alias(LABEL, further_sources=(parse_ip("fe80::7"),))),
        (f"{LABEL}; ports", Alias(LABEL)),
        (f"{LABEL}; ports {ALL}", Alias(LABEL, ports_masqueraded=ALL)),
        (f"{LABEL}; {HTTP_TEXT}; ....", Alias(LABEL)),
        (f"{LABEL}; ...; masqueraded", Alias(LABEL, whole=False, ip_masq=True)),
    ],
)
def test_an_alias_by_others_does_no_harm(text: str, parsed: Alias) -> None:
    assert parse_alias(text) == parsed


@pytest.mark.parametrize(
    "word",
    [
        "", "80", "80:8080", "/tcp", "80/tcp", ":/tcp", ":8080/tcp", "80:/tcp", "a:b/tcp", "80:8080/", "80:8080/icmp",
        "80:8080/TCP", "0:8080/tcp", "80:0/tcp", "-1:8080/tcp", "65536:8080/tcp", "80:99999999999/tcp", "x:80:8080/tcp",
        "1.2.3:80:8080/tcp", "[::g]:80:8080/tcp", "80:8080/tcp/udp", "80:8080/tcp}", "10.1.2.3/24:80:8080/tcp",
    ],
)  # fmt: skip
def test_a_word_that_is_no_port_is_passed_over(word: str) -> None:
    """Whatever it says, it would end in a rule: those on both sides of it are kept."""
    parsed = parse_alias(f"{LABEL}; ports {ALL} {HTTP_TEXT} {word} 53:53/udp")
    assert parsed == Alias(LABEL, ports_masqueraded=ALL, ports=(HTTP, PortMapping("udp", None, 0, 53, 53)))
