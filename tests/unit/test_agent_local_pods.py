"""Pods that ADD hands over to podwired: each gets the class of its pod, at once, and loses it with its interface."""

from __future__ import annotations

import logging
import math
import os
import time
from errno import EINVAL, EIO, ENOENT
from typing import TYPE_CHECKING, Any, cast

import pytest

from cni.agent.controllers.localpods import DEL_SECONDS, NEW_PODS, SETTLE_SECONDS
from cni.agent.dataplane.forgotten import Connections
from cni.agent.node import podrecords
from cni.agent.policy.basetable import NOT_ISOLATED
from cni.agent.policy.events import LOCAL_PODS, POLICIES, ObjectsChanged
from cni.agent.policy.index import UNKNOWN
from cni.kernel import connections, nft, rtnl
from cni.kernel.conntrack import CTA_IP_DST, CTA_IP_SRC, CTA_TUPLE_IP, CTA_TUPLE_ORIG, CTA_TUPLE_PROTO, CTA_TUPLE_REPLY
from cni.kernel.netlink import NLA_F_NESTED, Interrupted, NetlinkError, attribute, attributes, nest, text
from cni.kernel.nft_keys import parse_bounds
from cni.kernel.nft_rules import NFT_MSG_DELRULE
from cni.kernel.rtnl import IFINFO
from cni.plan.policy import OPEN, TABLE, UNCHECKED, PodRecord, map_name, new_map, pending_chain
from cni.protocol.address import IP
from cni.protocol.owner import Owner
from tests.unit.policy_kernel import PolicyKernel
from tests.unit.policy_objects import pod_of, policy_of
from tests.unit.test_agent_policy_controller import CLOSED, DB, DB_KEY, Scene, put

if TYPE_CHECKING:
    from pathlib import Path

    from cni.kernel.rtnl import Message

NEW, NEW6 = bytes([10, 1, 0, 9]), b"\xfd" + bytes(14) + b"\x09"
FAMILIES = {4: 4, 16: 6}


def owner(container: str = "c1") -> Owner:
    return Owner("net", container, "eth0")


class Node(Scene):
    """A node whose plugin attaches pods."""

    def record(self, address: bytes, name: str, container: str = "c1", namespace: str = "shop") -> None:
        self.folder.mkdir(exist_ok=True)
        text = IP.from_packed(address).text
        (self.folder / text).write_bytes(PodRecord(owner(container).label, namespace, name).data)

    def unrecord(self, address: bytes) -> None:
        (self.folder / IP.from_packed(address).text).unlink()

    def lead(self, address: bytes, chain: str = "", *, away: bool = False) -> list[Message]:
        """Leads an address to the pending chains, or to nothing, in the kernel; returns the kernel's notifications."""
        messages: list[Message] = []
        for suffix in ("in", "out"):
            name = map_name(suffix, FAMILIES[len(address)])
            element = nft.Element(address, chain or pending_chain(suffix), "", leaves=True)
            if (address, False) in self.kernel.elements.get(name, {}):
                messages.append(nft.delete_element(nft.SetRef(nft.NFPROTO_INET, TABLE, name), element))
            if not away:
                messages.append(nft.add_element(nft.SetRef(nft.NFPROTO_INET, TABLE, name), element))
        assert self.kernel.batch(nft.transaction(messages)) is None
        self.kernel.transactions.pop()
        return messages

    def leave_new(self, address: bytes) -> list[Message]:
        """Deletes the classes of a new pod's address, in the kernel; returns the kernel's notifications."""
        element = nft.Element(address, "", "")
        places = [nft.SetRef(nft.NFPROTO_INET, TABLE, new_map(map_name(suffix, 4))) for suffix in ("in", "out")]
        messages = [nft.delete_element(place, element) for place in places]
        assert self.kernel.batch(nft.transaction(messages)) is None
        self.kernel.transactions.pop()
        return messages

    def hear(self, messages: list[Message]) -> None:
        self.controller.handle_rules([(kind, payload) for kind, _, payload in messages])

    def add(self, address: bytes, name: str, container: str = "c1", namespace: str = "shop") -> None:
        """Attaches as ADD does, and lets podwired hear of it."""
        self.interfaces.add(owner(container).host_interface)
        self.record(address, name, container, namespace)
        self.hear(self.lead(address))

    def unlink(self, container: str = "c1") -> None:
        self.interfaces.discard(owner(container).host_interface)
        link = IFINFO.pack(0, 0, 7, 0, 0) + text(3, owner(container).host_interface)
        assert self.controller.handle_links([(rtnl.RTM_NEWLINK, link), (rtnl.RTM_DELLINK, link)]) == []

    def classes(self, address: bytes) -> tuple[str, ...]:
        """Returns the chains that packets of an address come to, of ingress and egress, without those that accept."""
        chains = []
        for suffix in ("in", "out"):
            name = map_name(suffix, FAMILIES[len(address)])
            chain = self.chain(name, address)
            if chain == pending_chain(suffix):
                chain = self.chain(new_map(name), address) or chain
            chains.append(chain.partition("/")[0])
        return tuple([chain for chain in chains if chain and chain not in NOT_ISOLATED.values()])

    def chain(self, name: str, address: bytes) -> str:
        """Returns where a map leads an address; empty if it does not have it."""
        data = self.kernel.elements[name].get((address, False))
        listed = nest(nft.NFTA_LIST_ELEMENTS, nest(nft.NFTA_LIST_ELEM, data)) if data is not None else b""
        return "".join([element.chain for element in nft.each_element(nft.NFGENMSG.pack(1, 0, 0) + listed)])

    def kinds(self) -> set[int]:
        """Returns the kinds of messages in the latest transaction."""
        return {kind & 0xFF for kind, _, _ in self.kernel.transactions[-1]}


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Node:
    return Node(monkeypatch, tmp_path / "pods")


def test_a_new_pod_has_its_class_in_one_transaction_at_once(node: Node) -> None:
    node.begin(CLOSED)
    node.tell(put(LOCAL_PODS, pod_of("shop/db2", labels={"app": "db"})))
    node.after(1)
    node.add(NEW, "db2")
    assert node.classes(NEW) == ("pending-in", "pending-out")
    assert node.sync() == 1
    assert node.classes(NEW) == ("class",)
    assert node.metric("podwired_policy_pod_start_seconds_count") == 1
    assert node.metric("podwired_policy_healed_total") == 0
    assert node.metric("podwired_policy_pods", what="local") == 2


@pytest.mark.parametrize("labels", [{"app": "db"}, {}], ids=["isolated", "not isolated"])
def test_nothing_is_deleted_while_an_add_waits_and_the_pod_is_moved_when_none_does(
    node: Node, labels: dict[str, str]
) -> None:
    node.begin(CLOSED)
    node.tell(put(LOCAL_PODS, pod_of("shop/x", labels=labels)))
    node.after(1)
    node.add(NEW, "x")
    node.sync()
    assert node.kinds() & {nft.NFT_MSG_DELSETELEM, NFT_MSG_DELRULE} == set()
    classes = node.classes(NEW)
    assert classes == (("class",) if labels else ())
    assert node.chain("ingress4", NEW) == "pending-in"
    node.controller.request_full_sync()
    assert node.sync() == 0, "the table is as it has to be"
    assert node.after(SETTLE_SECONDS) == 1
    assert node.chain("ingress4", NEW).partition("/")[0] == "".join(classes)
    assert node.chain("egress4", NEW) == ""
    assert node.keys("new-ingress4") == node.keys("new-egress4") == set()
    assert node.controller.due_at == math.inf
    node.controller.request_full_sync()
    assert node.sync() == 0


def test_an_add_that_is_heard_of_in_two_parts_is_one(node: Node) -> None:
    node.begin(CLOSED)
    node.tell(put(LOCAL_PODS, pod_of("shop/x", labels={"app": "db"})))
    node.after(1)
    node.interfaces.add(owner().host_interface)
    node.record(NEW, "x")
    first, second = node.lead(NEW)
    node.hear([first])
    node.sync()
    node.kernel.connections = [connection(NEW, OTHER)]
    node.hear([second])
    assert node.sync() == 0
    assert ended(node) == set()
    assert node.classes(NEW) == ("class",)
    assert node.metric("podwired_policy_pod_start_seconds_count") == 1


def test_pods_are_moved_only_when_no_add_came_for_a_while_or_they_are_many(node: Node) -> None:
    names = [f"x{number}" for number in range(NEW_PODS)]
    node.begin(CLOSED)
    node.tell(put(LOCAL_PODS, *[pod_of(f"shop/{name}") for name in names]))
    node.after(1)
    for number, name in enumerate(names, 1):
        assert len(node.keys("new-ingress4")) == number - 1
        node.add(bytes([10, 1, 1, number]), name, name)
        node.sync()
        node.after(SETTLE_SECONDS / 2)
    assert node.keys("new-ingress4") == set()


def test_a_new_pod_whose_policies_change_has_its_other_class_at_once(node: Node) -> None:
    node.begin(CLOSED)
    node.tell(put(LOCAL_PODS, pod_of("shop/x")))
    node.add(NEW, "x")
    node.sync()
    assert node.classes(NEW) == ()
    node.tell(put(LOCAL_PODS, pod_of("shop/x", labels={"app": "db"})))
    node.after(SETTLE_SECONDS / 2)
    assert node.classes(NEW) == ("class",)
    node.after(SETTLE_SECONDS)
    assert node.chain("ingress4", NEW).startswith("class/")


def test_a_new_pod_that_is_gone_before_it_is_moved_leaves_nothing(node: Node) -> None:
    node.begin(CLOSED)
    node.tell(put(LOCAL_PODS, pod_of("shop/x", labels={"app": "db"})))
    node.add(NEW, "x")
    node.sync()
    node.unlink()
    node.after(DEL_SECONDS)
    for name in ("ingress4", "egress4", "new-ingress4", "new-egress4", "own4"):
        assert not {key for key in node.keys(name) if key.startswith(NEW)}


def test_an_address_that_is_attached_again_before_it_is_moved_is_pending_again(node: Node) -> None:
    node.begin(CLOSED)
    node.tell(put(LOCAL_PODS, pod_of("shop/x")))
    node.add(NEW, "x")
    node.sync()
    node.record(NEW, "late", "c2")
    node.hear(node.leave_new(NEW) + node.lead(NEW))
    node.sync()
    assert node.classes(NEW) == ("pending-in", "pending-out")
    node.after(SETTLE_SECONDS)
    assert node.classes(NEW) == ("pending-in", "pending-out")


@pytest.mark.parametrize("name", ["x", "late"], ids=["known", "unknown"])
def test_an_address_that_was_given_anew_while_it_left_the_maps_is_closed_with_the_event(node: Node, name: str) -> None:
    both = policy_of("shop/out", "{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress]}")
    node.begin(CLOSED, both)
    node.tell(put(LOCAL_PODS, pod_of("shop/old", labels={"app": "web"}), pod_of("shop/x", labels={"app": "db"})))
    node.add(NEW, "old", "c0")
    node.sync()
    node.after(SETTLE_SECONDS)
    node.unlink("c0")
    node.record(NEW, name)
    notifications = node.lead(NEW)
    node.after(DEL_SECONDS)
    assert node.classes(NEW) == (), "podwired has not heard of the new holder"
    node.hear(notifications)
    node.sync()
    assert node.classes(NEW) == (("class",) if name == "x" else ("pending-in", "pending-out"))
    assert (node.chain("ingress4", NEW), node.chain("egress4", NEW)) == ("pending-in", "pending-out")
    node.after(SETTLE_SECONDS)
    assert node.metric("podwired_policy_healed_total") == 0


def test_an_address_that_was_given_anew_while_its_class_changed_has_the_class_of_the_new_holder(node: Node) -> None:
    node.begin(CLOSED)
    node.tell(put(LOCAL_PODS, pod_of("shop/old", labels={"app": "db"}), pod_of("shop/x", labels={"app": "web"})))
    node.add(NEW, "old", "c0")
    node.sync()
    node.after(SETTLE_SECONDS)
    node.record(NEW, "x")
    notifications = node.lead(NEW)
    near = policy_of("shop/near", "{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 80}]}]}")
    node.begin(CLOSED, near)
    node.after(1)
    assert node.classes(NEW) == ("class", "pending-out"), "podwired has not heard of the new holder"
    node.hear(notifications)
    node.sync()
    assert node.classes(NEW) == ()


@pytest.mark.parametrize("labels", [{"app": "db"}, {}], ids=["isolated", "not isolated"])
@pytest.mark.parametrize("change", ["moved", "changed"])
def test_an_address_that_was_given_anew_stays_closed_when_the_new_pod_before_is_moved_or_changes(
    node: Node, labels: dict[str, str], change: str
) -> None:
    node.begin(CLOSED)
    node.tell(put(LOCAL_PODS, pod_of("shop/old", labels=labels)))
    node.add(NEW, "old", "c0")
    node.sync()
    node.record(NEW, "late")
    notifications = node.leave_new(NEW) + node.lead(NEW)
    if change == "changed":
        node.tell(put(LOCAL_PODS, pod_of("shop/old", labels={} if labels else {"app": "db"})))
        node.after(SETTLE_SECONDS / 2)
    else:
        node.after(SETTLE_SECONDS)
    assert node.classes(NEW) == ("pending-in", "pending-out"), "podwired has not heard of the new holder"
    node.hear(notifications)
    node.sync()
    assert node.classes(NEW) == ("pending-in", "pending-out")
    node.tell(put(LOCAL_PODS, pod_of("shop/late", labels={"app": "db"})))
    node.sync()
    assert node.classes(NEW) == ("class",)


@pytest.mark.parametrize("name", ["new-ingress4", "new-egress4"])
def test_a_class_that_others_have_removed_from_a_map_of_new_pods_comes_back_at_once(node: Node, name: str) -> None:
    node.begin(CLOSED)
    node.tell(put(LOCAL_PODS, pod_of("shop/x", labels={"app": "db"})))
    node.add(NEW, "x")
    node.sync()
    removed = [nft.delete_element(nft.SetRef(nft.NFPROTO_INET, TABLE, name), nft.Element(NEW, "", ""))]
    assert node.kernel.batch(nft.transaction(removed)) is None
    node.hear(removed)
    node.sync()
    assert node.keys(name) == {NEW}


def test_a_restart_before_a_new_pod_is_moved_keeps_its_connections_and_moves_it(node: Node) -> None:
    node.begin(CLOSED)
    node.tell(put(LOCAL_PODS, pod_of("shop/x", labels={"app": "db"})))
    node.add(NEW, "x")
    node.sync()
    node.kernel.connections = [connection(NEW, OTHER)]
    node.restarted()
    node.tell(put(LOCAL_PODS, pod_of("shop/x", labels={"app": "db"})))
    node.begin(CLOSED)
    assert ended(node) == set()
    assert node.chain("ingress4", NEW).startswith("class/")
    assert node.keys("new-ingress4") == node.keys("new-egress4") == set()
    node.controller.request_full_sync()
    assert node.sync() == 0


def test_a_move_that_fails_is_done_by_comparison(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.begin(CLOSED)
    node.tell(put(LOCAL_PODS, pod_of("shop/x", labels={"app": "db"})))
    node.add(NEW, "x")
    node.sync()
    with monkeypatch.context() as patch:
        patch.setattr(node.kernel, "batch", lambda _: NetlinkError(EIO, ""))
        node.after(SETTLE_SECONDS)
    assert node.chain("ingress4", NEW) == "pending-in"
    node.after(SETTLE_SECONDS)
    assert node.chain("ingress4", NEW).startswith("class/")
    assert node.keys("new-ingress4") == set()


def test_a_pod_of_which_the_api_does_not_tell_yet_stays_closed_until_it_does(node: Node) -> None:
    node.begin(CLOSED)
    node.add(NEW, "late")
    node.sync()
    assert node.classes(NEW) == ("pending-in", "pending-out")
    assert node.metric("podwired_policy_pod_start_seconds_count") == 0
    node.tell(put(LOCAL_PODS, pod_of("shop/late", labels={"app": "db"})))
    assert node.sync() == 1, "without the pause in which other changes gather"
    assert node.classes(NEW) == ("class",)
    assert node.metric("podwired_policy_pod_start_seconds_count") == 1


def test_a_container_that_the_runtime_names_no_pod_for_is_known_by_its_address_alone(node: Node) -> None:
    node.begin(CLOSED)
    node.add(NEW, "c1", namespace="")
    node.add(DB_KEY, "c2", "c2", namespace="")
    assert node.sync() == 1
    assert (node.classes(NEW), node.classes(DB_KEY)) == ((), ("class",))
    assert node.attached == []
    assert node.metric("podwired_policy_pods", what="local") == 1


def test_the_store_is_told_which_pods_are_attached(node: Node) -> None:
    node.begin(CLOSED)
    node.add(NEW, "new")
    node.sync()
    assert node.attached == [(("shop", "new"), True)]
    node.unlink()
    node.after(DEL_SECONDS)
    assert node.attached[1:] == [(("shop", "new"), False)]


def test_all_addresses_of_a_pod_have_its_class(node: Node) -> None:
    node.begin(CLOSED)
    node.tell(put(LOCAL_PODS, pod_of("shop/db2", labels={"app": "db"})))
    node.add(NEW, "db2")
    node.add(NEW6, "db2", "c1-of-another-network")
    assert node.sync() == 1
    assert (node.classes(NEW), node.classes(NEW6)) == (("class",), ("class",))
    node.unlink()
    assert node.after(DEL_SECONDS) == 1
    assert (node.classes(NEW), node.classes(NEW6)) == ((), ("class",))


def test_an_address_given_to_another_pod_has_the_class_of_that_one(node: Node) -> None:
    both = policy_of("shop/out", "{podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress]}")
    node.begin(CLOSED, both)
    node.tell(put(LOCAL_PODS, pod_of("shop/old", IP.from_packed(NEW).text, labels={"app": "db"})))
    node.after(1)
    assert node.classes(NEW) == ("class",)
    node.tell(put(LOCAL_PODS, pod_of("shop/web2", labels={"app": "web"})))
    node.add(NEW, "web2")
    node.sync()
    assert node.classes(NEW) == ("class", "class")
    node.tell(put(LOCAL_PODS, pod_of("shop/old", IP.from_packed(NEW).text, labels={"app": "db", "x": "y"})))
    node.after(1)
    assert node.classes(NEW) == ("class", "class"), "what the API still says of the old pod counts no more"


def test_a_pod_is_gone_with_its_interface(node: Node) -> None:
    node.begin(CLOSED)
    node.tell(put(LOCAL_PODS, pod_of("shop/db2", labels={"app": "db"})))
    node.add(NEW, "db2")
    node.sync()
    node.after(SETTLE_SECONDS)
    node.unlink("another")
    assert node.controller.due_at == math.inf
    node.unlink()
    assert node.after(DEL_SECONDS / 2) == 0, "a DEL may be under way"
    assert node.after(DEL_SECONDS) == 1
    assert node.classes(NEW) == ()
    node.after(DEL_SECONDS)
    assert node.controller.due_at == math.inf
    node.unrecord(NEW)
    node.controller.request_full_sync()
    assert node.sync() == 0


def test_del_removes_elements_and_nothing_is_compared(node: Node) -> None:
    node.begin(CLOSED)
    node.tell(put(LOCAL_PODS, pod_of("shop/db2", labels={"app": "db"})))
    node.add(NEW, "db2")
    node.sync()
    node.unlink()
    node.unrecord(NEW)
    node.hear(node.lead(NEW, away=True))
    node.sync()
    assert node.classes(NEW) == ()
    node.controller.request_full_sync()
    assert node.sync() == 0
    assert node.metric("podwired_policy_healed_total") == 0


def test_an_element_that_somebody_else_removes_comes_back(node: Node) -> None:
    node.begin(CLOSED)
    node.tell(put(LOCAL_PODS, pod_of("shop/db2", labels={"app": "db"})))
    node.add(NEW, "db2")
    node.sync()
    for key in (NEW, DB_KEY):
        node.hear(node.lead(key, away=True))
        assert node.sync() == 1
        assert node.classes(key) == ("class",)


def test_a_foreign_verdict_in_a_map_leads_to_a_comparison(node: Node) -> None:
    node.begin(CLOSED)
    node.hear(node.lead(DB_KEY, "to-pod"))
    node.sync()
    assert node.classes(DB_KEY) == ("class",)
    assert node.metric("podwired_policy_healed_total") == 1


def test_a_pod_that_comes_before_the_lists_are_there_waits_for_them(node: Node) -> None:
    """As where the API server is away while podwired restarts: the table of before is in force."""
    node.begin(CLOSED)
    node.restarted()
    node.add(NEW, "db2")
    assert node.classes(NEW) == ("pending-in", "pending-out")
    node.tell(put(LOCAL_PODS, pod_of("shop/db2", labels={"app": "db"})))
    node.begin(CLOSED)
    assert node.classes(NEW) == ("class",)


def test_a_new_pod_whose_connections_cannot_be_searched_has_its_class_after_a_comparison(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise Interrupted("a dump was interrupted 10 times")

    node.begin(CLOSED)
    node.tell(put(LOCAL_PODS, pod_of("shop/db2", labels={"app": "db"})))
    with monkeypatch.context() as patch:
        patch.setattr(Connections, "claim", fail)
        node.add(NEW, "db2")
    assert "NetworkPolicy: a new pod: a dump was interrupted 10 times" in caplog.text
    node.sync()
    assert node.classes(NEW) == ("class",)


def test_a_restart_finds_what_came_meanwhile_and_opens_nothing(node: Node) -> None:
    node.begin(CLOSED)
    node.tell(put(LOCAL_PODS, pod_of("shop/db2", labels={"app": "db"})))
    node.add(NEW, "db2")
    node.sync()
    node.after(SETTLE_SECONDS)
    node.restarted()
    node.record(NEW6, "db3", "c3")
    node.lead(NEW6)
    node.tell(put(LOCAL_PODS, pod_of("shop/db2", labels={"app": "db"}), pod_of("shop/db3", labels={"app": "db"})))
    before = len(node.kernel.transactions)
    node.begin(CLOSED)
    assert node.classes(NEW) == node.classes(NEW6) == ("class",)
    for transaction in node.kernel.transactions[before:]:
        changed = [key for _, _, payload in transaction for key, _ in parse_bounds(payload)]
        assert NEW not in changed, "it keeps its class, though the API has no address of it"
    assert node.metric("podwired_policy_pod_start_seconds_count") == 2, "of those that were pending"


def test_a_comparison_leaves_to_the_event_what_has_become_pending_since(node: Node) -> None:
    node.begin(CLOSED)
    notifications = node.lead(NEW), node.lead(DB_KEY)
    node.controller.request_rules_sync()
    reading = node.kernel.dump
    try:
        node.kernel.dump = lambda kind, payload: [] if kind & 0xFF == nft.NFT_MSG_GETSETELEM else reading(kind, payload)  # type: ignore[method-assign]
        node.controller._pods.catch_up()  # before the ADDs
    finally:
        node.kernel.dump = reading  # type: ignore[method-assign]
    node.controller._pods.pending.clear()
    assert node.controller._table.audit(node.controller._tracker.table, ()) == ""
    assert node.classes(NEW) == node.classes(DB_KEY) == ("pending-in", "pending-out")
    node.record(NEW, "late")
    for messages in notifications:
        node.hear(messages)
    node.sync()
    assert (node.classes(NEW), node.classes(DB_KEY)) == (("pending-in", "pending-out"), ("class",))


def test_a_pending_address_without_a_record_is_nobodys(node: Node) -> None:
    node.begin(CLOSED)
    node.lead(NEW)
    node.controller.request_rules_sync()
    node.sync()
    assert node.classes(NEW) == ()


def test_records_of_pods_that_are_long_gone_are_removed(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    node.begin(CLOSED)
    node.record(NEW, "db2")
    node.record(NEW6, "db3", "c3")
    (node.folder / "no address").touch()
    (node.folder / "10.1.0.77").write_bytes(b"not whole")
    (node.folder / "10.1.0.78").write_bytes(PodRecord("no label", "shop", "x").data)
    moment = time.time() - 2 * podrecords.YOUNG_SECONDS
    os.utime(node.folder / "10.1.0.9", (moment, moment))
    node.controller.request_full_sync()
    node.sync()
    assert node.attached == [(("shop", "db3"), True)]
    assert {path.name for path in node.folder.iterdir()} == {"fd00::9", "no address", "10.1.0.77", "10.1.0.78"}


def test_an_add_that_comes_before_the_table_is_not_forgotten(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    audit = node.controller._table.audit

    def audit_while_an_add_comes(*arguments: object) -> str:
        done = audit(*arguments)  # type: ignore[arg-type]
        node.record(NEW, "db2")
        return done

    monkeypatch.setattr(node.controller._table, "audit", audit_while_an_add_comes)
    node.tell(put(LOCAL_PODS, pod_of("shop/db2", labels={"app": "db"})))
    node.begin(CLOSED)
    assert node.classes(NEW) == ("class",)


def connection(source: bytes, destination: bytes) -> bytes:
    """Returns a UDP connection as the kernel tells of it."""

    def direction(kind: int, source: bytes, destination: bytes) -> bytes:
        ends = attribute(CTA_IP_SRC[4], source) + attribute(CTA_IP_DST[4], destination)
        ip = nest(CTA_TUPLE_IP, ends, flag=NLA_F_NESTED)
        return nest(kind, ip, nest(CTA_TUPLE_PROTO, attribute(1, b"\x11"), flag=NLA_F_NESTED), flag=NLA_F_NESTED)

    both = direction(CTA_TUPLE_ORIG, source, destination) + direction(CTA_TUPLE_REPLY, destination, source)
    return nft.NFGENMSG.pack(2, 0, 0) + both


OTHER = bytes([10, 1, 9, 9])


def ended(node: Node) -> set[bytes]:
    """Returns the connections that were ended, by their first direction."""
    originals = {attributes(payload, nft.NFGENMSG.size)[CTA_TUPLE_ORIG] for _, _, payload in node.kernel.ended}
    node.kernel.ended.clear()
    return originals


def test_connections_of_an_earlier_holder_end_before_the_class_is_given(node: Node) -> None:
    node.kernel.connections = [connection(NEW, OTHER), connection(OTHER, NEW), connection(OTHER, DB_KEY)]
    mine = {connections.parse_connection(message).original for message in node.kernel.connections[:2]}
    node.begin(CLOSED)
    node.tell(put(LOCAL_PODS, pod_of("shop/web")))
    node.add(NEW, "web")
    assert ended(node) == mine
    assert node.classes(NEW) == ("pending-in", "pending-out")
    node.sync()
    node.add(NEW, "web", "c2")  # before the end of the first one was noticed
    assert ended(node) == mine


def test_connections_end_with_their_pod_so_that_no_add_waits_for_that(node: Node) -> None:
    node.begin(CLOSED)
    node.tell(put(LOCAL_PODS, pod_of("shop/web", labels={"app": "db"})))
    node.kernel.connections_error = NetlinkError(EIO, "")  # nothing is asked for an address without connections
    node.add(NEW, "web")
    node.sync()
    node.kernel.connections_error = None
    node.kernel.connections = [connection(NEW, OTHER), connection(OTHER, DB_KEY)]
    node.unlink()
    node.unrecord(NEW)
    node.hear(node.lead(NEW, away=True))
    node.sync()
    assert ended(node) == set()
    node.after(1)
    assert ended(node) == {connections.parse_connection(node.kernel.connections[0]).original}
    assert node.controller.due_at < math.inf, "the interface is not forgotten yet"
    node.after(DEL_SECONDS)
    assert node.controller.due_at == math.inf
    node.add(NEW, "web")
    assert ended(node) == set()


def test_an_address_that_the_store_gave_to_a_pod_has_had_connections(node: Node) -> None:
    node.begin(CLOSED)
    node.kernel.connections = [connection(OTHER, DB_KEY)]
    node.tell(ObjectsChanged(LOCAL_PODS, {("shop", "db"): None}), put(LOCAL_PODS, pod_of("shop/web")))
    node.after(1)
    node.add(DB_KEY, "web")
    assert len(ended(node)) == 1


def test_an_address_that_is_used_again_is_not_waited_for(node: Node) -> None:
    node.begin(CLOSED)
    node.tell(put(LOCAL_PODS, pod_of("shop/web")))
    node.add(NEW, "web")
    node.sync()
    node.unlink()
    node.now += DEL_SECONDS
    node.sync()
    node.add(NEW, "web", "c2")
    node.kernel.connections = [connection(NEW, OTHER)]
    node.sync()
    node.after(1)
    assert ended(node) == set()


def test_an_error_of_the_first_look_is_told_and_it_is_tried_again(node: Node) -> None:
    node.kernel.connections_error = NetlinkError(EIO, "")
    node.begin(CLOSED)
    assert "Input/output error" in node.said[0]
    node.kernel.connections_error = None
    node.after(1)
    assert node.said[1:] == [""]


def test_connections_are_ended_once_however_often_a_pod_is_gone() -> None:
    kernel = PolicyKernel()
    kept = Connections(cast("Any", kernel))
    kept.begin()
    kernel.connections = [connection(NEW, OTHER)]
    for _ in range(2):
        kept.release(NEW)
    kept.go_on()
    assert not kept.is_waiting
    assert len(kernel.ended) == 2  # each direction's search finds it
    kept.release(NEW)
    kernel.connections_error = NetlinkError(EIO, "")
    with pytest.raises(NetlinkError):
        kept.go_on()
    kept.release(NEW)
    kernel.connections_error = NetlinkError(EINVAL, "")
    kept.go_on()
    assert not kept.is_waiting


@pytest.mark.parametrize("errno", [EINVAL, EIO])
def test_a_kernel_that_cannot_tell_of_connections_closes_nobody(node: Node, errno: int) -> None:
    if errno == EINVAL:
        node.kernel.connections_error = NetlinkError(errno, "")
    node.kernel.connections = [connection(NEW, OTHER)]
    node.begin(CLOSED)
    node.tell(put(LOCAL_PODS, pod_of("shop/web")))
    node.kernel.connections_error = NetlinkError(errno, "")
    node.add(NEW, "web")
    node.kernel.connections_error = None if errno == EIO else node.kernel.connections_error
    node.sync()
    assert node.classes(NEW) == ()


def test_connections_that_end_by_themselves_are_no_error(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(errno: int) -> None:
        def raised(*_: object) -> None:
            raise NetlinkError(errno, "")

        monkeypatch.setattr(node.kernel, "request", raised)

    node.kernel.connections = [connection(NEW, DB_KEY)]
    node.begin(CLOSED)
    node.tell(put(LOCAL_PODS, pod_of("shop/web")))
    refuse(ENOENT)
    node.add(NEW, "web")
    node.sync()
    assert node.classes(NEW) == ()
    refuse(EIO)
    node.add(NEW, "web", "c2")
    assert node.controller.due_at == 0.0, "the comparison tries again"


def test_where_no_records_can_be_written_that_is_told(node: Node) -> None:
    node.folder.touch()
    node.begin(CLOSED)
    assert node.classes(DB_KEY) == ("class",)
    assert node.said == [
        f"NetworkPolicy: new pods are open until the store has their addresses: {node.folder}: File exists"
    ]
    node.folder.unlink()
    node.controller.request_full_sync()
    node.sync()
    assert node.said[1:] == [""]
    assert node.folder.stat().st_mode & 0o777 == 0o700


def test_the_plugin_is_told_what_unknown_pods_may_do_and_what_the_kernel_can_check(tmp_path: Path) -> None:
    records = podrecords.PodRecords(str(tmp_path / "pods"))
    for holds in (True, True, False, False):
        records.begin({OPEN: holds, UNCHECKED: not holds})
        assert (tmp_path / "pods" / OPEN).exists() == holds
        assert (tmp_path / "pods" / UNCHECKED).exists() != holds
    (tmp_path / "pods" / "10.1.0.1").touch()
    podrecords.remove(records.folder)
    podrecords.remove(records.folder)
    assert not (tmp_path / "pods").exists()


def test_unknown_pods_are_told_from_others(node: Node) -> None:
    node.begin(CLOSED)
    node.add(NEW, "late")
    node.tell(ObjectsChanged(POLICIES, {}), put(LOCAL_PODS, DB))
    assert node.controller._index.local_group(NEW) is UNKNOWN
