"""The result of ADD in every version, written and parsed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cni.protocol.address import parse_ip, parse_net
from cni.protocol.errors import InvalidConfig
from cni.protocol.fields import ConfigErrors, Fields
from cni.protocol.jsontext import dump
from cni.protocol.result import DNS, Interface, IPConfig, Result, Route, parse_result, parse_routes, result_json

OLDEST = ("0.1.0", "0.2.0")
MIDDLE = ("0.3.0", "0.3.1", "0.4.0")
MODERN = ("1.0.0", "1.1.0")

FULL = Result(
    interfaces=(
        Interface("cni0", "0a:00:00:00:00:01"),
        Interface("eth0", "0a:00:00:00:00:02", "/run/netns/c1", (("mtu", 1400), ("socketPath", "/s"), ("pciID", "p"))),
        Interface("bare"),
    ),
    ips=(
        IPConfig(parse_net("10.1.2.3/24"), parse_ip("10.1.2.1"), 0),
        IPConfig(parse_net("2001:db8::3/64"), parse_ip("2001:db8::1"), 1),
        IPConfig(parse_net("10.9.9.9/16")),
    ),
    routes=(
        Route(parse_net("0.0.0.0/0"), parse_ip("10.1.2.1")),
        Route(parse_net("10.5.0.0/16"), None, 1400, 1360, 7, 0, 0),
        Route(parse_net("::/0"), parse_ip("2001:db8::1"), table=100, scope=253),
    ),
    dns=DNS(("10.1.2.1",), "example.org", ("a.example", "b.example"), ("ndots:2",)),
)
DNS_JSON = {
    "nameservers": ["10.1.2.1"],
    "domain": "example.org",
    "search": ["a.example", "b.example"],
    "options": ["ndots:2"],
}
ROUTES_JSON = [
    {"dst": "0.0.0.0/0", "gw": "10.1.2.1"},
    {"dst": "10.5.0.0/16", "mtu": 1400, "advmss": 1360, "priority": 7, "table": 0, "scope": 0},
    {"dst": "::/0", "gw": "2001:db8::1", "table": 100, "scope": 253},
]
INTERFACES_JSON: list[dict[str, Any]] = [
    {"name": "cni0", "mac": "0a:00:00:00:00:01"},
    {"name": "eth0", "mac": "0a:00:00:00:00:02", "sandbox": "/run/netns/c1"},
    {"name": "bare"},
]
IPS_JSON: list[dict[str, Any]] = [
    {"address": "10.1.2.3/24", "gateway": "10.1.2.1", "interface": 0},
    {"address": "2001:db8::3/64", "gateway": "2001:db8::1", "interface": 1},
    {"address": "10.9.9.9/16"},
]
EXTRAS = {"mtu": 1400, "socketPath": "/s", "pciID": "p"}


def parsed(document: Any, version: str) -> tuple[Result, list[str]]:
    errors = ConfigErrors()
    return parse_result(Fields(json.loads(json.dumps(document)), "it", errors), version), errors.messages


def printed(result: Result, version: str) -> dict[str, Any]:
    value = json.loads(dump(result_json(result, version)))
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize("version", MODERN)
def test_the_modern_shape_holds_all(version: str) -> None:
    assert printed(FULL, version) == {
        "cniVersion": version,
        "interfaces": [INTERFACES_JSON[0], INTERFACES_JSON[1] | EXTRAS, INTERFACES_JSON[2]],
        "ips": IPS_JSON,
        "routes": ROUTES_JSON,
        "dns": DNS_JSON,
    }


@pytest.mark.parametrize("version", MIDDLE)
def test_the_middle_shape_tells_the_family_and_lacks_what_interfaces_learnt_later(version: str) -> None:
    families = ("4", "6", "4")
    assert printed(FULL, version) == {
        "cniVersion": version,
        "interfaces": INTERFACES_JSON,
        "ips": [ip | {"version": family} for ip, family in zip(IPS_JSON, families, strict=True)],
        "routes": ROUTES_JSON,
        "dns": DNS_JSON,
    }


@pytest.mark.parametrize("version", OLDEST)
def test_the_oldest_shape_holds_the_first_address_of_each_family(version: str) -> None:
    assert printed(FULL, version) == {
        "cniVersion": version,
        "ip4": {
            "ip": "10.1.2.3/24",
            "gateway": "10.1.2.1",
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.2.1"}, {"dst": "10.5.0.0/16"}],
        },
        "ip6": {
            "ip": "2001:db8::3/64",
            "gateway": "2001:db8::1",
            "routes": [{"dst": "::/0", "gw": "2001:db8::1"}],
        },
        "dns": DNS_JSON,
    }


@pytest.mark.parametrize("version", OLDEST)
def test_the_oldest_shape_needs_an_address(version: str) -> None:
    with pytest.raises(InvalidConfig, match=rf"^cniVersion: {version} has no result without addresses"):
        result_json(Result(interfaces=FULL.interfaces), version)


@pytest.mark.parametrize("version", OLDEST)
def test_one_family_alone_has_neither_gateway_nor_routes_of_the_other(version: str) -> None:
    only = Result(ips=(IPConfig(parse_net("2001:db8::3/64")),), routes=FULL.routes[:2])
    assert printed(only, version) == {"cniVersion": version, "ip6": {"ip": "2001:db8::3/64"}, "dns": {}}


@pytest.mark.parametrize("version", [*MIDDLE, *MODERN])
def test_what_is_empty_is_left_out_but_for_the_old_dns(version: str) -> None:
    old: dict[str, Any] = {} if version in MODERN else {"dns": {}}
    assert printed(Result(), version) == {"cniVersion": version} | old


@pytest.mark.parametrize("version", MODERN)
def test_the_modern_shape_reads_back_as_it_was(version: str) -> None:
    assert parsed(printed(FULL, version), version) == (FULL, [])


@pytest.mark.parametrize("version", MIDDLE)
def test_the_middle_shape_reads_back_but_for_what_it_lacks(version: str) -> None:
    interfaces = tuple([interface._replace(extras=()) for interface in FULL.interfaces])
    assert parsed(printed(FULL, version), version) == (FULL._replace(interfaces=interfaces), [])


@pytest.mark.parametrize("version", OLDEST)
def test_the_oldest_shape_reads_back_with_the_routes_of_both_families(version: str) -> None:
    restored, errors = parsed(printed(FULL, version), version)
    assert errors == []
    assert restored.interfaces == ()
    assert restored.ips == (FULL.ips[0]._replace(interface=None), FULL.ips[1]._replace(interface=None))
    assert [(route.dst.text, route.gw) for route in restored.routes] == [
        ("0.0.0.0/0", parse_ip("10.1.2.1")),
        ("10.5.0.0/16", None),
        ("::/0", parse_ip("2001:db8::1")),
    ]
    assert restored.dns == FULL.dns


@pytest.mark.parametrize("shape", [{}, {"ip4": None, "ip6": {}}, {"ip4": {"gateway": "10.1.2.1"}}])
def test_an_oldest_result_may_lack_addresses(shape: dict[str, Any]) -> None:
    assert parsed(shape, "0.2.0") == (Result(), [])


def test_an_oldest_result_at_fault_names_the_place() -> None:
    _, errors = parsed({"ip4": {"ip": "10.1.2.3"}, "ip6": {"ip": "::1/64", "routes": [{}]}}, "0.1.0")
    assert errors == [
        "it.ip4.ip: '10.1.2.3' has no prefix length (as in 10.1.2.3/24)",
        "it.ip6.routes[0].dst: a route needs a destination (as in 0.0.0.0/0)",
    ]


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({"ips": [{}]}, "ips[0].address: missing"),
        ({"ips": [{"address": "x/24"}]}, "ips[0].address: 'x' is not an IP address"),
        ({"ips": [{"address": "10.1.2.3/24", "gateway": "x"}]}, "ips[0].gateway: 'x' is not an IP address"),
        ({"ips": [{"address": "10.1.2.3/24", "interface": "0"}]}, "ips[0].interface: expected an integer"),
        ({"ips": {}}, "ips: expected a list"),
        ({"interfaces": [{"name": 1}]}, "interfaces[0].name: expected a text"),
        ({"interfaces": [{"mtu": -1}]}, "interfaces[0].mtu: -1 is not between 0 and 4294967295"),
        ({"routes": ["x"]}, "routes[0]: expected an object"),
        ({"dns": {"search": "x"}}, "dns.search: expected a list"),
    ],
)
def test_a_result_at_fault_names_the_place(document: Any, error: str) -> None:
    assert parsed(document, "1.1.0")[1] == [f"it.{error}"]


def test_an_address_at_fault_does_not_hide_the_others() -> None:
    restored, _ = parsed({"ips": [{"address": "x"}, {"address": "10.1.2.3/24", "interface": 2}]}, "1.0.0")
    assert restored.ips == (IPConfig(parse_net("10.1.2.3/24"), None, 2),)


def routes(*members: Any) -> tuple[tuple[Route, ...], list[str]]:
    fields = Fields({"routes": list(members)}, "", ConfigErrors())
    return parse_routes(fields.objects("routes")), fields.errors.messages


def test_a_route_leads_to_a_network() -> None:
    restored, errors = routes({"dst": "10.1.2.3/16", "gw": "10.1.2.1"}, {"DST": "::/0", "table": 0})
    assert errors == []
    assert restored == (Route(parse_net("10.1.0.0/16"), parse_ip("10.1.2.1")), Route(parse_net("::/0"), table=0))


@pytest.mark.parametrize(
    ("member", "error"),
    [
        ({}, "dst: a route needs a destination (as in 0.0.0.0/0)"),
        ({"dst": ""}, "dst: a route needs a destination (as in 0.0.0.0/0)"),
        ({"dst": "default"}, "dst: 'default' has no prefix length (as in default/24)"),
        ({"dst": "::/0", "gw": "10.1.2.1"}, "gw: 10.1.2.1 is not of the family of ::/0"),
        ({"dst": "0.0.0.0/0", "mtu": -1}, "mtu: -1 is not between 0 and 4294967295"),
        ({"dst": "0.0.0.0/0", "advmss": 1 << 32}, "advmss: 4294967296 is not between 0 and 4294967295"),
        ({"dst": "0.0.0.0/0", "priority": 1.0}, "priority: expected an integer"),
        ({"dst": "0.0.0.0/0", "table": "main"}, "table: expected an integer"),
        ({"dst": "0.0.0.0/0", "scope": 256}, "scope: 256 is not between 0 and 255"),
    ],
)
def test_a_route_at_fault_names_the_place(member: Any, error: str) -> None:
    assert routes(member)[1] == [f"routes[0].{error}"]
