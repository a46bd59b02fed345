"""Real connections under changing policies: what is no longer allowed is cut both ways, and everything else goes on."""

from __future__ import annotations

import socket
import sys
import time
from typing import TYPE_CHECKING, Any, cast

import pytest

from cni.agent.controllers.base import NEVER
from cni.agent.controllers.policy import PolicyController
from cni.agent.dataplane.policy_table import is_supported
from cni.agent.metrics import Metrics
from cni.agent.policy.basetable import LABELLING, TableOptions
from cni.agent.policy.events import KINDS, LOCAL_PODS, NAMESPACES, POLICIES, ObjectsChanged, ObjectsListed
from cni.agent.policy.objects import Namespace, NetworkPolicy, Pod
from cni.effects.host import Host
from cni.kernel import connections
from cni.kernel.netlink import NETLINK_NETFILTER, Netlink
from cni.plan.nftrule import Match, Rule, SetLabel
from tests.machine import Machine
from tests.talk import Talk, echo
from tests.traffic import PROTOCOLS, Target
from tests.unit.policy_objects import namespace_of, pod_of, policy_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.agent.policy.events import Key, PolicyEvent

OPTIONS = TableOptions(log=False)
PORTS = (80, 81)
GATEWAY = {4: "10.1.0.1", 6: "fd00:1::1"}
SERVICE, SERVICE6 = "10.96.0.1", "fd00:96::1"
ADDRESSES = {name: (f"10.1.0.{n}", f"fd00:1::{n}") for n, name in enumerate(("db", "web", "other"), 2)}
SHOP = namespace_of("shop")
PODS = [pod_of(f"shop/{name}", *addresses) for name, addresses in ADDRESSES.items()]
CLOSED = policy_of("shop/closed", "{podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}")
FROM_WEB = policy_of(
    "shop/from-web",
    """{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}],
    ports: [{port: 80}, {port: 80, protocol: UDP}]}]}""",
)
SCTP_FROM_WEB = policy_of(
    "shop/sctp-from-web",
    """{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}],
    ports: [{port: 82, protocol: SCTP}]}]}""",
)
NO_WAY_OUT = policy_of("shop/no-way-out", "{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}")
SILENT, PATIENT = 0.5, 20.0  # seconds, for an answer that must not come, and for one that must
NAT = f"""
table inet services {{
  chain prerouting {{ type nat hook prerouting priority -100
    ip daddr {SERVICE} meta l4proto {{ tcp, udp }} th dport 8000 dnat ip to {ADDRESSES["db"][0]}:80
    ip6 daddr {SERVICE6} meta l4proto {{ tcp, udp }} th dport 8000 dnat ip6 to [{ADDRESSES["db"][1]}]:80
  }}
}}
"""


def key_of(item: Namespace | Pod | NetworkPolicy) -> Key:
    return getattr(item, "namespace", ""), item.name


def changed(*objects: Pod | NetworkPolicy) -> list[PolicyEvent]:
    return [ObjectsChanged(LOCAL_PODS if isinstance(item, Pod) else POLICIES, {key_of(item): item}) for item in objects]


def without(*policies: NetworkPolicy) -> list[PolicyEvent]:
    return [ObjectsChanged(POLICIES, {key_of(policy): None}) for policy in policies]


def run_agent(*steps: list[PolicyEvent]) -> float:
    """Inside: runs a new controller through the changes, until nothing is due after each; returns how many connections
    it cut.
    """
    return run_agent_with(OPTIONS, *steps)


def run_agent_with(options: TableOptions, *steps: list[PolicyEvent]) -> float:
    host, metrics = Host({}, print), Metrics()
    store = cast("Any", Store())
    controller = PolicyController(host, metrics, store, options, print)
    controller.request_full_sync()
    start: list[PolicyEvent] = [ObjectsChanged(NAMESPACES, {key_of(SHOP): SHOP}), *changed(*PODS)]
    try:
        for step in ([*start, *steps[0], *map(ObjectsListed, KINDS)], *steps[1:]):
            for event in step:
                controller.handle(event)
            while (due := controller.due_at) < NEVER:
                time.sleep(max(0.0, due - time.monotonic()))
                controller.sync()
    finally:
        host.close()
    return metrics.registry.get_sample_value("podwired_policy_revoked_connections_total") or 0.0


class Store:
    """One that knows all pods from the start."""

    default_namespace = ""

    def watch_remote_pods(self, *, wanted: bool) -> None:
        pass

    def note_attached(self, key: Key, *, attached: bool) -> None:
        pass


def lacks_labels() -> bool:
    """Inside."""
    netfilter = Netlink(NETLINK_NETFILTER)
    try:
        return not is_supported(netfilter, LABELLING)
    finally:
        netfilter.close()


@pytest.fixture
def net() -> Iterator[Machine]:
    """Gives a node with three routed pods, whose table is in force."""
    with Machine() as machine:
        if machine.call(lacks_labels):
            pytest.skip("the kernel has no CONFIG_NF_CONNTRACK_LABELS")
        machine.run("sh", "-ec", "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        for number, (name, addresses) in enumerate(ADDRESSES.items()):
            attach(machine, name, f"veth{number}", addresses)
        yield machine


def attach(machine: Machine, name: str, link: str, addresses: tuple[str, str]) -> None:
    pod = machine.pod(name)
    machine.run(*f"ip link add {link} type veth peer name eth0 netns {pod.name}".split())
    machine.run("ip", "link", "set", link, "up")
    lines = ["ip link set lo up", "ip link set eth0 up"]
    for family, length, address in zip((4, 6), (32, 128), addresses, strict=True):
        machine.run(*f"ip address add {GATEWAY[family]}/{length} dev {link}".split(), *["nodad"] * (family == 6))
        machine.run("ip", f"-{family}", "route", "add", address, "dev", link)
        lines.append(f"ip address add {address}/{length} dev eth0 {'nodad' * (family == 6)}")
        lines.append(f"ip -{family} route add {GATEWAY[family]} dev eth0")
        lines.append(f"ip -{family} route add default via {GATEWAY[family]}")
    pod.run("sh", "-ec", "\n".join(lines))
    echo(pod, *PORTS)


def to_db(port: int) -> list[Target]:
    return [Target(protocol, address, port) for protocol in PROTOCOLS for address in ADDRESSES["db"]]


def talk(net: Machine, name: str, port: int = 80) -> Talk:
    talk = Talk(net.pods[name], to_db(port))
    assert talk.ask(PATIENT) == "++++"
    return talk


def test_what_is_no_longer_allowed_is_cut_and_what_is_stays(net: Machine) -> None:
    net.call(run_agent, [])
    web, closed, other, out = talk(net, "web"), talk(net, "web", 81), talk(net, "other"), Talk(net, to_db(80))
    assert net.call(run_agent, [], changed(FROM_WEB)) == 8
    assert [closed.ask(SILENT), other.ask(SILENT)] == ["----", "----"]
    assert [web.ask(PATIENT), out.ask(PATIENT)] == ["++++", "++++"]
    assert net.call(run_agent, changed(FROM_WEB)) == 0
    assert [web.ask(PATIENT), closed.ask(SILENT), out.ask(PATIENT)] == ["++++", "----", "++++"]
    assert net.call(run_agent, changed(FROM_WEB), without(FROM_WEB)) == 0
    assert [conversation.ask(PATIENT) for conversation in (web, closed, other, out)] == ["++++"] * 4


def test_an_agent_that_died_between_the_table_and_the_connections_is_made_up_for(net: Machine) -> None:
    net.call(run_agent, [])
    web, other = talk(net, "web"), talk(net, "other")
    net.call(die_after_commit, changed(FROM_WEB))
    assert [web.ask(PATIENT), other.ask(PATIENT)] == ["++++", "++++"]
    assert net.call(run_agent, changed(FROM_WEB)) == 4
    assert [web.ask(PATIENT), other.ask(SILENT)] == ["++++", "----"]
    net.call(die_after_commit, changed(FROM_WEB), without(FROM_WEB))
    assert other.ask(SILENT) == "----"
    assert net.call(run_agent, []) == 0
    assert [web.ask(PATIENT), other.ask(PATIENT)] == ["++++", "++++"]


def die_after_commit(*steps: list[PolicyEvent]) -> None:
    """Inside: an agent that is killed when it is about to judge connections."""
    from cni.agent.controllers import revocation

    revocation.Revocation.go_on = lambda self: setattr(self, "_due", NEVER)  # type: ignore[method-assign]
    run_agent(*steps)


def test_a_service_is_judged_by_the_pod_and_port_that_it_leads_to(net: Machine) -> None:
    net.run("nft", "-f", "-", stdin=NAT)
    net.call(run_agent, [])
    targets = [Target(protocol, address, 8000) for protocol in PROTOCOLS for address in (SERVICE, SERVICE6)]
    web, other = (Talk(net.pods[name], targets) for name in ("web", "other"))
    assert [web.ask(PATIENT), other.ask(PATIENT)] == ["++++", "++++"]
    assert net.call(run_agent, [], changed(FROM_WEB)) == 4
    assert [web.ask(PATIENT), other.ask(SILENT)] == ["++++", "----"]
    assert net.call(run_agent, changed(FROM_WEB), changed(NO_WAY_OUT)) == 4
    assert web.ask(SILENT) == "----"
    net.call(run_agent, changed(FROM_WEB, NO_WAY_OUT), without(NO_WAY_OUT))
    assert [web.ask(PATIENT), other.ask(SILENT)] == ["++++", "----"]


def test_labels_of_pods_cut_and_restore(net: Machine) -> None:
    net.call(run_agent, changed(FROM_WEB))
    web = talk(net, "web")
    relabelled = pod_of("shop/web", *ADDRESSES["web"], labels={"app": "x"})
    assert net.call(run_agent, changed(FROM_WEB), changed(relabelled)) == 4
    assert web.ask(SILENT) == "----"
    net.call(run_agent, changed(FROM_WEB, relabelled), changed(PODS[1]))
    assert web.ask(PATIENT) == "++++"


def lacks_sctp() -> bool:
    """Inside."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        return True
    return False


@pytest.fixture
def sctp(net: Machine) -> list[Target]:
    """Gives the addresses of db, at which it answers by SCTP."""
    if net.call(lacks_sctp):
        pytest.skip("the kernel has no SCTP (load the module sctp)")
    echo(net.pods["db"], 82, protocols=["sctp"])
    return [Target("sctp", address, 82) for address in ADDRESSES["db"]]


ASSOCIATE = """
import socket, sys
with socket.socket(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_SCTP) as attempt:
    attempt.settimeout(float(sys.argv[2]))
    attempt.connect((sys.argv[1], 82))
"""


def associates(net: Machine, name: str, target: Target, seconds: float) -> bool:
    """Returns True if a pod gets a new association."""
    host = target.host if ":" in target.host else f"::ffff:{target.host}"
    program = [sys.executable, "-I", "-S", "-c", ASSOCIATE, host, str(seconds)]
    return net.pods[name].run(*program, check=False).returncode == 0


def test_associations_of_sctp_are_cut_and_new_ones_refused(net: Machine, sctp: list[Target]) -> None:
    net.call(run_agent, [])
    web, other = Talk(net.pods["web"], sctp), Talk(net.pods["other"], sctp)
    assert [web.ask(PATIENT), other.ask(PATIENT)] == ["++", "++"]
    assert net.call(run_agent, [], changed(SCTP_FROM_WEB)) == 2
    assert [other.ask(SILENT), web.ask(PATIENT)] == ["--", "++"]
    assert [associates(net, "other", target, SILENT) for target in sctp] == [False, False]
    assert [associates(net, "web", target, PATIENT) for target in sctp] == [True, True]
    net.call(run_agent, changed(SCTP_FROM_WEB), [*changed(FROM_WEB), *without(SCTP_FROM_WEB)])  # TCP and UDP alone
    assert web.ask(SILENT) == "--"
    net.call(run_agent, changed(FROM_WEB), without(FROM_WEB))
    assert [web.ask(PATIENT), other.ask(PATIENT)] == ["++", "++"]


def test_connections_that_are_older_than_the_table_are_deleted(net: Machine) -> None:
    """Datagrams are judged as those of a new connection then. TCP may go on the other way around."""
    other, web = Talk(net.pods["other"], to_db(80)[2:]), Talk(net.pods["web"], to_db(80))
    track(net)
    assert [other.ask(PATIENT), web.ask(PATIENT)] == ["++", "++++"]
    assert net.call(run_agent, changed(FROM_WEB)) == 2
    assert [other.ask(SILENT), web.ask(PATIENT)] == ["--", "++++"]


def track(net: Machine) -> None:
    net.run("nft", "add table inet t; add chain inet t f { type filter hook forward priority 0; ct state new accept; }")


def test_labels_of_others_are_kept(net: Machine) -> None:
    net.run("nft", "add table inet t; add chain inet t f { type filter hook forward priority -9; ct label set 5; }")
    net.call(run_agent, [])
    other = talk(net, "other")
    net.call(run_agent, [], changed(CLOSED))
    assert other.ask(SILENT) == "----"
    assert set(net.call(labels)) == {1 << 5 | 1 << 77}
    net.call(run_agent, changed(CLOSED), without(CLOSED))
    assert other.ask(PATIENT) == "++++"
    assert set(net.call(labels)) == {1 << 5}


def labels() -> list[int]:
    """Inside: returns the labels of all connections to db, each read as the kernel lists it at its place."""
    netfilter = Netlink(NETLINK_NETFILTER)
    masks = []
    try:
        for answer in netfilter.dump(*connections.all_connections()):
            connection = connections.parse_connection(answer)
            assert connections.ends_of(answer) == connection.judged[:2]
            masks += [int.from_bytes(connection.labels, "little")] if connection.port == 80 else []
    finally:
        netfilter.close()
    return masks


def test_what_a_kernel_cannot_do_is_found_without_a_change(net: Machine) -> None:
    before = net.run("nft", "list", "ruleset").stdout
    assert net.call(tried) == [True, True, False]
    assert net.run("nft", "list", "ruleset").stdout == before


def tried() -> list[bool]:
    """Inside: whether the kernel takes each of these rules."""
    netfilter = Netlink(NETLINK_NETFILTER)
    try:
        rules = (LABELLING, Rule((Match("tcp dport", 80),)), Rule((SetLabel(127), Match("iifname", "x" * 40))))
        return [is_supported(netfilter, rule) for rule in rules]
    finally:
        netfilter.close()
