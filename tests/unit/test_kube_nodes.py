"""Kubernetes nodes as leases: flannel's annotations read and written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.agent.model.lease import Endpoint, Lease, Node, NodeAddress
from cni.agent.model.network import parse_network_config
from cni.agent.stores.kube.nodes import (
    NodeNotUsable,
    OwnNode,
    annotation_prefix,
    annotations_of,
    known_lease,
    names_of,
    override_ips,
    own_node,
    own_subnets,
    peer,
)
from cni.agent.stores.kube.resource import is_older
from cni.protocol.address import parse_ip, parse_mac, parse_net

if TYPE_CHECKING:
    from cni.agent.model.network import NetworkConfig

PREFIX = "flannel.alpha.coreos.com/"
NAMES = names_of(PREFIX)
MAC, MAC6 = "0a:00:00:00:00:02", "0a:00:00:00:00:06"
DATA, DATA6 = f'{{"VNI":1,"VtepMAC":"{MAC}"}}', f'{{"VNI":1,"VtepMAC":"{MAC6}"}}'
VXLAN = {
    "backend-type": "vxlan",
    "backend-data": DATA,
    "public-ip": "192.0.2.2",
    "kube-subnet-manager": "true",
}
DUAL = {**VXLAN, "backend-v6-data": DATA6, "public-ipv6": "2001:db8::2"}
ENDPOINT = Endpoint(parse_net("10.5.2.0/24"), parse_ip("192.0.2.2"), parse_mac(MAC))
ENDPOINT6 = Endpoint(parse_net("fd00:5:0:2::/64"), parse_ip("2001:db8::2"), parse_mac(MAC6))
CIDRS = (ENDPOINT.subnet.text, ENDPOINT6.subnet.text)
BOTH = '{"Network": "10.5.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:5::/56", "Backend": {"Type": "vxlan"}}'


def node(annotations: dict[str, str], *cidrs: str, **spec: Any) -> dict[str, Any]:
    prefixed = {PREFIX + key: text for key, text in annotations.items()}
    return {"metadata": {"name": "two", "annotations": prefixed}, "spec": {"podCIDRs": list(cidrs), **spec}}


def own(annotations: dict[str, str] | None = None, *cidrs: str) -> OwnNode:
    return own_node(node(annotations or {}, *cidrs), NAMES)


def config(text: str = BOTH) -> NetworkConfig:
    return parse_network_config(text.encode(), "it")


def written(lease: Lease, annotations: dict[str, str] | None = None) -> dict[str, str]:
    return {key.removeprefix(PREFIX): text for key, text in annotations_of(lease, own(annotations), NAMES).items()}


@pytest.mark.parametrize(
    ("given", "whole"),
    [
        ("flannel.alpha.coreos.com", "flannel.alpha.coreos.com/"),
        ("flannel.alpha.coreos.com/", "flannel.alpha.coreos.com/"),
        ("flannel.alpha.coreos.com/prefix", "flannel.alpha.coreos.com/prefix-"),
        ("flannel.alpha.coreos.com/prefix-", "flannel.alpha.coreos.com/prefix-"),
        ("org9.com", "org9.com/"),
        ("org.com/9", "org.com/9-"),
    ],
)
def test_a_prefix_is_completed_as_flannel_does_it(given: str, whole: str) -> None:
    assert annotation_prefix(given) == whole


@pytest.mark.parametrize(
    "prefix", ["org", "org/", "org/prefix", "org.COM", "org.com/PREFIX", "org.com/a/b", "", "/a", "a..b", "org.com/-"]
)
def test_a_prefix_that_no_annotation_can_have_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="lower case"):
        annotation_prefix(prefix)


def test_a_prefix_with_more_behind_its_slash_is_part_of_all_names() -> None:
    names = names_of("example.com/a-")
    assert (names.managed, names.backend) == ("example.com/a-kube-subnet-manager", "example.com/a-backend-type")
    assert tuple(names.ipv6) == (
        "example.com/a-backend-v6-data",
        "example.com/a-public-ipv6",
        "example.com/a-public-ipv6-overwrite",
        "example.com/a-node-public-ipv6",
    )


def test_what_is_published_with_vxlan_is_of_the_families_that_there_are() -> None:
    assert written(Lease((ENDPOINT,), "vxlan", 1)) == VXLAN
    assert written(Lease((ENDPOINT, ENDPOINT6), "vxlan", 1)) == DUAL
    assert written(Lease((ENDPOINT6,), "vxlan", 1)) == {
        "backend-type": "vxlan",
        "backend-v6-data": DATA6,
        "public-ipv6": "2001:db8::2",
        "kube-subnet-manager": "true",
    }


@pytest.mark.parametrize(
    ("status", "lives"),
    [
        ({}, True),
        ({"conditions": None}, True),
        ({"conditions": [{"type": "Ready", "status": "True"}]}, True),
        ({"conditions": [{"type": "DiskPressure", "status": "False"}]}, True),
        ({"conditions": [{"type": "Ready", "status": "False"}]}, False),
        ({"conditions": [{"type": "DiskPressure", "status": "False"}, {"type": "Ready", "status": "Unknown"}]}, False),
    ],
)
def test_a_node_that_is_not_ready_does_not_live(status: dict[str, Any], lives: bool) -> None:
    lease = peer({**node(VXLAN, CIDRS[0]), "status": status}, NAMES)
    assert isinstance(lease, Lease)
    assert lease.lives == lives


def test_of_two_nodes_it_is_known_which_is_newer() -> None:
    created = []
    for time in ("2026-01-31T23:59:59Z", "2026-02-01T00:00:00Z", "2026-10-01T00:00:00Z", None):
        item = node(VXLAN, CIDRS[0])
        item["metadata"]["creationTimestamp"] = time
        lease = peer(item, NAMES)
        assert isinstance(lease, Lease)
        created.append(lease.created)
    assert created == [*sorted(created[:3]), 0]
    assert len(set(created)) == 4


def test_with_host_gw_there_is_no_data_and_always_an_ipv4_address() -> None:
    endpoint, way6 = ENDPOINT._replace(vtep_mac=None), ENDPOINT6._replace(vtep_mac=None)
    ipv4 = {"backend-type": "host-gw", "backend-data": "null", "public-ip": "192.0.2.2", "kube-subnet-manager": "true"}
    ipv6 = {"backend-v6-data": "null", "public-ipv6": "2001:db8::2"}
    assert written(Lease((endpoint,), "host-gw")) == ipv4
    assert written(Lease((endpoint, way6), "host-gw")) == ipv4 | ipv6
    assert written(Lease((way6,), "host-gw")) == {**ipv4, **ipv6, "public-ip": "0.0.0.0"}


def test_a_replaced_address_is_published_as_it_is() -> None:
    annotations = {"public-ip-overwrite": "nat.example", "public-ipv6-overwrite": ""}
    assert written(Lease((ENDPOINT, ENDPOINT6), "vxlan", 1), annotations) == {**DUAL, "public-ip": "nat.example"}


def test_what_was_published_is_read_as_the_same_lease() -> None:
    for endpoints in ((ENDPOINT,), (ENDPOINT6,), (ENDPOINT, ENDPOINT6)):
        for lease in (
            Lease(endpoints, "vxlan", 7),
            Lease(tuple([endpoint._replace(vtep_mac=None) for endpoint in endpoints]), "host-gw"),
        ):
            assert peer(node(written(lease), *CIDRS), NAMES) == lease._replace(name="two")


@pytest.mark.parametrize("mark", ["", "false", "True", None])
def test_a_node_without_the_mark_is_none_of_flannel_s(mark: str | None) -> None:
    annotations = {key: text for key, text in VXLAN.items() if key != "kube-subnet-manager"}
    assert (
        peer(node(annotations if mark is None else {**annotations, "kube-subnet-manager": mark}, *CIDRS), NAMES) is None
    )


def test_a_node_without_annotations_is_none_of_flannel_s() -> None:
    assert peer({"metadata": {"name": "two"}, "spec": {}}, NAMES) is None


def test_the_first_pod_cidr_of_each_family_counts_and_of_old_nodes_the_only_one() -> None:
    lease = Lease((ENDPOINT, ENDPOINT6), "vxlan", 1, name="two")
    assert peer(node(DUAL, CIDRS[1], CIDRS[0], "10.5.9.0/24", "fd00:5:0:9::/64"), NAMES) == lease
    assert peer(node(VXLAN, podCIDR=CIDRS[0]), NAMES) == Lease((ENDPOINT,), "vxlan", 1, name="two")
    assert peer(node(VXLAN, "10.5.2.7/24"), NAMES) == Lease((ENDPOINT,), "vxlan", 1, name="two")


def test_a_node_is_reached_by_the_families_of_which_it_has_all() -> None:
    """A network of both may have nodes of one, and a node may have been in a network of both."""
    assert peer(node(VXLAN, *CIDRS), NAMES) == Lease((ENDPOINT,), "vxlan", 1, name="two")
    assert peer(node(DUAL, CIDRS[0]), NAMES) == Lease((ENDPOINT,), "vxlan", 1, name="two")
    assert peer(node({**DUAL, "public-ip": "0.0.0.0"}, *CIDRS), NAMES) == Lease((ENDPOINT6,), "vxlan", 1, name="two")


def test_data_are_read_in_any_case_and_of_any_network() -> None:
    annotations = {**VXLAN, "backend-data": f'{{"vni": 42, "VTEPMAC": "{MAC.upper()}", "more": {{}}}}'}
    assert peer(node(annotations, CIDRS[0]), NAMES) == Lease((ENDPOINT,), "vxlan", 42, name="two")


@pytest.mark.parametrize(
    ("changed", "cidrs", "error"),
    [
        ({"public-ip": ""}, CIDRS, "it has no flannel.alpha.coreos.com/public-ip"),
        ({}, (), "it has no pod CIDR yet"),
        ({}, ("10.5.2.0",), "'10.5.2.0' has no prefix length"),
        ({"public-ip": "two"}, CIDRS, "'two' is not an IP address"),
        ({"public-ip": "2001:db8::2"}, CIDRS, "public-ip: '2001:db8::2' is not an IPv4 address"),
        ({"backend-data": "{"}, CIDRS, "its VTEP is not JSON"),
        ({"backend-data": "[]"}, CIDRS, "its VTEP is not a JSON object"),
        ({"backend-data": "null"}, CIDRS, "backend-data: VtepMAC is missing"),
        ({"backend-data": "{}"}, CIDRS, "backend-data: VtepMAC is missing"),
        ({"backend-data": '{"VtepMAC":"no"}'}, CIDRS, "VtepMAC: 'no' is not a MAC address"),
        ({"backend-data": '{"VNI":"1","VtepMAC":"no"}'}, CIDRS, "VNI: expected an integer"),
    ],
)
def test_what_is_wrong_with_a_node_is_reported(changed: dict[str, str], cidrs: tuple[str, ...], error: str) -> None:
    lease = peer(node({**VXLAN, **changed}, *cidrs), NAMES)
    assert isinstance(lease, str)
    assert error in lease


def test_a_fault_is_reported_in_short() -> None:
    assert len(str(peer(node({**VXLAN, "public-ip": "x" * 100_000}, *CIDRS), NAMES))) <= 200


def test_the_own_subnets_are_of_the_network_s_families() -> None:
    assert own_subnets(own({}, *CIDRS), "one", config()) == (ENDPOINT.subnet, ENDPOINT6.subnet)
    only = '{"Network": "10.5.2.0/24", "Backend": {"Type": "vxlan"}}'
    assert own_subnets(own({}, *CIDRS), "one", config(only)) == (ENDPOINT.subnet,)


@pytest.mark.parametrize(
    ("cidrs", "error"),
    [
        ((), 'node "one" has no pod CIDR yet'),
        (CIDRS[:1], 'node "one" has no IPv6 pod CIDR, only 10.5.2.0/24'),
        (CIDRS[1:], 'node "one" has no IPv4 pod CIDR'),
        (("10.6.2.0/24", CIDRS[1]), '10.6.2.0/24 of node "one" is not in the network 10.5.0.0/16'),
        (("10.0.0.0/8", CIDRS[1]), '10.0.0.0/8 of node "one" is not in the network'),
        (("x", CIDRS[1]), "pod CIDR of node \"one\": 'x'"),
    ],
)
def test_what_keeps_the_own_node_from_a_lease_is_reported(cidrs: tuple[str, ...], error: str) -> None:
    with pytest.raises(NodeNotUsable, match=error.replace("(", ".")):
        own_subnets(own({}, *cidrs), "one", config())


def test_the_device_that_others_know_is_known_whatever_else_is_said() -> None:
    """As after somebody has removed the other annotations."""
    presented = Node(
        "vxlan",
        1,
        (NodeAddress(ENDPOINT.public_ip, b"\2\0\0\0\0\1"), NodeAddress(ENDPOINT6.public_ip, b"\2\0\0\0\0\1")),
    )
    subnets = (ENDPOINT.subnet, ENDPOINT6.subnet)
    left = {"backend-type": "vxlan", "backend-data": DATA, "backend-v6-data": "{"}
    known = known_lease(own(left), presented, subnets, NAMES)
    assert [endpoint.vtep_mac for endpoint in presented.lease(subnets, known).endpoints] == [
        parse_mac(MAC),
        b"\2\0\0\0\0\1",
    ]
    other = known_lease(own({**left, "backend-type": "host-gw"}), presented, subnets, NAMES)
    assert presented.lease(subnets, other) == presented.lease(subnets)


def test_addresses_that_are_wished_for_are_reported_by_family() -> None:
    annotations = {"node-public-ip": "192.0.2.7", "node-public-ipv6": "2001:db8::7"}
    assert override_ips(own(annotations), NAMES) == (parse_ip("192.0.2.7"), parse_ip("2001:db8::7"))
    assert override_ips(own({**annotations, "node-public-ip": ""}), NAMES) == (parse_ip("2001:db8::7"),)
    assert override_ips(own(VXLAN), NAMES) == ()


@pytest.mark.parametrize("text", ["eth0", "2001:db8::7"])
def test_a_wish_that_is_no_address_of_its_family_is_refused(text: str) -> None:
    with pytest.raises(NodeNotUsable, match=r"annotation .*/node-public-ip: "):
        override_ips(own({"node-public-ip": text}), NAMES)


def test_signs_of_life_change_nothing_that_matters() -> None:
    first, later = node(VXLAN, *CIDRS), node(VXLAN, *CIDRS)
    later["metadata"]["resourceVersion"] = "2"
    later["metadata"]["annotations"]["other"] = "x"
    later["status"] = {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "now"}]}
    assert own_node(later, NAMES).says_as(own_node(first, NAMES))
    assert not own_node(node({**VXLAN, "public-ip": ""}, *CIDRS), NAMES).says_as(own_node(first, NAMES))
    assert not own_node(first, NAMES).says_as(None)


@pytest.mark.parametrize(
    ("condition", "available"),
    [
        ({"status": "False", "reason": "FlannelIsUp", "message": "Flannel is running on this node"}, True),
        ({"status": "True", "reason": "FlannelIsUp", "message": "Flannel is running on this node"}, False),
        ({"status": "False", "reason": "RouteCreated", "message": "other"}, False),
    ],
)
def test_the_node_is_available_where_just_that_is_said(condition: dict[str, str], available: bool) -> None:
    item = node({}, *CIDRS)
    item["status"] = {"conditions": [{"type": "Ready"}, {"type": "NetworkUnavailable", "extra": 1, **condition}]}
    assert own_node(item, NAMES).available is available


@pytest.mark.parametrize(
    ("revision", "than", "older"), [("9", "10", True), ("10", "9", False), ("9", "9", False), ("a", "b", False)]
)
def test_revisions_are_compared_as_numbers(revision: str, than: str, older: bool) -> None:
    assert is_older(revision, than) is older


def test_a_node_made_anew_is_not_an_earlier_one() -> None:
    before = own()._replace(uid="a", revision="9")
    assert own()._replace(uid="a", revision="7").is_before(before)
    assert not own()._replace(uid="b", revision="7").is_before(before)


def test_the_addresses_of_a_nodes_kubelet_are_those_by_which_its_packets_may_come() -> None:
    """A node whose public address is translated speaks with its own to those beside it."""
    item = node(VXLAN | {"public-ip": "203.0.113.5"}, "10.5.2.0/24")
    listed = [("InternalIP", "192.0.2.5"), ("Hostname", "two"), ("ExternalIP", "2001:db8::5"), ("InternalIP", "two")]
    item["status"] = {"addresses": [{"type": kind, "address": text} for kind, text in listed]}
    lease = peer(item, NAMES)
    assert isinstance(lease, Lease)
    assert lease.sources == (parse_ip("192.0.2.5"), parse_ip("2001:db8::5"))
    del item["status"]
    assert peer(item, NAMES) == lease._replace(sources=())
