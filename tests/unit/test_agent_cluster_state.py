"""Tests the cluster's state as store events change it."""

from __future__ import annotations

from cni.agent.model.cluster_state import ClusterState
from cni.agent.model.events import Changed, Configured, Failed, Held, Listed, Recovered
from cni.agent.model.lease import Endpoint, Lease, Node, NodeAddress, node_of
from cni.agent.model.leaseformat import derived_mac
from cni.agent.model.network import parse_network_config
from cni.protocol.address import parse_ip, parse_mac, parse_net

CONFIG = parse_network_config(b'{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}', "it")


def lease(number: int, *, mac: int | None = None) -> Lease:
    octet = number if mac is None else mac
    endpoint = Endpoint(
        parse_net(f"10.5.{number}.0/24"), parse_ip(f"192.0.2.{number}"), parse_mac(f"0a:00:00:00:00:{octet:02x}")
    )
    return Lease((endpoint,), "vxlan", 1)


OWN, TWO, THREE = lease(1), lease(2), lease(3)
NODE = Node("vxlan", 1, (NodeAddress(parse_ip("192.0.2.1"), OWN.endpoints[0].vtep_mac),))


def known(*leases: Lease) -> ClusterState:
    """One that has told all of it, and has its peers."""
    state = ClusterState()
    for news in (Configured(CONFIG), Held(OWN, 100.0), Listed({lease.key: lease for lease in leases})):
        assert state.handle(news)
    assert state.resolve_peers(CONFIG, OWN, ()) is not None
    return state


def test_only_what_is_new_concerns_more_than_single_peers() -> None:
    state = known(TWO)
    assert not state.handle(Configured(CONFIG))
    assert not state.handle(Held(OWN, 200.0))
    assert state.held == Held(OWN, 200.0)
    assert not state.handle(Failed("down"))
    assert not state.handle(Changed({THREE.key: THREE}))
    assert state.handle(Configured(CONFIG, (parse_ip("192.0.2.9"),)))
    assert state.handle(Held(lease(1, mac=9)))
    assert state.handle(Listed({TWO.key: TWO}))


def test_an_error_of_the_store_stands_until_it_has_recovered() -> None:
    state = known(TWO)
    state.handle(Failed("down"))
    for event in (Configured(CONFIG), Held(OWN, 200.0), Listed({TWO.key: TWO}), Changed({THREE.key: THREE})):
        state.handle(event)
        assert state.failure == "down"
    state.handle(Recovered())
    assert state.failure == ""


def test_a_change_is_reported_with_what_was_served_before() -> None:
    state = known(TWO)
    assert not state.has_changes
    state.handle(Changed({TWO.key: lease(2, mac=22), THREE.key: THREE}))
    assert state.has_changes
    before, peers = state.take_changes()
    assert before == {TWO.key: TWO, THREE.key: None}
    assert peers is not None
    assert peers.served == {TWO.key: lease(2, mac=22), THREE.key: THREE}
    assert not state.has_changes
    assert state.take_changes() == ({}, peers)


def test_of_several_changes_the_first_before_counts() -> None:
    state = known(TWO)
    for news in (lease(2, mac=22), None, "cannot be read", lease(2, mac=23)):
        state.handle(Changed({TWO.key: news}))
    assert state.take_changes()[0] == {TWO.key: TWO}


def test_who_is_served_in_the_place_of_another_is_reported_too() -> None:
    same = Lease((THREE.endpoints[0]._replace(vtep_mac=TWO.endpoints[0].vtep_mac),), "vxlan", 1)
    state = known(TWO, same)
    state.handle(Changed({TWO.key: None}))
    before, peers = state.take_changes()
    assert before == {TWO.key: TWO, same.key: None}
    assert peers is not None
    assert peers.served == {same.key: same}


def test_changes_before_all_is_listed_mean_nothing() -> None:
    state = ClusterState()
    assert not state.handle(Changed({TWO.key: TWO}))
    assert state.resolve_peers(CONFIG, OWN, ()) is None
    assert state.take_changes() == ({}, None)
    state.handle(Listed({THREE.key: THREE}))
    peers = state.resolve_peers(CONFIG, OWN, ())
    assert peers is not None
    assert peers.served == {THREE.key: THREE}


def test_changes_while_nobody_asked_for_peers_are_kept() -> None:
    state = ClusterState()
    state.handle(Listed({TWO.key: TWO}))
    state.handle(Changed({THREE.key: THREE, TWO.key: None}))
    assert not state.has_changes
    peers = state.resolve_peers(CONFIG, OWN, ())
    assert peers is not None
    assert peers.served == {THREE.key: THREE}


def test_what_is_listed_takes_the_place_of_all_before() -> None:
    state = known(TWO)
    state.handle(Changed({TWO.key: None}))
    state.handle(Listed({THREE.key: THREE}))
    peers = state.resolve_peers(CONFIG, OWN, ())
    assert peers is not None
    assert peers.served == {THREE.key: THREE}
    assert not state.has_changes


def test_what_is_listed_stays_the_tellers() -> None:
    leases: dict[str, Lease | str] = {TWO.key: TWO}
    state = ClusterState()
    state.handle(Listed(leases))
    state.handle(Changed({THREE.key: THREE}))
    assert leases == {TWO.key: TWO}


def test_peers_are_kept_until_more_than_one_of_them_changes() -> None:
    state = known(TWO)
    peers = state.resolve_peers(CONFIG, OWN, ())
    state.handle(Changed({THREE.key: THREE}))
    state.handle(Held(OWN, 300.0))
    assert state.resolve_peers(CONFIG, OWN, ()) is peers
    state.handle(Held(lease(1, mac=9)))
    resolved = state.resolve_peers(CONFIG, lease(1, mac=9), ())
    assert resolved is not peers
    assert state.peers is resolved
    assert ClusterState().peers is None


def test_the_own_lease_counts_where_it_is_of_the_nodes_network() -> None:
    state = known()
    assert state.lease_of(CONFIG, NODE) == OWN
    assert state.lease_of(CONFIG, NODE._replace(addresses=(NodeAddress(parse_ip("192.0.2.99")),))) == OWN
    assert state.lease_of(CONFIG, NODE._replace(vni=2)) is None
    assert state.lease_of(CONFIG, Node("host-gw", 0, (NodeAddress(parse_ip("192.0.2.1")),))) is None
    assert state.lease_of(CONFIG, NODE._replace(addresses=(*NODE.addresses, NodeAddress(parse_ip("fd00::1"))))) is None
    assert ClusterState().lease_of(CONFIG, NODE) is None


def test_a_held_lease_of_another_network_is_not_the_nodes_own() -> None:
    state = known()
    assert state.lease_of(CONFIG, NODE) == OWN
    other = parse_network_config(b'{"Network": "10.6.0.0/16", "Backend": {"Type": "vxlan"}}', "it")
    assert state.lease_of(other, NODE) is None
    assert state.lease_of(CONFIG, NODE._replace(vni=2)) is None
    assert ClusterState().lease_of(CONFIG, NODE) is None


def test_a_nodes_part_of_its_lease_has_a_vtep_with_vxlan_alone() -> None:
    ip = parse_ip("192.0.2.1")
    address = NodeAddress(ip, derived_mac(ip, 1))
    assert node_of(CONFIG.backend, [ip]) == Node("vxlan", 1, (address,))
    host_gw = parse_network_config(b'{"Network": "10.5.0.0/16", "Backend": {"Type": "host-gw"}}', "it")
    assert node_of(host_gw.backend, [ip]) == Node("host-gw", 0, (NodeAddress(ip),))


def test_a_node_knows_the_macs_of_its_vteps() -> None:
    assert NODE.macs == (OWN.endpoints[0].vtep_mac,)
