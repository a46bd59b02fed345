"""The configuration of podwire, bridge and ptp: every key, every error with its path."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cni.config.bandwidth import Bandwidth, Rate
from cni.config.netconf import NetConf, mtu_error, parse_netconf
from cni.config.portmap import PortMapping, Ports
from cni.config.vlan import VlanRange
from cni.protocol.fields import ConfigErrors
from cni.protocol.plugin_config import PluginConfig, parse_plugin_config
from cni.protocol.result import DNS

DEFAULTS: dict[str, Any] = {
    "routed": False,
    "bridge": "cni0",
    "is_gateway": False,
    "is_default_gateway": False,
    "force_address": False,
    "ip_masq": False,
    "mtu": 0,
    "hairpin": False,
    "promiscuous": False,
    "vlan": 0,
    "trunk": (),
    "preserve_default_vlan": False,
    "mac_spoof_check": False,
    "ip_spoof_check": None,
    "enable_dad": False,
    "accept_ra": False,
    "disable_container_interface": False,
    "port_isolation": False,
    "mac": None,
    "mac_capability": False,
    "dns": None,
    "ports": Ports(),
    "may_map_ports": False,
    "bandwidth": Bandwidth(),
    "may_limit_bandwidth": False,
    "accept": True,
    "policy_wait": 2,
    "ipam_type": "",
    "notices": (),
}
MAC = "0a:58:0a:01:02:03"
MAC_BYTES = b"\x0a\x58\x0a\x01\x02\x03"
BANDWIDTH = {"ingressRate": 8000, "ingressBurst": 16000}


def conf(text: str, mac: str = "", program: str = "podwire") -> tuple[NetConf, list[str]]:
    data = '{"name": "net", "cniVersion": "1.1.0", ' + text.strip().removeprefix("{")
    network, errors = parse_plugin_config(data.encode(), "ADD"), ConfigErrors()
    return parse_netconf(network, {"MAC": mac} if mac else {}, errors, program), errors.messages


def conf_of(members: dict[str, Any], mac: str = "", program: str = "podwire") -> tuple[NetConf, list[str]]:
    return conf(json.dumps({"type": "podwire"} | members), mac, program)


def test_without_keys_all_is_the_default() -> None:
    netconf, errors = conf_of({})
    assert errors == []
    assert netconf._asdict() == DEFAULTS
    assert not netconf.vlan_aware


@pytest.mark.parametrize("key", ["bridge", "mtu", "vlan", "vlanTrunk", "dns", "ipam", "isGateway", "ipMasqBackend"])
def test_null_is_absence(key: str) -> None:
    netconf, errors = conf_of({key: None})
    assert errors == []
    assert netconf._asdict() == DEFAULTS


KEYS: dict[str, tuple[Any, dict[str, Any]]] = {
    "bridge": ("br0", {"bridge": "br0"}),
    "isGateway": (True, {"is_gateway": True}),
    "isDefaultGateway": (True, {"is_gateway": True, "is_default_gateway": True}),
    "forceAddress": (True, {"force_address": True}),
    "ipMasq": (True, {"ip_masq": True}),
    "mtu": (65535, {"mtu": 65535}),
    "hairpinMode": (True, {"hairpin": True}),
    "promiscMode": (True, {"promiscuous": True}),
    "vlan": (4094, {"vlan": 4094}),
    "vlanTrunk": (
        [{"id": 1}, {"minID": 2, "maxID": 4094}, {"id": 7, "minID": 9, "maxID": 9}],
        {"trunk": (VlanRange(1, 1), VlanRange(2, 4094), VlanRange(7, 7), VlanRange(9, 9))},
    ),
    "preserveDefaultVlan": (True, {"preserve_default_vlan": True}),
    "macspoofchk": (True, {"mac_spoof_check": True}),
    "ipSpoofCheck": (False, {"ip_spoof_check": False}),
    "enabledad": (True, {"enable_dad": True}),
    "acceptRA": (True, {"accept_ra": True}),
    "disableContainerInterface": (True, {"disable_container_interface": True}),
    "portIsolation": (True, {"port_isolation": True}),
    "dns": (
        {"nameservers": ["a"], "domain": "b", "search": ["c"], "options": ["d"]},
        {"dns": DNS(("a",), "b", ("c",), ("d",))},
    ),
    "ipam": ({"type": "host-local"}, {"ipam_type": "host-local"}),
    "ipMasqBackend": ("nftables", {}),
    "mode": ("routed", {"routed": True}),
    "snat": (False, {"ports": Ports(masqueraded="nobody")}),
    "masqAll": (True, {"ports": Ports(masqueraded="all")}),
    "markMasqBit": (7, {"ports": Ports(mark_bit=7)}),
    "conditionsV4": (["ip", "saddr", "192.0.2.0/24"], {"ports": Ports(conditions4="ip saddr 192.0.2.0/24")}),
    "conditionsV6": (["ip6 saddr 2001:db8::/32"], {"ports": Ports(conditions6="ip6 saddr 2001:db8::/32")}),
    "runtimeConfig": (
        {"mac": MAC, "portMappings": [{"hostPort": 80, "containerPort": 8080}], "bandwidth": BANDWIDTH},
        {
            "mac": MAC_BYTES,
            "ports": Ports((PortMapping("tcp", None, 0, 80, 8080),)),
            "bandwidth": Bandwidth(Rate(1000, 2000)),
        },
    ),
    "args": ({"cni": {"mac": MAC}}, {"mac": MAC_BYTES}),
    "capabilities": (
        {"mac": True, "portMappings": True, "bandwidth": True},
        {"mac_capability": True, "may_map_ports": True, "may_limit_bandwidth": True},
    ),
}


@pytest.mark.parametrize("spell", [str, str.upper, str.lower, str.title])
@pytest.mark.parametrize("key", KEYS)
def test_each_key_has_its_meaning_in_any_case(key: str, spell: Any) -> None:
    value, meaning = KEYS[key]
    netconf, errors = conf_of({spell(key): value})
    assert errors == []
    assert netconf._asdict() == DEFAULTS | meaning


def test_limits_of_the_configuration_itself_are_known() -> None:
    netconf, errors = conf_of(BANDWIDTH)
    assert errors == []
    assert netconf._asdict() == DEFAULTS | {"bandwidth": Bandwidth(Rate(1000, 2000)), "may_limit_bandwidth": True}


EVERYTHING: dict[str, Any] = {
    "mode": "routed",
    "isDefaultGateway": True,
    "macspoofchk": True,
    "capabilities": {"portMappings": True, "bandwidth": True},
    "runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 8080}], "bandwidth": BANDWIDTH},
} | BANDWIDTH


def test_a_drop_in_for_bridge_knows_what_the_reference_knows() -> None:
    """Ports and limits belong to the plugins that are chained behind it."""
    netconf, errors = conf_of(EVERYTHING, program="bridge")
    assert errors == []
    known = {"is_gateway": True, "is_default_gateway": True, "mac_spoof_check": True, "accept": False}
    assert netconf._asdict() == DEFAULTS | known


@pytest.mark.parametrize(
    "members",
    [{"bridge": ""}, {"hairpinMode": True, "promiscMode": True}, {"disableContainerInterface": True, "vlan": 9999}],
)
def test_keys_of_bridge_mean_nothing_to_ptp(members: dict[str, Any]) -> None:
    errors = ConfigErrors()
    document = {"ipam": {"type": "host-local"}, **members}
    conf = parse_netconf(PluginConfig("net", "1.1.0", document, b""), {}, errors, "ptp")
    assert errors.messages == []
    assert (conf.hairpin, conf.vlan, conf.disable_container_interface) == (False, 0, False)


def test_a_drop_in_for_ptp_is_routed_and_has_no_bridge_to_guard() -> None:
    netconf, errors = conf_of(EVERYTHING, program="ptp")
    assert errors == []
    assert netconf._asdict() == DEFAULTS | {"routed": True, "accept": False}


@pytest.mark.parametrize("program", ["bridge", "ptp"])
@pytest.mark.parametrize(
    "members",
    [
        {"mode": "sideways"},
        {"mode": "routed", "vlan": 5},
        {"ingressRate": 8},
        {"markMasqBit": 99},
        {"runtimeConfig": {"portMappings": [{}]}},
    ],
)
def test_a_key_that_the_reference_has_not_is_no_fault_of_a_drop_in(members: dict[str, Any], program: str) -> None:
    assert conf_of(members)[1] != []
    assert conf_of(members, program=program)[1] == []


@pytest.mark.parametrize("program", ["podwire", "podwire-0.1", "anything"])
def test_under_any_other_name_the_program_is_podwire(program: str) -> None:
    netconf, errors = conf_of(EVERYTHING | {"macspoofchk": False}, program=program)
    assert errors == []
    assert netconf.routed
    assert netconf.accept
    assert netconf.ports.mappings


@pytest.mark.parametrize("key", ["vlan", "vlanTrunk"])
def test_vlans_make_the_bridge_aware_of_them(key: str) -> None:
    assert conf_of({key: KEYS[key][0]})[0].vlan_aware


def test_the_last_of_several_spellings_wins() -> None:
    netconf, errors = conf(
        '{"MTU": "x", "mtu": 1400, "Bridge": "a", "bridge": "b", "isGateway": true, "ISGATEWAY": false}'
    )
    assert errors == []
    assert (netconf.mtu, netconf.bridge, netconf.is_gateway) == (1400, "b", False)


@pytest.mark.parametrize("value", [{"domain": ""}, {"options": None}, {"nameservers": None, "search": None}])
def test_null_and_an_empty_domain_are_no_word_on_dns(value: dict[str, Any]) -> None:
    assert conf_of({"dns": value})[0].dns is None


@pytest.mark.parametrize("value", [{"nameservers": []}, {"options": []}, {"Search": []}])
def test_an_empty_list_on_dns_is_a_word(value: dict[str, Any]) -> None:
    netconf, errors = conf_of({"dns": value})
    assert errors == []
    assert netconf.dns == DNS()


def test_an_empty_dns_is_no_word() -> None:
    assert conf_of({"dns": {"other": 1}})[0].dns is None


SAID = {"nameservers": ["192.0.2.1"], "domain": "a", "search": ["b"], "options": ["c"]}
BY_RUNTIME = {"servers": ["192.0.2.9"], "searches": ["x", "y"], "options": ["z"]}


def test_the_runtimes_word_on_dns_wins_entirely_and_has_keys_of_its_own() -> None:
    netconf, errors = conf_of({"dns": SAID, "runtimeConfig": {"dns": BY_RUNTIME}})
    assert errors == []
    assert netconf.dns == DNS(("192.0.2.9",), "", ("x", "y"), ("z",))
    assert conf_of({"dns": SAID, "runtimeConfig": {"dns": {"Searches": ["x"]}}})[0].dns == DNS(search=("x",))


@pytest.mark.parametrize("document", [None, {}, {"servers": [], "searches": None}, {"nameservers": ["192.0.2.9"]}])
def test_without_a_word_of_the_runtime_the_configurations_counts(document: Any) -> None:
    netconf, errors = conf_of({"dns": SAID, "runtimeConfig": {"dns": document}})
    assert errors == []
    assert netconf.dns == DNS(("192.0.2.1",), "a", ("b",), ("c",))


@pytest.mark.parametrize("program", ["bridge", "ptp"])
def test_a_drop_in_has_the_configurations_dns_as_the_reference_has(program: str) -> None:
    netconf, _ = conf_of({"dns": SAID, "runtimeConfig": {"dns": BY_RUNTIME}}, program=program)
    assert netconf.dns == DNS(("192.0.2.1",), "a", ("b",), ("c",))


@pytest.mark.parametrize(
    ("members", "args", "expected"),
    [
        ({}, "0a:00:00:00:00:01", 1),
        ({"args": {"cni": {"mac": "0a:00:00:00:00:02"}}}, "0a:00:00:00:00:01", 2),
        (
            {"args": {"cni": {"mac": "0a:00:00:00:00:02"}}, "runtimeConfig": {"mac": "0a:00:00:00:00:03"}},
            "0a:00:00:00:00:01",
            3,
        ),
        ({"runtimeConfig": {"mac": "0a:00:00:00:00:03"}}, "", 3),
        ({"args": {"cni": {"mac": ""}}, "runtimeConfig": {"mac": None}}, "0a:00:00:00:00:01", 1),
    ],
)
def test_of_the_sources_of_a_mac_address_the_later_wins(members: dict[str, Any], args: str, expected: int) -> None:
    netconf, errors = conf_of(members, args)
    assert errors == []
    assert netconf.mac == bytes([0x0A, 0, 0, 0, 0, expected])


def test_the_backend_iptables_is_served_with_a_notice() -> None:
    netconf, errors = conf_of({"ipMasqBackend": "iptables"})
    assert errors == []
    assert netconf.notices == (
        "ipMasqBackend iptables: podwire masquerades in nftables, which serves the same traffic",
    )


TRUNK_FAULT = "minID and maxID should be configured simultaneously"


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({"bridge": ""}, "bridge: is empty"),
        ({"bridge": "a" * 16}, "bridge: interface name is too long (it should be less than 16 characters)"),
        ({"bridge": "a/b"}, "bridge: interface name contains / or : or whitespace characters"),
        ({"bridge": "a\0b"}, "bridge: holds a NUL character"),
        ({"bridge": 1}, "bridge: expected a text"),
        ({"isGateway": 1}, "isGateway: expected true or false"),
        ({"isDefaultGateway": "true"}, "isDefaultGateway: expected true or false"),
        ({"forceAddress": 0}, "forceAddress: expected true or false"),
        ({"ipMasq": []}, "ipMasq: expected true or false"),
        ({"ipMasqBackend": "pf"}, "ipMasqBackend: 'pf' is neither iptables nor nftables"),
        ({"mode": "l2"}, "mode: 'l2' is neither bridged nor routed"),
        ({"mode": True}, "mode: expected a text"),
        ({"mtu": -1}, "mtu: -1 is not between 0 and 65535"),
        ({"mtu": 65536}, "mtu: 65536 is not between 0 and 65535"),
        ({"mtu": True}, "mtu: expected an integer"),
        ({"mtu": 1500.0}, "mtu: expected an integer"),
        ({"hairpinMode": True, "promiscMode": True}, "hairpinMode: cannot be set together with promiscMode"),
        ({"vlan": -100}, "vlan: -100 is not between 0 and 4094"),
        ({"vlan": 4095}, "vlan: 4095 is not between 0 and 4094"),
        ({"vlanTrunk": {}}, "vlanTrunk: expected a list"),
        ({"vlanTrunk": [None]}, "vlanTrunk[0]: expected an object"),
        ({"vlanTrunk": [{}]}, "vlanTrunk[0].id: a trunk needs id, or minID and maxID"),
        ({"vlanTrunk": [{"id": 0}]}, "vlanTrunk[0].id: 0 is not between 1 and 4094"),
        ({"vlanTrunk": [{"id": 1}, {"id": 4095}]}, "vlanTrunk[1].id: 4095 is not between 1 and 4094"),
        ({"vlanTrunk": [{"minID": 5}]}, f"vlanTrunk[0].maxID: {TRUNK_FAULT}, maxID is missing"),
        ({"vlanTrunk": [{"maxID": 5}]}, f"vlanTrunk[0].minID: {TRUNK_FAULT}, minID is missing"),
        ({"vlanTrunk": [{"minID": 5, "maxID": 4}]}, "vlanTrunk[0].minID: is greater than maxID in trunk parameter"),
        ({"vlan": 100, "bridge": "a" * 12, "isGateway": True},
         f"bridge: {'a' * 12}.100, the gateway's interface, would be too long a name"),
        ({"ipam": {"type": "x"}, "disableContainerInterface": True},
         "ipam: cannot be used together with disableContainerInterface"),
        ({"ipam": {"type": "../x"}}, "ipam.type: must be the name of a program in CNI_PATH, without a folder"),
        ({"ipam": "host-local"}, "ipam: expected an object"),
        ({"ipam": {"type": 1}}, "ipam.type: expected a text"),
        ({"dns": []}, "dns: expected an object"),
        ({"dns": {"search": [1]}}, "dns.search[0]: expected a text"),
        ({"runtimeConfig": {"dns": []}}, "runtimeConfig.dns: expected an object"),
        ({"runtimeConfig": {"dns": {"servers": [1]}}}, "runtimeConfig.dns.servers[0]: expected a text"),
        ({"runtimeConfig": {"mac": "x"}}, "runtimeConfig.mac: 'x' is not a MAC address (as in 0a:58:0a:01:02:03)"),
        ({"args": {"cni": {"mac": 1}}}, "args.cni.mac: expected a text"),
    ],
)  # fmt: skip
def test_each_fault_names_its_path(members: dict[str, Any], error: str) -> None:
    assert conf_of(members)[1] == [error]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vlan", 5),
        ("vlanTrunk", [{"id": 7}]),
        ("hairpinMode", True),
        ("promiscMode", True),
        ("portIsolation", True),
        ("macspoofchk", True),
    ],
)
def test_what_needs_a_bridge_is_a_fault_without_one(key: str, value: Any) -> None:
    assert conf_of({key: value, "mode": "bridged"})[1] == []
    assert conf_of({key: value, "mode": "routed"})[1] == [f"{key}: needs a bridge, which mode routed does not have"]


def test_what_needs_a_bridge_and_is_switched_off_is_no_fault() -> None:
    off = {"vlan": 0, "vlanTrunk": [], "hairpinMode": False, "macspoofchk": None}
    assert conf_of(off | {"mode": "routed"})[1] == []


def test_a_mac_address_of_the_environment_at_fault_is_named() -> None:
    netconf, errors = conf_of({}, "ff:ff:ff:ff:ff:ff")
    assert errors == ["CNI_ARGS.MAC: 'ff:ff:ff:ff:ff:ff' is a group or null address, which no interface can have"]
    assert netconf.mac is None


def test_a_long_bridge_name_with_a_vlan_is_no_fault_without_a_gateway() -> None:
    assert conf_of({"vlan": 100, "bridge": "a" * 12})[1] == []


def test_all_faults_are_found_at_once_and_defaults_stand_in() -> None:
    netconf, errors = conf_of({"bridge": "", "mtu": -1, "vlan": "x", "vlanTrunk": [{}], "ipMasqBackend": "pf"})
    assert len(errors) == 5
    assert netconf._asdict() == DEFAULTS


def test_a_name_of_half_characters_is_a_name() -> None:
    """The text is not an error of the configuration's form, and must not be an internal error."""
    netconf, errors = conf('{"bridge": "\\ud800"}')
    assert (netconf.bridge, errors) == ("\ufffd", [])


def test_an_mtu_below_ipv6s_is_an_error_with_ipv6_alone() -> None:
    small, _ = conf_of({"mtu": 1000})
    assert mtu_error(small, [4]) == ""
    assert "1000" in mtu_error(small, [4, 6])
    assert mtu_error(conf_of({"mtu": 1280})[0], [6]) == ""


def test_ptp_does_not_read_the_keys_of_a_bridge() -> None:
    ptp, errors = conf_of({"bridge": 5, "mtu": 1400}, program="ptp")
    assert (ptp.mtu, errors) == (1400, [])


def test_an_ipam_without_type_is_a_notice_of_a_drop_in() -> None:
    bridge, errors = conf_of({"ipam": {"subnet": "10.1.2.0/24"}}, program="bridge")
    assert errors == []
    assert [notice for notice in bridge.notices if notice.startswith("ipam: ")]


def test_an_ipam_without_type_is_an_error_of_podwires() -> None:
    _, errors = conf_of({"ipam": {"subnet": "10.1.2.0/24"}})
    assert [text for text in errors if text.startswith("ipam.type: missing")]
