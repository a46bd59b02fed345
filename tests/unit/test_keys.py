"""Unknown keys: reported with a suggestion; never the keys that other programs read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cni.config.keys import ignored
from cni.config.spelling import distance, nearest
from cni.protocol.plugin_config import parse_plugin_config

ROOT = Path(__file__).parents[2]
ALL = ["podwire", "bridge", "ptp", "host-local", "portmap", "bandwidth", "firewall", "tuning", "loopback", "flannel"]


def notices(program: str = "podwire", **members: Any) -> list[str]:
    network = {"cniVersion": "1.1.0", "name": "net", "type": program} | members
    return ignored(program, parse_plugin_config(json.dumps(network).encode(), "ADD"))


@pytest.mark.parametrize(
    ("program", "members", "text"),
    [
        ("podwire", {"ipmask": True}, "ipmask: unknown key, ignored (did you mean ipMasq?)"),
        ("bridge", {"hairpinmod": True}, "hairpinmod: unknown key, ignored (did you mean hairpinMode?)"),
        ("bridge", {"isGatewya": True}, "isGatewya: unknown key, ignored (did you mean isGateway?)"),
        ("portmap", {"snatt": True}, "snatt: unknown key, ignored (did you mean snat?)"),
        ("tuning", {"sysctls": {}}, "sysctls: unknown key, ignored (did you mean sysctl?)"),
        ("flannel", {"delegates": {}}, "delegates: unknown key, ignored (did you mean delegate?)"),
        ("flannel", {"delegate": {"mtuu": 1}}, "delegate.mtuu: unknown key, ignored (did you mean mtu?)"),
        ("podwire", {"ipam": {"range": []}}, "ipam.range: unknown key, ignored (did you mean ranges?)"),
        (
            "host-local",
            {"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.0.0.0/8"}, {"rangestrat": "10.0.0.9"}]]}},
            "ipam.ranges[0][1].rangestrat: unknown key, ignored (did you mean rangeStart?)",
        ),
        (
            "bridge",
            {"ipam": {"type": "host-local", "routes": [{"dst": "0.0.0.0/0", "via": "10.0.0.1"}]}},
            "ipam.routes[0].via: unknown key, ignored",
        ),
        ("podwire", {"dns": {"nameserver": []}}, "dns.nameserver: unknown key, ignored (did you mean nameservers?)"),
        ("bridge", {"vlanTrunk": [{"minId": 1, "maxx": 2}]}, "vlanTrunk[0].maxx: unknown key, ignored"),
        (
            "podwire",
            {"capabilities": {"portMapping": True}},
            "capabilities.portMapping: this capability is not supported, ignored (did you mean portMappings?)",
        ),
        (
            "bridge",
            {"capabilities": {"portMappings": True}},
            "capabilities.portMappings: this capability is not supported, ignored",
        ),
        ("loopback", {"bogus": 1}, "bogus: unknown key, ignored"),
    ],
)
def test_what_has_no_effect_is_reported(program: str, members: dict[str, Any], text: str) -> None:
    assert notices(program, **members) == [text]


@pytest.mark.parametrize("program", ALL)
def test_what_runtimes_and_people_put_in_is_known(program: str) -> None:
    put_in = {
        "cniVersions": ["1.0.0", "1.1.0"],
        "disableCheck": True,
        "disableGC": "true",
        "loadOnlyInlinedPlugins": True,
        "args": {"cni": {"labels": []}, "podman": 1},
        "runtimeConfig": {
            "portMappings": [{"HostPort": 1, "ContainerPort": 2, "HostIP": "", "Protocol": "tcp"}],
            "x": 1,
        },
        "prevResult": {"cniVersion": "1.1.0", "anything": 1},
        "cni.dev/valid-attachments": [],
        "cni.dev/attachments": [],
        "io.kubernetes.cri.pod-annotations": {},
        "_comment": "a",
        "comment": "a",
        "deviceID": "0000:00:01.0",
        "addIf": "eth0",
        "auto-mtu": True,
        "capabilities": {"aliases": True, "snat": True, "io.kubernetes.cri.pod-annotations": True, "bogus": False},
        "unsaid": None,
    }
    assert notices(program, **put_in) == []
    assert notices(program, **{key.upper(): value for key, value in put_in.items()}) == []


@pytest.mark.parametrize("program", ["podwire", "bridge", "ptp"])
def test_another_allocators_configuration_is_its_own_to_judge(program: str) -> None:
    assert notices(program, ipam={"type": "dhcp", "provide": []}, capabilities={"special": True}) == []


def test_an_allocator_judges_nothing_of_the_plugin_that_calls_it() -> None:
    assert notices("host-local", master="eth0", linkInContainer=True, ipam={"type": "host-local"}) == []


def test_a_key_of_another_plugin_is_passed_over() -> None:
    assert notices("ptp", bridge="br0", hairpinMode=True) == notices("portmap", mode="routed", dataDir="/x") == []


def test_what_is_handed_on_to_another_plugin_is_its_own_to_judge() -> None:
    assert notices("flannel", delegate={"type": "macvlan", "master": "eth0"}, ipam={"subnetLen": 1}) == []


def test_many_keys_are_reported_by_their_number() -> None:
    unknown: dict[str, Any] = {f"unknown{number}": 1 for number in range(50_000)} | {"x" * 100_000: 1}
    texts = notices(**unknown)
    assert len(texts) == 11
    assert texts[-1] == "and 49991 more"


@pytest.mark.parametrize("path", sorted((ROOT / "conf").glob("*.conflist")), ids=lambda path: path.name)
def test_the_examples_have_no_such_key(path: Path) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    for plugin in document["plugins"]:
        members = {"cniVersion": document["cniVersion"], "name": document["name"], **plugin}
        assert notices(plugin["type"], **members) == []


@pytest.mark.parametrize(
    ("source", "other", "strokes"),
    [
        ("", "", 0),
        ("a", "", 1),
        ("abc", "abc", 0),
        ("abc", "acb", 1),
        ("abc", "abd", 1),
        ("kitten", "sitting", 3),
        ("ca", "abc", 3),
    ],
)
def test_strokes_are_counted(source: str, other: str, strokes: int) -> None:
    assert distance(source, other) == distance(other, source) == strokes


def test_what_is_far_away_is_not_meant() -> None:
    assert nearest("zzzz", ["mtu", "bridge"]) == ""
    assert nearest("anything", []) == ""
    assert nearest("mut", ["bridge", "mtu", "mac"]) == "mtu"


def test_a_value_that_is_no_object_has_no_keys() -> None:
    assert notices(ipam="text") == []
    assert notices("host-local", ipam={"type": "host-local", "ranges": [[5], "text"]}) == []


def test_a_word_that_is_longer_than_all_known_has_no_nearest() -> None:
    assert nearest("a" * 41, ["a" * 40]) == ""
