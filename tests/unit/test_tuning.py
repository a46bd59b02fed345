"""tuning's configuration, its plan, and the file of the saved settings."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from cni.config.tuning import ALLOWLIST, LinkSettings, Settings, Tuning, is_allowed, parse_tuning
from cni.plan.tuning import (
    SavedSettings,
    SetContainerSysctl,
    SetLink,
    SpelledSysctls,
    answered,
    as_answered,
    file_of,
    is_as_written,
    operations,
    read_saved,
    restoring,
    saved_label,
    saved_namespace,
    saved_text,
    with_spelled,
)
from cni.protocol.address import parse_mac
from cni.protocol.errors import InvalidEnvironment
from cni.protocol.fields import ConfigErrors
from cni.protocol.owner import Owner
from cni.protocol.plugin_config import parse_plugin_config
from cni.protocol.request import parse_request
from cni.protocol.result import Interface, Result
from tests.calls import ENVIRONMENT
from tests.unit.calls import call

MAC, OTHER, THIRD = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03"
OWNER = Owner("net", "c1", "eth0")
GROUP = "is a group or null address, which no interface can have"
NO_SETTING = "is not a sysctl of the network (as in net.ipv4.conf.IFNAME.arp_filter)"


def conf_of(
    members: dict[str, Any] | str,
    *,
    arguments: str = "",
    allowlist: tuple[str, ...] | None = None,
    ifname: str = "eth0",
) -> tuple[Tuning, list[str]]:
    """Returns the configuration and its errors; a text is the inside of a JSON object."""
    text = members if isinstance(members, str) else json.dumps(members)[1:-1]
    data = '{"name": "net", "cniVersion": "1.1.0"' + (f", {text}" if text else "") + "}"
    request = parse_request({**ENVIRONMENT, "CNI_ARGS": arguments, "CNI_IFNAME": ifname})
    errors = ConfigErrors()
    return parse_tuning(parse_plugin_config(data.encode(), "ADD"), request, errors, allowlist), errors.messages


def settings_of(members: dict[str, Any] | str, arguments: str = "") -> Settings:
    result, errors = conf_of(members, arguments=arguments)
    assert errors == []
    return result.settings


def bytes_of(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def test_without_keys_nothing_is_tuned() -> None:
    assert conf_of({}) == (Tuning(Settings(), "/run/cni/tuning"), [])
    assert operations(conf_of({})[0], OWNER) == ()


KEYS: dict[str, tuple[Any, LinkSettings]] = {
    "mac": (MAC, LinkSettings(mac=bytes_of(MAC))),
    "promisc": (True, LinkSettings(promisc=True)),
    "mtu": (1400, LinkSettings(mtu=1400)),
    "allmulti": (False, LinkSettings(allmulti=False)),
    "txQLen": (0, LinkSettings(txqlen=0)),
}


@pytest.mark.parametrize("spell", [str, str.upper, str.lower])
@pytest.mark.parametrize("key", KEYS)
def test_each_key_has_its_meaning_in_any_case(key: str, spell: Any) -> None:
    value, meaning = KEYS[key]
    assert settings_of({spell(key): value}) == Settings(meaning)
    assert settings_of({"args": {"cni": {spell(key): value}}}) == Settings(meaning)


@pytest.mark.parametrize(
    "members",
    [
        dict.fromkeys((*KEYS, "sysctl", "dataDir", "args")),
        {"promisc": False},
        {"mtu": 0},
        {"mac": ""},
        {"sysctl": {}},
        {"sysctl": {"net.ipv4.x": None}},
    ],
)
def test_null_and_what_go_calls_empty_tune_nothing(members: dict[str, Any]) -> None:
    assert settings_of(members) == Settings()


@pytest.mark.parametrize(("data_dir", "file"), [("", "/run/cni/tuning/c1_eth0.json"), ("/x", "/x/c1_eth0.json")])
def test_originals_lie_where_the_reference_keeps_them(data_dir: str, file: str) -> None:
    assert file_of(conf_of({"dataDir": data_dir})[0].data_dir, OWNER) == file


@pytest.mark.parametrize(
    ("members", "arguments", "chosen"),
    [
        ({"mac": MAC}, "", MAC),
        ({"mac": MAC}, f"MAC={OTHER}", OTHER),
        ({"mac": MAC, "runtimeConfig": {"mac": THIRD}}, f"MAC={OTHER}", THIRD),
        ({"mac": MAC, "runtimeConfig": {"mac": ""}}, f"MAC={OTHER}", OTHER),
        ({"runtimeConfig": {"mac": THIRD}, "args": {"cni": {"mac": MAC}}}, f"MAC={OTHER}", MAC),
        ({"runtimeConfig": {"mac": THIRD}, "args": {"cni": {"mac": ""}}}, f"MAC={OTHER}", None),
        ({"args": {"cni": {"mac": None}}}, f"MAC={OTHER}", OTHER),
    ],
)
def test_of_the_sources_of_a_mac_address_the_references_wins(
    members: dict[str, Any], arguments: str, chosen: str | None
) -> None:
    assert settings_of(members, arguments).link.mac == (bytes_of(chosen) if chosen else None)


@pytest.mark.parametrize(
    ("own", "args", "chosen"),
    [
        ({"promisc": True}, {"promisc": False}, LinkSettings()),
        ({"mtu": 1400}, {"mtu": 0}, LinkSettings()),
        ({"mtu": 1400}, {"mtu": 1300}, LinkSettings(mtu=1300)),
        ({"allmulti": True}, {"allmulti": False}, LinkSettings(allmulti=False)),
        ({"txQLen": 5}, {"txQLen": 0}, LinkSettings(txqlen=0)),
        ({"txQLen": 5}, {"mtu": None}, LinkSettings(txqlen=5)),
    ],
)
def test_arguments_win(own: dict[str, Any], args: dict[str, Any], chosen: LinkSettings) -> None:
    assert settings_of({**own, "args": {"cni": args}}) == Settings(chosen)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("/net/ipv4//ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.IFNAME.arp_filter", "net/ipv4/conf/eth0.7/arp_filter"),
        ("net/ipv4/conf/IFNAME/IFNAME", "net/ipv4/conf/eth0.7/IFNAME"),
        ("net.ipv4.conf.Eth1.arp_filter", "net/ipv4/conf/Eth1/arp_filter"),
    ],
)
def test_a_key_is_a_path(key: str, path: str) -> None:
    result, errors = conf_of({"sysctl": {key: "1"}}, ifname="eth0.7")
    assert (result.settings.sysctls, errors) == (((path, "1"),), [])


def test_settings_keep_their_order_and_arguments_win() -> None:
    result = settings_of(
        {
            "sysctl": {"net.b": "1", "net.a": "2", "net.c": "3"},
            "args": {"cni": {"sysctl": {"net/a": "4", "net.d": "5 6\t7"}}},
        }
    )
    assert result.sysctls == (("net/b", "1"), ("net/a", "4"), ("net/c", "3"), ("net/d", "5 6\t7"))


def test_arguments_alone_may_name_settings() -> None:
    assert settings_of({"args": {"cni": {"sysctl": {"net.a": "4"}}}}).sysctls == (("net/a", "4"),)


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({"mac": "x"}, "mac: 'x' is not a MAC address (as in 0a:58:0a:01:02:03)"),
        ({"mac": "01:00:00:00:00:01"}, f"mac: '01:00:00:00:00:01' {GROUP}"),
        ({"mac": "00:00:00:00:00:00:00:01"},
         "mac: '00:00:00:00:00:00:00:01' is not a MAC address (as in 0a:58:0a:01:02:03)"),
        ({"runtimeConfig": {"mac": "x"}}, "runtimeConfig.mac: 'x' is not a MAC address (as in 0a:58:0a:01:02:03)"),
        ({"args": {"cni": {"mac": 1}}}, "args.cni.mac: expected a text"),
        ({"promisc": "on"}, "promisc: expected true or false"),
        ({"allmulti": 1}, "allmulti: expected true or false"),
        ({"mtu": 67}, "mtu: 67 is not between 68 and 65535"),
        ({"mtu": -1}, "mtu: -1 is not between 68 and 65535"),
        ({"args": {"cni": {"mtu": 65536}}}, "args.cni.mtu: 65536 is not between 68 and 65535"),
        ({"mtu": "1400"}, "mtu: expected an integer"),
        ({"txQLen": -1}, "txQLen: -1 is not between 0 and 4294967295"),
        ({"txQLen": 1 << 32}, "txQLen: 4294967296 is not between 0 and 4294967295"),
        ({"dataDir": 1}, "dataDir: expected a text"),
        ({"sysctl": []}, "sysctl: expected an object"),
        ({"sysctl": {"net.a": 1}}, "sysctl.net.a: expected a text"),
        ({"sysctl": {"net.a": "\0"}}, "sysctl.net.a: contains a character that no sysctl value has"),
        ({"sysctl": {"net.a\n": "1"}}, "sysctl.net.a\n: contains a character that no sysctl name has"),
        ({"sysctl": {"kernel.panic": "1"}}, f"sysctl.kernel.panic: {NO_SETTING}"),
        ({"sysctl": {"network.a": "1"}}, f"sysctl.network.a: {NO_SETTING}"),
        ({"sysctl": {"net": "1"}}, f"sysctl.net: {NO_SETTING}"),
        ({"sysctl": {"net.": "1"}}, f"sysctl.net.: {NO_SETTING}"),
        ({"sysctl": {"": "1"}}, f"sysctl.: {NO_SETTING}"),
        ({"sysctl": {"net/../kernel/panic": "1"}}, f"sysctl.net/../kernel/panic: {NO_SETTING}"),
        ({"args": {"cni": {"sysctl": {"vm.a": "1"}}}}, f"args.cni.sysctl.vm.a: {NO_SETTING}"),
        ({"sysctl": {"net.a": "1", "net/a": "2"}}, "sysctl.net/a: has another value under another spelling"),
    ],
)  # fmt: skip
def test_each_fault_names_its_path(members: dict[str, Any], error: str) -> None:
    assert conf_of(members)[1] == [error]


def test_a_mac_address_of_the_environment_at_fault_is_named() -> None:
    result, errors = conf_of({"mac": MAC}, arguments="MAC=01:00:00:00:00:00")
    assert (result.settings.link.mac, errors) == (None, [f"CNI_ARGS.MAC: '01:00:00:00:00:00' {GROUP}"])


def test_all_faults_are_found_at_once() -> None:
    members = {"mac": "x", "mtu": 1, "txQLen": -1, "promisc": 1, "allmulti": "", "sysctl": {"vm.a": "", "net.b": 2}}
    assert len(conf_of(members)[1]) == 7


def test_two_spellings_may_say_the_same() -> None:
    assert settings_of({"sysctl": {"net.a": "1", "net/a": "1"}}).sysctls == (("net/a", "1"),)


@pytest.mark.parametrize(
    "text",
    [
        '"sysctl": {"net.a": "1", "net.b": "2", "net.a": "1"}',
        '"sysctl": {"net.a": "1", "net\\u002ea": "2"}',
        '"sysctl": {"net.a": "1"}, "SysCtl": {"net.a": "2"}',
        '"sysctl": {"net.a": "1"}, "sysctl": {"net.a": "1"}',
    ],
)
def test_a_key_that_is_there_twice_is_a_fault(text: str) -> None:
    assert conf_of(text)[1] == ["sysctl.net.a: is set more than once"]


@pytest.mark.parametrize(
    "text",
    [
        '"sysctl": {"net.a": "1"}, "args": {"cni": {"sysctl": {"net.a": "2"}}}',
        '"sysctl": {"net.a": "1"}, "other": {"net.a": "net.a"}, "list": [{"sysctl": {"net.a": 1}}, "net.a"]',
        '"sysctl": {"net.a": "1", "net.ab": "2"}, "other": {"x": 1, "x": 2, "y": "\\u002e"}',
    ],
)
def test_a_key_that_is_elsewhere_too_is_none(text: str) -> None:
    assert conf_of(text)[1] == []


def test_the_dear_parser_is_asked_only_where_a_key_may_be_there_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "json", None)
    data = b'{"name": "net", "sysctl": {"net.a": "1", "net.b": "1"}}'
    parse_tuning(parse_plugin_config(data, "ADD"), parse_request(ENVIRONMENT), ConfigErrors())
    with pytest.raises(ImportError):
        parse_tuning(parse_plugin_config(data.replace(b".b", b".a"), "ADD"), parse_request(ENVIRONMENT), ConfigErrors())


@pytest.mark.parametrize(
    ("lines", "allowed"),
    [
        ((), False),
        ((r"^net\.ipv4\.conf\.IFNAME\.[a-z_]*$",), True),
        ((r"arp",), True),
        ((r"^arp",), False),
        ((r"nothing", r"filter$"), True),
        ((r"^net\.[[:alnum:]]+\.conf\.[[:upper:]]{6}\.[[:lower:]_]+$",), True),
        ((r"^[^[:alpha:]]",), False),
        ((r"(?i)ARP_FILTER",), True),
        ((r"[:n]et",), True),
        ((r"arp", "["), True),
    ],
)
def test_a_line_matches_anywhere_in_the_key_as_it_is_written(lines: tuple[str, ...], allowed: bool) -> None:
    key = "net.ipv4.conf.IFNAME.arp_filter"
    assert is_allowed(key, lines) == allowed
    errors = conf_of({"sysctl": {key: "1"}}, allowlist=lines)[1]
    assert errors == ([] if allowed else [f"sysctl.{key}: is not allowed by {ALLOWLIST}"])


@pytest.mark.parametrize("line", ["[", r"\pL", "[[:cntrl:]]", "(?U)x", "x{2}{3}"])
def test_a_line_that_python_cannot_read_as_go_does_is_a_fault(line: str) -> None:
    (error,) = conf_of({"sysctl": {"net.a": "1"}}, allowlist=(line,))[1]
    assert error.startswith(f"sysctl.net.a: {ALLOWLIST}: the line {line!r} ")


def test_the_allowlist_concerns_arguments_and_settings_alone() -> None:
    errors = conf_of({"mtu": 1400, "args": {"cni": {"sysctl": {"net.b": "1"}}}}, allowlist=("^net.a$",))[1]
    assert errors == [f"args.cni.sysctl.net.b: is not allowed by {ALLOWLIST}"]
    assert conf_of({"mtu": 1400}, allowlist=("[",))[1] == []


ALL = LinkSettings(bytes_of(MAC), promisc=True, mtu=1400, allmulti=False, txqlen=0)
EVERYTHING = Tuning(Settings(ALL, (("net/ipv4/ip_forward", "1"), ("net/b", ""))), "/data")


def test_a_plan_keeps_originals_before_it_changes_anything() -> None:
    assert operations(EVERYTHING, OWNER) == (
        SavedSettings("/data/c1_eth0.json", OWNER.label, "eth0", EVERYTHING.settings),
        SetContainerSysctl("net/ipv4/ip_forward", "1"),
        SetContainerSysctl("net/b", ""),
        SetLink("eth0", ALL),
        SpelledSysctls("/data/c1_eth0.json", EVERYTHING.settings.sysctls),
    )


def test_each_operation_is_reported_as_a_command() -> None:
    assert [operation.describe() for operation in operations(EVERYTHING, OWNER)] == [
        "keep the settings of eth0 in /data/c1_eth0.json",
        "ip netns exec CONTAINER sysctl -w net.ipv4.ip_forward=1",
        "ip netns exec CONTAINER sysctl -w net.b=",
        f"ip -n CONTAINER link set eth0 address {MAC} promisc on mtu 1400 allmulticast off txqueuelen 0",
        "keep in /data/c1_eth0.json how the kernel spells net.ipv4.ip_forward, net.b",
    ]


HOST, CONTAINER = Interface("eth0", OTHER), Interface("eth0", OTHER, "/run/netns/c1", (("mtu", 1500), ("pciID", "x")))
SECOND = Interface("eth1", OTHER, "/run/netns/c1")


def test_the_answer_has_what_the_containers_interface_has_now() -> None:
    mine = CONTAINER._replace(mac=MAC, extras=(("mtu", 1400), ("pciID", "x")))
    previous = Result((HOST, CONTAINER, SECOND))
    for tells_mtu in (False, True):
        assert answered(ALL, "eth0", previous, tells_mtu) == Result((HOST, mine, SECOND))
        assert answered(LinkSettings(promisc=True), "eth0", previous, tells_mtu) == previous
    assert answered(ALL, "eth1", Result((SECOND,)), tells_mtu=False) == Result((SECOND._replace(mac=MAC),))
    expected = SECOND._replace(mac=MAC, extras=(("mtu", 1400),))
    assert answered(ALL, "eth1", Result((SECOND,)), tells_mtu=True) == Result((expected,))


def test_what_a_later_plugin_answered_is_what_check_asks_for() -> None:
    conf = Tuning(Settings(LinkSettings(parse_mac(OTHER), mtu=1400, promisc=True)), "/data")
    later = CONTAINER._replace(mac=MAC, extras=(("mtu", 1300),))
    wanted = LinkSettings(parse_mac(MAC), mtu=1300, promisc=True)
    assert as_answered(conf, "eth0", Result((HOST, later))).settings.link == wanted
    untold = CONTAINER._replace(mac="", extras=())
    assert as_answered(conf, "eth0", Result((HOST, untold))) == conf
    nothing = Tuning(Settings(LinkSettings(promisc=True)), "/data")
    assert as_answered(nothing, "eth0", Result((later,))) == nothing


@pytest.mark.parametrize(
    ("written", "value"),
    [("1 2\t3", "1\t2\t3"), ("0x10", "16"), ("010", "8"), ("-0x1", "-1"), ("00", "0"), (" 5 ", "5"), ("a b", "a\tb")],
)
def test_a_value_is_as_written_however_the_kernel_spells_it(written: str, value: str) -> None:
    assert is_as_written("net/a", written, value, None)
    assert not is_as_written("net/a", written, f"{value} 7", b"{}")


@pytest.mark.parametrize("value", ["", "1_0", "0x", "09", "10-11", "\u0661"])
def test_what_is_no_number_is_compared_as_text(value: str) -> None:
    assert is_as_written("net/a", value, value, None)
    assert not is_as_written("net/a", value, "10", None)


def test_what_the_kernel_made_of_a_value_is_as_written() -> None:
    content = with_spelled(b'{"owner": "label"}', {"net/a": ("1,2,3", "1-3")}).encode()
    assert saved_label(content) == "label"
    assert is_as_written("net/a", "1,2,3", "1-3", content)
    assert not is_as_written("net/a", "1,2,3", "1-4", content)
    assert not is_as_written("net/a", "1,2", "1-3", content)
    assert not is_as_written("net/b", "1,2,3", "1-3", content)
    second = with_spelled(content, {"net/b": ("x", "y")}).encode()
    assert is_as_written("net/a", "1,2,3", "1-3", second)
    assert is_as_written("net/b", "x", "y", second)
    assert not is_as_written("net/a", "1,2,3", "1-3", b'{"spelled": 7}')


def test_the_namespace_is_kept() -> None:
    assert saved_namespace(saved_text(Settings(ALL), "label", None, "71").encode()) == "71"
    assert saved_namespace(saved_text(Settings(ALL), "label", None).encode()) == ""


def test_the_file_is_the_references_with_two_keys_of_ones_own() -> None:
    text = saved_text(Settings(ALL, (("net/a", "x"),)), "label", None)
    assert json.loads(text) == {
        "mac": MAC, "promisc": True, "mtu": 1400, "allmulti": False, "txQLen": 0, "sysctl": {"net/a": "x"},
        "owner": "label",
    }  # fmt: skip
    assert json.loads(saved_text(Settings(LinkSettings(promisc=False)), "l", None)) == {"promisc": False, "owner": "l"}


def test_what_is_kept_is_read_again() -> None:
    saved = Settings(ALL, (("net/a", "x"), ("net/b", "")))
    text = saved_text(saved, OWNER.label, None).encode()
    assert read_saved(text) == saved
    assert saved_label(text) == OWNER.label


def test_what_an_earlier_plugin_has_kept_stays() -> None:
    first = saved_text(Settings(LinkSettings(mtu=1500), (("net/a", "0"),)), "label", None).encode()
    second = Settings(LinkSettings(mtu=1400, promisc=False), (("net/a", "1"), ("net/b", "2")))
    merged = read_saved(saved_text(second, "label", first).encode())
    assert merged.link == LinkSettings(mtu=1500, promisc=False)
    assert dict(merged.sysctls) == {"net/a": "0", "net/b": "2"}


def test_garbage_is_written_over() -> None:
    for garbage in (b"", b"{", b"[]", b'{"sysctl": 7}'):
        assert read_saved(saved_text(Settings(ALL), "label", garbage).encode()) == Settings(ALL)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"garbage", b"[]", b"\xff", b'{"mtu": "1500"}', b'{"mtu": 1500, "promisc": 1}', b'{"mac": "x"}',
        b'{"txQLen": -1}', b'{"sysctl": ["net/a"]}', b'{"sysctl": {"net/a": 1}}', b'{"sysctl": {"kernel/panic": "1"}}',
        b'{"sysctl": {"net/../kernel/panic": "1"}}', b'{"sysctl": {"../net/a": "1"}}',
        b'{"sysctl": {"net/a\\u0000": "1"}}',
    ],
)  # fmt: skip
def test_garbage_restores_nothing(content: bytes) -> None:
    assert read_saved(content) == Settings()
    assert restoring(read_saved(content), "eth0") == ()


@pytest.mark.parametrize("content", [b"", b"{}", b'{"mtu": 1500}', b'{"owner": 1}'])
def test_a_file_that_podwire_did_not_write_has_no_label(content: bytes) -> None:
    assert saved_label(content) == ""


def test_each_original_is_restored_on_its_own_in_reverse() -> None:
    saved = Settings(LinkSettings(mac=bytes_of(MAC), mtu=1500), (("net/a", "1"), ("net/b", "2")))
    assert restoring(saved, "eth0") == (
        SetLink("eth0", LinkSettings(mtu=1500)),
        SetLink("eth0", LinkSettings(mac=bytes_of(MAC))),
        SetContainerSysctl("net/b", "2"),
        SetContainerSysctl("net/a", "1"),
    )


def test_all_faults_are_answered_together() -> None:
    document = {"cniVersion": "1.1.0", "name": "net", "mtu": 1, "sysctl": {"vm.a": "1"}, "prevResult": {"ips": [{}]}}
    code, message = call(document, program="tuning").error
    assert code == 7
    assert message == (
        "invalid network configuration: mtu: 1 is not between 68 and 65535; "
        f"sysctl.vm.a: {NO_SETTING}; prevResult.ips[0].address: missing"
    )


def test_without_an_earlier_answer_there_is_nothing_to_tune() -> None:
    code, message = call({"cniVersion": "1.1.0", "name": "net", "mtu": 1400}, program="tuning").error
    assert (code, message) == (
        7, "prevResult: missing, tuning must be called as chained plugin, after another",
    )  # fmt: skip


def test_an_interface_name_cannot_lead_out_of_the_settings() -> None:
    for name in ("..", "a/b"):
        with pytest.raises(InvalidEnvironment):
            parse_request({**ENVIRONMENT, "CNI_IFNAME": name})
