"""One plan for ADD and CHECK: prepared from the lease or the result, without a change to the host."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from cni.plugins.bridge import prepare, validate
from cni.plugins.context import Call
from cni.protocol.address import parse_ip, parse_net
from cni.protocol.jsontext import dump
from cni.protocol.plugin_config import parse_plugin_config
from cni.protocol.request import parse_request
from cni.protocol.result import Interface, IPConfig, Result, result_json
from tests.calls import ENVIRONMENT, NETWORK

if TYPE_CHECKING:
    from cni.effects.host import Host
    from cni.plan.plan import Plan

IPAM: dict[str, Any] = {"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/24"}]]}}
LEASE = Result(ips=(IPConfig(parse_net("10.1.2.3/24"), parse_ip("10.1.2.1")),))


class Links:
    """A host that has no link; any other question than that for a link fails."""

    def find(self, name: str) -> None:
        """There is none."""


def prepared(command: str, lease: Result, members: dict[str, Any], program: str = "bridge") -> Plan:
    config = parse_plugin_config(dump({**NETWORK, **IPAM, **members}).encode(), command)
    request = parse_request({**ENVIRONMENT, "CNI_COMMAND": command})
    host = cast("Host", SimpleNamespace(rtnl=Links(), pod_records="/nowhere"))
    call = Call(program, request, config, host, str, print, print)
    conf, _, _ = validate(call)
    return prepare(call, conf, lease)


@pytest.mark.parametrize(
    ("program", "members"),
    [
        ("podwire", {"isDefaultGateway": True, "ipMasq": True, "mtu": 1400}),
        ("podwire", {"mode": "routed"}),
        ("bridge", {"vlan": 7, "hairpinMode": True}),
        ("bridge", {"macspoofchk": True}),
        ("bridge", {"ipSpoofCheck": True}),
        ("ptp", {"ipSpoofCheck": True}),
        ("ptp", {"ipMasq": True}),
    ],
)
def test_check_compares_the_plan_that_add_applies(program: str, members: dict[str, Any]) -> None:
    applied = prepared("ADD", LEASE, members, program)
    mtu = members.get("mtu", 1500)
    result = applied.result._replace(interfaces=tuple([each.with_mtu(mtu) for each in applied.result.interfaces]))
    document: Any = result_json(result, "1.1.0")
    compared = prepared("CHECK", result, {**members, "prevResult": document}, program)
    names = {type(op).__name__ for op in applied.operations}
    assert {"Veth", "ContainerAddress"} <= names
    assert [op.describe() for op in compared.operations] == [op.describe() for op in applied.operations]


def test_check_leaves_out_the_rules_of_an_attachment_that_another_plugin_made() -> None:
    members = {"ipMasq": True, "macspoofchk": True, "ipSpoofCheck": True}
    bridge, _, inside = prepared("ADD", LEASE, members).result.interfaces
    compared = prepared("CHECK", LEASE._replace(interfaces=(bridge, Interface("veth0", ""), inside)), members)
    names = {type(op).__name__ for op in compared.operations}
    assert "Veth" in names
    assert names & {"Masquerade", "SpoofGuard", "SourceGuard", "Accept"} == set()
