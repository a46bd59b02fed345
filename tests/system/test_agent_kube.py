"""The Kubernetes store and a real API server: events, and what is written and repaired."""

from __future__ import annotations

import json

import pytest

from cni.agent.model.events import Changed, Configured, Held, Listed
from cni.protocol.address import parse_ip
from tests.machine import until
from tests.system.kube_server import Server, flannels, write
from tests.system.kube_store import NETWORK, ONE, against_kubernetes, lease_of, node_of, store_of

pytest_plugins = ("tests.system.kube_machine",)
pytestmark = pytest.mark.xdist_group("kubernetes")

DUAL = {**NETWORK, "EnableIPv6": True, "IPv6Network": "fd00:244::/56"}
IPV6 = {"EnableIPv4": False, "EnableIPv6": True, "IPv6Network": "fd00:244::/56", "Backend": {"Type": "vxlan"}}
ONE_IPV6 = "fd00:244:0:1::/64"


@against_kubernetes
def test_a_lease_is_the_pod_cidr_and_reported_before_the_others(server: Server) -> None:
    server.add("one", ONE)
    server.peer("two", 2)
    with store_of(node_of(1)) as recorder:
        assert recorder.wait_held() == lease_of(1)
        assert [type(news) for news in recorder.events] == [Configured, Held, Listed]
        assert recorder.leases == {"two": lease_of(2, name="two")}
    assert server.annotations("one") == flannels(1)


@against_kubernetes
def test_both_families_are_written_as_flannel_writes_them(server: Server) -> None:
    server.add("one", ONE, ONE_IPV6)
    with store_of(node_of(1, 4, 6), DUAL) as recorder:
        recorder.wait_held(ONE, ONE_IPV6)
    data = '{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}'
    assert server.annotations("one") == {**flannels(1), "backend-v6-data": data, "public-ipv6": "2001:db8:2::1"}


@against_kubernetes
def test_a_network_may_be_of_ipv6_alone(server: Server) -> None:
    server.add("one", ONE_IPV6)
    with store_of(node_of(1, 6), IPV6) as recorder:
        recorder.wait_held(ONE_IPV6)
    annotations = server.annotations("one")
    assert annotations.keys() == {"backend-type", "backend-v6-data", "public-ipv6", "kube-subnet-manager"}


@against_kubernetes
def test_what_is_written_already_is_not_written_again(server: Server) -> None:
    """As flannel left it, whose device had another MAC address: that is the one that other nodes know."""
    server.peer("one", 1, backend_data='{"VNI":1,"VtepMAC":"02:00:00:00:00:4d"}')
    before = server.node("one")["metadata"]["resourceVersion"]
    with store_of(node_of(1)) as recorder:
        assert recorder.wait_held() == lease_of(1, mac=77)
    assert server.node("one")["metadata"]["resourceVersion"] == before


@against_kubernetes
def test_a_pod_cidr_that_comes_late_is_waited_for(server: Server) -> None:
    server.add("one")
    with store_of(node_of(1)) as recorder:
        recorder.wait_error('node "one" has no pod CIDR yet')
        assert not recorder.of(Held)
        server.patch("one", {"spec": {"podCIDR": ONE, "podCIDRs": [ONE]}})
        recorder.wait_held(ONE)
        assert recorder.failure == ""


@against_kubernetes
def test_a_pod_cidr_has_to_be_of_the_network(server: Server) -> None:
    server.add("one", "10.9.1.0/24")
    with store_of(node_of(1)) as recorder:
        recorder.wait_error("10.9.1.0/24", '"one"', "10.244.0.0/16")
        assert not recorder.of(Held)
        write("net-conf.json", json.dumps({**NETWORK, "Network": "10.9.0.0/16"}))
        recorder.wait_held("10.9.1.0/24")


@against_kubernetes
def test_the_node_s_own_object_is_waited_for(server: Server) -> None:
    with store_of(node_of(1)) as recorder:
        recorder.wait_error('no node "one"')
        server.add("one", ONE)
        recorder.wait_held(ONE)


@against_kubernetes
def test_a_node_that_is_made_anew_has_its_new_pod_cidr_and_its_old_device(server: Server) -> None:
    server.peer("one", 1, backend_data='{"VNI":1,"VtepMAC":"02:00:00:00:00:4d"}')
    with store_of(node_of(1)) as recorder:
        recorder.wait_held(ONE)
        recorder.store.ready()
        until(lambda: server.condition("one"), "the node is available")
        server.delete("one")
        recorder.wait_error('no node "one"')
        assert recorder.held is not None
        assert recorder.held.lease == lease_of(1, mac=77)
        server.add("one", "10.244.9.0/24")
        lease = recorder.wait_held("10.244.9.0/24")
        assert lease.endpoints[0].vtep_mac == lease_of(1, mac=77).endpoints[0].vtep_mac
        server.wait_written("one", **{**flannels(1), "backend-data": '{"VNI":1,"VtepMAC":"02:00:00:00:00:4d"}'})
        until(lambda: server.condition("one"), "the new node is available")


@against_kubernetes
def test_a_node_made_anew_with_the_same_pod_cidr_is_written_to_and_no_news(server: Server) -> None:
    server.add("one", ONE)
    with store_of(node_of(1)) as recorder:
        recorder.wait_held(ONE)
        server.delete("one")
        server.add("one", ONE)
        server.wait_written("one", **flannels(1))
        assert len({news for news in recorder.events if isinstance(news, Held)}) == 1


@against_kubernetes
def test_annotations_that_somebody_removes_or_changes_are_mended(server: Server) -> None:
    server.add("one", ONE)
    with store_of(node_of(1)) as recorder:
        recorder.wait_held(ONE)
        for change in ({"kube_subnet_manager": None}, {"backend_data": "null", "public_ip": "192.0.2.99"}):
            server.annotate("one", **change)
            until(lambda: server.annotations("one") == flannels(1), "they are mended")
        assert len(recorder.of(Held)) == 1


@against_kubernetes
def test_other_nodes_come_change_and_go(server: Server) -> None:
    server.add("one", ONE)
    server.add("none-of-flannel", "10.244.8.0/24")
    with store_of(node_of(1)) as recorder:
        recorder.wait_held()
        server.peer("two", 2)
        server.peer("three", 3, backend_data="{")
        recorder.wait_leases("two", "three")
        assert recorder.leases["two"] == lease_of(2, name="two")
        assert "is not JSON" in str(recorder.leases["three"])
        server.annotate("two", backend_data='{"VNI":1,"VtepMAC":"02:00:00:00:00:07"}')
        until(lambda: recorder.leases.get("two") == lease_of(2, mac=7, name="two"), "the new MAC address is known")
        server.annotate("three", backend_data=flannels(3)["backend-data"])
        until(lambda: recorder.leases.get("three") == lease_of(3, name="three"), "it can be read now")
        server.annotate("two", kube_subnet_manager="false")
        recorder.wait_leases("three")
        server.delete("three")
        recorder.wait_leases()
        assert not any("one" in news.leases for news in recorder.events if isinstance(news, Changed))


@against_kubernetes
def test_signs_of_life_are_no_news(server: Server) -> None:
    server.add("one", ONE)
    server.peer("two", 2)
    with store_of(node_of(1)) as recorder:
        recorder.wait_held()
        before = len(recorder.events)
        for minute in range(10, 15):
            at = f"2026-01-01T00:{minute}:00Z"
            ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": at, "lastTransitionTime": at}
            for name in ("one", "two"):
                server.patch(name, {"status": {"conditions": [ready]}}, "/status")
                server.patch(name, {"metadata": {"labels": {"minute": str(minute)}}})
        server.annotate("two", public_ip="192.0.2.22")
        until(lambda: len(recorder.events) > before, "the one change is told")
        (news,) = recorder.events[before:]
        assert isinstance(news, Changed)
    assert server.annotations("one") == flannels(1)


@against_kubernetes
def test_kubernetes_is_notified_when_pods_can_be_attached(server: Server) -> None:
    server.add("one", ONE)
    with store_of(node_of(1)) as recorder:
        recorder.wait_held()
        assert server.condition("one") == {}
        recorder.store.ready()
        until(lambda: server.condition("one"), "the node is available")
    condition = server.condition("one")
    fields = {key: condition[key] for key in ("type", "status", "reason", "message")}
    message = "Flannel is running on this node"
    assert fields == {
        "type": "NetworkUnavailable", "status": "False", "reason": "FlannelIsUp", "message": message,
    }  # fmt: skip
    with store_of(node_of(1)) as recorder:
        recorder.wait_held()
        recorder.store.ready()
        server.annotate("one", public_ip="192.0.2.99")
        server.wait_written("one", public_ip="192.0.2.1")
    assert server.condition("one") == condition, "it was written again"


@against_kubernetes
def test_kubernetes_is_not_notified_where_the_user_does_not_want_it(server: Server) -> None:
    server.add("one", ONE)
    with store_of(node_of(1), set_network_condition=False) as recorder:
        recorder.wait_held()
        recorder.store.ready()
        server.annotate("one", public_ip="192.0.2.99")
        server.wait_written("one", public_ip="192.0.2.1")
    assert server.condition("one") == {}


@against_kubernetes
def test_the_network_is_what_the_file_says_at_last(server: Server) -> None:
    server.add("one", ONE)
    with store_of(node_of(1), network=None) as recorder:
        recorder.wait_error("net-conf.json", "No such file")
        write("net-conf.json", "{")
        recorder.wait_error("net-conf.json", "is not JSON")
        assert not recorder.of(Configured)
        write("net-conf.json", json.dumps(NETWORK))
        recorder.wait_held()
        write("net-conf.json", json.dumps({**NETWORK, "Network": "10.244.0.0/33"}))
        recorder.wait_error("net-conf.json", "Network")
        assert len(recorder.of(Configured)) == 1
        write("net-conf.json", json.dumps({**NETWORK, "Backend": {"Type": "vxlan", "VNI": 7}}))
        until(lambda: recorder.of(Configured)[1:], "the other network is told")
        recorder.store.register(node_of(1)._replace(vni=7))
        server.wait_written("one", **{"backend-data": '{"VNI":7,"VtepMAC":"02:00:00:00:00:01"}'})


@against_kubernetes
def test_a_node_s_annotations_choose_its_addresses_and_replace_what_is_published(server: Server) -> None:
    server.add("one", ONE)
    server.annotate("one", node_public_ip="192.0.2.5", public_ip_overwrite="198.51.100.7")
    with store_of(node_of(1)) as recorder:
        lease = recorder.wait_held()
        assert lease.endpoints[0].public_ip == parse_ip("192.0.2.1")
        assert recorder.configured is not None
        assert recorder.configured.public_ips == (parse_ip("192.0.2.5"),)
        server.wait_written("one", public_ip="198.51.100.7")
        server.annotate("one", public_ip_overwrite=None)
        server.wait_written("one", public_ip="192.0.2.1")
        server.annotate("one", node_public_ip="eth0")
        recorder.wait_error("flannel.alpha.coreos.com/node-public-ip", "'eth0'")
        server.annotate("one", node_public_ip=None)
        until(
            lambda: recorder.configured is not None and recorder.configured.public_ips == (),
            "nothing is wished any more",
        )
