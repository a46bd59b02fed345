"""The configuration of `type: flannel` and the agent's file, with every error; and the delegate's configuration."""

from __future__ import annotations

from typing import Any

import pytest

from cni.config.flannel import FlannelConf, SubnetEnv, parse_flannel, parse_subnet_env, render
from cni.protocol.address import parse_net
from cni.protocol.fields import ConfigErrors
from cni.protocol.plugin_config import PluginConfig

LINES = {
    "FLANNEL_NETWORK": "10.5.0.0/16",
    "FLANNEL_SUBNET": "10.5.1.1/24",
    "FLANNEL_MTU": "1450",
    "FLANNEL_IPMASQ": "true",
}
ENV = SubnetEnv((parse_net("10.5.0.0/16"),), (parse_net("10.5.1.0/24"),), 1450, masquerades=True)


def text(**changes: str) -> str:
    return "".join(f"{key}={value}\n" for key, value in (LINES | changes).items())


def config_of(**members: Any) -> PluginConfig:
    return PluginConfig("net", "1.0.0", members, b"")


def parsed(**members: Any) -> tuple[FlannelConf, list[str]]:
    errors = ConfigErrors()
    return parse_flannel(config_of(**members), errors), errors.messages


def test_the_file_is_read_with_either_family_or_both() -> None:
    assert parse_subnet_env(text(), "file") == ENV
    assert not parse_subnet_env(text(FLANNEL_IPMASQ="false"), "file").masquerades
    dual = text(FLANNEL_IPV6_NETWORK="fd00:5::/56, fd00:6::/56", FLANNEL_IPV6_SUBNET="fd00:5:0:1::1/64")
    read = parse_subnet_env(dual, "file")
    assert [net.text for net in read.networks] == ["10.5.0.0/16", "fd00:5::/56", "fd00:6::/56"]
    assert [net.text for net in read.subnets] == ["10.5.1.0/24", "fd00:5:0:1::/64"]


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("", "file is missing FLANNEL_NETWORK, FLANNEL_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ"),
        (text(FLANNEL_MTU=""), "file is missing FLANNEL_MTU"),
        (text(FLANNEL_MTU="many"), "file: FLANNEL_MTU=many"),
        (text(FLANNEL_MTU="\u0664"), "file: FLANNEL_MTU="),
        (text(FLANNEL_SUBNET="10.5.1.1"), "file: FLANNEL_SUBNET: "),
    ],
)
def test_a_file_that_is_not_whole_is_an_error(content: str, error: str) -> None:
    with pytest.raises(ValueError, match="^" + error):
        parse_subnet_env(content, "file")


def test_the_defaults_are_flannels() -> None:
    assert parsed() == (FlannelConf("/run/flannel/subnet.env", "/var/lib/cni/flannel", {}, {}), [])


@pytest.mark.parametrize(
    ("delegate", "paths"),
    [
        ({"name": "x", "ipam": {}}, ["delegate.name", "delegate.ipam"]),
        ({"type": "../evil"}, ["delegate.type"]),
        ({"type": 5}, ["delegate.type"]),
    ],
)
def test_a_delegate_that_cannot_be_is_an_error(delegate: dict[str, Any], paths: list[str]) -> None:
    assert [message.partition(":")[0] for message in parsed(delegate=delegate)[1]] == paths


def test_the_delegates_configuration_has_the_references_defaults() -> None:
    conf, _ = parsed(ipam={"routes": [{"dst": "192.0.2.0/24"}], "dataDir": "/x"})
    assert render(config_of(runtimeConfig={"mac": "x"}), conf, ENV) == {
        "type": "bridge",
        "name": "net",
        "cniVersion": "1.0.0",
        "ipMasq": False,
        "mtu": 1450,
        "isGateway": True,
        "runtimeConfig": {"mac": "x"},
        "ipam": {
            "type": "host-local",
            "dataDir": "/x",
            "ranges": [[{"subnet": "10.5.1.0/24"}]],
            "routes": [{"dst": "192.0.2.0/24"}, {"dst": "10.5.0.0/16"}],
        },
    }


def test_a_delegate_keeps_its_own_words_and_another_plugin_is_no_gateway() -> None:
    conf, _ = parsed(delegate={"type": "ptp", "mtu": 1400, "ipMasq": True}, ipam={"routes": "none"})
    rendered = render(config_of(), conf, ENV)
    assert (rendered["type"], rendered["mtu"], rendered["ipMasq"]) == ("ptp", 1400, True)
    assert "isGateway" not in rendered
