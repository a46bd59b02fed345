"""Hosts whose firewall drops what it forwards: containers talk, administrators keep their say."""

from __future__ import annotations

from errno import EINVAL, EPERM
from typing import TYPE_CHECKING, Any

import pytest

from cni.effects import forward_rules
from cni.kernel import netlink, nft, nft_rules
from cni.kernel.hostlock import HostLock
from cni.kernel.netns import OWN, Netns
from cni.kernel.nft import Chain
from cni.plan.forward_accept import CHAIN
from cni.protocol.address import parse_net
from tests.netns.faults import lose, terminate, without_nfnetlink, wrap_effects
from tests.netns.forwarding import (
    DROP,
    FIREWALLS,
    NATIVE,
    NEEDS_IPTABLES,
    ONE,
    OUTSIDE4,
    TWO,
    answers,
    attach,
    drop,
    need_iptables_legacy,
    no_programs,
    paths,
    rules,
    settle,
)
from tests.netns.runtime import PLAIN, Closed, attachment, network
from tests.netns.state import difference, whole
from tests.netns.test_cost import exchanges
from tests.netns.test_fault_sweep import CODES, Scene, changes, effects_of, failed_adds

if TYPE_CHECKING:
    from tests.machine import Machine
    from tests.netns.faults import Fault
    from tests.netns.forwarding import World
    from tests.netns.runtime import Json, Node


# --- Accepting


@pytest.mark.parametrize("firewall", FIREWALLS)
def test_containers_talk_where_the_host_drops(world: World, firewall: str) -> None:
    drop(world.machine, firewall)
    attach(world)
    assert all(paths(world))
    for config, pod in zip((ONE, TWO), world.pods, strict=True):
        world.node.check(config, attachment(pod)).succeeded()
        world.node.call("STATUS", config).succeeded()


@NEEDS_IPTABLES
def test_without_the_rules_nothing_passes(world: World) -> None:
    """The control of the tests below: bridge accepts as little as its reference, so the host really drops."""
    drop(world.machine, "iptables")
    attach(world, "bridge")
    assert not any(paths(world))
    assert CHAIN not in rules(world.machine)


@NEEDS_IPTABLES
def test_where_the_host_accepts_it_is_left_alone(world: World) -> None:
    world.machine.run("iptables-nft", "-P", "FORWARD", "ACCEPT")
    before = rules(world.machine)
    attach(world)
    assert all(paths(world))
    assert rules(world.machine) == before


@NEEDS_IPTABLES
def test_neighbours_on_one_bridge_talk_where_frames_are_filtered_as_packets(world: World) -> None:
    """br_netfilter, which Docker and Kubernetes load."""
    keys = [f"net.bridge.bridge-nf-call-{name}" for name in ("iptables", "ip6tables")]
    for key in keys:
        if world.machine.run("sysctl", "-qw", f"{key}=1", check=False).returncode:
            pytest.skip("br_netfilter is not loaded")
    drop(world.machine, "iptables")
    first, second = world.pods
    for program, reached in (("bridge", False), ("podwire", True)):
        for pod in world.pods:
            world.node.add(ONE, attachment(pod), program=program)
        settle(world.machine)
        addresses = [address.partition("/")[0] for address in second.addresses()]
        assert answers(world.machine, *[(first, address) for address in addresses]) == [reached, reached], program
        for pod in world.pods:
            world.node.delete(ONE, attachment(pod), program=program)


@NEEDS_IPTABLES
def test_iptables_still_understands_its_table(world: World) -> None:
    drop(world.machine, "iptables")
    attach(world)
    assert world.machine.run("iptables-nft", "-S").stdout.splitlines()[3:] == [
        f"-N {CHAIN}",
        f'-A FORWARD -m comment --comment "podwire containers" -j {CHAIN}',
        f'-A {CHAIN} -s 10.1.2.0/24 -m comment --comment "podwire: from 10.1.2.0/24" -j ACCEPT',
        f'-A {CHAIN} -d 10.1.2.0/24 -m comment --comment "podwire: to 10.1.2.0/24" -j ACCEPT',
        f'-A {CHAIN} -s 10.5.0.0/24 -m comment --comment "podwire: from 10.5.0.0/24" -j ACCEPT',
        f'-A {CHAIN} -d 10.5.0.0/24 -m comment --comment "podwire: to 10.5.0.0/24" -j ACCEPT',
    ]
    assert "2001:db8:1::/64" in world.machine.run("ip6tables-nft", "-S").stdout
    for arguments in (("-L", "-n", "-v"), ("-I", "FORWARD", "-j", "LOG"), ("-D", "FORWARD", "-j", "LOG"), ("-Z",)):
        assert world.machine.run("iptables-nft", *arguments).stderr == ""


@NEEDS_IPTABLES
def test_rules_that_were_saved_and_restored_are_known_again(world: World) -> None:
    """A node that restores its rules at start must not collect podwire's again with every start."""
    drop(world.machine, "iptables")
    attach(world)
    saved = world.machine.run("iptables-nft-save").stdout
    world.machine.run("nft", "delete table ip filter")
    world.machine.run("iptables-nft-restore", stdin=saved)
    world.node.add(ONE, attachment(world.machine.pod()))
    again = world.machine.run("iptables-nft-save").stdout
    assert [line for line in again.splitlines() if CHAIN in line] == [
        line for line in saved.splitlines() if CHAIN in line
    ]
    assert all(paths(world))


@pytest.mark.parametrize("firewall", FIREWALLS)
def test_what_an_administrator_drops_stays_dropped(world: World, firewall: str) -> None:
    drop(world.machine, firewall)
    if firewall == "iptables":
        world.machine.run("iptables-nft", "-A", "FORWARD", "-s", "10.1.2.0/24", "-d", OUTSIDE4, "-j", "DROP")
    else:
        table, chain = ("ip", "forward") if firewall == "by family" else ("inet", "forward")
        chain = "FORWARD" if firewall == "inet in iptables' style" else chain
        world.machine.run("nft", f"add rule {table} filter {chain} ip saddr 10.1.2.0/24 ip daddr {OUTSIDE4} drop")
    attach(world)
    assert paths(world) == [False, True, False, True, True, True]  # answers are dropped as well


@pytest.mark.parametrize("firewall", FIREWALLS)
def test_rules_are_the_subnets_not_the_containers(world: World, firewall: str) -> None:
    drop(world.machine, firewall)
    attach(world)
    before = rules(world.machine)
    others = [attachment(world.machine.pod(f"other{number}")) for number in range(3)]
    for attached in others:
        world.node.add(ONE, attached)
    assert rules(world.machine) == before
    for attached in others:
        world.node.delete(ONE, attached)
    assert rules(world.machine) == before
    assert all(paths(world))


@pytest.mark.parametrize(
    ("damage", "firewall"),
    [
        ("flush ruleset", ""),
        (f"flush chain ip filter {CHAIN}", ""),
        ("flush chain ip filter FORWARD", ""),
        (f"flush chain ip filter FORWARD; delete chain ip filter {CHAIN}", ""),
        (f"flush chain inet filter {CHAIN}", "inet"),
        ("flush chain inet filter forward", "inet"),
    ],
)
@NEEDS_IPTABLES
def test_the_next_container_heals_what_check_missed(world: World, damage: str, firewall: str) -> None:
    drop(world.machine, firewall or "iptables")
    attach(world)
    who = attachment(world.pods[0])
    world.machine.run("nft", damage)
    if damage == "flush ruleset":
        world.node.check(ONE, who).succeeded()  # nothing drops any more
        return
    missed = world.node.check(ONE, who)
    table, chain = ("inet filter", "forward") if firewall else ("ip filter", "FORWARD")
    assert missed.code == 101
    assert f"chain {chain} of table {table} drops what is forwarded (policy drop)" in missed.message
    world.node.call("STATUS", ONE).succeeded()
    world.node.add(ONE, attachment(world.machine.pod()))
    world.node.add(TWO, attachment(world.machine.pod()))
    world.node.check(ONE, who).succeeded()
    assert all(paths(world))


@NEEDS_IPTABLES
def test_a_host_that_no_longer_drops_needs_no_rules(world: World) -> None:
    drop(world.machine, "iptables")
    attach(world)
    world.machine.run("iptables-nft", "-F")
    world.machine.run("iptables-nft", "-P", "FORWARD", "ACCEPT")
    world.node.check(ONE, attachment(world.pods[0])).succeeded()


def test_check_asks_no_rules_for_a_container_of_another_plugin(machine: Machine, node: Node) -> None:
    drop(machine, "inet")
    who = attachment(machine.pod())
    answered = node.add(ONE, who, program="bridge")["interfaces"][1]
    assert node.check(ONE, who).code == 101
    for change in ("down", "name theirs"):
        machine.run("ip", "link", "set", answered["name"], *change.split())
    machine.run("ip", "link", "set", "theirs", "up")
    answered["name"] = "theirs"
    node.check(ONE, who).succeeded()


# --- Failing


DOCKER = """\
*filter
:FORWARD DROP [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment "a b" -j ACCEPT
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
"""


@pytest.mark.parametrize("others", [0, 1])
@NEEDS_IPTABLES
def test_a_failed_add_takes_its_rules_back(machine: Machine, node: Node, others: int) -> None:
    """Other rules stay: those that iptables made could not be loaded again."""
    machine.run("iptables-nft-restore", stdin=DOCKER)
    machine.run("nft", NATIVE["inet"])
    for _ in range(others):
        node.add(TWO, attachment(machine.pod()))
    machine.run("iptables-nft", "-A", "FORWARD", "-s", "192.0.2.7", "-j", "DROP")
    who = attachment(machine.pod())
    before, saved = whole(machine), machine.run("iptables-nft-save").stdout
    assert node.call("ADD", ONE, who, stdout=Closed()).status == 1
    if others:  # what is shared is left to those who may have come to depend on it
        assert f"-A {CHAIN} -s 10.1.2.0/24" in machine.run("iptables-nft", "-S").stdout
        return
    assert difference(before, whole(machine)) == []
    lines = [line for line in machine.run("iptables-nft-save").stdout.splitlines() if line[0] != "#"]
    assert lines == [line for line in saved.splitlines() if line[0] != "#"]


@NEEDS_IPTABLES
def test_a_failed_add_leaves_rules_that_it_found(machine: Machine, node: Node) -> None:
    """A chain from before, with a subnet of nobody who is still attached."""
    drop(machine, "iptables")
    gone = attachment(machine.pod())
    node.add(TWO, gone)
    node.delete(TWO, gone)
    machine.run("ip", "link", "delete", "br-two")
    who = attachment(machine.pod())
    before = whole(machine)
    assert node.call("ADD", ONE, who, stdout=Closed()).status == 1
    assert difference(before, whole(machine)) == []


SWEPT = Scene(
    PLAIN,
    before=("nft add table inet filter", f"nft add chain inet filter forward {{ {DROP} }}"),
    clean_up=("ip link delete cni0", "nft flush ruleset", "sysctl -qw net.ipv4.ip_forward=0"),
)


@pytest.mark.parametrize("fault", [lose, terminate])
def test_wherever_an_add_fails_its_rules_are_taken_back(fault: Fault) -> None:
    names = effects_of(wrap_effects, SWEPT)
    numbers = [number for number, name in enumerate(names) if changes(name)]
    assert "Netlink.batch" in {names[number] for number in numbers}
    cases, before, after = failed_adds(wrap_effects, fault, SWEPT, numbers)
    for case in cases:
        assert case.answer.code in (*CODES[fault], 0 if not case.effect else 100), case
        assert "could be undone" not in case.answer.message, case
    assert difference(before, after) == []


def test_containers_that_come_together_make_the_rules_once(machine: Machine, node: Node) -> None:
    drop(machine, "inet")
    started = [node.start("ADD", PLAIN, attachment(machine.pod())) for _ in range(8)]
    for process in started:
        output, _ = process.communicate()
        assert process.returncode == 0, output
    assert rules(machine).count("saddr 10.1.2.0/24") == rules(machine).count(f"jump {CHAIN}") == 1


def _watching_the_lock() -> None:
    change, other = forward_rules.change, HostLock(Netns(OWN))

    def watched(*arguments: Any) -> None:
        assert not other.try_lock_exclusive()
        change(*arguments)

    vars(forward_rules)["change"] = watched


def test_rules_are_made_while_nobody_else_attaches(machine: Machine, node: Node) -> None:
    drop(machine, "inet")
    before = rules(machine)
    node.add(PLAIN, attachment(machine.pod()), prepare=_watching_the_lock)
    assert rules(machine) != before


def _refusing() -> None:
    def refuse(*_: object) -> None:
        raise netlink.NetlinkError(EPERM, "as the test asks")

    vars(forward_rules)["change"] = refuse


@NEEDS_IPTABLES
def test_rules_that_the_kernel_refuses_are_no_reason_to_refuse_the_container(world: World) -> None:
    drop(world.machine, "iptables")
    before = rules(world.machine)
    answer = world.node.call("ADD", ONE, attachment(world.pods[0]), prepare=_refusing).succeeded()
    assert "chain FORWARD of table ip filter drops what is forwarded (policy drop): accept" in answer.stderr
    assert "Operation not permitted" in answer.stderr
    assert rules(world.machine) == before


def _without_nftables() -> None:
    """Makes nfnetlink answer as it does without nf_tables."""

    def refuse(self: netlink.Netlink, questions: list[Any]) -> list[netlink.NetlinkError]:
        del self
        return [netlink.NetlinkError(EINVAL, "") for _ in questions]

    vars(netlink)["Netlink"].ask_each = refuse


@pytest.mark.parametrize("lacking", [without_nfnetlink, _without_nftables])
def test_a_kernel_without_nftables_attaches(machine: Machine, node: Node, lacking: Any) -> None:
    who = attachment(machine.pod())
    node.add(PLAIN, who, prepare=lacking)
    node.check(PLAIN, who, prepare=lacking).succeeded()
    node.call("STATUS", PLAIN, prepare=lacking).succeeded()
    node.delete(PLAIN, who, prepare=lacking)


@pytest.mark.parametrize("firewall", FIREWALLS)
def test_no_program_is_run(machine: Machine, node: Node, firewall: str) -> None:
    drop(machine, firewall)
    before = rules(machine)
    node.add(ONE, attachment(machine.pod()), prepare=no_programs)
    assert rules(machine) != before


# --- Cost


def questions(machine: Machine, config: Json) -> list[int]:
    """Returns the messages to nftables of an ADD, by type."""
    who = attachment(machine.pod())
    return [message.kind - 0xA00 for message in machine.call(exchanges, "ADD", config, who) if message.kind >> 8 == 0xA]


def test_a_host_that_does_not_drop_costs_one_question(machine: Machine) -> None:
    assert questions(machine, PLAIN) == [nft.NFT_MSG_GETCHAIN]
    machine.run("nft", "add table inet filter; add chain inet filter forward { type filter hook forward priority 0; }")
    assert questions(machine, ONE) == [nft.NFT_MSG_GETCHAIN]


@pytest.mark.parametrize("firewall", ["inet", pytest.param("iptables", marks=NEEDS_IPTABLES)])
def test_a_host_that_drops_costs_two_more_however_many_containers(machine: Machine, firewall: str) -> None:
    drop(machine, firewall)
    questions(machine, PLAIN)
    asked = [nft.NFT_MSG_GETCHAIN, nft.NFT_MSG_GETRULE, nft.NFT_MSG_GETRULE]
    for _ in range(3):
        assert questions(machine, PLAIN) == asked


# --- The messages, held to nft and iptables


def expressions(machine: Machine, chain: Chain) -> list[list[Any]]:
    """Returns what the kernel tells of a chain's rules, without counts."""
    return [
        [(name, data if name != "counter" else {}) for name, data in nft_rules.parse_rule(answer).expressions]
        for answer in machine.call(_rules_of, *chain[:3])
    ]


def _rules_of(family: int, table: str, chain: str) -> list[bytes]:
    return netlink.Netlink(netlink.NETLINK_NETFILTER).dump(*nft.rules_of(family, table, chain))


def _append(chain: Chain, rule: bytes) -> None:
    added = nft.transaction([nft_rules.append_rule(chain, rule, "podwire")])
    refusal = netlink.Netlink(netlink.NETLINK_NETFILTER).batch(added)
    assert refusal is None, refusal


@pytest.mark.parametrize("subnet", ["10.1.2.0/24", "10.1.2.0/23", "10.0.0.0/8", "10.1.2.3/32", "172.16.0.0/12"])
@NEEDS_IPTABLES
def test_rules_are_those_that_iptables_makes(machine: Machine, subnet: str) -> None:
    chain, net = Chain(2, "filter", "FORWARD"), parse_net(subnet)
    states = ("-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED,DNAT")
    machine.run("iptables-nft", "-A", "FORWARD", "-s", subnet, "-j", "ACCEPT")
    machine.run("iptables-nft", "-A", "FORWARD", "-d", subnet, *states, "-j", "ACCEPT")
    machine.run("iptables-nft", "-N", "other")
    machine.run("iptables-nft", "-A", "FORWARD", "-j", "other")
    theirs = expressions(machine, chain)
    (answers,) = nft_rules.answers(chain).values()
    for rule in (
        nft_rules.from_subnet(chain, net) + nft_rules.accept(),
        nft_rules.to_subnet(chain, net) + answers + nft_rules.accept(),
        nft_rules.jump("other"),
    ):
        machine.call(_append, chain, rule)
    assert expressions(machine, chain) == theirs * 2


@pytest.mark.parametrize("subnet", ["10.1.2.0/24", "10.1.2.0/23", "2001:db8:1::/64", "2001:db8:1::/63"])
def test_rules_are_those_that_nft_makes(machine: Machine, subnet: str) -> None:
    chain, net = Chain(1, "t", "c"), parse_net(subnet)
    family = "ip6" if net.family == 6 else "ip"
    texts = [
        f"{family} saddr {subnet} counter accept",
        f"{family} daddr {subnet} ct state established,related counter accept",
        f"{family} daddr {subnet} ct status dnat counter accept",
        "counter jump other",
    ]
    commands = ["add table inet t", "add chain inet t c", "add chain inet t other"]
    machine.run("nft", "; ".join([*commands, *[f"add rule inet t c {text}" for text in texts]]))
    theirs = expressions(machine, chain)
    answers = [nft_rules.to_subnet(chain, net) + answer for answer in nft_rules.answers(chain).values()]
    for front in (nft_rules.from_subnet(chain, net), *answers):
        machine.call(_append, chain, front + nft_rules.accept())
    machine.call(_append, chain, nft_rules.jump("other"))
    assert expressions(machine, chain) == theirs * 2


# --- STATUS


BLAME = "drops what is forwarded (policy drop): accept traffic of the containers there, or set its policy to accept"


ACCEPTS = {
    "": True,
    "ct state established accept": True,
    "ct state { established, related } accept": True,
    "ct state vmap { established : accept, related : accept, invalid : drop }": True,
    'iifname "eth0" accept': True,
    "ip daddr 192.0.2.0/24 accept": True,
    'iifname "br-one" accept': False,
    'iifname "br-*" jump pods': False,
    "ip saddr 10.0.0.0/8 accept": False,
    "ct state vmap { established : accept, new : jump pods }": False,
    "accept": False,
}


@pytest.mark.parametrize(("rule", "blamed"), ACCEPTS.items(), ids=ACCEPTS)
def test_status_names_a_chain_that_drops_and_is_not_podwires_to_mend(
    machine: Machine, node: Node, rule: str, blamed: bool
) -> None:
    pods = "add chain inet myfw pods; add rule inet myfw pods tcp dport 443 accept"
    machine.run("nft", f"add table inet myfw; {pods}; add chain inet myfw forward {{ {DROP} }}")
    if rule:
        machine.run("nft", f"add rule inet myfw forward {rule}")
    answer = node.call("STATUS", ONE)
    expected = (50, f"chain forward of table inet myfw {BLAME}")
    assert (answer.code, answer.message) == (expected if blamed else (0, ""))
    assert node.call("STATUS", ONE, program="bridge").status == 0
    # Behind a plugin that is not known, the container's interface may be eth0.
    chained = node.call("STATUS", network(), program="firewall")
    assert (chained.code, chained.message) == (expected if blamed and "eth0" not in rule else (0, ""))


REJECTS = {
    "reject": True,
    "counter drop": True,
    "reject with icmpx admin-prohibited": True,
    'iifname "eth1" reject': False,
    "tcp dport 25 drop": False,
    "accept": False,
}


@pytest.mark.parametrize(("last", "blamed"), REJECTS.items(), ids=REJECTS)
@pytest.mark.parametrize("allowed", ["ct state { established, related } accept", "ct status dnat accept"])
def test_status_names_a_chain_whose_last_rule_rejects(
    machine: Machine, node: Node, allowed: str, last: str, blamed: bool
) -> None:
    """As firewalld's does, and that of the service iptables on Red Hat's systems, policy accept or not."""
    chain = "add chain inet myfw forward { type filter hook forward priority 0; policy accept; }"
    machine.run("nft", f"add table inet myfw; {chain}; add rule inet myfw forward {allowed}")
    machine.run("nft", f"add rule inet myfw forward {last}")
    answer = node.call("STATUS", ONE)
    assert answer.code == (50 if blamed else 0)
    assert ("chain forward of table inet myfw rejects what is forwarded (its last rule)" in answer.message) == blamed
    machine.run("nft", 'insert rule inet myfw forward iifname "br-one" accept')
    assert node.call("STATUS", ONE).code == 0


def test_status_names_a_chain_that_rejects_before_podwires_rules(machine: Machine, node: Node) -> None:
    """As `ufw default reject routed` has it: podwire's rules are behind those of others."""
    chains = f"chain ufw-reject-forward {{ reject; }}; chain FORWARD {{ {DROP} jump ufw-reject-forward; }}"
    machine.run("nft", f"table ip filter {{ {chains}; }}")
    node.add(ONE, attachment(machine.pod()))
    answer = node.call("STATUS", ONE)
    assert answer.code == 50
    assert "rejects what is forwarded (by chain ufw-reject-forward): ufw route allow" in answer.message
    for rule in ("FORWARD ip saddr 10.0.0.0/8 accept", "ufw-reject-forward ip daddr 192.0.2.0/24 return"):
        machine.run("nft", f"insert rule ip filter {rule}")
        assert node.call("STATUS", ONE).code == 0
        machine.run("nft", "flush chain ip filter ufw-reject-forward; add rule ip filter ufw-reject-forward reject")


@pytest.mark.parametrize("chain", ["forward priority 0; policy accept;", "input priority 0; policy drop;"])
def test_status_names_no_other_chain(machine: Machine, node: Node, chain: str) -> None:
    machine.run("nft", f"add table inet myfw; add chain inet myfw forward {{ type filter hook {chain} }}")
    assert node.call("STATUS", ONE).code == 0


@pytest.mark.parametrize(("family", "code"), [("ip", 50), ("ip6", 0)])
def test_status_concerns_the_families_of_the_network(machine: Machine, node: Node, family: str, code: int) -> None:
    machine.run("nft", f"add table {family} myfw; add chain {family} myfw forward {{ {DROP} }}")
    assert node.call("STATUS", PLAIN).code == code
    assert node.call("STATUS", ONE).code == 50
    assert node.call("STATUS", network(), program="podwire").code == 0  # without addresses nothing is routed


@pytest.mark.parametrize("firewall", FIREWALLS)
def test_status_expects_what_add_will_mend(machine: Machine, node: Node, firewall: str) -> None:
    drop(machine, firewall)
    before = rules(machine)
    node.call("STATUS", ONE).succeeded()
    node.call("STATUS", network(), program="firewall").succeeded()
    assert rules(machine) == before


def test_status_asks_the_older_iptables(machine: Machine, node: Node) -> None:
    need_iptables_legacy(machine)
    node.call("STATUS", ONE).succeeded()
    machine.run("iptables-legacy", "-P", "FORWARD", "DROP")
    answer = node.call("STATUS", ONE)
    assert answer.message == f"chain FORWARD of table filter of iptables-legacy {BLAME}"
    assert node.call("STATUS", network(), program="firewall").message == answer.message
    who = attachment(machine.pod())
    result = node.add(ONE, who, program="bridge")
    called = node.call("ADD", network(prevResult=result), who, program="firewall").succeeded()
    assert called.stderr == f"{answer.message}\n"
    machine.run("iptables-legacy", "-A", "FORWARD", "-i", "br-one", "-j", "ACCEPT")
    node.call("STATUS", ONE).succeeded()
    assert node.call("ADD", network(prevResult=result), who, program="firewall").succeeded().stderr == ""


def test_an_administrators_chain_of_the_older_iptables_is_told_to_have_no_effect(machine: Machine, node: Node) -> None:
    need_iptables_legacy(machine)
    who = attachment(machine.pod())
    called = network(prevResult=node.add(ONE, who, program="bridge"))
    machine.run("iptables-legacy", "-N", "CNI-ADMIN")
    notices = node.call("ADD", called, who, program="firewall").succeeded().stderr
    assert "chain CNI-ADMIN of table filter of iptables-legacy has no effect" in notices
    machine.run("iptables-legacy", "-I", "FORWARD", "-j", "CNI-ADMIN")
    assert node.call("ADD", called, who, program="firewall").succeeded().stderr == ""
