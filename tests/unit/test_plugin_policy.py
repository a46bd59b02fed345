"""NetworkPolicy in the plugin: records of pods, and what ADD plans where podwired enforces policies."""

from __future__ import annotations

import pytest

from cni.plan.alias import Alias, parse_alias
from cni.plan.attachment import Attachment, Facts, names_of
from cni.plan.plan import plan_attachment
from cni.plan.policy import PodRecord, map_name, parse_record, pending_chain, record_of
from cni.protocol.address import parse_net
from cni.protocol.owner import Owner
from cni.protocol.result import IPConfig, Result
from tests.unit.test_netconf import conf_of

OWNER = Owner("net", "c1", "eth0")
POD = {"K8S_POD_NAMESPACE": "shop", "K8S_POD_NAME": "db", "K8S_POD_UID": "1"}


def described(wait: int, *addresses: str, policies: bool = True, bridged: bool = True) -> list[str]:
    members = {"policyWait": wait, "ipam": {"type": "host-local"}} | ({} if bridged else {"mode": "routed"})
    conf, errors = conf_of(members)
    assert errors == []
    lease = Result(ips=tuple([IPConfig(parse_net(address), parse_net(address).ip) for address in addresses]))
    facts = Facts("", None, ipv6=False, pod=record_of(OWNER, POD) if policies else None)
    attachment = Attachment(OWNER, "/run/netns/c1", conf, facts, names_of(OWNER, None, lease), lease)
    return [operation.describe() for operation in plan_attachment(attachment).operations]


@pytest.mark.parametrize("bridged", [True, False])
def test_an_address_is_pending_before_anything_else_and_its_class_is_awaited_last(bridged: bool) -> None:
    texts = described(3, "10.1.0.7/24", bridged=bridged)
    into = "add element inet podwire-policy"
    assert texts[0] == (
        f"nft '{into} ingress4 {{ 10.1.0.7 : goto pending-in }}; {into} egress4 {{ 10.1.0.7 : goto pending-out }}'"
    )
    assert texts[-1] == "wait up to 3 s until 10.1.0.7 are no longer pending"
    assert described(0, "10.1.0.7/24", bridged=bridged) == texts[:-1]
    assert described(3, "10.1.0.7/24", policies=False, bridged=bridged) == texts[1:-1]


def test_a_container_without_addresses_has_nothing_to_be_judged() -> None:
    assert described(2) == described(2, policies=False)


def test_a_record_names_the_pod_or_the_container() -> None:
    record = record_of(OWNER, POD)
    assert record == PodRecord(OWNER.label, "shop", "db")
    assert parse_record(record.data) == record
    nameless = record_of(OWNER, {"K8S_POD_NAMESPACE": "shop"})
    assert (nameless.namespace, nameless.name) == ("", "c1")
    assert parse_record(nameless.data) == nameless


@pytest.mark.parametrize("data", [b"", b"podwire a b c", b"a\nb", b"a\nb\nc\nd"])
def test_a_record_that_was_not_written_to_its_end_is_none(data: bytes) -> None:
    assert parse_record(data) is None


def test_the_alias_tells_del_of_the_records() -> None:
    alias = Alias(OWNER.label, addresses=(parse_net("10.1.0.7/24"),), recorded=True)
    assert alias.text == f"{OWNER.label}; recorded; addresses 10.1.0.7/24"
    assert parse_alias(alias.text) == alias
    assert not parse_alias(OWNER.label).recorded


def test_the_names_of_the_table_are_podwireds() -> None:
    assert [map_name(suffix, family) for suffix in ("in", "out") for family in (4, 6)] == [
        "ingress4", "ingress6", "egress4", "egress6",
    ]  # fmt: skip
    assert pending_chain("in") == "pending-in"


@pytest.mark.parametrize(("wait", "expected"), [(0, 0), (60, 60), (None, 2)])
def test_the_wait_is_configured_in_seconds(wait: int | None, expected: int) -> None:
    conf, errors = conf_of({"policyWait": wait})
    assert (conf.policy_wait, errors) == (expected, [])


def test_a_wait_without_end_is_refused_and_drop_ins_have_no_such_key() -> None:
    assert conf_of({"policyWait": 61})[1] == ["policyWait: 61 is not between 0 and 60"]
    assert conf_of({"policyWait": 0}, program="bridge")[0].policy_wait == 2
