"""ADD where podwired enforces NetworkPolicy: addresses are recorded and pending before the container can send."""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.agent.dataplane import port_isolation
from cni.agent.dataplane.policy_table import PolicyTable
from cni.agent.policy.basetable import TableOptions
from cni.agent.policy.index import Index
from cni.agent.policy.tracker import Tracker
from cni.kernel import nft
from cni.kernel.netlink import NETLINK_NETFILTER, Netlink
from cni.plan.alias import parse_alias
from cni.plan.policy import ISOLATED, parse_record
from tests.netns.faults import crash, lose, refuse, sweep, wrap_effects, wrap_operations
from tests.netns.runtime import DUAL, IPV4, Attachment, attachment, host_local, network, serve
from tests.netns.state import difference, leases, link, owners, shown, whole
from tests.netns.test_cost import Counting, exchanges

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.machine import Machine
    from tests.netns.faults import Fault, Function
    from tests.netns.runtime import Json, Node

OPTIONS = TableOptions(log=False, revoke=False)
POD = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=db"
BOTH, FIRST = network(isDefaultGateway=True, ipam=DUAL, policyWait=0), "10.1.2.2"
ONE = network(isDefaultGateway=True, ipam=host_local(IPV4), policyWait=0)
MAPS = ("ingress4", "egress4", "ingress6", "egress6")
SHARED = ("ip link delete cni0", "sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0")


def folder() -> str:
    return f"/run/podwire/pods-{os.stat('/proc/thread-self/ns/net').st_ino}"


def make_folder() -> None:
    os.makedirs(folder(), 0o700)


def enforce() -> None:
    """Inside: makes folder and table as podwired does, for no policy."""
    make_folder()
    netfilter = Netlink(NETLINK_NETFILTER)
    tracker = Tracker(Index("n1"), OPTIONS)
    tracker.update()
    PolicyTable(netfilter, OPTIONS).audit(tracker.table)
    netfilter.close()


def read_records() -> dict[str, tuple[str, ...]]:
    """Inside: returns of each address namespace and name of its pod."""
    records: dict[str, tuple[str, ...]] = {}
    for name in os.listdir(folder()):
        with open(f"{folder()}/{name}", "rb") as file:
            record = parse_record(file.read())
            records[name] = record[1:] if record else ()
    return records


def age(seconds: float) -> None:
    """Inside: makes all records older."""
    for name in os.listdir(folder()):
        moment = time.time() - seconds
        os.utime(f"{folder()}/{name}", (moment, moment))


def elements(machine: Machine) -> dict[str, str]:
    """Returns the elements of podwired's maps as "MAP ADDRESS", each with its chain."""
    listed = shown(machine, "nft", "-j", "list", "table", "inet", "podwire-policy")["nftables"]
    chains = {}
    for body in [item["map"] for item in listed if "map" in item]:
        for key, verdict in body.get("elem", []):
            address = key["elem"]["val"] if isinstance(key, dict) else key
            chains[f"{body['name']} {address}"] = verdict["goto"]["target"]
    return chains


@pytest.fixture
def policed(machine: Machine) -> Machine:
    """Gives a host on which policies are enforced and podwired is away."""
    machine.call(enforce)
    return machine


def test_a_pod_is_closed_from_its_first_packet(policed: Machine, node: Node) -> None:
    pod, other = policed.pod("pod1"), policed.pod("pod2")
    who, host = attachment(pod, arguments=POD), "10.1.2.1"
    node.add(ONE, attachment(other))
    for name in MAPS[:2]:
        policed.run("nft", "flush", "map", "inet", "podwire-policy", name)
    assert other.run("ping", "-c1", "-W5", host).returncode == 0
    answer = node.add(BOTH, who)
    addresses = [ip["address"].partition("/")[0] for ip in answer["ips"]]
    assert elements(policed) == {
        f"{name} {address}": f"pending-{'in' if name.startswith('ingress') else 'out'}"
        for name in MAPS
        for address in addresses
        if ("6" in name) == (":" in address)
    }
    assert policed.call(read_records) == {FIRST: ("", "pod2")} | dict.fromkeys(addresses, ("shop", "db"))
    assert pod.run("ping", "-c1", "-W1", host, check=False).returncode
    node.delete(BOTH, who)
    assert elements(policed) == {}
    assert policed.call(read_records).keys() == {FIRST}


def test_add_returns_once_the_pod_has_its_class(policed: Machine, node: Node) -> None:
    away = f"nft get element inet podwire-policy ingress4 '{{ {FIRST} }}'"
    delete = "; ".join(f"delete element inet podwire-policy {name} {{ {FIRST} }}" for name in MAPS[:2])
    judge = policed.start("sh", "-c", f"until {away} >/dev/null 2>&1; do sleep 0.02; done; sleep 0.2; nft '{delete}'")
    answer = node.call("ADD", {**ONE, "policyWait": 60}, attachment(policed.pod("pod1"), arguments=POD)).succeeded()
    assert "NetworkPolicy" not in answer.stderr
    assert elements(policed) == {}
    assert judge.wait() == 0


def judging(name: str) -> str:
    """Returns the command that gives a new pod a class, in which it is not isolated."""
    chain = "accepted" if "ingress" in name else "to-pod"
    return f"add element inet podwire-policy {name} {{ {FIRST} : goto {chain} }}"


def test_add_returns_once_the_maps_of_new_pods_have_the_class(policed: Machine, node: Node) -> None:
    pending = f"nft get element inet podwire-policy ingress4 '{{ {FIRST} }}'"
    judge = "; ".join(judging(f"new-{name}") for name in MAPS[:2])
    agent = policed.start("sh", "-c", f"until {pending} >/dev/null 2>&1; do sleep 0.02; done; sleep 0.2; nft '{judge}'")
    who = attachment(policed.pod("pod1"), arguments=POD)
    answer = node.call("ADD", {**ONE, "policyWait": 60}, who).succeeded()
    assert agent.wait() == 0
    assert "NetworkPolicy" not in answer.stderr
    assert elements(policed) == {
        f"ingress4 {FIRST}": "pending-in",
        f"egress4 {FIRST}": "pending-out",
        f"new-ingress4 {FIRST}": "accepted",
        f"new-egress4 {FIRST}": "to-pod",
    }
    node.delete(ONE, who)
    assert elements(policed) == {}


def kinds_of_add(config: Json, who: Attachment) -> tuple[int, Counter[int]]:
    """Inside: returns how many sockets an ADD opens, and how often it sends which type of message. A pod that has to
    wait for its class has it when the ADD looks first.
    """

    def install(name: str, function: Function) -> Function:
        def judged(*arguments: Any, **named: Any) -> Any:
            if name == "AwaitClass":
                subprocess.run(["nft", "; ".join(judging(f"new-{name}") for name in MAPS[:2])], check=True)
            return function(*arguments, **named)

        return judged

    wrap_operations(install)
    sent = exchanges("ADD", config, who)
    return len(Counting.all), Counter(exchange.kind for exchange in sent)


def test_handing_a_pod_over_costs_one_transaction_and_one_question(machine: Machine, node: Node) -> None:
    config = {**ONE, "policyWait": 60, "ipSpoofCheck": False, "runtimeConfig": {"ips": [FIRST]}}
    who = attachment(machine.pod("pod1"), arguments=POD)
    node.add(config, who)
    node.delete(config, who)
    sockets, kinds = machine.call(kinds_of_add, config, who)
    node.delete(config, who)
    machine.call(enforce)
    question = nft.NFNL_SUBSYS_NFTABLES << 8 | nft.NFT_MSG_GETSETELEM
    more = Counter({nft.NFNL_MSG_BATCH_BEGIN: 1, question: 1})
    assert machine.call(kinds_of_add, config, who) == (sockets, kinds + more)


@pytest.mark.parametrize("judged", [["new-ingress4"], ["new-egress4"]])
def test_add_waits_for_the_class_of_both_directions(policed: Machine, node: Node, judged: list[str]) -> None:
    pending = f"nft get element inet podwire-policy ingress4 '{{ {FIRST} }}'"
    judge = "; ".join(map(judging, judged))
    agent = policed.start("sh", "-c", f"until {pending} >/dev/null 2>&1; do sleep 0.02; done; nft '{judge}'")
    answer = node.call("ADD", {**ONE, "policyWait": 1}, attachment(policed.pod("pod1"), arguments=POD)).succeeded()
    assert agent.wait() == 0
    assert "did not judge the pod within 1 s" in answer.stderr


def test_a_pod_stays_closed_when_the_wait_is_over(policed: Machine, node: Node) -> None:
    answer = node.call("ADD", {**ONE, "policyWait": 1}, attachment(policed.pod("pod1"), arguments=POD)).succeeded()
    assert f"NetworkPolicy: {FIRST}: podwired did not judge the pod within 1 s (policyWait)" in answer.stderr
    assert "connections are dropped" in answer.stderr
    assert elements(policed) == {f"ingress4 {FIRST}": "pending-in", f"egress4 {FIRST}": "pending-out"}
    policed.call(write, "open")
    answer = node.call("ADD", {**ONE, "policyWait": 1}, attachment(policed.pod("pod2"), arguments=POD)).succeeded()
    assert "connections pass whatever policies say (--policy-unknown=open)" in answer.stderr


def write(name: str) -> None:
    with open(f"{folder()}/{name}", "w"):
        pass


@pytest.mark.parametrize("maps", [("ingress4",), ("egress4",), ("ingress4", "egress4")])
def test_the_class_of_an_earlier_holder_is_gone_when_add_returns(
    policed: Machine, node: Node, maps: tuple[str, ...]
) -> None:
    for name in maps:
        policed.run("nft", f"add element inet podwire-policy {name} {{ {FIRST} : goto denied-in }}")
        policed.run("nft", judging(f"new-{name}"))
    node.add(ONE, attachment(policed.pod("pod1"), arguments=POD))
    assert elements(policed) == {f"ingress4 {FIRST}": "pending-in", f"egress4 {FIRST}": "pending-out"}


def test_a_late_del_leaves_what_the_next_holder_of_the_address_has(policed: Machine, node: Node) -> None:
    first, second = (attachment(policed.pod(name), arguments=POD) for name in ("pod1", "pod2"))
    node.add(ONE, first)
    policed.run("rm", f"/var/lib/cni/networks/net/{FIRST}")
    policed.run("rm", "-rf", "/run/podwire/ipam")
    node.add({**ONE, "runtimeConfig": {"ips": [FIRST]}, "capabilities": {"ips": True}}, second)
    before = elements(policed), policed.call(read_records)
    node.delete(ONE, first)
    assert (elements(policed), policed.call(read_records)) == before
    node.delete(ONE, second)
    assert (elements(policed), policed.call(read_records)) == ({}, {})


def test_without_a_table_nothing_is_pending_and_the_record_waits_for_it(machine: Machine, node: Node) -> None:
    machine.call(make_folder)
    who = attachment(machine.pod("pod1"), arguments=POD)
    answer = node.call("ADD", {**ONE, "policyWait": 60}, who).succeeded()
    assert "NetworkPolicy" not in answer.stderr
    assert machine.call(read_records).keys() == {FIRST}
    node.delete(ONE, who)
    assert machine.call(read_records) == {}


def test_del_of_a_pod_from_before_policies_were_switched_off(policed: Machine, node: Node) -> None:
    who = attachment(policed.pod("pod1"), arguments=POD)
    node.add(ONE, who)
    policed.run("sh", "-c", "rm -r /run/podwire/pods-*; nft delete table inet podwire-policy")
    node.delete(ONE, who)
    assert leases(policed) == {}


@pytest.mark.parametrize("fault", [refuse, lose])
def test_a_failed_add_leaves_neither_record_nor_element(policed: Machine, fault: Fault) -> None:
    netns = policed.pod("victim").path
    before = whole(policed)
    shared = (*SHARED, "nft delete table inet podwire", "nft delete table bridge podwire")
    cases = policed.call(sweep, wrap_effects, fault, ONE, netns, range(0, 60, 2), shared, False)
    assert any(case.answer.status for case in cases)
    assert [str(case) for case in cases if "could be undone" in case.answer.message] == []
    assert policed.call(read_records) == {}
    assert difference(before, whole(policed)) == []


def add_during(begins: bool, who: Attachment) -> Json:
    """Inside: returns the answer of an ADD that meets podwired's change between its plan and its port."""
    marker, config = Path(folder()) / ISOLATED, {**ONE, "policyWait": 0}
    if not begins:
        marker.touch()

    def install(name: str, function: Function) -> Function:
        def changed(*arguments: Any, **named: Any) -> Any:
            if name == "Pending":
                (port_isolation.begin if begins else port_isolation.end)(arguments[0])
            return function(*arguments, **named)

        return changed

    wrap_operations(install)
    return serve(who.environment("ADD"), config).succeeded().content


@pytest.mark.parametrize("begins", [True, False])
def test_a_port_is_isolated_as_podwired_asks_when_the_port_is_there(policed: Machine, node: Node, begins: bool) -> None:
    """Podwired lists the ports before this one is there, and does not look again."""
    who = attachment(policed.pod("pod1"), arguments=POD)
    result = policed.call(add_during, begins, who)
    (name,) = owners(policed)
    port = link(policed, name)
    isolated = port["linkinfo"]["info_slave_data"]["isolated"]
    assert (isolated, parse_alias(port["ifalias"]).isolated) == (begins, begins)
    node.call("CHECK", {**ONE, "prevResult": result}, who).succeeded()


def test_del_after_an_add_that_was_killed_releases_everything(policed: Machine, node: Node) -> None:
    pod = policed.pod("victim")
    number = policed.call(position_of_link, ONE, Attachment("counted", policed.pod("counted").path))
    with pytest.raises(Exception, match="ended without an answer"):
        policed.call(sweep, wrap_effects, crash, ONE, pod.path, [number], (), False)
    killed = Attachment(f"container{number}", pod.path)
    assert elements(policed)
    assert policed.call(read_records)
    node.delete(ONE, killed)
    assert (elements(policed), policed.call(read_records), leases(policed)) == ({}, {}, {})


def position_of_link(config: Json, who: Attachment) -> int:
    """Inside: returns the number of the first message after the one by which an address becomes pending."""
    from tests.netns.faults import count
    from tests.netns.runtime import serve

    names = count(wrap_effects, config, who)
    serve(who.environment("DEL"), config).succeeded()
    return names.index("Netlink.batch") + 1


def test_gc_releases_what_is_not_valid(policed: Machine, node: Node) -> None:
    kept, lost = (attachment(policed.pod(name), arguments=POD) for name in ("kept", "lost"))
    node.add(ONE, kept)
    node.add(ONE, lost)
    policed.call(write, "open")
    valid = [{"containerID": kept.container, "ifname": kept.interface}]
    node.call("GC", {**ONE, "cni.dev/valid-attachments": valid}).succeeded()
    assert elements(policed) == {f"ingress4 {FIRST}": "pending-in", f"egress4 {FIRST}": "pending-out"}
    assert policed.call(read_records).keys() == {FIRST, "open"}


def test_status_tells_of_pods_that_wait_for_an_agent_that_is_away(policed: Machine, node: Node) -> None:
    assert node.call("STATUS", ONE).code == 0
    node.add(ONE, attachment(policed.pod("pod1"), arguments=POD))
    node.add(ONE, attachment(policed.pod("pod2")))
    assert node.call("STATUS", ONE).code == 0
    policed.call(age, 60)
    refusal = node.call("STATUS", ONE)
    assert refusal.code == 50
    assert "podwired is not running, so new pods stay closed: " in refusal.message
    assert f"shop/db ({FIRST}) has waited for 6" in refusal.message or "pod2 (" in refusal.message
    policed.call(write, "open")
    assert node.call("STATUS", ONE).code == 0


def test_status_leaves_out_new_pods_that_podwired_judged_before_it_ended(policed: Machine, node: Node) -> None:
    node.add(ONE, attachment(policed.pod("pod1"), arguments=POD))
    policed.call(age, 60)
    policed.run("nft", judging("new-ingress4"))
    assert node.call("STATUS", ONE).code == 0
    policed.run("nft", f"delete element inet podwire-policy new-ingress4 {{ {FIRST} }}")
    assert node.call("STATUS", ONE).code == 50


@pytest.fixture
def agent(policed: Machine) -> Iterator[Machine]:
    """Gives a host on which somebody holds podwired's lock."""
    inode = policed.call(own_inode)
    holder = policed.start(
        "sh", "-c", f"exec flock -x /run/podwire/podwired-{inode}-policy.lock sh -c 'echo locked; sleep 60'"
    )
    assert holder.stdout
    assert holder.stdout.readline() == "locked\n"
    yield policed
    holder.kill()


def test_status_leaves_pods_that_a_running_agent_does_not_know_to_it(agent: Machine, node: Node) -> None:
    node.add(ONE, attachment(agent.pod("pod1"), arguments=POD))
    agent.call(age, 60)
    assert node.call("STATUS", ONE).code == 0


def test_del_leaves_elements_to_a_running_agent_but_a_failed_add_does_not(agent: Machine, node: Node) -> None:
    who = attachment(agent.pod("pod1"), arguments=POD)
    node.add(ONE, who)
    node.delete(ONE, who)
    assert agent.call(read_records) == {}
    assert elements(agent) == {f"ingress4 {FIRST}": "pending-in", f"egress4 {FIRST}": "pending-out"}
    number = agent.call(position_of_link, ONE, Attachment("counted", agent.pod("counted").path))
    before = elements(agent)
    (case,) = agent.call(sweep, wrap_effects, refuse, ONE, who.netns, [number], (), False)
    assert case.answer.status
    assert elements(agent) == before
    assert agent.call(read_records) == {}


def own_inode() -> int:
    return os.stat("/proc/thread-self/ns/net").st_ino
