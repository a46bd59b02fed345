"""The own lease in a real etcd: how it is found, taken and kept."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from cni.agent.model.events import Changed, Configured, Held, Listed
from cni.agent.model.lease import lease_value
from cni.agent.stores.etcd.lease import Times
from cni.agent.stores.etcd.messages import delete, put
from cni.protocol.address import parse_net
from tests.machine import Machine, missing, until
from tests.system.agent_etcd import (
    DUAL,
    IPV6_ALONE,
    NETWORK,
    PREFIX,
    Etcd,
    against_etcd,
    lease_of,
    nets,
    node_of,
    node_of_ipv6,
    rival,
    store_of,
)

PEERS = Path(__file__).parents[2] / "hack/peers"


@against_etcd
def test_a_lease_is_written_as_flannel_writes_it_and_reported_before_the_list(server: Etcd) -> None:
    server.configure(NETWORK)
    with store_of(node_of(1)) as recorder:
        own = recorder.wait_held()
        assert [type(news) for news in recorder.events[:3]] == [Configured, Held, Listed]
    key, subnet = own.key, own.subnets[0]
    assert (subnet.prefix, subnet.network) == (24, subnet)
    data = '"BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}'
    value = f'{{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan",{data}}}'
    assert server.leases() == {key: value.encode()}
    left = int(server.call("lease/timetolive", {"ID": str(server.entries()[key].lease)})["TTL"])
    assert 86300 < left <= 86400


@against_etcd
def test_the_changes_of_a_transaction_are_reported_together(server: Etcd) -> None:
    server.configure(NETWORK)
    gone = rival(server, 2, "10.5.2.0/24")
    with store_of(node_of(1)) as recorder:
        own = recorder.wait_held().key
        three, four = (lease_of(number, f"10.5.{number}.0/24") for number in (3, 4))
        folder = f"{PREFIX}/subnets/".encode()
        changes = [put(folder + lease.key.encode(), lease_value(lease)) for lease in (three, four)]
        server.call("kv/txn", {"success": [*changes, delete(folder + gone.encode())]})
        recorder.wait_leases(own, three.key, four.key)
        (news,) = (news for news in recorder.of(Changed) if isinstance(news, Changed) and own not in news.leases)
    assert news.leases.keys() == {three.key, four.key, gone}
    assert news.leases[gone] is None


@against_etcd
def test_nodes_of_ipv6_alone_share_a_network(server: Etcd) -> None:
    server.configure(IPV6_ALONE)
    with store_of(node_of_ipv6(1)) as first, store_of(node_of_ipv6(2)) as second:
        leases = {held.key: held for held in (first.wait_held(), second.wait_held())}
        assert len(leases) == 2
        until(lambda: first.leases == second.leases == leases, "each knows both")
        for key, lease in leases.items():
            subnet = lease.subnets[0]
            assert key == f"{subnet.ip.text}-64"
            assert parse_net("fd00:5::/56").contains(subnet.ip)
        kept = first.wait_held()
        data = '"BackendV6Data":{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}'
        value = f'{{"PublicIP":"0.0.0.0","PublicIPv6":"2001:db8::1","BackendType":"vxlan",{data}}}'
        assert server.leases()[kept.key] == value.encode()
    with store_of(node_of_ipv6(1)) as again:
        assert again.wait_held() == kept


@against_etcd
def test_the_node_s_address_chooses_the_subnet(server: Etcd) -> None:
    server.configure(NETWORK)
    chosen = []
    for _ in range(2):
        with store_of(node_of(1)) as recorder:
            chosen.append(recorder.wait_held().key)
            server.delete(f"subnets/{chosen[-1]}")
            recorder.store.close()
        server.delete(f"subnets/{chosen[-1]}")
    assert chosen[0] == chosen[1]


@against_etcd
def test_a_lease_of_this_node_is_used_as_it_is(server: Etcd) -> None:
    """Even one of flannel, whose device had another MAC address; nothing is written."""
    server.configure(NETWORK)
    written = node_of(1, mac=77).lease([parse_net("10.5.52.0/24")])
    server.put(f"subnets/{written.key}", lease_value(written), server.grant(80000))
    before = server.revision
    with store_of(node_of(1), "10.5.9.1/24") as recorder:
        assert recorder.wait_held() == written
    assert (server.revision, server.etcd_leases()) == (before, 1)


@against_etcd
def test_a_lease_that_ends_soon_is_renewed_and_again_later(server: Etcd) -> None:
    server.configure(NETWORK)
    written = lease_of(1, "10.5.52.0/24")
    server.put(f"subnets/{written.key}", lease_value(written), server.grant(5))
    first = server.entries()[written.key]
    with store_of(node_of(1), times=Times(lease=6, margin=5)) as recorder:
        recorder.wait_held()
        until(lambda: len(recorder.of(Held)) >= 3, "the lease is renewed")
        now = server.entries()[written.key]
        expiries = [event.expires for event in recorder.events if isinstance(event, Held) and event.expires is not None]
    assert expiries == sorted(expiries)
    assert (now.value, now.created) == (first.value, first.created)
    assert now.lease != first.lease


@against_etcd
def test_what_is_reserved_stays_reserved(server: Etcd) -> None:
    server.configure(NETWORK)
    written = lease_of(1, "10.5.52.0/24")
    server.put(f"subnets/{written.key}", lease_value(written).replace(b'"VNI":1', b'"VNI":7'))
    rival(server, 1, "10.5.8.0/24", lease=server.grant(80000))
    with store_of(node_of(1)) as recorder:
        recorder.wait_held(written.key)
        assert recorder.held is not None
        assert recorder.held.expires is None
    assert {name: (entry.value, entry.lease) for name, entry in server.entries().items()} == {
        written.key: (lease_value(written), 0)
    }


@against_etcd
def test_the_subnets_of_before_are_wished_for(server: Etcd) -> None:
    server.configure(DUAL)
    rival(server, 2, "10.5.9.0/24", "fd00:5:0:4::/64")
    with store_of(node_of(1, dual=True), "10.5.7.1/24", "fd00:5:0:4::1/64") as recorder:
        ipv4, ipv6 = recorder.wait_held().subnets
    assert ipv4 == parse_net("10.5.7.0/24")
    assert ipv6 not in (parse_net("fd00:5:0:4::/64"), parse_net("fd00:5::/64"))


@against_etcd
def test_a_lease_that_no_longer_fits_makes_room_for_one_that_does(server: Etcd) -> None:
    """The network has two families now: the IPv4 subnet stays, the key changes."""
    server.configure(DUAL)
    rival(server, 1, "10.5.52.0/24")
    rival(server, 1, "10.99.1.0/24")
    with store_of(node_of(1, dual=True)) as recorder:
        own = recorder.wait_held()
        assert set(server.leases()) == set(recorder.leases) == {own.key}
    assert own.key.startswith("10.5.52.0-24&fd00:5:")


@against_etcd
def test_a_network_that_loses_ipv6_leaves_each_node_its_ipv4_subnet_and_no_lease_of_before(server: Etcd) -> None:
    server.configure(DUAL)
    other = rival(server, 2, "10.5.9.0/24", "fd00:5:0:4::/64")
    with store_of(node_of(1, dual=True)) as recorder:
        before = recorder.wait_held()
        server.configure(NETWORK)
        until(lambda: len(recorder.of(Configured)) == 2, "the network is known")
        recorder.store.register(node_of(1))
        own = recorder.wait_held(before.key.partition("&")[0])
        until(lambda: set(server.leases()) == {own.key, other}, "the lease of before is gone")
    assert own.endpoints == before.endpoints[:1]


@against_etcd
def test_a_node_that_missed_how_its_network_lost_ipv6_keeps_its_ipv4_subnet_too(server: Etcd) -> None:
    server.configure(NETWORK)
    rival(server, 1, "10.5.52.0/24", "fd00:5:0:4::/64", lease=server.grant(80000))
    other = rival(server, 2, "10.5.9.0/24", "fd00:5:0:9::/64")
    with store_of(node_of(1, mac=9), "10.5.52.1/24", "fd00:5:0:4::1/64") as recorder:
        own = recorder.wait_held("10.5.52.0-24")
    assert set(server.leases()) == {own.key, other}
    assert own.endpoints == lease_of(1, "10.5.52.0/24").endpoints  # with the device's MAC address


@against_etcd
def test_no_subnet_overlaps_one_of_another_length(server: Etcd) -> None:
    server.configure({"Network": "10.5.0.0/20", "SubnetLen": 22, "Backend": {"Type": "vxlan"}})
    rival(server, 2, "10.5.6.128/25")
    rival(server, 3, "10.5.8.0/21")
    with store_of(node_of(1)) as recorder:
        until(lambda: recorder.failure == "no subnet of /22 is free in 10.5.0.0/20", "the fault stands")
        server.delete(f"subnets/{lease_of(2, '10.5.6.128/25').key}")
        assert recorder.wait_held().key == "10.5.4.0-22"
    assert server.etcd_leases() == 1


@against_etcd
def test_a_node_that_changes_keeps_its_key(server: Etcd) -> None:
    server.configure(DUAL)
    with store_of(node_of(1, dual=True)) as recorder:
        key = recorder.wait_held().key
        for changed in (node_of(9, dual=True), node_of(9, dual=True, mac=8)):
            recorder.store.register(changed)
            value = lease_value(changed.lease(lease_of(1, "10.5.1.0/24", "fd00:5:0:1::/64").subnets))
            until(lambda value=value: server.leases() == {key: value}, "the lease tells it")  # type: ignore[misc]
        until(
            lambda: recorder.held is not None and recorder.held.lease.endpoints[0].vtep_mac == b"\2\0\0\0\0\x08",
            "it is told",
        )


@against_etcd
def test_a_deleted_lease_is_written_again(server: Etcd) -> None:
    server.configure(NETWORK)
    with store_of(node_of(1)) as recorder:
        key = recorder.wait_held().key
        before = server.leases()
        server.delete(f"subnets/{key}")
        until(lambda: server.leases() == before and len(recorder.of(Held)) == 2, "it is back")
        assert recorder.wait_held().key == key


@against_etcd
def test_a_deleted_lease_whose_subnet_is_gone_is_replaced(server: Etcd) -> None:
    server.configure(NETWORK)
    with store_of(node_of(1), "10.5.8.1/24") as recorder:
        recorder.wait_held("10.5.8.0-24")
        folder, wide = f"{PREFIX}/subnets/".encode(), lease_of(2, "10.5.8.0/23")
        both = [delete(folder + b"10.5.8.0-24"), put(folder + wide.key.encode(), lease_value(wide))]
        server.call("kv/txn", {"success": both})
        until(lambda: recorder.held is not None and recorder.held.lease.key != "10.5.8.0-24", "another is held")
        own = recorder.wait_held()
        assert set(server.leases()) == set(recorder.leases) == {own.key, wide.key}
    assert not wide.subnets[0].contains(own.subnets[0].ip)


@against_etcd
def test_a_stolen_lease_is_left_to_the_thief(server: Etcd) -> None:
    server.configure(NETWORK)
    with store_of(node_of(1)) as recorder:
        key = recorder.wait_held().key
        stolen = lease_value(lease_of(2, "10.5.1.0/24"))
        server.put(f"subnets/{key}", stolen)
        until(lambda: recorder.held is not None and recorder.held.lease.key != key, "another is held")
        own = recorder.wait_held()
        assert server.leases() == {key: stolen, own.key: lease_value(own)}
        assert recorder.leases == {key: lease_of(2, key.replace("-", "/")), own.key: own}


@against_etcd
def test_a_lease_that_something_spoiled_is_mended(server: Etcd) -> None:
    server.configure(NETWORK)
    with store_of(node_of(1)) as recorder:
        key = recorder.wait_held().key
        before = server.leases()
        server.put(f"subnets/{key}", "{not JSON")
        until(lambda: server.leases() == before, "it is mended")


def race(server: Etcd, network: dict[str, object], *, dual: bool) -> None:
    """Twenty begin at the same moment, beside the leases that are there; each gets one that nobody else has."""
    server.configure(network)
    if dual:
        rival(server, 99, "10.5.12.0/22", "fd00:5:0:10::/60")
    with ExitStack() as stores:
        running = [stores.enter_context(store_of(node_of(number, dual=dual))) for number in range(1, 21)]
        held = {recorder.wait_held().key for recorder in running}
        leases = server.leases()
        until(lambda: all(set(recorder.leases) == set(leases) for recorder in running), "all know all")
        assert server.etcd_leases() == 20
    assert len(held) == 20
    assert held <= set(leases)
    subnets = nets(leases)
    for index, net in enumerate(subnets):
        overlapping = [other for other in subnets[index + 1 :] if net.contains(other.ip) or other.contains(net.ip)]
        assert not overlapping, net.text


@against_etcd
def test_nodes_that_race_get_subnets_of_their_own(server: Etcd) -> None:
    race(server, {**NETWORK, "Network": "10.5.0.0/19"}, dual=False)


@against_etcd
def test_nodes_that_race_get_subnets_of_their_own_in_both_families(server: Etcd) -> None:
    race(server, {**DUAL, "Network": "10.5.0.0/19"}, dual=True)


def test_a_lease_of_flanneld_is_used_as_it_is() -> None:
    """Key and value of the real one are read, and written by us would be the same bytes."""
    where = subprocess.run([PEERS, "--where"], capture_output=True, text=True, check=True).stdout.strip()
    flanneld = Path(where) / "flanneld"
    reason = missing() or next(
        (f"absent: {name}" for name in ("etcd", str(flanneld)) if shutil.which(name) is None), ""
    )
    if reason:
        pytest.skip(f"{reason} (hack/peers brings it)")
    with Machine() as machine:
        machine.outside()
        if machine.run(
            "ip", "link", "add", "probe", "type", "vxlan", "id", "9", "dev", "uplink", check=False
        ).returncode:
            pytest.skip("no VXLAN devices here")
        machine.run("ip", "link", "del", "probe")
        machine.call(beside_flanneld, str(flanneld))


def beside_flanneld(flanneld: str) -> None:
    with Etcd("/run/etcd") as server:
        server.configure({**NETWORK, "EnableNFTables": True})
        process = subprocess.Popen(
            [flanneld, f"--etcd-endpoints={server.url}", "--iface=192.0.2.1"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            until(server.leases, "flanneld has a lease")
        finally:
            process.kill()
            process.wait()
        ((key, value),) = server.leases().items()
        before = server.revision
        with store_of(node_of(1)) as recorder:
            own = recorder.wait_held()
        assert (own.key, lease_value(own), server.revision) == (key, value, before)
