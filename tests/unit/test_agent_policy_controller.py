"""The controller of NetworkPolicy: when it acts, on what, and what it does about errors."""

from __future__ import annotations

import logging
import math
import time
from errno import ENOSPC, EPERM
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pytest

from cni.agent.controllers.policy import HOLD_SECONDS, LONGEST_SECONDS, QUIET_SECONDS, PolicyController
from cni.agent.controllers.revocation import GATHER_SECONDS
from cni.agent.dataplane import bridge_filter, connections
from cni.agent.metrics import Metrics
from cni.agent.model.events import Recovered
from cni.agent.policy.basetable import IPVS_LINK, TableOptions
from cni.agent.policy.events import (
    CLUSTER_POLICIES,
    KINDS,
    LOCAL_PODS,
    NAMESPACES,
    NODES,
    POLICIES,
    REMOTE_PODS,
    ObjectsChanged,
    ObjectsForgotten,
    ObjectsListed,
    PolicyStoreFailed,
    PolicyStoreRecovered,
)
from cni.kernel import conntrack, nft, nft_ruleset, rtnl
from cni.kernel.netlink import NetlinkError, text
from cni.plan.policy import TABLE
from cni.protocol.errors import OperationFailed
from tests.unit.connection_kernel import ConnectionKernel
from tests.unit.policy_kernel import PolicyKernel
from tests.unit.policy_objects import cluster_policy_of, namespace_of, node_of, pod_of, policy_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cni.agent.policy.events import Key, PolicyEvent
    from cni.agent.policy.objects import NetworkPolicy, Pod
    from cni.effects.host import Host
    from cni.kernel.rtnl import Message
    from cni.protocol.address import IP

CLOSED = policy_of("shop/closed", "{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}")
FROM_WEB = policy_of(
    "shop/web", "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}"
)
DB, FAR = pod_of("shop/db", "10.1.0.1"), pod_of("shop/web", "10.1.9.1", node="n2")
DB_KEY, FAR_KEY = bytes([10, 1, 0, 1]), bytes([10, 1, 9, 1])


class Link(NamedTuple):
    name: str


class Scene:
    """A controller with a clock, a kernel and a store that notes what is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.kernel, self.metrics = PolicyKernel(), Metrics()
        self.connections = ConnectionKernel()
        self.netfilter, self.rtnl = self.kernel, self
        self.revoke = False
        self.folder, self.pod_records = folder, str(folder)
        self.interfaces: set[str] = set()
        self.attached: list[tuple[Key, bool]] = []  # as the store is told
        self.now = 1000.0
        self.wanted: list[bool] = []
        self.wanted_nodes: list[bool] = []
        self.said: list[str] = []
        self.bridge_error: str | Exception = ""
        self.pods: list[IP] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(bridge_filter, "ensure", self._ensure)
        monkeypatch.setattr(connections, "Netlink", self.connections.open)
        monkeypatch.setattr(self.kernel, "ask_each", self._ask_each)
        self.controller = self.restarted()

    def restarted(self) -> PolicyController:
        options = TableOptions(log=False, revoke=self.revoke)
        here = cast("Host", cast("Any", self))
        self.controller = PolicyController(here, self.metrics, cast("Any", self), options, self.said.append)
        self.controller.request_full_sync()
        return self.controller

    def _ask_each(self, messages: Iterable[Message]) -> list[bytes | NetlinkError]:
        """Answers for the kernel's table, and for its connections."""
        asked = [*messages]
        of_connections = asked[0][0] >> 8 == conntrack.NFNL_SUBSYS_CTNETLINK
        return self.connections.ask_each(asked) if of_connections else PolicyKernel.ask_each(self.kernel, asked)

    def find(self, name: str) -> object:
        return self.connections.find(name)

    def watch_remote_pods(self, *, wanted: bool) -> None:
        self.wanted.append(wanted)

    def watch_nodes(self, *, wanted: bool) -> None:
        self.wanted_nodes.append(wanted)

    def note_attached(self, key: Key, *, attached: bool) -> None:
        self.attached.append((key, attached))

    def links(self) -> list[Link]:
        return [Link(name) for name in self.interfaces]

    def all_addresses(self) -> Any:
        return self.connections.all_addresses()

    def _ensure(self, _: object, pods: Iterable[IP]) -> str:
        self.pods = [*pods]
        if isinstance(self.bridge_error, Exception):
            raise self.bridge_error
        return self.bridge_error

    def tell(self, *events: PolicyEvent) -> None:
        for event in events:
            self.controller.handle(event)

    def begin(self, *policies: NetworkPolicy, kinds: Iterable[str] = KINDS[:4]) -> None:
        self.tell(
            ObjectsChanged(NAMESPACES, {("", "shop"): namespace_of("shop")}),
            ObjectsChanged(POLICIES, {(policy.namespace, policy.name): policy for policy in policies}),
            ObjectsChanged(LOCAL_PODS, {("shop", "db"): DB}),
            *map(ObjectsListed, kinds),
        )
        self.sync()

    def sync(self) -> int:
        """Syncs what is due; returns the number of transactions."""
        before = len(self.kernel.transactions)
        if self.controller.due_at <= self.now:
            assert self.controller.sync()
        return len(self.kernel.transactions) - before

    def after(self, seconds: float) -> int:
        self.now += seconds
        return self.sync()

    def keys(self, name: str) -> set[bytes]:
        return {key for key, _ in self.kernel.elements[name]}

    def allowed(self) -> set[bytes]:
        return self.keys(next(name for name in self.kernel.sets if name.startswith("pods/")))

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scene:
    return Scene(monkeypatch, tmp_path / "pods")


def put(kind: str, *pods: Pod) -> ObjectsChanged:
    return ObjectsChanged(kind, {(pod.namespace, pod.name): pod for pod in pods})


def test_nothing_is_done_before_all_kinds_are_listed(scene: Scene) -> None:
    for kind in KINDS[:3]:
        scene.tell(ObjectsListed(kind))
        assert scene.controller.due_at == math.inf
    scene.tell(ObjectsListed(LOCAL_PODS))
    assert scene.sync() == 1
    assert scene.controller.due_at == math.inf


def test_the_table_appears_with_all_that_policies_ask_for(scene: Scene) -> None:
    scene.begin(FROM_WEB)
    assert scene.wanted == [True]
    assert scene.kernel.transactions == []
    assert scene.after(10 * HOLD_SECONDS) == 0
    scene.tell(put(REMOTE_PODS, FAR), ObjectsListed(REMOTE_PODS))
    assert scene.sync() == 1
    assert scene.allowed() == {FAR_KEY}
    assert scene.keys("ingress4") == {DB_KEY}


def test_what_comes_together_is_one_transaction(scene: Scene) -> None:
    scene.begin()
    scene.tell(ObjectsChanged(POLICIES, {("shop", "closed"): CLOSED}))
    assert scene.sync() == 0
    scene.now += QUIET_SECONDS / 2
    scene.tell(put(LOCAL_PODS, pod_of("shop/db2", "10.1.0.2", labels={"app": "db"})))
    assert scene.after(QUIET_SECONDS * 0.9) == 0
    assert scene.after(QUIET_SECONDS * 0.2) == 1
    assert scene.keys("ingress4") == {DB_KEY, bytes([10, 1, 0, 2])}
    assert scene.controller.due_at == math.inf


def test_what_never_ceases_waits_for_a_bounded_time(scene: Scene) -> None:
    scene.begin()
    end = scene.now + LONGEST_SECONDS
    while scene.now < end:
        scene.tell(ObjectsChanged(POLICIES, {("shop", "closed"): CLOSED}))
        assert scene.controller.due_at <= end
        scene.now += QUIET_SECONDS / 2
    assert scene.sync() == 1


def test_pods_are_local_by_what_the_store_says_of_them(scene: Scene) -> None:
    scene.begin(CLOSED)
    anywhere = DB._replace(name="db3", addresses=(bytes([10, 1, 0, 3]),), node="")
    elsewhere = DB._replace(name="db4", addresses=(bytes([10, 1, 9, 4]),), node="this node")
    scene.tell(put(LOCAL_PODS, anywhere), put(REMOTE_PODS, elsewhere))
    scene.after(1)
    assert scene.keys("ingress4") == {DB_KEY, bytes([10, 1, 0, 3])}
    assert scene.metric("podwired_policies") == 1
    assert scene.metric("podwired_policy_pods", what="local") == 2
    assert scene.metric("podwired_policy_pods", what="known") == 3
    assert scene.metric("podwired_policy_programming_seconds_count") >= 1
    assert {ip.text for ip in scene.pods} == {"10.1.0.1", "10.1.0.3"}


def test_objects_go_and_those_that_cannot_be_understood_stay(scene: Scene) -> None:
    scene.begin(CLOSED)
    unclear = {("shop", "closed"): "spec: not an object"}
    scene.tell(ObjectsChanged(POLICIES, unclear), ObjectsChanged(LOCAL_PODS, {("shop", "db"): "status: unknown"}))
    assert scene.after(1) == 0
    assert scene.keys("ingress4") == {DB_KEY}
    scene.tell(ObjectsChanged(NAMESPACES, {("", "shop"): None}), ObjectsChanged(LOCAL_PODS, {("shop", "db"): None}))
    assert scene.after(1) == 1
    assert scene.keys("ingress4") == set()
    scene.tell(ObjectsChanged(POLICIES, {("shop", "closed"): None}))
    scene.after(1)
    assert scene.metric("podwired_policies") == 0
    finished = pod_of("shop/db", "10.1.0.1", phase="Failed")
    scene.tell(put(LOCAL_PODS, finished), ObjectsChanged(POLICIES, {("shop", "closed"): CLOSED}))
    scene.after(1)
    assert scene.metric("podwired_policy_pods", what="local") == 0
    assert scene.keys("ingress4") == set()


def faults(scene: Scene) -> dict[str, float]:
    """Returns how many policies have which fault, without those that none has."""
    kinds = ("ignored", "closed", "unsupported", "tied")
    numbers = {kind: scene.metric("podwired_policy_faults", fault=kind) for kind in kinds}
    return {kind: number for kind, number in numbers.items() if number}


def test_policies_at_fault_are_counted_as_long_as_they_are(scene: Scene) -> None:
    scene.begin(CLOSED)
    scene.after(1)
    assert faults(scene) == {}
    broken = policy_of("shop/broken", "{podSelector: {}, ingress: [{ports: [{port: 0}]}]}")
    names = cluster_policy_of("names", "{egress: [{action: Accept, to: [{domainNames: [a.example]}, {}]}]}")
    scene.tell(
        ObjectsChanged(POLICIES, {("shop", "broken"): broken}),
        ObjectsChanged(CLUSTER_POLICIES, {("", "names"): names, ("", "odd"): "spec.priority: is missing"}),
    )
    scene.after(1)
    assert faults(scene) == {"ignored": 1, "closed": 2, "unsupported": 1}
    scene.tell(ObjectsChanged(CLUSTER_POLICIES, {("", "names"): "spec.tier: is missing"}))
    scene.after(1)
    assert faults(scene) == {"ignored": 2, "closed": 2, "unsupported": 1}, "the one before is still enforced"
    assert scene.controller.faults.ignored("shop") == [
        "ClusterNetworkPolicy names: spec.tier: is missing",
        "ClusterNetworkPolicy odd: spec.priority: is missing",
    ]
    fine = cluster_policy_of("names", "{}")
    scene.tell(
        ObjectsChanged(POLICIES, {("shop", "broken"): None}),
        ObjectsChanged(CLUSTER_POLICIES, {("", "names"): fine, ("", "odd"): None}),
    )
    scene.after(1)
    assert faults(scene) == {}


def test_an_ignored_policy_of_a_namespace_is_none_of_another(scene: Scene) -> None:
    scene.begin()
    scene.tell(ObjectsChanged(POLICIES, {("shop", "odd"): "spec: is missing"}))
    assert scene.controller.faults.ignored("shop") == ["NetworkPolicy shop/odd: spec: is missing"]
    assert scene.controller.faults.ignored("blue") == []


def test_policies_that_only_their_names_order_are_told_once(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    def tied(name: str, priority: int = 7, tier: str = "Admin", team: str = "{}") -> dict[Key, Any]:
        rules = "[{action: Deny, to: [{networks: [192.0.2.0/24]}]}]"
        spec = f"{{tier: {tier}, priority: {priority}, subject: {{namespaces: {team}}}, egress: {rules}}}"
        return {("", name): cluster_policy_of(name, spec)}

    warning = "ClusterNetworkPolicies a, b of tier Admin: they select the same pods with priority 7"
    scene.begin()
    elsewhere = tied("c", team="{matchLabels: {team: none}}")
    scene.tell(ObjectsChanged(CLUSTER_POLICIES, tied("a") | tied("d", 8) | tied("e", tier="Baseline") | elsewhere))
    scene.after(1)
    assert faults(scene) == {}
    scene.tell(ObjectsChanged(CLUSTER_POLICIES, tied("b")))
    scene.after(1)
    assert faults(scene) == {"tied": 2}
    assert caplog.text.count(warning) == 1
    scene.tell(ObjectsChanged(CLUSTER_POLICIES, tied("d", 9)))
    scene.after(1)
    assert caplog.text.count(warning) == 1
    scene.tell(ObjectsChanged(CLUSTER_POLICIES, tied("b", 6)))
    scene.after(1)
    assert faults(scene) == {}
    scene.tell(ObjectsChanged(CLUSTER_POLICIES, tied("b")))
    scene.after(1)
    assert caplog.text.count(warning) == 2
    scene.tell(ObjectsChanged(CLUSTER_POLICIES, {("", "a"): None}))
    scene.after(1)
    assert faults(scene) == {}


def test_a_new_policy_waits_for_pods_of_other_nodes_but_not_for_ever(scene: Scene) -> None:
    scene.begin()
    scene.tell(ObjectsChanged(POLICIES, {("shop", "web"): FROM_WEB}))
    assert scene.after(1) == 0
    assert scene.wanted == [True]
    assert scene.after(HOLD_SECONDS / 2) == 0
    assert scene.after(HOLD_SECONDS) == 1
    assert scene.keys("ingress4") == {DB_KEY}
    assert scene.metric("podwired_policy_healed_total") == 0
    scene.tell(put(REMOTE_PODS, FAR), ObjectsListed(REMOTE_PODS))
    assert scene.after(1) == 1
    assert scene.allowed() == {FAR_KEY}


def test_pods_of_other_nodes_are_watched_while_a_policy_asks_for_them(scene: Scene) -> None:
    scene.begin(FROM_WEB)
    scene.tell(put(REMOTE_PODS, FAR), ObjectsListed(REMOTE_PODS))
    scene.sync()
    scene.controller.request_full_sync()
    assert scene.wanted == [True]
    scene.tell(ObjectsChanged(POLICIES, {("shop", "web"): None}))
    scene.after(1)
    assert scene.wanted == [True]
    scene.controller.request_full_sync()
    assert scene.wanted == [True, False]
    scene.tell(ObjectsForgotten(REMOTE_PODS, frozenset({("shop", "web")})))
    scene.after(1)
    assert scene.metric("podwired_policy_pods", what="known") == 1
    scene.tell(ObjectsChanged(POLICIES, {("shop", "web"): FROM_WEB}))
    assert scene.after(1) == 0
    assert scene.wanted == [True, False, True]


def test_nodes_are_watched_while_a_rule_asks_for_them_and_waited_for_together_with_pods(scene: Scene) -> None:
    peers = "[{nodes: {}}, {pods: {podSelector: {matchLabels: {app: web}}}}]"
    deny = cluster_policy_of("deny", f"{{egress: [{{action: Deny, to: {peers}}}]}}")
    scene.begin()
    assert len(scene.kernel.transactions) == 1
    scene.tell(ObjectsChanged(CLUSTER_POLICIES, {("", "deny"): deny}))
    assert scene.after(1) == 0
    assert (scene.wanted, scene.wanted_nodes) == ([True], [True])
    scene.tell(ObjectsListed(REMOTE_PODS))
    assert scene.after(1) == 0, "nodes are not listed yet"
    node = node_of("n1", "192.0.2.1")
    scene.tell(ObjectsChanged(NODES, {("", "n1"): node}), ObjectsListed(NODES))
    assert scene.after(1) == 1
    (name,) = [name for name in scene.kernel.sets if name.startswith("nodes/") and name.endswith("4")]
    assert scene.keys(name) == {bytes([192, 0, 2, 1])}
    scene.tell(ObjectsChanged(NODES, {("", "n1"): None}))
    assert scene.after(1) == 1
    assert scene.keys(name) == set()
    scene.tell(ObjectsChanged(CLUSTER_POLICIES, {("", "deny"): None}))
    assert scene.after(1) == 1
    assert not any(name.startswith("nodes/") for name in scene.kernel.sets)
    scene.controller.request_full_sync()
    assert (scene.wanted, scene.wanted_nodes) == ([True, False], [True, False])


def test_a_policy_waits_for_nodes_no_longer_than_for_pods(scene: Scene) -> None:
    scene.begin()
    deny = cluster_policy_of("deny", "{egress: [{action: Deny, to: [{nodes: {}}]}]}")
    scene.tell(ObjectsChanged(CLUSTER_POLICIES, {("", "deny"): deny}))
    assert scene.after(1) == 0
    assert scene.after(HOLD_SECONDS + 1) == 1


def test_a_store_that_tells_of_all_pods_is_not_waited_for(scene: Scene) -> None:
    scene.begin(kinds=KINDS)
    scene.tell(ObjectsChanged(POLICIES, {("shop", "web"): FROM_WEB}))
    assert scene.after(1) == 1


def test_a_restart_with_nothing_wrong_changes_nothing(scene: Scene) -> None:
    scene.begin(CLOSED)
    scene.restarted()
    before = len(scene.kernel.transactions)
    scene.begin(CLOSED)
    assert scene.controller.due_at == math.inf
    assert len(scene.kernel.transactions) == before


def test_what_others_change_is_healed_and_counted(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    scene.begin(CLOSED)
    scene.kernel.flush()
    table, other = (nft_ruleset.add_table(nft.NFPROTO_INET, name) for name in (TABLE, "theirs"))
    scene.controller.handle_rules([(other[0], other[2]), (16, table[2])])
    assert scene.sync() == 0
    scene.controller.handle_rules([(table[0], table[2])])
    assert scene.sync() == 1
    assert scene.keys("ingress4") == {DB_KEY}
    assert scene.metric("podwired_policy_healed_total") == 1
    assert "healed: table inet podwire-policy: it was missing" in caplog.text
    scene.kernel.elements["ingress4"].clear()
    scene.controller.request_rules_sync()
    assert scene.sync() == 1
    assert scene.metric("podwired_policy_healed_total") == 2


def test_a_change_that_meets_a_foreign_one_is_followed_by_a_comparison(scene: Scene) -> None:
    scene.begin(CLOSED)
    scene.kernel.flush()
    scene.tell(put(LOCAL_PODS, pod_of("shop/db2", "10.1.0.2", labels={"app": "db"})))
    scene.after(1)
    assert scene.keys("ingress4") == {DB_KEY, bytes([10, 1, 0, 2])}
    assert scene.said == []


def test_an_error_is_logged_once_told_and_retried(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    scene.kernel.refusals += [NetlinkError(ENOSPC, "", 1)] * 3
    scene.begin(CLOSED)
    assert scene.controller.due_at == scene.now + 0.5
    scene.after(0.5)
    assert scene.controller.due_at == scene.now + 1.0
    scene.tell(put(LOCAL_PODS, pod_of("shop/db2", "10.1.0.2", labels={"app": "db"})))
    assert scene.controller.due_at == scene.now + 1.0
    scene.after(1.0)
    assert scene.after(2.0) == 1
    assert scene.keys("ingress4") == {DB_KEY, bytes([10, 1, 0, 2])}
    assert [line for line in caplog.messages if "No space left" in line] == [scene.said[0]]
    assert scene.said[0].startswith("NetworkPolicy: No space left on device (table inet podwire-policy")
    assert scene.said[1:] == [""]
    assert scene.metric("podwired_errors_total", where="policy") == 3
    assert scene.metric("podwired_policy_healed_total") == 0


def test_an_error_leaves_the_table_in_force(scene: Scene) -> None:
    scene.begin(CLOSED)
    scene.kernel.answer = NetlinkError(EPERM, "")
    scene.controller.request_full_sync()
    assert scene.sync() == 0
    assert scene.keys("ingress4") == {DB_KEY}
    scene.kernel.answer = None
    assert scene.after(1) == 0
    assert scene.said[-1] == ""


@pytest.mark.parametrize("error", ["bridge cni0: no sysctl", OperationFailed("cannot set it")])
def test_bridges_that_cannot_be_filtered_are_told(scene: Scene, error: str | Exception) -> None:
    scene.bridge_error = error
    scene.begin(CLOSED)
    assert str(error) in scene.said[0]
    scene.tell(ObjectsChanged(POLICIES, {("shop", "closed"): None}))
    scene.after(1)
    assert len(scene.said) == 1
    scene.bridge_error = ""
    scene.controller.request_full_sync()
    scene.sync()
    assert scene.said[1:] == [""]


def test_errors_of_the_store_are_counted_and_change_nothing(scene: Scene) -> None:
    scene.begin(CLOSED)
    scene.tell(PolicyStoreFailed("403 Forbidden"), PolicyStoreRecovered())
    scene.controller.handle(Recovered())
    assert scene.controller.handle_links([]) == []
    assert scene.controller.due_at == math.inf
    assert scene.metric("podwired_errors_total", where="policy store") == 1


def test_an_error_of_the_store_is_told_until_policies_are_in_force(scene: Scene) -> None:
    scene.tell(PolicyStoreFailed("list pods: 403 Forbidden"))
    assert scene.said == ["NetworkPolicy: list pods: 403 Forbidden"]
    scene.tell(PolicyStoreRecovered())
    assert scene.said[1:] == [""]
    scene.tell(PolicyStoreFailed("list pods: 403 Forbidden"))
    scene.begin(CLOSED)
    assert scene.said[3:] == [""]
    scene.tell(PolicyStoreFailed("list pods: 500 Internal Server Error"))
    assert scene.said[4:] == []


def revoking(scene: Scene, *policies: NetworkPolicy) -> tuple[bytes, bytes]:
    """Begins with connections from web on another node, and from somebody outside, to db; returns them."""
    scene.revoke = True
    scene.restarted()
    keys = scene.connections.add("10.1.9.1", "10.1.0.1"), scene.connections.add("203.0.113.7", "10.1.0.1")
    scene.begin(*policies)
    return keys


def test_connections_are_judged_once_a_change_is_in_force(scene: Scene) -> None:
    web, outside = revoking(scene)
    assert scene.connections.revoked == set()
    scene.kernel.refusals += [NetlinkError(ENOSPC, "", 1)] * 3
    scene.tell(ObjectsChanged(POLICIES, {("shop", "closed"): CLOSED}))
    scene.after(QUIET_SECONDS * 1.1)
    assert scene.said[-1] != ""
    scene.now += GATHER_SECONDS / 2
    scene.sync()
    assert scene.connections.revoked == set()
    scene.after(0.5)
    assert scene.said[-1] == ""
    scene.after(GATHER_SECONDS)
    assert scene.connections.revoked == {web, outside}
    scene.tell(ObjectsChanged(POLICIES, {("shop", "closed"): None}))
    scene.after(QUIET_SECONDS * 1.1)
    scene.after(GATHER_SECONDS)
    assert scene.connections.revoked == set()
    assert scene.controller.due_at == math.inf


def test_connections_wait_for_the_pods_that_a_policy_asks_for(scene: Scene) -> None:
    """The table is closed for new ones after a while; those that are allowed all the time are not cut."""
    web, outside = revoking(scene)
    scene.tell(ObjectsChanged(POLICIES, {("shop", "web"): FROM_WEB}))
    scene.after(1)
    scene.after(2 * HOLD_SECONDS)
    assert scene.keys("ingress4") == {DB_KEY}
    assert scene.controller.due_at == math.inf
    assert scene.connections.revoked == set()
    scene.tell(put(REMOTE_PODS, FAR), ObjectsListed(REMOTE_PODS))
    scene.after(1)
    scene.after(GATHER_SECONDS)
    assert scene.connections.revoked == {outside}
    assert scene.connections.has(web)


def test_what_others_let_in_by_changing_the_table_is_cut(scene: Scene) -> None:
    web, outside = revoking(scene, CLOSED)
    late = scene.connections.add("203.0.113.7", "10.1.0.1", client=1)
    scene.controller.request_rules_sync()
    scene.sync()
    assert scene.connections.revoked == {web, outside}
    scene.kernel.flush()
    scene.controller.request_rules_sync()
    scene.sync()
    scene.after(1)
    assert scene.connections.revoked == {web, outside, late}


def test_a_change_that_waits_to_be_in_force_holds_up_the_judgement(scene: Scene) -> None:
    revoking(scene, CLOSED)
    scene.connections.add("203.0.113.7", "10.1.0.1", client=1)
    scene.tell(put(LOCAL_PODS, pod_of("shop/db2", "10.1.0.2", labels={"app": "db"})))
    assert scene.controller.due_at == scene.now + QUIET_SECONDS
    scene.after(QUIET_SECONDS * 1.1)
    assert scene.controller.due_at == scene.now + GATHER_SECONDS
    scene.tell(put(LOCAL_PODS, pod_of("shop/db3", "10.1.0.3", labels={"app": "db"})))
    assert scene.controller.due_at == scene.now + QUIET_SECONDS


def test_connections_are_kept_where_that_is_wanted(scene: Scene) -> None:
    scene.connections.add("203.0.113.7", "10.1.0.1")
    scene.begin(CLOSED)
    scene.after(10)
    assert scene.connections.revoked == set()
    assert scene.connections.dumps == 0
    assert scene.controller.due_at == math.inf


def hooks(scene: Scene) -> set[str]:
    return {"forward", "input", "output"} & scene.kernel.chains.keys()


def test_what_ipvs_sends_is_judged_once_its_interface_is_there(scene: Scene) -> None:
    scene.begin(CLOSED)
    other, ipvs = (rtnl.IFINFO.pack(0, 1, 7, 1, 0) + text(rtnl.IFLA_IFNAME, name) for name in ("eth1", IPVS_LINK))
    scene.connections.links.add(IPVS_LINK)
    scene.controller.handle_links([(rtnl.RTM_NEWLINK, other), (rtnl.RTM_DELLINK, ipvs)])
    assert scene.sync() == 0
    scene.controller.handle_links([(rtnl.RTM_NEWLINK, ipvs)])
    assert scene.sync() == 3  # a standby, the table, the standby's end
    assert hooks(scene) == {"forward", "input", "output"}
    assert scene.keys("ingress4") == {DB_KEY}
    scene.controller.handle_links([(rtnl.RTM_NEWLINK, ipvs)])
    scene.connections.links.clear()
    scene.controller.request_full_sync()
    assert scene.sync() == 0
    scene.restarted()
    scene.begin(CLOSED)
    assert hooks(scene) == {"forward", "input"}
