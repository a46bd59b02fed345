"""Answers about policies: what is asked for, whether the kernel agrees, and that no question does harm."""

from __future__ import annotations

import math
import time
from errno import EPERM
from typing import TYPE_CHECKING, Any, cast

import pytest

pytest.importorskip("prometheus_client", reason="podwired counts by it (pip install prometheus-client)")

from cni.agent.controllers import inquiries
from cni.agent.controllers.inquiries import SETTLING_SECONDS, Inquiries
from cni.agent.controllers.policy import QUIET_SECONDS, PolicyController
from cni.agent.dataplane import bridge_filter, policy_lookup
from cni.agent.metrics import Metrics
from cni.agent.model.events import Recovered
from cni.agent.policy.basetable import TableOptions
from cni.agent.policy.events import (
    CLUSTER_POLICIES,
    KINDS,
    LOCAL_PODS,
    NAMESPACES,
    POLICIES,
    ObjectsChanged,
    ObjectsListed,
)
from cni.agent.runtime.control import Asked
from cni.kernel import nft
from cni.kernel.netlink import NetlinkError
from cni.plan.policy import TABLE
from cni.protocol.address import parse_ip
from tests.unit.policy_kernel import PolicyKernel
from tests.unit.policy_objects import cluster_policy_of, namespace_of, pod_of, policy_of

if TYPE_CHECKING:
    from pathlib import Path

    from cni.agent.policy.events import Key
    from cni.effects.host import Host

CLOSED = policy_of("shop/closed", "{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}")
WEB = policy_of(
    "shop/web",
    "{podSelector: {matchLabels: {app: db}},"
    " ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}]}",
)
PODS = (
    pod_of("shop/db", "10.1.0.2", "fd00::2"),
    pod_of("shop/web", "10.1.0.3", "fd00::3"),
    pod_of("shop/six", "fd00::6"),
)


class Scene:
    """A controller of policies over a kernel that is not real, and the one that answers questions about it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.kernel = self.netfilter = PolicyKernel()
        self.rtnl, self.pod_records = self, str(folder)
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(bridge_filter, "ensure", lambda *_: "")
        monkeypatch.setattr(inquiries, "local_addresses", lambda _: {parse_ip("10.1.0.1")})
        host = cast("Host", cast("Any", self))
        self.policies = PolicyController(
            host, Metrics(), cast("Any", self), TableOptions(log=False, revoke=False), lambda _: None
        )
        self.inquiries = Inquiries(host, lambda: lambda: {"ready": True}, self.policies)
        pods = {(pod.namespace, pod.name): pod for pod in PODS}
        self.tell(ObjectsChanged(NAMESPACES, {("", "shop"): namespace_of("shop")}), ObjectsChanged(LOCAL_PODS, pods))
        for kind in KINDS:
            self.tell(ObjectsListed(kind))

    def find(self, name: str) -> None:
        """Returns None: the node has no such link."""

    def watch_remote_pods(self, *, wanted: bool) -> None: ...

    def watch_nodes(self, *, wanted: bool) -> None: ...

    def links(self) -> list[Any]:
        return []

    def tell(self, *events: Any) -> None:
        for event in events:
            self.policies.handle(event)
            self.inquiries.handle(event)

    def apply(self, *policies: Any) -> None:
        self.tell(ObjectsChanged(POLICIES, {(policy.namespace, policy.name): policy for policy in policies}))
        self.now += 1
        self.policies.sync()

    def ask(self, ask: str, **more: Any) -> dict[str, Any]:
        asked = Asked({"version": 1, "ask": ask, **more})
        self.tell(asked)
        assert self.inquiries.due_at <= self.now
        assert self.inquiries.sync()
        assert self.inquiries.due_at == math.inf
        return asked.wait()

    def why(self, source: str, destination: str, protocol: str = "TCP", port: int = 80) -> dict[str, Any]:
        return self.ask("why", **{"from": source}, to=destination, protocol=protocol, port=port)

    def kernels(self, source: str = "shop/web", destination: str = "10.1.0.2") -> list[dict[str, Any]]:
        [connection] = self.why(source, destination)["connections"]
        return [direction["kernel"] for direction in connection["directions"]]


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scene:
    scene = Scene(monkeypatch, tmp_path / "pods")
    scene.apply(CLOSED, WEB)
    return scene


def test_a_connection_is_judged_in_each_family_that_both_ends_have(scene: Scene) -> None:
    answer = scene.why("shop/web", "shop/db")
    assert answer | {"connections": []} == {
        "ask": "why", "protocol": "TCP", "port": 80, "in_force": True, "connections": [],
    }  # fmt: skip
    four, six = answer["connections"]
    assert (four["from"], four["to"]) == (
        {"address": "10.1.0.3", "pod": "shop/web", "here": True},
        {"address": "10.1.0.2", "pod": "shop/db", "here": True},
    )
    assert six["to"]["address"] == "fd00::2"
    assert (four["verdict"], six["verdict"]) == ("allowed", "allowed")
    egress, ingress = four["directions"]
    assert (egress["direction"], egress["pod"], egress["isolating"]) == ("egress", "shop/web", [])
    assert (ingress["direction"], ingress["isolating"]) == ("ingress", ["shop/closed", "shop/web"])
    assert ingress["rule"] == {
        "rule": "shop/web ingress 0", "because": "", "allows": "from pods app=web in shop, TCP 80",
    }  # fmt: skip
    assert [connection["to"]["address"] for connection in scene.why("shop/six", "shop/db")["connections"]] == [
        "fd00::2"
    ]


def test_a_denied_connection_names_each_rule_that_does_not_match(scene: Scene) -> None:
    [connection] = scene.why("203.0.113.7", "shop/db")["connections"]
    assert connection["verdict"] == "denied"
    assert connection["from"] == {"address": "203.0.113.7", "pod": "", "here": False}
    [ingress] = connection["directions"]
    assert ingress["rule"] is None
    assert {miss["rule"]: miss["because"] for miss in ingress["misses"]} == {
        "shop/web ingress 0": "peer", "shop/closed": "no rules",
    }  # fmt: skip
    assert ingress["left_out"] == 0


def test_the_node_itself_reaches_its_pods(scene: Scene) -> None:
    [connection] = scene.why("10.1.0.1", "shop/db", "", 0)["connections"]
    assert (connection["verdict"], connection["directions"]) == ("allowed", [])
    assert connection["reason"] == "from its own node everything reaches a pod"


def test_the_kernel_agrees_or_it_is_told_how_it_differs(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    egress, ingress = scene.kernels()
    assert egress == {
        "map": "egress4", "address": "10.1.0.3", "expected": "", "chain": "", "agrees": True, "difference": "",
    }  # fmt: skip
    assert ingress["agrees"]
    assert ingress["chain"] == ingress["expected"] != ""

    scene.kernel.rules["policy/shop/web/in"].clear()
    assert scene.kernels()[1]["difference"] == "chain policy/shop/web/in has other rules"
    monkeypatch.setattr(policy_lookup, "CHAINS_COMPARED", 1)
    assert scene.kernels()[1]["agrees"]

    scene.kernel.elements["ingress4"].clear()
    assert scene.kernels()[1] == ingress | {
        "chain": "", "agrees": False, "difference": f"10.1.0.2 leads to no chain, expected: {ingress['expected']}",
    }  # fmt: skip
    scene.kernel.set_error = NetlinkError(EPERM, "")
    assert scene.kernels()[1]["difference"] == "the kernel refused a step: Operation not permitted"
    scene.kernel.set_error = None
    scene.kernel.flush()
    assert {kernel["difference"] for kernel in scene.kernels()} == {"table inet podwire-policy is missing"}
    scene.kernel.answer = NetlinkError(EPERM, "")
    assert not scene.kernels()[1]["agrees"]


def test_a_new_pod_whose_class_is_in_the_maps_of_new_pods_is_no_difference(scene: Scene) -> None:
    _, ingress = scene.kernels()
    db, web = (parse_ip(text).packed for text in ("10.1.0.2", "10.1.0.3"))

    def element(name: str, key: bytes, chain: str) -> tuple[nft.SetRef, nft.Element]:
        return nft.SetRef(nft.NFPROTO_INET, TABLE, name), nft.Element(key, chain, "", leaves=True)

    messages = [nft.delete_element(*element("ingress4", db, ""))]
    for name, key, chain, early in (
        ("ingress4", db, "pending-in", ingress["chain"]),
        ("egress4", web, "pending-out", "to-pod"),
    ):
        messages += [nft.add_element(*element(name, key, chain)), nft.add_element(*element(f"new-{name}", key, early))]
    assert scene.kernel.batch(nft.transaction(messages)) is None
    assert [(kernel["chain"], kernel["agrees"]) for kernel in scene.kernels()] == [("", True), (ingress["chain"], True)]


def test_an_address_that_leads_somewhere_though_nothing_isolates_it_is_a_difference(scene: Scene) -> None:
    scene.kernel.elements["egress4"] = dict(scene.kernel.elements["ingress4"])
    [element] = scene.kernel.elements["egress4"].values()
    scene.kernel.elements["egress4"] = {(parse_ip("10.1.0.3").packed, False): element}
    egress, _ = scene.kernels()
    assert not egress["agrees"]
    assert egress["difference"].endswith(", expected: no chain")


def test_a_pod_is_shown_by_its_name_or_its_address(scene: Scene) -> None:
    answer = scene.ask("show", pod="shop/db")
    assert answer == scene.ask("show", pod="fd00::2")
    assert {key: answer[key] for key in ("ask", "pod", "here", "in_force", "labels", "addresses")} == {
        "ask": "show",
        "pod": "shop/db",
        "here": True,
        "in_force": True,
        "labels": {"app": "db"},
        "addresses": ["10.1.0.2", "fd00::2"],
    }
    egress, ingress = answer["directions"]
    assert (egress["isolated"], egress["policies"], len(egress["kernel"])) == (False, [], 2)
    assert ingress["isolated"]
    closed, web = ingress["policies"]
    assert closed == {
        "policy": "shop/closed", "tier": "", "chain": "policy/shop/closed/in", "error": "", "unsupported": "",
        "same_priority": [], "rules": [], "sets": [],
    }  # fmt: skip
    assert web["rules"] == ["from pods app=web in shop, TCP 80"]
    assert [(peer_set["size"], peer_set["of"]) for peer_set in web["sets"]] == [(1, "pods app=web in shop")] * 2
    assert all(kernel["agrees"] for kernel in ingress["kernel"])


def test_what_is_at_fault_is_shown_with_the_pods_that_it_concerns(scene: Scene) -> None:
    names = cluster_policy_of("names", "{egress: [{action: Accept, to: [{domainNames: [a.example]}]}]}")
    broken = cluster_policy_of("broken", "{ingress: [{action: Log, from: [{namespaces: {}}]}]}")
    policies: dict[Key, Any] = {("", "names"): names, ("", "broken"): broken, ("", "odd"): "spec.priority: is missing"}
    others = {("shop", "strange"): "spec: is missing", ("blue", "strange"): "spec: is missing"}
    scene.tell(ObjectsChanged(CLUSTER_POLICIES, policies), ObjectsChanged(POLICIES, others))
    scene.now += 1
    scene.policies.sync()
    answer = scene.ask("show", pod="shop/web")
    assert answer["ignored"] == [
        "ClusterNetworkPolicy odd: spec.priority: is missing", "NetworkPolicy shop/strange: spec: is missing",
    ]  # fmt: skip
    egress, ingress = answer["directions"]
    assert {policy["policy"]: policy["unsupported"] for policy in egress["policies"]}["names"] == (
        "spec.egress[0].to[0].domainNames: not supported, matches nothing"
    )
    [shown] = [policy for policy in ingress["policies"] if policy["policy"] == "broken"]
    assert shown["error"].startswith("spec.ingress[0].action: 'Log' is not one of")
    assert shown["same_priority"] == []


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"ask": "whine"}, "ask: 'whine' is not known (available: why, show, status)"),
        ({"ask": ["why"]}, "ask: ['why'] is not known"),
        ({}, "ask: None is not known"),
        ({"ask": "show"}, "pod: expected a text"),
        ({"ask": "show", "pod": 7}, "pod: expected a text"),
        ({"ask": "show", "pod": "db"}, "'db' is neither NAMESPACE/NAME of a pod nor an address"),
        ({"ask": "show", "pod": "shop/nobody"}, "pod shop/nobody is not known here"),
        ({"ask": "show", "pod": "192.0.2.1"}, "pod 192.0.2.1 is not known here"),
        ({"ask": "why", "to": "shop/db"}, "from: expected a text"),
        ({"ask": "why", "from": "shop/db", "to": None}, "to: expected a text"),
        ({"ask": "why", "from": "192.0.2.1", "to": "fd00::1"}, "no addresses of one family"),
        ({"ask": "why", "from": "1.1.1.1", "to": "1.1.1.2", "protocol": "ICMP"}, "protocol: 'ICMP' is not one of"),
        ({"ask": "why", "from": "1.1.1.1", "to": "1.1.1.2", "protocol": ["TCP"]}, "protocol: ['TCP'] is not one of"),
        ({"ask": "why", "from": "1.1.1.1", "to": "1.1.1.2", "protocol": "TCP", "port": True}, "port: True is not"),
        ({"ask": "why", "from": "1.1.1.1", "to": "1.1.1.2", "protocol": "TCP", "port": 65536}, "port: 65536 is not"),
        ({"ask": "why", "from": "1.1.1.1", "to": "1.1.1.2", "protocol": "TCP", "port": "80"}, "port: '80' is not"),
        ({"ask": "why", "from": "1.1.1.1", "to": "1.1.1.2", "port": 80}, "port: 80 is not a port of the protocol ''"),
    ],
)
def test_a_question_that_cannot_be_answered_is_told_why(scene: Scene, request_: dict[str, Any], error: str) -> None:
    asked = Asked(request_)
    scene.tell(asked)
    scene.inquiries.sync()
    assert error in asked.wait()["error"]  # type: ignore[operator]  # a text


def test_without_policies_that_is_the_answer() -> None:
    alone = Inquiries(cast("Host", None), lambda: lambda: {"ready": True}, None)
    asked = Asked({"ask": "show", "pod": "shop/db"})
    alone.handle(asked)
    assert alone.due_at == asked.at
    assert alone.sync()
    assert "podwired runs without --network-policy" in str(asked.wait()["error"])


def test_the_agents_state_is_answered_without_policies_too() -> None:
    alone = Inquiries(cast("Host", None), lambda: lambda: {"ready": True}, None)
    asked = Asked({"ask": "status"})
    alone.handle(asked)
    alone.sync()
    assert asked.wait() == {"ask": "status", "ready": True}


def test_a_defect_of_a_thread_that_makes_an_answer_is_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    nothing: dict[str, bool] = {}
    alone = Inquiries(cast("Host", None), lambda: lambda: {"ready": nothing["ready"]}, None)
    asked = Asked({"ask": "status"})
    alone.handle(asked)
    alone.sync()
    assert "a defect of podwired (KeyError" in str(asked.wait()["error"])
    assert "KeyError" in caplog.text


def test_a_defect_is_an_answer_and_is_logged(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(inquiries, "explain", lambda *_, **__: dict[str, str]()["nothing"])
    assert "a defect of podwired (KeyError" in scene.why("shop/web", "shop/db")["error"]
    assert "a defect of podwired (KeyError" in caplog.text
    monkeypatch.setattr(inquiries, "explain", lambda *_, **__: open("/nowhere"))  # noqa: SIM115
    assert scene.why("shop/web", "shop/db")["error"] == "/nowhere: No such file or directory"


def test_a_question_waits_for_changes_that_are_about_to_be_applied(scene: Scene) -> None:
    scene.tell(ObjectsChanged(POLICIES, {("shop", "web"): None}))
    asked = Asked({"version": 1, "ask": "why", "from": "shop/web", "to": "10.1.0.2"})
    scene.tell(asked)
    assert scene.inquiries.due_at == scene.now + QUIET_SECONDS
    scene.policies.due_at  # noqa: B018  # as the loop does
    scene.now += QUIET_SECONDS
    scene.policies.sync()
    assert scene.inquiries.due_at <= scene.now
    scene.inquiries.sync()
    [connection] = cast("Any", asked.wait())["connections"]
    assert connection["verdict"] == "denied"
    assert all(direction["kernel"]["agrees"] for direction in connection["directions"])


def test_it_does_not_wait_for_what_is_not_applied(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PolicyController, "due_at", property(lambda _: scene.now + 4))
    scene.tell(Asked({"version": 1, "ask": "show", "pod": "shop/db"}))
    assert scene.inquiries.due_at == scene.now + SETTLING_SECONDS


def test_who_waits_no_longer_is_not_answered(scene: Scene) -> None:
    asked = Asked({"version": 1, "ask": "show", "pod": "shop/db"})
    scene.tell(asked)
    scene.now += 60
    scene.inquiries.sync()
    assert asked.seconds == 0
    assert asked._answers.empty()


def test_it_wants_nothing_of_the_kernel(scene: Scene) -> None:
    scene.tell(Recovered())
    assert scene.inquiries.handle_links([(16, b"")]) == []
    scene.inquiries.handle_rules([(16, b"")])
    scene.inquiries.request_full_sync()
    scene.inquiries.request_rules_sync()
    assert scene.inquiries.due_at == math.inf
