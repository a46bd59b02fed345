"""The table of NetworkPolicy: messages of changes, and the repair of what others have changed."""

from __future__ import annotations

from errno import EBUSY, ENOENT, ENOSPC, EPERM, EPROTONOSUPPORT
from typing import TYPE_CHECKING, Any, cast

import pytest

from cni.agent.dataplane import policy_table
from cni.agent.dataplane.policy_table import PolicyTable, steps_of
from cni.agent.policy.basetable import LABELLING, TableOptions
from cni.agent.policy.desired import AddElements, AddVerdicts, DeleteChain, SetRules
from cni.agent.policy.index import Index
from cni.agent.policy.tracker import Tracker
from cni.kernel import nft, nft_keys, nft_rules, nft_ruleset
from cni.kernel.netlink import NLM_F_ACK, NetlinkError
from cni.plan.nftrule import DROP, FILTER, Chain, Counter, Hook, NamedSet, Rule, Table
from cni.plan.policy import TABLE
from cni.plan.sourcecheck import rulesets
from tests.unit.policy_kernel import PolicyKernel
from tests.unit.policy_objects import namespace_of, pod_of, policy_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.effects.host import Host
    from cni.kernel.netlink import Netlink
    from cni.plan.nftables import RulesetFragment

OPTIONS = TableOptions(log=False, revoke=False)
WEB = """{podSelector: {matchLabels: {app: db}}, ingress: [
    {from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: http}, {port: 90, endPort: 99}, {port: 80}]},
    {from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}, {ipBlock: {cidr: 192.0.2.0/24}}]}]}"""
FAMILY = nft.NFPROTO_INET


class Scene:
    """A kernel, and the policies of a node."""

    def __init__(self) -> None:
        self.kernel, self.unsupported = PolicyKernel(), False
        self.index = Index("n1")
        self.tracker = Tracker(self.index, OPTIONS)
        self.table = PolicyTable(self.socket, OPTIONS)
        self.index.put_namespace(namespace_of("shop"))
        for number, name in enumerate(("db", "web", "other"), 1):
            self.index.put_pod(pod_of(f"shop/{name}", f"10.1.0.{number}", f"fd00::{number}", ports={"http": 8080}))
        self.index.put_policy(policy_of("shop/web", WEB))

    @property
    def socket(self) -> Netlink:
        return cast("Netlink", cast("Any", self.kernel))

    @property
    def host(self) -> Host:
        return cast("Host", cast("Any", self))

    @property
    def netfilter(self) -> PolicyKernel:
        if self.unsupported:
            raise OSError(EPROTONOSUPPORT, "Protocol not supported")
        return self.kernel

    def audit(self) -> str:
        self.tracker.update()
        return self.table.audit(self.tracker.table)

    def apply(self) -> int:
        """Applies what has changed; returns the number of messages."""
        self.table.apply(self.tracker.update())
        return len(self.kernel.transactions[-1])

    def send(self, *messages: tuple[int, int, bytes]) -> None:
        """Changes the kernel as somebody else."""
        assert self.kernel.batch(nft.transaction([*messages])) is None

    def keys(self, name: str) -> set[bytes]:
        return {key for key, _ in self.kernel.elements[name]}


@pytest.fixture
def scene() -> Scene:
    scene = Scene()
    assert scene.audit() == "it was missing"
    return scene


def test_a_table_is_created_in_one_transaction_and_found_as_it_is(scene: Scene) -> None:
    assert len(scene.kernel.transactions) == 1
    assert scene.keys("ingress4") == {bytes([10, 1, 0, 1])}
    assert scene.audit() == ""
    assert len(scene.kernel.transactions) == 1


def test_one_message_of_a_transaction_is_acknowledged(scene: Scene) -> None:
    flags = [flags & NLM_F_ACK for _, flags, _ in scene.kernel.transactions[0]]
    assert flags == [*[0] * (len(flags) - 1), NLM_F_ACK]


def test_a_pod_that_a_policy_allows_is_one_message_for_each_set(scene: Scene) -> None:
    scene.index.put_pod(pod_of("shop/more", "10.1.0.9", "fd00::9", node="n2", labels={"app": "web"}))
    assert scene.apply() == 2
    assert scene.audit() == ""


def test_every_change_leads_to_the_table_that_a_new_one_would_be(scene: Scene) -> None:
    closed = policy_of("shop/closed", "{podSelector: {}, policyTypes: [Ingress, Egress]}")
    changes: list[Callable[[], None]] = [
        lambda: scene.index.put_policy(closed),
        lambda: scene.index.put_pod(pod_of("shop/db2", "10.1.0.8", labels={"app": "db"})),
        lambda: scene.index.put_policy(policy_of("shop/web", "{podSelector: {matchLabels: {app: db}}, ingress: [{}]}")),
        lambda: scene.index.remove_pod("shop", "db"),
        lambda: scene.index.remove_policy("shop", "closed"),
        lambda: scene.index.remove_policy("shop", "web"),
    ]
    for change in changes:
        change()
        scene.apply()
        assert scene.audit() == ""
    assert not scene.kernel.elements["ingress4"]
    assert [name for name in scene.kernel.chains if "/" in name] == []


def test_large_sets_come_in_several_messages() -> None:
    keys = tuple([number.to_bytes(4, "big") for number in range(2 * nft_keys.AT_A_TIME + 1)])
    assert len(steps_of([AddElements("s", keys)])) == 3
    verdicts = AddVerdicts("m", tuple([(key, "c") for key in keys[: nft_keys.VERDICTS_AT_A_TIME + 1]]))
    assert len(steps_of([verdicts])) == 2


def test_a_removed_chain_is_emptied_first() -> None:
    steps = steps_of([SetRules("a", ()), SetRules("b", (Rule((DROP,)),)), DeleteChain("a")])
    assert [step.title for step in steps] == [
        "chain inet podwire-policy b",
        "chain inet podwire-policy b",
        f"chain inet podwire-policy b: {steps[2].rule and steps[2].rule.text}",
        "chain inet podwire-policy a",
        "chain inet podwire-policy a",
    ]


OTHERS: dict[str, Callable[[Scene], str]] = {}


def by_others(expected: str) -> Callable[[Callable[[Scene], None]], Callable[[Scene], None]]:
    def noted(change: Callable[[Scene], None]) -> Callable[[Scene], None]:
        def changed(scene: Scene) -> str:
            change(scene)
            return expected

        OTHERS[change.__name__] = changed
        return change

    return noted


@by_others("it was missing")
def flush(scene: Scene) -> None:
    scene.kernel.flush()


@by_others("it was dormant")
def sleep(scene: Scene) -> None:
    scene.kernel.table = nft.NFGENMSG.pack(FAMILY, 0, 0) + nft_rules.be32(nft_ruleset.NFTA_TABLE_FLAGS, 1)


@by_others("1 parts differed")
def lose_a_key(scene: Scene) -> None:
    scene.kernel.elements["own4"].clear()


@by_others("1 parts differed")
def get_a_key(scene: Scene) -> None:
    scene.send(nft_keys.add_keys(nft.SetRef(FAMILY, TABLE, "own4"), [bytes(8)]))


@by_others("2 parts differed")
def lead_elsewhere(scene: Scene) -> None:
    place, key = nft.SetRef(FAMILY, TABLE, "ingress4"), bytes([10, 1, 0, 1])
    scene.send(nft.delete_element(place, nft.Element(key, "", "")), nft_keys.add_verdicts(place, [(key, "to-pod")]))


@by_others("1 parts differed")
def get_a_verdict(scene: Scene) -> None:
    element = nft.Element(bytes([10, 1, 0, 7]), "to-pod", "")
    scene.send(nft.add_element(nft.SetRef(FAMILY, TABLE, "ingress4"), element))


@by_others("chain known was missing or had other rules")
def flush_a_base_chain(scene: Scene) -> None:
    scene.send(nft_ruleset.flush_chain(FAMILY, TABLE, "known"))


@by_others("chain to-pod was missing or had other rules")
def lose_a_base_chain(scene: Scene) -> None:
    del scene.kernel.chains["to-pod"], scene.kernel.rules["to-pod"]


@by_others("1 parts differed")
def flush_a_policy(scene: Scene) -> None:
    scene.send(nft_ruleset.flush_chain(FAMILY, TABLE, "policy/shop/web/in"))


@by_others("chain forward had another hook")
def change_a_hook(scene: Scene) -> None:
    hook = Hook("filter", "forward", FILTER, "drop")
    scene.kernel.chains["forward"] = nft_ruleset.add_chain(FAMILY, TABLE, Chain("forward", (), hook))[2]


@by_others("2 parts differed")
def add_a_chain(scene: Scene) -> None:
    theirs = Table("inet", TABLE, (), (Chain("theirs", (Rule((Counter(), DROP)),)),))
    scene.send(*[step.message for step in nft_ruleset.create(theirs)])


@by_others("1 parts differed")
def add_a_set(scene: Scene) -> None:
    scene.send(nft_ruleset.add_set(nft.SetRef(FAMILY, TABLE, "theirs"), NamedSet("theirs", "ipv4_addr"), 1))


@by_others("map ingress4 was missing or another")
def lose_a_map(scene: Scene) -> None:
    del scene.kernel.sets["ingress4"]


@by_others("set own4 was missing or another")
def change_a_set(scene: Scene) -> None:
    named = NamedSet("own4", "ipv6_addr")
    scene.kernel.sets["own4"] = nft_ruleset.add_set(nft.SetRef(FAMILY, TABLE, "own4"), named, 1)[2]


@by_others("networks")
def change_networks(scene: Scene) -> None:
    name = next(name for name in scene.kernel.sets if name.startswith("cidr/"))
    scene.kernel.elements[name].popitem()


@by_others("3 parts differed")
def lose_a_set_of_networks(scene: Scene) -> None:
    name = next(name for name in scene.kernel.sets if name.startswith("cidr/"))
    del scene.kernel.sets[name], scene.kernel.elements[name]
    scene.kernel.elements["own4"].clear()
    scene.kernel.elements["own6"].clear()


@pytest.mark.parametrize("name", OTHERS)
def test_what_others_change_is_healed_in_one_transaction_or_beside_a_standby(scene: Scene, name: str) -> None:
    expected = OTHERS[name](scene)
    before, was_present = len(scene.kernel.transactions), scene.kernel.table is not None
    difference = scene.audit()
    assert expected in difference
    after = len(scene.kernel.transactions)
    assert after - before == (1 if difference.endswith("differed") or not was_present else 3)
    assert scene.audit() == ""
    assert len(scene.kernel.transactions) == after


def test_a_repair_that_is_refused_makes_the_table_anew(scene: Scene) -> None:
    scene.kernel.elements["own4"].clear()
    scene.kernel.refusals.append(NetlinkError(EBUSY, "", 1))
    before = len(scene.kernel.transactions)
    assert scene.audit() == "1 parts differed"
    copy, table, removal = [[kind for kind, _, _ in messages] for messages in scene.kernel.transactions[before:]]
    assert copy == table
    assert removal == table[:2]
    assert scene.kernel.standby == []
    assert scene.audit() == ""


def test_a_new_table_that_is_refused_leaves_no_standby_in_force(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would not get the pods that come from then on, and so drop what the old table allows them."""
    batch, errors = scene.kernel.batch, iter([None, NetlinkError(ENOSPC, "", 1)])
    change_a_set(scene)
    monkeypatch.setattr(scene.kernel, "batch", lambda messages: next(errors, None) or batch(messages))
    with pytest.raises(NetlinkError):
        scene.audit()
    assert scene.kernel.standby == []


def test_a_standby_that_a_killed_agent_has_left_is_removed(scene: Scene) -> None:
    scene.kernel.standby = [b"left"]
    assert scene.audit() == ""
    assert scene.kernel.standby == []


def test_a_missing_table_needs_no_standby(scene: Scene) -> None:
    scene.kernel.flush()
    before = len(scene.kernel.transactions)
    assert scene.audit() == "it was missing"
    assert len(scene.kernel.transactions) == before + 1


def test_errors_name_the_object(scene: Scene) -> None:
    scene.index.remove_pod("shop", "web")
    scene.kernel.refusals.append(NetlinkError(ENOENT, "", 1))
    with pytest.raises(NetlinkError, match="elements of inet podwire-policy pods/"):
        scene.apply()


def test_a_kernel_that_refuses_questions_is_not_taken_for_one_without_the_table(scene: Scene) -> None:
    scene.kernel.answer = NetlinkError(EPERM, "")
    with pytest.raises(NetlinkError):
        scene.audit()
    with pytest.raises(NetlinkError):
        policy_table.is_present(scene.host)
    scene.kernel.answer = None
    scene.kernel.set_error = NetlinkError(EPERM, "")
    with pytest.raises(NetlinkError):
        scene.audit()


def test_a_kernel_that_gives_connections_no_labels_is_found_out(scene: Scene) -> None:
    trial = Table("inet", policy_table.TRIAL, (), (Chain("trial", (LABELLING,)),))
    steps = nft_ruleset.create(trial)
    (rule,) = [number for number, step in enumerate(steps, 1) if step.rule]
    expected = {0: True, len(steps): False, len(steps) + 1: True}  # none of nf_tables is another error
    assert rule == len(steps)
    for position, supported in expected.items():
        scene.kernel.refusals.append(NetlinkError(ENOENT, "", position))
        assert policy_table.is_supported(scene.socket, LABELLING) is supported
    assert len(scene.kernel.transactions) == 1


@pytest.mark.parametrize(
    "part", [part for routed in (False, True) for part in rulesets(routed=routed)], ids=lambda part: part.chains[0]
)
def test_what_a_kernel_lacks_for_the_source_check_is_named(scene: Scene, part: RulesetFragment) -> None:
    steps = nft_ruleset.create(part.content()._replace(name=policy_table.TRIAL))
    for position, step in enumerate(steps, 1):
        scene.kernel.refusals.append(NetlinkError(ENOENT, "", position))
        lack = policy_table.lack_of(scene.socket, part.content())
        assert lack == f"{step.title} (load the module {step.module or 'nf_tables'})"
    scene.kernel.refusals.append(NetlinkError(ENOENT, "", len(steps) + 1))
    assert policy_table.lack_of(scene.socket, part.content()) == ""
    assert len(scene.kernel.transactions) == 1


def test_the_table_is_removed(scene: Scene) -> None:
    assert policy_table.is_present(scene.host)
    policy_table.remove(scene.socket)
    assert scene.kernel.table is None
    assert not policy_table.is_present(scene.host)


def test_a_kernel_without_nftables_has_no_table(scene: Scene) -> None:
    scene.unsupported = True
    assert not policy_table.is_present(scene.host)
