"""The agent's state as a document: the shape, the states of peers, what is left out without details."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

import pytest

pytest.importorskip("prometheus_client", reason="podwired counts by it (pip install prometheus-client)")

from cni.agent.controllers.status import PAUSE_SECONDS, StatusBoard
from cni.agent.dataplane.devices import LinkState
from cni.agent.dataplane.state import NextHop, entry_of
from cni.agent.logs import RECENT, RECENT_LONGEST, BoundedHandler, LoggedEvent, log, recent_events
from cni.agent.metrics import Metrics
from cni.agent.model.events import Failed, Recovered
from cni.agent.model.lease import Endpoint, Lease
from cni.agent.model.network import parse_network_config
from cni.agent.runtime.control import Asked
from cni.agent.runtime.health import Health
from cni.agent.status.document import document, states
from cni.agent.status.snapshot import Forwarding, Policies, Snapshot, StoreState
from cni.agent.uplink.select import Underlay
from cni.kernel import rtnl_overlay
from cni.kernel.rtnl_overlay import VxlanInfo
from cni.protocol.address import parse_ip, parse_net

if TYPE_CHECKING:
    from collections.abc import Iterator

UPLINK, TUNNEL = 3, 7
MAC = bytes.fromhex("0200c0a86402")
CONFIG = parse_network_config(b'{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan", "Port": 4789}}', "the test")
SECRET = "hunter2"


def lease(number: int) -> Lease:
    return Lease((Endpoint(parse_net(f"10.5.{number}.0/24"), parse_ip(f"192.0.2.{number}"), MAC),), "vxlan", 1)


def hop(number: int, ifindex: int) -> tuple[Any, NextHop]:
    return parse_net(f"10.5.{number}.0/24"), NextHop(parse_ip(f"10.5.{number}.0"), ifindex, ifindex == TUNNEL)


def snapshot(*, lacking: Any = (), **more: Any) -> Snapshot:
    """Returns the state of a node with a peer behind the tunnel, one in its own network, and one without a way."""
    address = parse_net("192.0.2.1/24")
    info = VxlanInfo(vni=1, link=UPLINK, local=address.ip, port=4789, learning=False, gbp=False)
    members: dict[str, Any] = {
        "config": CONFIG,
        "underlay": Underlay(UPLINK, "eth0", 1500, (address,), (address.ip,), "the test"),
        "lease": lease(1),
        "served": {str(number): lease(number) for number in (2, 3, 4)},
        "refused": {"9": "its subnet is another's"},
        "changed_at": {"2": 60.0},
        "forwarding": {4: Forwarding(TUNNEL, dict([hop(2, TUNNEL), hop(3, UPLINK)]), frozenset(lacking))},
        "tunnels": (LinkState("flannel.1", MAC, 1450, True, 0, info, ()),),
    }
    return Snapshot("node1", 0.0, StoreState("etcd", last_error="gone", last_error_time=1.0), **(members | more))


def peers(seen: Snapshot) -> dict[str, Any]:
    return {peer["key"]: peer for peer in cast("Any", document(seen, [], [])["peers"])}


def test_the_document_has_what_the_loop_knows() -> None:
    answer = document(snapshot(), ["eth0 is down", ""], [LoggedEvent(2.0, "warning", "text")])
    assert {key: answer[key] for key in ("version", "time", "detailed", "ready", "reasons", "node", "counts")} == {
        "version": 1,
        "time": "1970-01-01T00:00:00Z",
        "detailed": True,
        "ready": False,
        "reasons": ["eth0 is down"],
        "node": "node1",
        "counts": {"peers": 3, "failed": 0, "unreachable": 1, "vxlan": 1, "direct": 1, "refused": 1},
    }
    assert answer["network"] == {
        "networks": ["10.5.0.0/16"], "backend": "vxlan", "vni": 1, "port": 4789, "direct_routing": False,
    }  # fmt: skip
    assert answer["lease"] == {"subnets": ["10.5.1.0/24"], "public_ips": ["192.0.2.1"]}
    assert answer["uplink"] == {"interface": "eth0", "addresses": ["192.0.2.1/24"], "mtu": 1500, "up": True}
    assert answer["tunnels"] == [
        {"device": "flannel.1", "mtu": 1450, "vni": 1, "port": 4789, "mac": "02:00:c0:a8:64:02"}
    ]
    assert answer["store"] == {
        "kind": "etcd", "error": "", "last_error": "gone", "last_error_time": "1970-01-01T00:00:01Z",
    }  # fmt: skip
    assert answer["refused"] == [{"key": "9", "reason": "its subnet is another's"}]
    assert answer["events"] == [{"time": "1970-01-01T00:00:02Z", "level": "warning", "message": "text"}]
    assert answer["policies"] is None


def test_a_peer_has_its_way_its_entries_and_its_last_change() -> None:
    seen = peers(snapshot())
    assert seen["2"] == {
        "key": "2",
        "name": None,
        "state": "vxlan",
        "changed": "1970-01-01T00:01:00Z",
        "endpoints": [
            {
                "subnet": "10.5.2.0/24",
                "public_ip": "192.0.2.2",
                "way": "vxlan",
                "applied": {"route": True, "neighbour": True, "fdb": True},
            }
        ],
    }
    assert (seen["3"]["state"], seen["3"]["endpoints"][0]["applied"], seen["3"]["changed"]) == (
        "direct", {"route": True}, None,
    )  # fmt: skip
    assert (seen["4"]["state"], seen["4"]["endpoints"][0]["way"]) == ("unreachable", None)


@pytest.mark.parametrize(
    ("message", "entry"),
    [
        (rtnl_overlay.set_route(parse_net("10.5.2.0/24"), parse_ip("10.5.2.0"), TUNNEL, 80, True), "route"),
        (rtnl_overlay.set_neighbour(TUNNEL, parse_ip("10.5.2.0"), MAC), "neighbour"),
        (rtnl_overlay.set_fdb_entry(TUNNEL, parse_ip("192.0.2.2"), MAC), "fdb"),
    ],
)
def test_an_entry_that_the_kernel_refused_is_not_applied(message: Any, entry: str) -> None:
    seen = snapshot(lacking=[entry_of(message)])
    assert peers(seen)["2"]["state"] == "failed"
    assert [name for name, there in peers(seen)["2"]["endpoints"][0]["applied"].items() if not there] == [entry]
    assert states(seen) == {"failed": 1, "unreachable": 1, "vxlan": 0, "direct": 1}


def test_a_removal_sets_no_entry() -> None:
    assert entry_of(rtnl_overlay.delete_neighbour(TUNNEL, parse_ip("10.5.2.0"), MAC)) is None
    assert entry_of(rtnl_overlay.delete_route(parse_net("10.5.2.0/24"), None, TUNNEL, 80)) is None


def test_a_peer_of_a_family_without_entries_is_not_reached() -> None:
    assert states(snapshot(forwarding={}))["failed"] == 3


def test_without_details_and_reasons_there_is_neither_a_name_nor_an_address() -> None:
    policies = Policies(True, 2, 3, 4, {"tied": 1})
    answer = document(snapshot(policies=policies), [], [LoggedEvent(2.0, "warning", "text")], detailed=False)
    assert answer == {
        "version": 1,
        "time": "1970-01-01T00:00:00Z",
        "detailed": False,
        "podwired": answer["podwired"],
        "ready": True,
        "reasons": [],
        "counts": {"peers": 3, "failed": 0, "unreachable": 1, "vxlan": 1, "direct": 1, "refused": 1},
        "store_up": True,
        "lease_expires": None,
        "policies": {"in_force": True, "policies": 2, "pods": 3, "sets": 4, "faults": {"tied": 1}},
    }


def test_no_password_of_a_url_is_shown() -> None:
    text = f"https://user:{SECRET}@192.0.2.1: refused"
    store = StoreState("etcd", text, text, 1.0)
    assert SECRET not in repr(document(snapshot()._replace(store=store), [text], []))


@pytest.fixture
def handler() -> Iterator[BoundedHandler]:
    handler = BoundedHandler()
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


def test_the_last_warnings_are_kept_and_no_more(handler: BoundedHandler) -> None:
    log.info("nothing")
    log.warning("https://user:%s@192.0.2.1 is gone", SECRET)
    log.error("x" * 2000)
    first, second = recent_events()
    assert (first.level, SECRET in first.message) == ("warning", False)
    assert len(second.message) < RECENT_LONGEST + 40
    for number in range(4 * RECENT):
        handler.emit(logging.LogRecord("podwired", logging.WARNING, "", 0, f"{number}", None, None))
    assert len(recent_events()) == RECENT


class FakeReconciler:
    """Counts how often its state is looked at."""

    def __init__(self) -> None:
        self.looks = 0

    @property
    def cluster(self) -> Any:
        self.looks += 1
        return self

    configured = held = peers = latest = None
    failure = ""

    @property
    def changed_at(self) -> dict[Any, Any]:
        return {}

    desired = devices = links = changed_at

    @property
    def drift(self) -> Any:
        return self

    pinned = peer_log = drift


def test_snapshots_are_taken_after_changes_and_not_more_often_than_once_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    board = StatusBoard("node1", "etcd", Health(Metrics()))
    reconciler = FakeReconciler()
    board.follow(cast("Any", reconciler), None)
    assert board.due_at < now
    assert board.sync()
    assert board.due_at > now + 1e9
    board.handle(Asked({}))
    assert board.due_at > now + 1e9
    board.handle(Failed("etcd is gone"))
    assert board.due_at == now + PAUSE_SECONDS
    board.handle(Recovered())
    now += PAUSE_SECONDS
    board.sync()
    board.request_full_sync()
    assert board.due_at == now + PAUSE_SECONDS
    assert reconciler.looks == 2
    shown = board.document_now()()
    assert cast("Any", shown["store"])["last_error"] == "etcd is gone"
    assert (shown["ready"], board.document(detailed=False)["ready"]) == (False, False)
