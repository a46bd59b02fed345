"""The keys of every configuration: name, cniVersion, prevResult, valid attachments."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cni.protocol.address import parse_net
from cni.protocol.errors import DecodingFailure, IncompatibleVersion, InvalidConfig
from cni.protocol.fields import ConfigErrors
from cni.protocol.plugin_config import PluginConfig, parse_plugin_config, previous_result, valid_attachments
from cni.protocol.result import IPConfig, Result


def network(command: str = "ADD", **members: Any) -> PluginConfig:
    return parse_plugin_config(json.dumps({"cniVersion": "1.1.0", "name": "net"} | members).encode(), command)


def test_a_network_keeps_what_it_received() -> None:
    data = b'{"name": "net", "cniVersion": "0.4.0", "x": 1}'
    parsed = parse_plugin_config(data, "ADD")
    assert (parsed.name, parsed.version, parsed.data, parsed.members["x"]) == ("net", "0.4.0", data, 1)
    assert parsed.fields(ConfigErrors()).integer("X", 0, 9) == 1


@pytest.mark.parametrize("members", [{}, {"cniVersion": ""}, {"cniVersion": None}])
def test_without_version_the_oldest_is_meant(members: dict[str, Any]) -> None:
    assert parse_plugin_config(json.dumps({"name": "net"} | members).encode(), "ADD").version == "0.1.0"


@pytest.mark.parametrize("members", [{}, {"name": ""}, {"name": None}])
def test_a_network_needs_a_name(members: dict[str, Any]) -> None:
    for command in ("ADD", "DEL"):
        assert refusal_of(command, members) == "invalid network configuration: name: missing network name"


@pytest.mark.parametrize("name", ["../net", "a b", "net\n", "-net", "é", "\ud800"])
def test_a_name_of_odd_characters_is_refused(name: str) -> None:
    for command in ("CHECK", "GC"):
        text = refusal_of(command, {"cniVersion": "1.1.0", "name": name})
        assert text.startswith("invalid network configuration: name: invalid characters found in network name ")


def test_a_name_that_no_file_can_have_is_refused() -> None:
    network(name="a" * 255).validate().raise_if_any()
    for command in ("STATUS", "GC"):
        text = refusal_of(command, {"cniVersion": "1.1.0", "name": "a" * 256})
        assert text.endswith("name: network name of 256 characters is too long for a file name (255 at most)")


def test_a_name_at_fault_is_reported_with_all_other_faults() -> None:
    errors = network(name="a b", plugins=[]).validate()
    errors.add("mtu", "odd")
    assert [text.partition(":")[0] for text in errors.messages] == ["name", "plugins", "mtu"]


def refusal_of(command: str, members: dict[str, Any]) -> str:
    """Returns the message of the check of common keys; a verb without that check fails at once."""
    with pytest.raises(InvalidConfig) as refusal:
        parse_plugin_config(json.dumps(members).encode(), command).validate().raise_if_any()
    return refusal.value.message


@pytest.mark.parametrize("command", ["DEL", "GC"])
def test_a_verb_that_judges_nothing_refuses_a_name_at_once(command: str) -> None:
    with pytest.raises(InvalidConfig):
        parse_plugin_config(b'{"cniVersion": "1.1.0", "name": "../a"}', command)


def test_wrong_types_are_reported_together() -> None:
    with pytest.raises(InvalidConfig) as refusal:
        network(name=1, cniVersion=1.1)
    assert refusal.value.message == (
        "invalid network configuration: name: expected a text; cniVersion: expected a text"
    )


def test_the_version_has_to_know_the_verb() -> None:
    with pytest.raises(IncompatibleVersion, match=r"^config version does not allow GC$"):
        network("GC", cniVersion="1.0.0")


def test_a_document_that_is_no_object_is_refused() -> None:
    with pytest.raises(DecodingFailure, match=r"^the network configuration on stdin is not a JSON object$"):
        parse_plugin_config(b"[]", "ADD")


@pytest.mark.parametrize("members", [{}, {"prevResult": None}])
def test_there_may_be_no_earlier_result(members: dict[str, Any]) -> None:
    assert previous_result(network(**members), ConfigErrors()) is None


@pytest.mark.parametrize("version", [{"cniVersion": "1.1.0"}, {}, {"cniVersion": ""}])
def test_an_earlier_result_has_the_configurations_version(version: dict[str, Any]) -> None:
    errors = ConfigErrors()
    previous = previous_result(network(prevResult=version | {"ips": [{"address": "10.1.2.3/24"}]}), errors)
    assert previous == Result(ips=(IPConfig(parse_net("10.1.2.3/24")),))
    assert errors.messages == []


@pytest.mark.parametrize(("version", "other"), [("1.1.0", "1.0.0"), ("1.0.0", "1.1.0"), ("0.4.0", "0.3.0")])
def test_an_earlier_result_of_a_version_with_the_same_shape_is_read(version: str, other: str) -> None:
    """A plugin that does not support a newer version answers so."""
    errors = ConfigErrors()
    address = {"address": "10.1.2.3/24", "version": "4"}
    previous = previous_result(network(cniVersion=version, prevResult={"cniVersion": other, "ips": [address]}), errors)
    assert previous == Result(ips=(IPConfig(parse_net("10.1.2.3/24")),))
    assert errors.messages == []


@pytest.mark.parametrize("other", ["0.4.0", "0.2.0", "9.9.9"])
def test_an_earlier_result_of_another_shape_is_a_fault(other: str) -> None:
    errors = ConfigErrors()
    assert previous_result(network(prevResult={"cniVersion": other}), errors) is None
    assert errors.messages == [f"prevResult.cniVersion: {other} is not the configuration's 1.1.0"]


def test_an_earlier_result_that_is_no_object_is_a_fault() -> None:
    errors = ConfigErrors()
    assert previous_result(network(prevResult=[]), errors) == Result()
    assert errors.messages == ["prevResult: expected an object"]


@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments", "CNI.dev/Valid-Attachments"])
def test_valid_attachments_under_either_key(key: str) -> None:
    given = [{"containerID": "c1", "ifname": "eth0"}, {"ContainerID": "c2", "IfName": "eth1"}]
    assert valid_attachments(network("GC", **{key: given})) == {("c1", "eth0"), ("c2", "eth1")}


def test_what_either_key_names_is_valid() -> None:
    first, other = {"containerID": "c1", "ifname": "eth0"}, {"containerID": "c2", "ifname": "eth0"}
    both = network("GC", **{"cni.dev/valid-attachments": [first], "cni.dev/attachments": [first, other]})
    assert valid_attachments(both) == {("c1", "eth0"), ("c2", "eth0")}


@pytest.mark.parametrize("value", [None, []])
@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
def test_null_and_an_empty_list_say_that_none_is_valid(key: str, value: Any) -> None:
    assert valid_attachments(network("GC", **{key: value})) == set()


def test_absence_says_nothing() -> None:
    assert valid_attachments(network("GC")) is None


ALSO = "cni.dev/valid-attachments[0].containerID: an attachment needs containerID and ifname"


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("c1", ": expected a list"),
        (["c1"], "[0]: expected an object"),
        ([{"containerID": "c1"}], "[0].containerID: an attachment needs containerID and ifname"),
        ([{"ifname": "eth0"}], "[0].containerID: an attachment needs containerID and ifname"),
        ([{"containerID": "c1", "ifname": 1}], "[0].ifname: expected a text; " + ALSO),
    ],
)
def test_a_list_at_fault_is_refused_whole(value: Any, error: str) -> None:
    with pytest.raises(InvalidConfig) as refusal:
        valid_attachments(network("GC", **{"cni.dev/valid-attachments": value}))
    assert refusal.value.message == f"invalid network configuration: cni.dev/valid-attachments{error}"
