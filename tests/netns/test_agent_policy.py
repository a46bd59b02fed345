"""Real packets under policies, routed and over a bridge: the kernel's verdicts are those of the evaluator."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cni.agent.dataplane import bridge_filter
from cni.agent.dataplane.policy_table import PolicyTable
from cni.agent.policy.basetable import TableOptions
from cni.agent.policy.index import Index
from cni.agent.policy.objects import Pod
from cni.agent.policy.tracker import Tracker
from cni.effects import nft_load
from cni.effects.host import Host
from cni.kernel import conntrack, nft, nft_ruleset
from cni.kernel.netlink import NETLINK_NETFILTER, Netlink
from cni.plan.nftrule import ACCEPT, Chain, Counter, Rule, Table
from cni.plan.policy import TABLE
from cni.protocol.address import IP
from tests.echo import leave_all_but
from tests.machine import Machine
from tests.traffic import NOBODY, PROTOCOLS, Target, ask_each, listen
from tests.unit.policy_objects import Cluster, cluster_policy_of, namespace_of, node_of, pod_of, policy_of

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

OPTIONS = TableOptions(log=False, revoke=False)
FAMILIES = (4, 6)
PORTS = (80, 81)
RELOADS, DONE, ANEW = 60, "/run/reloads", "chain known was missing or had other rules"
GATEWAY = {4: "10.1.0.1", 6: "fd00:1::1"}
OUTSIDE = {4: "192.0.2.2", 6: "2001:db8:2::2"}
SERVICE = "10.96.0.1"
OBJECTS = (
    namespace_of("shop", team="red"),
    namespace_of("blue", team="blue"),
    pod_of("shop/db", "10.1.0.2", "fd00:1::2", ports={"http": 80}),
    pod_of("shop/web", "10.1.0.3", "fd00:1::3", ports={"http": 81}),
    pod_of("blue/other", "10.1.0.4", "fd00:1::4"),
    node_of("outside", *OUTSIDE.values()),
)
PODS = [item for item in OBJECTS if isinstance(item, Pod)]
DB, NOT_DB = (
    "podSelector: {matchLabels: {app: db}}",
    "podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [db]}]}",
)
CLOSED = "{podSelector: {}, policyTypes: [Ingress]}"
BLOCK = "{ipBlock: {cidr: 10.1.0.0/24, except: [10.1.0.4/32]}}"
OUTER = "{ipBlock: {cidr: '2001:db8:2::/64'}}"
WIRE = "{ipBlock: {cidr: 192.0.2.0/24}}"
BLUE = "namespaceSelector: {matchLabels: {team: blue}}"
CASES: dict[str, tuple[str, ...]] = {
    "no policy": (),
    "default deny": (CLOSED,),
    "default deny of both directions": ("{podSelector: {}, policyTypes: [Ingress, Egress]}",),
    "a pod of the namespace": (f"{{{DB}, ingress: [{{from: [{{podSelector: {{matchLabels: {{app: web}}}}}}]}}]}}",),
    "pods of a namespace, and another policy": (f"{{{DB}, ingress: [{{from: [{{{BLUE}}}]}}]}}", CLOSED),
    "a port of one protocol": (f"{{{DB}, ingress: [{{ports: [{{port: 81}}, {{port: 80, protocol: UDP}}]}}]}}",),
    "a range of ports": (f"{{{DB}, ingress: [{{ports: [{{port: 81, endPort: 90}}, {{port: 1, endPort: 9}}]}}]}}",),
    "a network but for a part": (f"{{{DB}, ingress: [{{from: [{BLOCK}, {OUTER}]}}]}}",),
    "a named port that differs": ("{podSelector: {}, ingress: [{ports: [{port: http}]}]}",),
    "egress to a named port": (f"{{{NOT_DB}, policyTypes: [Egress], egress: [{{ports: [{{port: http}}]}}]}}",),
    "egress to a network": (
        f"{{podSelector: {{}}, policyTypes: [Egress], egress: [{{to: [{WIRE}, {{podSelector: {{}}}}]}}]}}",
    ),
}
ALL, OF_BLUE, OF_SHOP = (
    "{namespaces: {}}",
    "{namespaces: {matchLabels: {team: blue}}}",
    "{pods: {podSelector: {matchExpressions: [{key: app, operator: In, values: [web, db]}]}}}",
)
HTTP = "protocols: [{tcp: {destinationPort: {number: 80}}}, {udp: {destinationPort: {range: {start: 81, end: 90}}}}]"
BOTH = "{podSelector: {}, policyTypes: [Ingress, Egress]}"
CASES |= {
    "Admin denies what a NetworkPolicy allows": (
        f"{{tier: Admin, ingress: [{{action: Deny, from: [{OF_BLUE}]}}]}}",
        f"{{{DB}, ingress: [{{from: [{{{BLUE}}}]}}, {{ports: [{{port: 80}}]}}]}}",
    ),
    "Admin accepts what NetworkPolicies deny": (
        (
            f"{{tier: Admin, ingress: [{{action: Accept, from: [{ALL}], {HTTP}}}], "
            f"egress: [{{action: Accept, to: [{OF_SHOP}, {{nodes: {{}}}}], {HTTP}}}]}}"
        ),
        BOTH,
    ),
    "Admin passes some, to NetworkPolicy and to Baseline, and denies the others": (
        f"{{tier: Admin, priority: 1, ingress: [{{action: Pass, from: [{OF_SHOP}]}}]}}",
        f"{{tier: Admin, priority: 2, ingress: [{{action: Deny, from: [{ALL}]}}]}}",
        f"{{{DB}, ingress: [{{ports: [{{port: http}}]}}]}}",
        f"{{tier: Baseline, ingress: [{{action: Deny, from: [{ALL}], {HTTP}}}]}}",
    ),
    "Baseline denies where no NetworkPolicy decides": (
        f"{{tier: Baseline, priority: 2, ingress: [{{action: Deny, from: [{ALL}]}}]}}",
        (
            f"{{tier: Baseline, priority: 1, ingress: [{{action: Accept, from: [{OF_SHOP}], "
            "protocols: [{destinationNamedPort: http}]}]}"
        ),
        f"{{{DB}, ingress: [{{from: [{{{BLUE}}}]}}]}}",
    ),
    "egress to nodes and networks": (
        (
            "{tier: Admin, egress: [{action: Deny, to: [{nodes: {}}], protocols: [{udp: {}}]}, "
            f"{{action: Accept, to: [{{networks: [192.0.2.0/24, 'fd00:1::2/127']}}], {HTTP}}}, "
            "{action: Deny, to: [{networks: [0.0.0.0/0]}]}]}"
        ),
    ),
}
FOREIGN = (
    "flush ruleset",
    "flush chain inet podwire-policy forward",
    "delete element inet podwire-policy ingress4 { 10.1.0.2 }",
)


def name_of(pod: Pod) -> str:
    return f"{pod.namespace}/{pod.name}"


def state_of(policies: tuple[str, ...]) -> Cluster:
    """Returns the state with policies of a namespace, or of a tier where the spec names one."""
    return Cluster(
        *OBJECTS,
        *[
            cluster_policy_of(f"p{number}", spec) if "tier: " in spec else policy_of(f"shop/p{number}", spec)
            for number, spec in enumerate(policies)
        ],
    )


def tracked(policies: tuple[str, ...]) -> Tracker:
    """Returns what tracks the table of the policies."""
    state = state_of(policies)
    index = Index("n1")
    for namespace in state.namespaces.values():
        index.put_namespace(namespace)
    for pod in state.pods.values():
        index.put_pod(pod)
    for policy in state.policies.values():
        index.put_policy(policy)
    for node in state.nodes.values():
        index.put_node(node)
    tracker = Tracker(index, OPTIONS)
    tracker.update()
    return tracker


def enforce(policies: tuple[str, ...]) -> str:
    """Inside: makes the table that of the policies; returns what an audit finds after that."""
    tracker = tracked(policies)
    host = Host(os.environ, print)
    try:
        table = PolicyTable(host.netfilter, OPTIONS)
        table.audit(tracker.table)
        host.netfilter.request(*forget_connections())
        os.makedirs(host.pod_records, exist_ok=True)
        error = bridge_filter.ensure(host, [IP.from_packed(address) for pod in PODS for address in pod.addresses])
        return error or table.audit(tracker.table)
    finally:
        host.close()


def forget_connections() -> tuple[int, int, bytes]:
    """Returns the message by which the kernel forgets all connections: a datagram from a port that was used before
    would belong to one of them.
    """
    return conntrack.NFNL_SUBSYS_CTNETLINK << 8 | conntrack.IPCTNL_MSG_CT_DELETE, 0, nft.NFGENMSG.pack(0, 0, 0)


def make_anew(policies: tuple[str, ...]) -> None:
    """Inside: has the whole table recreated in a child, RELOADS times, because of a rule that no packet reaches."""
    if os.fork():
        return
    try:
        leave_all_but(set())  # whoever called waits until nobody has its pipe
        netfilter, tracker = Netlink(NETLINK_NETFILTER), tracked(policies)
        idle = Table("inet", TABLE, (), (Chain("known", (Rule((ACCEPT,)), Rule((Counter(),)))),))
        reasons = []
        for _ in range(RELOADS):
            nft_load.send(netfilter, nft_ruleset.create(idle))
            reasons.append(PolicyTable(netfilter, OPTIONS).audit(tracker.table))
        with open(DONE, "w") as file:
            file.write("\n".join(reasons))
    finally:
        os._exit(0)


def remove_bridge_filter(machine: Machine) -> None:
    """Makes a machine one without the module br_netfilter."""
    off = "cd /proc/sys/net/bridge 2>/dev/null || exit 0; for name in bridge-nf-call-*; do echo 0 > $name; done"
    machine.run("sh", "-c", f"{off}; mount -t tmpfs none /proc/sys/net/bridge")


class Net:
    """A host with pods of two namespaces, and a host outside."""

    def __init__(self, machine: Machine, *, bridged: bool) -> None:
        self.machine, self.bridged = machine, bridged
        machine.run("sh", "-ec", "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        outside = machine.outside()
        outside.run("ip", "route", "add", "10.1.0.0/16", "via", "192.0.2.1")
        outside.run("ip", "route", "add", "fd00:1::/64", "via", "2001:db8:2::1")
        listen(outside, "outside", *PORTS)
        if bridged:
            machine.run("sh", "-ec", "ip link add cni0 type bridge; ip link set cni0 up")
            self._own("cni0", "10.1.0.1/24", "fd00:1::1/64")
        self.places = {"outside": (outside, OUTSIDE)}
        for number, pod in enumerate(PODS):
            self._attach(number, pod)

    def _own(self, link: str, *addresses: str) -> None:
        for address in addresses:
            self.machine.run("ip", "address", "add", address, "dev", link, *(["nodad"] if ":" in address else []))

    def _attach(self, number: int, pod: Pod) -> None:
        place, link = self.machine.pod(pod.name), f"veth{number}"
        self.machine.run(*f"ip link add {link} type veth peer name eth0 netns {place.name}".split())
        addresses = {ip.family: ip.text for ip in map(IP.from_packed, pod.addresses)}
        if self.bridged:
            self.machine.run("ip", "link", "set", link, "master", "cni0")
            self.machine.run("bridge", "link", "set", "dev", link, "hairpin", "on")
        else:
            self._own(link, "10.1.0.1/32", "fd00:1::1/128")
        self.machine.run("ip", "link", "set", link, "up")
        lengths = {4: 24, 6: 64} if self.bridged else {4: 32, 6: 128}
        lines = ["ip link set lo up", "ip link set eth0 up"]
        for family, address in addresses.items():
            flag = "nodad" if family == 6 else ""
            lines.append(f"ip address add {address}/{lengths[family]} dev eth0 {flag}")
            if not self.bridged:
                lines.append(f"ip -{family} route add {GATEWAY[family]} dev eth0")
                self.machine.run("ip", f"-{family}", "route", "add", address, "dev", link)
            lines.append(f"ip -{family} route add default via {GATEWAY[family]}")
        place.run("sh", "-ec", "\n".join(lines))
        listen(place, pod.name, *PORTS)
        self.places[name_of(pod)] = place, addresses

    def answers(self, source: str, targets: list[Target], seconds: float) -> list[bool]:
        return [answer.name != NOBODY for answer in ask_each(self.places[source][0], targets, seconds)]

    def differences(self, state: Cluster) -> list[str]:
        """Returns the connections on which kernel and evaluator do not agree. What should pass is given time."""
        disagreements = []
        for source, (_, own) in self.places.items():
            asked = [
                (name, family, Target(protocol, addresses[family], port))
                for name, (_, addresses) in self.places.items()
                if name != source
                for family in FAMILIES
                for protocol in PROTOCOLS
                for port in PORTS
            ]
            expected = [
                state.allows(own[family] if source == "outside" else source, name if "/" in name else target.host,
                             f"{target.protocol.upper()}/{target.port}", family)
                for name, family, target in asked
            ]  # fmt: skip
            passed = self.answers(source, [target for *_, target in asked], 0.5)
            late = [at for at, allowed in enumerate(expected) if allowed and not passed[at]]
            for at, answered in zip(late, self.answers(source, [asked[at][2] for at in late], 10.0), strict=True):
                passed[at] = answered
            disagreements += [
                f"{source} -> {name} {' '.join(map(str, target))}: {'passes' if passes else 'is dropped'}"
                for (name, _, target), allowed, passes in zip(asked, expected, passed, strict=True)
                if passes != allowed
            ]
        return disagreements


# One worker runs all tests of a net, whose making takes as much time as two of them.
WAYS = [pytest.param(way, marks=pytest.mark.xdist_group(f"pods {way}")) for way in ("routed", "bridged", "isolated")]


@pytest.fixture(scope="module", params=WAYS)
def net(request: pytest.FixtureRequest) -> Iterator[Net]:
    with Machine() as machine:
        if (
            request.param == "bridged"
            and machine.run("sysctl", "net.bridge.bridge-nf-call-iptables", check=False).returncode
        ):
            pytest.skip("absent: the module br_netfilter")
        if request.param == "isolated":
            remove_bridge_filter(machine)
        yield Net(machine, bridged=request.param != "routed")


@pytest.mark.parametrize("case", CASES)
def test_the_kernel_judges_as_the_evaluator(net: Net, case: str) -> None:
    assert net.machine.call(enforce, CASES[case]) == ""
    assert net.differences(state_of(CASES[case])) == []


def test_the_node_always_reaches_its_pods_which_reach_themselves_by_a_service(net: Net) -> None:
    net.machine.call(enforce, ("{podSelector: {}, policyTypes: [Ingress, Egress]}",))
    targets = [Target(protocol, address, 80) for protocol in PROTOCOLS for address in ("10.1.0.2", "fd00:1::2")]
    assert [answer.name for answer in ask_each(net.machine, targets, 10.0)] == ["db"] * 4
    rules = f"""table ip nat {{
        chain prerouting {{ type nat hook prerouting priority -100; ip daddr {SERVICE} dnat to 10.1.0.2; }}
        chain postrouting {{ type nat hook postrouting priority 100; ip saddr 10.1.0.2 ip daddr 10.1.0.2 masquerade; }}
    }}"""
    net.machine.run("nft", "-f", "-", stdin=rules)
    assert net.answers("shop/db", [Target("tcp", SERVICE, 80)], 10.0) == [True]
    assert net.answers("shop/web", [Target("tcp", SERVICE, 80)], 0.5) == [False]
    for tier, answers in (("Baseline", [True]), ("Admin", [False])):  # NetworkPolicy has decided before Baseline
        deny = f"{{tier: {tier}, ingress: [{{action: Deny, from: [{ALL}]}}]}}"
        net.machine.call(enforce, ("{podSelector: {}, policyTypes: [Ingress, Egress]}", deny))
        assert net.answers("shop/db", [Target("tcp", SERVICE, 80)], 10.0 if answers[0] else 0.5) == answers
    net.machine.run("nft", "delete", "table", "ip", "nat")


def test_while_the_table_is_made_anew_nothing_is_lost_and_nothing_passes(net: Net) -> None:
    """Datagrams are not sent again: each that is lost lacks its answer."""
    policy = (f"{{{DB}, ingress: [{{ports: [{{port: 80, protocol: UDP}}]}}]}}",)
    net.machine.call(enforce, policy)
    net.machine.run("rm", "-f", DONE)
    net.machine.call(make_anew, policy)
    rounds = 0
    while net.machine.run("test", "-e", DONE, check=False).returncode:
        assert net.answers("shop/web", [Target("udp", "10.1.0.2", 80)] * 50, 10.0) == [True] * 50
        assert net.answers("shop/web", [Target("udp", "10.1.0.2", 81)] * 50, 0.2) == [False] * 50
        rounds += 1
    assert rounds
    assert net.machine.run("cat", DONE).stdout.splitlines() == [ANEW] * RELOADS


def test_what_is_flushed_is_whole_again(net: Net) -> None:
    net.machine.call(enforce, (CLOSED,))
    before = listed(net.machine)
    for command in FOREIGN:
        net.machine.run("nft", *command.split(" ", 5))
        assert listed(net.machine) != before
        assert net.machine.call(enforce, (CLOSED,)) == ""
        assert listed(net.machine) == before


@pytest.mark.parametrize("net", ["bridged"], indirect=True)
def test_bridged_packets_pass_the_hooks_once_that_is_set(net: Net) -> None:
    settings = [f"net.bridge.bridge-nf-call-{name}=0" for name in ("iptables", "ip6tables")]
    net.machine.run("sysctl", "-qw", *settings)
    assert net.machine.call(enforce, (CLOSED,)) == ""
    names = [setting.partition("=")[0] for setting in settings]
    assert net.machine.run("sysctl", "-n", *names).stdout.split() == ["1", "1"]
    assert net.answers("shop/web", [Target("tcp", "10.1.0.2", 80), Target("tcp", "fd00:1::2", 80)], 0.5) == [False] * 2


def listed(machine: Machine) -> list[str]:
    """Returns the table's lines without those of counters."""
    shown: subprocess.CompletedProcess[str] = machine.run("nft", "list", "table", "inet", "podwire-policy", check=False)
    return [line for line in shown.stdout.splitlines() if "counter" not in line]
