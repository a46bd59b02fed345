"""Port mappings of runtimes and configurations, with every error; and their texts in an alias."""

from __future__ import annotations

from typing import Any

import pytest

from cni.config.portmap import ALL, NOBODY, SUBNET, PortMapping, Ports, parse_mappings, parse_ports
from cni.protocol.address import parse_ip
from cni.protocol.fields import ConfigErrors, Fields

HTTP = {"hostPort": 80, "containerPort": 8080}
WHERE = "runtimeConfig.portMappings[0]"


def parsed(*mappings: Any, **members: Any) -> tuple[Ports, list[str]]:
    errors = ConfigErrors()
    document = {"runtimeConfig": {"portMappings": list(mappings)}} | members
    return parse_ports(Fields(document, "", errors)), errors.messages


def mapping(host: str = "", protocol: str = "tcp", host_port: int = 80, port: int = 8080) -> PortMapping:
    """Returns a mapping. `host`: an address; 4 or 6 for any of that family."""
    if not host or host in "46":
        return PortMapping(protocol, None, int(host or 0), host_port, port)
    ip = parse_ip(host)
    return PortMapping(protocol, ip, ip.family, host_port, port)


@pytest.mark.parametrize(
    ("members", "result"),
    [
        ({}, mapping()),
        ({"protocol": None, "hostIP": None}, mapping()),
        ({"protocol": "", "hostIP": ""}, mapping()),
        ({"protocol": "tcp"}, mapping()),
        ({"protocol": "TCP"}, mapping()),
        ({"protocol": "udp"}, mapping(protocol="udp")),
        ({"protocol": "SCTP"}, mapping(protocol="sctp")),
        ({"hostIP": "0.0.0.0"}, mapping("4")),
        ({"hostIP": "::"}, mapping("6")),
        ({"hostIP": "::ffff:0.0.0.0"}, mapping("4")),
        ({"hostIP": "192.0.2.1"}, mapping("192.0.2.1")),
        ({"hostIP": "::ffff:192.0.2.1"}, mapping("192.0.2.1")),
        ({"hostIP": "2001:DB8:2:0::1"}, mapping("2001:db8:2::1")),
        ({"hostPort": 1, "containerPort": 65535}, mapping(host_port=1, port=65535)),
        ({"other": "x"}, mapping()),
    ],
)
def test_a_mapping_is_read(members: dict[str, Any], result: PortMapping) -> None:
    assert parsed(HTTP | members) == (Ports((result,)), [])


def test_containerd_spells_keys_in_pascal_case() -> None:
    document = {"HostPort": 80, "ContainerPort": 8080, "Protocol": "udp", "HostIP": "192.0.2.1"}
    assert parsed(document) == (Ports((mapping("192.0.2.1", "udp"),)), [])


@pytest.mark.parametrize(
    ("document", "errors"),
    [
        ({"containerPort": 1}, ["hostPort: missing"]),
        ({"hostPort": 1}, ["containerPort: missing"]),
        (HTTP | {"hostPort": None}, ["hostPort: missing"]),
        ({}, ["hostPort: missing", "containerPort: missing"]),
        (HTTP | {"hostPort": 0}, ["hostPort: 0 is not between 1 and 65535"]),
        (HTTP | {"hostPort": -80}, ["hostPort: -80 is not between 1 and 65535"]),
        (HTTP | {"hostPort": 65536}, ["hostPort: 65536 is not between 1 and 65535"]),
        (HTTP | {"containerPort": 70000}, ["containerPort: 70000 is not between 1 and 65535"]),
        (HTTP | {"hostPort": "80"}, ["hostPort: expected an integer"]),
        (HTTP | {"hostPort": True}, ["hostPort: expected an integer"]),
        (HTTP | {"containerPort": 80.0}, ["containerPort: expected an integer"]),
        (HTTP | {"protocol": "icmp"}, ["protocol: 'icmp' is not one of tcp, udp, sctp"]),
        (HTTP | {"protocol": "tcp }"}, ["protocol: 'tcp }' is not one of tcp, udp, sctp"]),
        (HTTP | {"protocol": 6}, ["protocol: expected a text"]),
        (HTTP | {"hostIP": "localhost"}, ["hostIP: 'localhost' is not an IP address"]),
        (HTTP | {"hostIP": "192.0.2.1/32"}, ["hostIP: '192.0.2.1/32' is not an IP address"]),
        (HTTP | {"hostIP": "192.0.2"}, ["hostIP: '192.0.2' is not an IP address"]),
        (HTTP | {"hostIP": "[::1]"}, ["hostIP: '[::1]' is not an IP address"]),
        (HTTP | {"hostIP": 1}, ["hostIP: expected a text"]),
        (
            {"hostPort": 0, "protocol": "x", "hostIP": "y"},
            [
                "protocol: 'x' is not one of tcp, udp, sctp",
                "hostIP: 'y' is not an IP address",
                "hostPort: 0 is not between 1 and 65535",
                "containerPort: missing",
            ],
        ),
    ],
)
def test_a_mapping_at_fault_is_left_out_with_each_faults_path(document: dict[str, Any], errors: list[str]) -> None:
    assert parsed(document, HTTP) == (Ports((mapping(),)), [f"{WHERE}.{error}" for error in errors])


@pytest.mark.parametrize(
    ("runtime", "error"),
    [
        ({"portMappings": {}}, "runtimeConfig.portMappings: expected a list"),
        ({"portMappings": [80]}, f"{WHERE}: expected an object"),
        ([], "runtimeConfig: expected an object"),
    ],
)
def test_what_is_no_list_of_mappings_is_a_fault(runtime: Any, error: str) -> None:
    assert parsed(runtimeConfig=runtime) == (Ports(), [error])


@pytest.mark.parametrize("runtime", [None, {}, {"portMappings": None}, {"portMappings": []}])
def test_without_mappings_there_are_none(runtime: Any) -> None:
    assert parsed(runtimeConfig=runtime) == (Ports(), [])


def test_what_is_said_twice_is_mapped_once() -> None:
    """It is written in another case, or absent."""
    again = {"HOSTPORT": 80, "containerPort": 8080, "protocol": "TCP", "hostIP": ""}
    assert parsed(HTTP, again, HTTP | {"protocol": "udp"}) == (Ports((mapping(), mapping(protocol="udp"))), [])


ELSEWHERE = {"hostPort": 80, "containerPort": 9090}


@pytest.mark.parametrize(
    ("first", "other"),
    [("", ""), ("0.0.0.0", "0.0.0.0"), ("192.0.2.1", "::ffff:192.0.2.1"), ("", "::"), ("0.0.0.0", "")],
)
def test_one_port_cannot_lead_to_two(first: str, other: str) -> None:
    result, errors = parsed(HTTP | {"hostIP": first}, ELSEWHERE | {"hostIP": other})
    assert [port.container_port for port in result.mappings] == [8080]
    assert errors == ["runtimeConfig.portMappings[1].hostPort: 80/tcp is mapped twice"]


@pytest.mark.parametrize(
    ("first", "other"),
    [
        ({"hostIP": "0.0.0.0"}, {"hostIP": "::"}),
        ({"hostIP": "192.0.2.1"}, {"hostIP": "192.0.2.2"}),
        ({}, {"hostIP": "192.0.2.1"}),
        ({}, {"protocol": "udp"}),
        ({}, {"hostPort": 81}),
    ],
)
def test_ports_that_differ_in_what_they_serve_are_two(first: dict[str, Any], other: dict[str, Any]) -> None:
    result, errors = parsed(HTTP | first, ELSEWHERE | other)
    assert errors == []
    assert [port.container_port for port in result.mappings] == [8080, 9090]


@pytest.mark.parametrize(
    ("members", "masqueraded"),
    [
        ({}, SUBNET),
        ({"snat": None, "masqAll": None}, SUBNET),
        ({"snat": True}, SUBNET),
        ({"masqAll": True}, ALL),
        ({"snat": False}, NOBODY),
        ({"snat": False, "masqAll": True}, NOBODY),
    ],
)
def test_who_is_masqueraded_is_chosen(members: dict[str, Any], masqueraded: str) -> None:
    assert parsed(**members) == (Ports(masqueraded=masqueraded), [])


@pytest.mark.parametrize("bit", [0, 13, 31])
def test_any_bit_of_the_mark_may_be_chosen(bit: int) -> None:
    result, errors = parsed(markMasqBit=bit)
    assert (result.mark_bit, result.special, errors) == (bit, bit != 13, [])


@pytest.mark.parametrize(
    ("key", "texts", "text"),
    [
        ("conditionsV4", None, ""),
        ("conditionsV4", [], ""),
        ("conditionsV4", ["ip", "saddr", "!=", "192.0.2.0/24"], "ip saddr != 192.0.2.0/24"),
        (
            "conditionsV6",
            ["ip6 saddr { ::1 }", "tcp flags & (syn|ack) == syn"],
            "ip6 saddr { ::1 } tcp flags & (syn|ack) == syn",
        ),
        ("conditionsV6", ['iifname "eth0" meta mark and 0x1 == 0x1'], 'iifname "eth0" meta mark and 0x1 == 0x1'),
    ],
)
def test_conditions_are_words_of_one_expression(key: str, texts: list[str] | None, text: str) -> None:
    result, errors = parsed(**{key: texts})
    assert {4: result.conditions(4), 6: result.conditions(6)} == {4: "", 6: "", int(key[-1]): text}
    assert (errors, result.special) == ([], bool(text))


IPTABLES = "is in iptables' syntax, podwire needs nft's (as in ip saddr 192.0.2.0/24)"
EXTERNAL = (
    "externalSetMarkChain: is a chain of iptables, podwire masquerades in nftables (remove it, or set markMasqBit)"
)
UNFIT = "must be one nft expression, without ;, # and control characters, and with paired quotes"


@pytest.mark.parametrize("key", ["conditionsV4", "conditionsV6"])
@pytest.mark.parametrize(
    ("texts", "error"),
    [
        (["-s", "192.0.2.0/24"], IPTABLES),
        (["!", "-s", "192.0.2.0/24"], IPTABLES),
        (["!-s 192.0.2.0/24"], IPTABLES),
        (["--dport", "80"], IPTABLES),
        (["ip saddr 192.0.2.1; flush ruleset;"], UNFIT),
        (["ip", "saddr", "192.0.2.1", ";", "add", "table", "x"], UNFIT),
        (["ip saddr 192.0.2.1\nflush ruleset"], UNFIT),
        (["ip saddr 192.0.2.1 # rest"], UNFIT),
        (["ip saddr\t192.0.2.1"], UNFIT),
        (["ip saddr 192.0.2.1\r"], UNFIT),
        (["ip saddr 192.0.2.1\u2028"], UNFIT),
        (["ip saddr 192.0.2.1\x85"], UNFIT),
    ],
)
def test_what_is_no_expression_of_nft_is_refused(key: str, texts: list[str], error: str) -> None:
    assert parsed(**{key: texts}) == (Ports(), [f"{key}: {error}"])


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({"snat": "no"}, "snat: expected true or false"),
        ({"masqAll": 1}, "masqAll: expected true or false"),
        ({"markMasqBit": 32}, "markMasqBit: 32 is not between 0 and 31"),
        ({"markMasqBit": -1}, "markMasqBit: -1 is not between 0 and 31"),
        ({"markMasqBit": "13"}, "markMasqBit: expected an integer"),
        ({"conditionsV4": "ip saddr 192.0.2.1"}, "conditionsV4: expected a list"),
        ({"conditionsV6": [1]}, "conditionsV6[0]: expected a text"),
        ({"externalSetMarkChain": "KUBE-MARK-MASQ"}, EXTERNAL),
    ],
)
def test_each_fault_names_its_key(members: dict[str, Any], error: str) -> None:
    assert parsed(**members)[1] == [error]


TEXTS = {
    "80:8080/tcp": mapping(),
    "65535:1/udp": mapping("", "udp", 65535, 1),
    "0.0.0.0:80:8080/sctp": mapping("4", "sctp"),
    "[::]:80:8080/tcp": mapping("6"),
    "192.0.2.1:80:8080/tcp": mapping("192.0.2.1"),
    "[2001:db8:2::1]:80:8080/udp": mapping("2001:db8:2::1", "udp"),
    "[::1]:80:8080/tcp": mapping("::1"),
}


@pytest.mark.parametrize(("text", "meant"), TEXTS.items())
def test_a_mapping_is_a_word_that_reads_back(text: str, meant: PortMapping) -> None:
    assert meant.text == text
    assert parse_mappings([text]) == (meant,)


def test_a_list_of_words_reads_back_in_its_order() -> None:
    assert parse_mappings(list(TEXTS)) == tuple(TEXTS.values())


@pytest.mark.parametrize(
    "expressions", [["ip", "saddr", "192.0.2.1;"], ["iif lo # comment"], ['iifname "lo'], ["a\tb"]]
)
def test_a_condition_of_more_than_one_expression_is_an_error(expressions: list[str]) -> None:
    _, errors = parsed(HTTP, conditionsV4=expressions)
    assert [text for text in errors if text.startswith("conditionsV4: ")]


@pytest.mark.parametrize("verdict", ["drop", "accept", "return"])
def test_a_condition_with_a_verdict_is_an_error(verdict: str) -> None:
    _, errors = parsed(HTTP, conditionsV4=["ip", "saddr", "192.0.2.1", verdict])
    assert [text for text in errors if text.startswith("conditionsV4: ") and verdict in text]
