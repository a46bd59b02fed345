"""Judge of established connections, and the addresses whose connections a change makes worth judging."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.policy.basetable import TableOptions
from cni.agent.policy.index import Index
from cni.agent.policy.nodes import Node
from cni.agent.policy.objects import Namespace, NetworkPolicy, Pod
from cni.agent.policy.revocation import Judge
from cni.agent.policy.tracker import Touched, Tracker
from cni.protocol.address import parse_ip
from tests.unit.policy_objects import cluster_policy_of, namespace_of, node_of, pod_of, policy_of

if TYPE_CHECKING:
    from cni.agent.policy.clusterpolicy import ClusterPolicy

NODE, WEB, DB, FAR, OUTSIDE = "192.0.2.1", "10.1.0.3", "10.1.0.2", "10.1.9.2", "203.0.113.7"
FROM_WEB = """{podSelector: {matchLabels: {app: db}}, ingress: [
    {from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}, {port: 80, protocol: SCTP}]}]}"""
CLOSED = "{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}"
NO_WAY_OUT = "{podSelector: {matchLabels: {app: %s}}, policyTypes: [Egress]}"
TCP, UDP, SCTP, ICMP = 6, 17, 132, 1


def packed(*texts: str) -> set[bytes]:
    return {parse_ip(text).packed for text in texts}


class Scene:
    """The index and tracker of node n1 with the pods db and web, and a pod of another node."""

    def __init__(self, *policies: NetworkPolicy) -> None:
        self.index = Index("n1", packed(NODE, "10.1.0.1"))
        self.tracker = Tracker(self.index, TableOptions())
        self.put(namespace_of("shop"), pod_of("shop/db", DB), pod_of("shop/web", WEB))
        self.put(pod_of("shop/far", FAR, node="n2"), *policies)

    def put(self, *objects: Namespace | Pod | NetworkPolicy | ClusterPolicy | Node) -> Touched:
        """Returns what these objects touch."""
        for item in objects:
            if isinstance(item, Pod):
                self.index.put_pod(item)
            elif isinstance(item, Namespace):
                self.index.put_namespace(item)
            elif isinstance(item, Node):
                self.index.put_node(item)
            else:
                self.index.put_policy(item)
        return self.touched()

    def touched(self) -> Touched:
        self.tracker.update()
        return self.tracker.take_touched()

    def allows(self, source: str, destination: str, protocol: int = TCP, port: int = 80) -> bool | None:
        ends = parse_ip(source).packed, parse_ip(destination).packed
        return Judge(self.index).allows(*ends, protocol, port)


def test_an_established_connection_is_judged_as_a_new_one() -> None:
    scene = Scene(policy_of("shop/p", FROM_WEB))
    assert scene.allows(WEB, DB) is True
    assert scene.allows(WEB, DB, SCTP) is True
    assert [scene.allows(WEB, DB, TCP, 81), scene.allows(WEB, DB, UDP), scene.allows(WEB, DB, ICMP, 0)] == [False] * 3
    assert scene.allows(FAR, DB) is False
    assert scene.allows(DB, OUTSIDE) is True


def test_what_the_node_itself_sends_is_never_cut() -> None:
    scene = Scene(policy_of("shop/p", CLOSED))
    assert [scene.allows(sender, DB) for sender in (NODE, "10.1.0.1", "127.0.0.1", "127.0.0.53")] == [True] * 4
    assert scene.allows(OUTSIDE, DB) is False


def test_what_is_not_judged_here_is_left_as_it_is() -> None:
    """The policies of a pod elsewhere are enforced there; a pod that was attached just now is nobody yet."""
    scene = Scene(policy_of("shop/p", NO_WAY_OUT % "far"), policy_of("shop/q", NO_WAY_OUT % "web"))
    assert scene.allows(FAR, OUTSIDE) is None
    assert scene.allows(FAR, DB) is True
    assert scene.allows(WEB, FAR) is False
    scene.index.attach("shop", "new", (parse_ip("10.1.0.9").packed,))
    assert scene.allows(FAR, "10.1.0.9") is None
    assert scene.allows(WEB, "10.1.0.9") is None


def test_a_pod_reaches_itself() -> None:
    assert Scene(policy_of("shop/p", CLOSED)).allows(DB, DB) is True


def test_each_question_is_asked_once() -> None:
    scene = Scene(policy_of("shop/p", CLOSED))
    judge = Judge(scene.index)
    question = parse_ip(OUTSIDE).packed, parse_ip(DB).packed, TCP, 80
    assert judge.allows(*question) is False
    scene.index.remove_policy("shop", "p")
    assert judge.allows(*question) is False
    assert Judge(scene.index).allows(*question) is True


def test_pods_that_policies_select_are_touched_by_their_changes() -> None:
    scene = Scene()
    assert scene.put(policy_of("shop/p", FROM_WEB)) == Touched(packed(DB), set())
    rule_alone = policy_of("shop/p", FROM_WEB.replace("80", "81"))
    assert scene.put(rule_alone) == Touched(packed(DB), set())
    assert scene.put(rule_alone) == Touched(set(), set())
    assert scene.put(policy_of("shop/p", "{podSelector: {}, ingress: [{}]}")).narrowed == packed(DB, WEB)
    scene.index.remove_policy("shop", "p")
    assert scene.touched() == Touched(packed(DB, WEB), set())
    assert scene.put(policy_of("shop/p", "{podSelector: {matchLabels: {app: far}}}")) == Touched(set(), set())


def test_peers_that_come_widen_and_peers_that_go_narrow() -> None:
    scene = Scene(policy_of("shop/p", FROM_WEB))
    assert scene.put(pod_of("shop/far", FAR, node="n2", labels={"app": "web"})) == Touched(set(), packed(FAR))
    assert scene.put(pod_of("shop/far", FAR, node="n2")) == Touched(packed(FAR), set())
    spec = "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{namespaceSelector: {matchLabels: {a: b}}}]}]}"
    scene.put(policy_of("shop/q", spec))
    assert scene.put(namespace_of("shop", a="b")).widened == packed(DB, WEB, FAR)
    assert scene.put(namespace_of("shop")).narrowed == packed(DB, WEB, FAR)


def test_named_ports_that_come_widen_and_those_that_go_narrow() -> None:
    spec = "{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{ports: [{port: http}]}]}"
    scene = Scene(policy_of("shop/p", spec))
    assert scene.put(pod_of("shop/far", FAR, node="n2", ports={"http": 80})) == Touched(set(), packed(FAR))
    assert scene.put(pod_of("shop/far", FAR, node="n2", ports={"http": 81})) == Touched(packed(FAR), packed(FAR))


def test_what_several_updates_touch_is_taken_together() -> None:
    scene = Scene()
    scene.index.put_policy(policy_of("shop/p", CLOSED))
    scene.tracker.update()
    scene.index.put_pod(pod_of("shop/web", WEB, labels={"app": "db"}))
    assert scene.touched() == Touched(packed(DB, WEB), set())


def test_the_addresses_of_a_nodes_pods_are_known() -> None:
    scene = Scene()
    scene.put(pod_of("shop/six", "10.1.0.6", "fd00::6"))
    assert set(scene.index.local_addresses()) == packed(DB, WEB, "10.1.0.6", "fd00::6")


def test_peers_that_come_narrow_where_rules_may_deny() -> None:
    """Such a rule cuts a pod's connections when it is selected, and restores them when it no longer is."""
    scene = Scene()
    deny = "{action: Deny, from: [{pods: {podSelector: {matchLabels: {role: x}}}}]}"
    spec = f"{{tier: Admin, priority: 1, subject: {{namespaces: {{}}}}, ingress: [{deny}]}}"
    scene.index.put_policy(cluster_policy_of("p", spec))
    assert scene.touched().narrowed == packed(DB, WEB)
    assert scene.allows(FAR, DB) is True
    assert scene.put(pod_of("shop/far", FAR, node="n2", labels={"role": "x"})) == Touched(packed(FAR), set())
    assert scene.allows(FAR, DB) is False
    assert scene.put(pod_of("shop/far", FAR, node="n2")) == Touched(packed(FAR), set())
    assert scene.allows(FAR, DB) is True


def test_what_joins_a_set_may_be_denied_where_cluster_policies_have_rules() -> None:
    scene = Scene(policy_of("shop/p", FROM_WEB))
    assert scene.put(pod_of("shop/new", "10.9.0.8", node="n2", labels={"app": "web"})).narrowed == set()
    peers = "[{pods: {podSelector: {matchLabels: {app: web}}}}, {nodes: {}}]"
    scene.put(cluster_policy_of("guard", f"{{egress: [{{action: Deny, to: {peers}}}]}}"))
    assert scene.put(pod_of("shop/newer", "10.9.0.9", node="n2", labels={"app": "web"})).narrowed == packed("10.9.0.9")
    assert scene.allows(DB, "10.9.0.9") is False
    assert scene.put(node_of("n2", "192.0.2.2")).narrowed == packed("192.0.2.2")
    assert scene.allows(DB, "192.0.2.2") is False
