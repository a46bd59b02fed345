"""Revocation: which connections are cut and restored after a change, and that the loop is never held up for long."""

from __future__ import annotations

import time
from errno import EINVAL, ENOBUFS, EPERM
from typing import TYPE_CHECKING, Any, cast

import pytest

from cni.agent.controllers import revocation
from cni.agent.controllers.base import NEVER
from cni.agent.controllers.revocation import GATHER_SECONDS, PIECE_SECONDS, RETRY_SECONDS, Revocation
from cni.agent.dataplane import connections
from cni.agent.metrics import Metrics
from cni.agent.policy.basetable import TableOptions
from cni.agent.policy.index import Index
from cni.agent.policy.objects import NetworkPolicy, Pod
from cni.agent.policy.revocation import Judge
from cni.agent.policy.tracker import Touched, Tracker
from cni.kernel.netlink import Interrupted, NetlinkError
from cni.protocol.address import parse_ip
from tests.unit.connection_kernel import ConnectionKernel
from tests.unit.policy_objects import namespace_of, pod_of, policy_of

if TYPE_CHECKING:
    from cni.effects.host import Host

NODE, DB, WEB, OTHER, FAR, SERVICE = "192.0.2.1", "10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.9.2", "10.96.0.1"
CLOSED = policy_of("shop/closed", "{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}")
FROM_WEB = policy_of(
    "shop/web", "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}"
)


class Scene:
    """A node with pods and a kernel that remembers connections; `moments` pass at each look at the clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kernel, self.metrics = ConnectionKernel(NODE), Metrics()
        self.now, self.moment = 1000.0, 0.0
        monkeypatch.setattr(time, "monotonic", self._clock)
        monkeypatch.setattr(connections, "Netlink", self.kernel.open)
        self.index = Index("n1")
        self.tracker = Tracker(self.index, TableOptions())
        self.restart()
        self.index.put_namespace(namespace_of("shop"))
        self.put(*[pod_of(f"shop/{name}", address) for name, address in (("db", DB), ("web", WEB), ("other", OTHER))])

    def restart(self) -> None:
        self.revocation = Revocation(cast("Host", cast("Any", self.kernel)), self.metrics, self.index)

    def _clock(self) -> float:
        self.now += self.moment
        return self.now

    def put(self, *objects: Pod | NetworkPolicy) -> None:
        for item in objects:
            self.index.put_pod(item) if isinstance(item, Pod) else self.index.put_policy(item)
        self.tracker.update()
        self.revocation.touch(self.tracker.take_touched())

    def settle(self, *objects: Pod | NetworkPolicy) -> int:
        """Puts the objects, and goes on until nothing is due; returns the number of pieces."""
        self.put(*objects)
        pieces = 0
        while (due := self.revocation.due_at) < NEVER:
            self.now = max(self.now, due)
            self.revocation.go_on()
            pieces += 1
        assert self.kernel.opened == 0
        return pieces

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def test_what_is_no_longer_allowed_is_cut_and_nothing_else(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    web, other = scene.kernel.add(WEB, DB), scene.kernel.add(OTHER, DB)
    node, out = scene.kernel.add(NODE, DB), scene.kernel.add(DB, "203.0.113.7")
    scene.settle()
    assert scene.kernel.revoked == set()
    assert caplog.messages == []
    scene.settle(FROM_WEB)
    assert scene.kernel.revoked == {other}
    assert all(map(scene.kernel.has, (web, other, node, out)))
    assert scene.metric("podwired_policy_revoked_connections_total") == 1
    assert caplog.messages == ["NetworkPolicy: cut 1 connections that are no longer allowed"]


def test_what_is_allowed_again_is_restored(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    web, far = scene.kernel.add(WEB, DB), scene.kernel.add(FAR, DB)
    scene.settle(CLOSED)
    assert scene.kernel.revoked == {web, far}
    scene.settle(FROM_WEB)
    assert scene.kernel.revoked == {far}
    assert caplog.messages[-1] == "NetworkPolicy: restored 1 connections that are allowed again"
    scene.settle(pod_of("shop/far", FAR, node="n2", labels={"app": "web"}))
    assert scene.kernel.revoked == set()
    assert scene.metric("podwired_policy_revoked_connections_total") == 2


def test_a_peer_that_comes_costs_nothing_while_none_of_its_connections_is_cut(scene: Scene) -> None:
    scene.kernel.add(WEB, DB)
    scene.settle(FROM_WEB)
    before = scene.kernel.dumps
    assert scene.settle(pod_of("shop/far", FAR, node="n2", labels={"app": "web"})) == 0
    assert scene.kernel.dumps == before
    assert scene.settle(pod_of("shop/far", FAR, node="n2")) == 1


def test_an_agent_that_was_away_judges_all_connections(scene: Scene) -> None:
    """The one before it died between the table and the connections, or while it restored them."""
    web, far = scene.kernel.add(WEB, DB), scene.kernel.add(FAR, DB)
    scene.settle(CLOSED)
    scene.index.put_policy(FROM_WEB)
    scene.index.remove_policy("shop", "closed")
    scene.restart()
    scene.settle()
    assert scene.kernel.revoked == {far}
    scene.index.remove_policy("shop", "web")
    scene.restart()
    scene.settle()
    assert scene.kernel.revoked == set()
    assert scene.kernel.has(web)


def test_a_connection_is_judged_behind_its_service(scene: Scene) -> None:
    key = scene.kernel.add(WEB, DB, 8080, SERVICE)
    other = scene.kernel.add(OTHER, DB, 8080, SERVICE)
    scene.settle(FROM_WEB)
    assert scene.kernel.revoked == {other}
    assert scene.kernel.has(key)


@pytest.mark.parametrize("protocol", [6, 17, 132, 47])
def test_all_protocols_are_cut(scene: Scene, protocol: int) -> None:
    key = scene.kernel.add(OTHER, DB, protocol=protocol)
    scene.settle(FROM_WEB)
    assert scene.kernel.revoked == {key}


def test_connections_that_are_older_than_labels_are_deleted(scene: Scene) -> None:
    old, web = scene.kernel.add(OTHER, DB, old=1), scene.kernel.add(WEB, DB, old=1)
    new = scene.kernel.add(FAR, DB)
    scene.settle(FROM_WEB)
    assert [scene.kernel.has(key) for key in (old, web, new)] == [False, True, True]
    assert scene.metric("podwired_policy_revoked_connections_total") == 2


def test_what_has_ended_meanwhile_is_not_counted(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    key, old = scene.kernel.add(OTHER, DB), scene.kernel.add(FAR, DB, old=1)
    judge = Judge.allows

    def late(self: Judge, *question: Any) -> bool | None:
        for connection in (key, old):
            if scene.kernel.has(connection):
                scene.kernel.end(connection)
        return judge(self, *question)

    monkeypatch.setattr(Judge, "allows", late)
    scene.settle(FROM_WEB)
    assert scene.metric("podwired_policy_revoked_connections_total") == 0


def test_what_a_helper_expected_follows_its_master(scene: Scene) -> None:
    control = scene.kernel.add(WEB, DB, 21)
    data = scene.kernel.add(DB, WEB, 4000, master=control.hex())
    scene.settle(FROM_WEB, policy_of("shop/out", "{podSelector: {matchLabels: {app: db}}, policyTypes: [Egress]}"))
    assert scene.kernel.revoked == set()
    scene.index.remove_policy("shop", "web")
    scene.settle(CLOSED)
    assert scene.kernel.revoked == {control, data}
    scene.kernel.end(control)
    scene.restart()
    scene.settle()
    assert scene.kernel.revoked == {data}


def test_a_label_of_a_pod_that_is_not_known_yet_stays(scene: Scene) -> None:
    key = scene.kernel.add(OTHER, DB)
    scene.settle(FROM_WEB)
    scene.index.attach("shop", "db", (parse_ip(DB).packed,))
    scene.index.remove_pod("shop", "db")
    scene.settle()
    assert scene.kernel.revoked == {key}
    scene.index.remove_policy("shop", "web")
    scene.settle(pod_of("shop/db", DB))
    assert scene.kernel.revoked == set()


def test_many_connections_are_judged_in_pieces(scene: Scene) -> None:
    for client in range(2000):
        scene.kernel.add(FAR, DB, client=client)
    scene.moment = PIECE_SECONDS
    assert scene.settle(CLOSED) > 5
    assert len(scene.kernel.revoked) == 2000
    assert scene.metric("podwired_policy_revoked_connections_total") == 2000


def test_a_change_during_a_walk_is_judged_after_it(scene: Scene) -> None:
    keys = {scene.kernel.add(FAR, DB, client=client) for client in range(1000)}
    scene.settle()
    scene.put(CLOSED)
    scene.moment = PIECE_SECONDS
    scene.now = scene.revocation.due_at
    scene.revocation.go_on()
    assert scene.kernel.opened == 1
    scene.index.remove_policy("shop", "closed")
    scene.settle()
    assert scene.kernel.revoked == set()
    assert all(map(scene.kernel.has, keys))


def test_what_is_touched_together_is_one_walk_and_walks_are_followed_by_a_rest(scene: Scene) -> None:
    scene.settle()
    before = scene.kernel.dumps
    scene.put(CLOSED)
    scene.now += GATHER_SECONDS / 2
    scene.revocation.go_on()
    scene.put(FROM_WEB)
    assert scene.kernel.dumps == before
    assert scene.revocation.due_at == pytest.approx(scene.now + GATHER_SECONDS / 2)
    scene.moment = 1.0
    scene.now += GATHER_SECONDS
    while scene.kernel.dumps == before or scene.kernel.opened:
        scene.revocation.go_on()
    scene.moment = 0.0
    assert scene.kernel.dumps == before + 1
    scene.put(pod_of("shop/more", "10.1.0.7", labels={"app": "db"}))
    assert scene.revocation.due_at == pytest.approx(scene.now + revocation.LONGEST_REST_SECONDS)


@pytest.mark.parametrize("filters", [True, False])
def test_of_many_connections_the_kernel_filters_those_of_few_addresses(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, filters: bool
) -> None:
    monkeypatch.setattr(connections, "FILTER_GAIN", 1)
    scene.kernel.filters = filters
    keys = [scene.kernel.add(FAR, DB, client=client) for client in range(9)]
    six = scene.kernel.add("fd00::9", "fd00::2")
    scene.settle()
    assert scene.kernel.dumps == 1
    scene.settle(CLOSED)
    assert scene.kernel.dumps == 3
    assert scene.kernel.revoked == {*keys}
    scene.settle(pod_of("shop/db", DB, "fd00::2"))
    assert scene.kernel.revoked == {*keys, six}


def test_errors_are_logged_and_all_is_judged_again(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    key = scene.kernel.add(FAR, DB)
    scene.kernel.refusal = NetlinkError(ENOBUFS, "")
    scene.put(CLOSED)
    scene.now += GATHER_SECONDS
    scene.revocation.go_on()
    assert scene.revocation.due_at == scene.now + RETRY_SECONDS
    assert "NetworkPolicy: connections: the kernel refused a step: No buffer space available" in caplog.text
    scene.kernel.refusal, scene.kernel.label_refusal = None, NetlinkError(EPERM, "")
    scene.now += RETRY_SECONDS
    scene.revocation.go_on()
    assert scene.kernel.opened == 0
    assert scene.metric("podwired_errors_total", where="policy") == 2
    scene.kernel.label_refusal = None
    scene.settle()
    assert scene.kernel.revoked == {key}


def test_addresses_that_change_too_often_to_be_read_are_read_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> list[Any]:
        raise Interrupted("a dump was interrupted 10 times")

    key = scene.kernel.add(FAR, DB)
    scene.put(CLOSED)
    scene.now += GATHER_SECONDS
    with monkeypatch.context() as patch:
        patch.setattr(scene.kernel, "all_addresses", fail)
        scene.revocation.go_on()
    assert "NetworkPolicy: connections: a dump was interrupted 10 times" in caplog.text
    scene.settle()
    assert scene.kernel.revoked == {key}


def test_a_kernel_that_tells_of_no_connections_is_asked_once(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.kernel.refusal = NetlinkError(EINVAL, "")
    assert scene.settle(CLOSED) == 1
    assert scene.settle(FROM_WEB) == 0
    scene.revocation.touch_all()
    scene.revocation.touch(Touched(set(), set()))
    assert scene.revocation.due_at == NEVER
    assert caplog.text.count("load the module nf_conntrack_netlink") == 1
