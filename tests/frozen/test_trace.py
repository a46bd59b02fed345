"""`podwire trace` of the bundle, on a node with pods, a host behind a wire and a tunnel to it: path and end."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.frozen.test_operator import NETWORK, RESULTS, Operator, keep
from tests.machine import Machine, missing, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Json = dict[str, Any]

pytestmark = pytest.mark.xdist_group("trace")  # which share one node
PLAIN = {**NETWORK, "runtimeConfig": {}}
ROUTED = {"type": "host-local", "ranges": [[{"subnet": "10.244.1.0/29"}]], "routes": [{"dst": "0.0.0.0/0"}]}
OVERLAY = {**PLAIN, "name": "pods", "bridge": "cni1", "ipMasq": False, "ipam": ROUTED}
BOTH = {"type": "host-local", "ranges": [[{"subnet": "10.7.0.0/29"}], [{"subnet": "fd00:7::/64"}]]}
DUAL = {**PLAIN, "name": "dual", "mode": "routed", "ipam": BOTH}
OUTSIDE, INSIDE = "192.0.2.2", "10.244.2.5"
TUNNEL = f"""
ip link add flannel.1 address 0a:00:00:00:00:01 type vxlan id 1 local 192.0.2.1 dev uplink dstport 8472 nolearning
ip link set flannel.1 up
ip route add 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink
ip neigh add 10.244.2.0 lladdr 0a:00:00:00:00:02 dev flannel.1
bridge fdb add 0a:00:00:00:00:02 dst {OUTSIDE} dev flannel.1
"""
PEER = f"""
ip link add flannel.1 address 0a:00:00:00:00:02 type vxlan id 1 local {OUTSIDE} dev eth0 dstport 8472 nolearning
ip link set flannel.1 up
ip address add {INSIDE}/32 dev lo
ip route add 10.244.1.0/29 via 10.244.1.1 dev flannel.1 onlink
ip neigh add 10.244.1.1 lladdr 0a:00:00:00:00:01 dev flannel.1
bridge fdb add 0a:00:00:00:00:01 dst 192.0.2.1 dev flannel.1
"""
DROP_FORWARDED = "nft 'table inet admin { chain forward { type filter hook forward priority 0; policy drop; }; }'"
UNDO = "nft delete table inet admin"


class Case(NamedTuple):
    """A script that breaks the node, one that undoes that, a connection, and the hop that stops it with its evidence;
    {web} and {db} are host interfaces.
    """

    damage: str
    undo: str
    ends: tuple[str, str]
    hop: str
    evidence: str


TO_OUTSIDE, TO_POD, TO_PEER = ("web", f"{OUTSIDE}:80"), ("web", "shop/db:5432"), ("api", f"{INSIDE}:80")
CASES = {
    "route of the container": Case(
        "ip -n web route del default",
        "ip -n web route add default via 10.1.2.1",
        TO_OUTSIDE,
        "container",
        "no route to 192.0.2.2: Network is unreachable",
    ),
    "interface of the container": Case(
        "ip -n web link set eth0 down",
        "ip -n web link set eth0 up; ip -n web route add default via 10.1.2.1",
        TO_OUTSIDE,
        "container",
        "the interface is down",
    ),
    "host veth": Case("ip link set {web} down", "ip link set {web} up", TO_POD, "veth", "down"),
    "port of the bridge": Case(
        "ip link set {web} nomaster", "ip link set {web} master cni0", TO_POD, "veth", "no port of cni0"
    ),
    "port of another bridge": Case(
        "ip link add br9 type bridge; ip link set {web} master br9",
        "ip link del br9; ip link set {web} master cni0",
        TO_POD,
        "veth",
        "no port of cni0, but of br9",
    ),
    "bridge": Case("ip link set cni0 down", "ip link set cni0 up", TO_POD, "bridge", "down"),
    "source check": Case(
        "nft 'add table bridge podwire; add set bridge podwire checked { type ifname; };"
        " add set bridge podwire sources4 { type ifname . ipv4_addr; }; add element bridge podwire checked { {web} }'",
        "nft delete table bridge podwire",
        TO_OUTSIDE,
        "source check",
        "10.1.2.2 is not in set sources4 of table bridge podwire",
    ),
    "isolated ports": Case(
        "bridge link set dev {web} isolated on; bridge link set dev {db} isolated on",
        "bridge link set dev {web} isolated off; bridge link set dev {db} isolated off",
        TO_POD,
        "bridge",
        "{web} and {db} are isolated ports: they exchange no frames",
    ),
    "forwarding": Case(
        "sysctl -qw net.ipv4.conf.cni0.forwarding=0",
        "sysctl -qw net.ipv4.conf.cni0.forwarding=1",
        TO_OUTSIDE,
        "route",
        "net.ipv4.conf.cni0.forwarding is 0: packets are not forwarded",
    ),
    "rp_filter": Case(
        "sysctl -qw net.ipv4.conf.cni0.rp_filter=1; ip route add 10.1.2.2/32 dev uplink",
        "sysctl -qw net.ipv4.conf.cni0.rp_filter=0; ip route del 10.1.2.2/32 dev uplink",
        TO_OUTSIDE,
        "route",
        "rp_filter drops 10.1.2.2 from cni0: its own route is by another interface",
    ),
    "forwarding of IPv6": Case(
        "sysctl -qw net.ipv6.conf.all.forwarding=0",
        "sysctl -qw net.ipv6.conf.all.forwarding=1",
        ("both", "[2001:db8:2::2]:80"),
        "route",
        "net.ipv6.conf.all.forwarding is 0: packets are not forwarded",
    ),
    "no route": Case("true", "true", ("web", "198.51.100.7:80"), "route", "there is no route"),
    "firewall": Case(
        DROP_FORWARDED,
        UNDO,
        TO_OUTSIDE,
        "forward",
        "chain forward of table inet admin drops what is forwarded (policy drop)",
    ),
    "neighbour of the tunnel": Case(
        "ip neigh del 10.244.2.0 dev flannel.1",
        "ip neigh add 10.244.2.0 lladdr 0a:00:00:00:00:02 dev flannel.1",
        TO_PEER,
        "neighbour",
        "no MAC address of the peer's VTEP on flannel.1",
    ),
    "FDB of the tunnel": Case(
        f"bridge fdb del 0a:00:00:00:00:02 dst {OUTSIDE} dev flannel.1",
        f"bridge fdb add 0a:00:00:00:00:02 dst {OUTSIDE} dev flannel.1",
        TO_PEER,
        "fdb",
        "no FDB entry on flannel.1: the VTEP is not known",
    ),
    "return route": Case(
        "ip -n db address add 10.9.9.9/32 dev eth0; ip -n db route flush 10.1.2.0/29; ip -n db route del default",
        "ip -n db address del 10.9.9.9/32 dev eth0; ip -n db route add 10.1.2.0/29 dev eth0 src 10.1.2.3;"
        " ip -n db route add default via 10.1.2.1",
        TO_POD,
        "return route",
        "no route to 10.1.2.2: Network is unreachable",
    ),
    "nobody listens": Case("true", "true", ("web", "db:99"), "socket", "nobody listens in shop/db"),
    "nobody listens in the container itself": Case(
        "ip -n web link set lo up",
        "ip -n web link set lo down",
        ("web", "web:99"),
        "socket",
        "nobody listens in shop/web",
    ),
    "nobody listens on the node": Case("true", "true", ("web", "10.1.2.1:99"), "socket", "nobody listens on this node"),
}


class Node(Operator):
    """The node of these tests, and its attachments' host interfaces by pod."""

    def furnish(self) -> None:
        """Attaches the pods, and starts the servers and the tunnel."""
        outside = self.machine.outside()
        pods = [("web", NETWORK), ("db", PLAIN), ("api", OVERLAY), ("both", DUAL)]
        self.pods = {name: self.attach(name, config) for name, config in pods}
        self.machine.run("sh", "-ec", TUNNEL)
        outside.run("sh", "-ec", PEER)
        outside.serve(80)
        outside.serve(53, "udp")
        self.pods["db"].serve(5432)
        self.pods["web"].serve(80)
        shown = self.asks("ps")["attachments"]
        self.interfaces = {each["pod"].partition("/")[2]: each["host_interface"] for each in shown}

    def shell(self, script: str) -> None:
        self.machine.run("sh", "-ec", self.named(script))

    def named(self, text: str) -> str:
        for name, interface in self.interfaces.items():
            text = text.replace(f"{{{name}}}", interface)
        return text

    def hops(self, *arguments: str) -> list[tuple[str, str, str]]:
        return [(hop["hop"], hop["subject"], hop["state"]) for hop in self.asks("trace", *arguments)["hops"]]

    def tables(self) -> str:
        return self.machine.run("nft", "list", "tables").stdout


@pytest.fixture(scope="module")
def node(bundle: Path) -> Iterator[Node]:
    if reason := missing():
        pytest.skip(reason)
    with Machine() as machine:
        node = Node(machine, bundle)
        node.furnish()
        yield node


def steps(answer: Json, direction: str) -> list[str]:
    """Returns table, chain and verdict of a traced packet's steps."""
    [packet] = [packet for packet in answer["probe"]["packets"] if packet["direction"] == direction]
    return [f"{step['family']} {step['table']} {step['chain']} {step['verdict']}" for step in packet["steps"]]


def test_the_path_to_a_host_outside_is_read_and_nothing_is_changed(node: Node) -> None:
    before, tables = node.machine.snapshot(), node.tables()
    answer = node.asks("trace", *TO_OUTSIDE)
    assert [hop["hop"] for hop in answer["hops"]] == [
        "container", "veth", "bridge", "route", "forward", "masquerade", "neighbour",
    ]  # fmt: skip
    assert {hop["state"] for hop in answer["hops"]} == {"passes"}
    assert (answer["from"], answer["to"]) == (
        {"name": "shop/web", "address": "10.1.2.2"},
        {"name": "", "address": OUTSIDE},
    )
    assert answer["probe"] is None
    done = node.types("trace", *TO_OUTSIDE)
    assert (done.returncode, done.stderr) == (0, "")
    assert "passes  masquerade   10.1.2.2: SNAT to 192.0.2.1 (chain masquerade-10.1.2.0/29" in done.stdout
    assert node.machine.snapshot() == before
    assert node.tables() == tables


def test_the_path_between_two_pods_ends_at_the_socket(node: Node) -> None:
    hops = node.hops("web", "db:5432")
    assert [hop for hop, _, _ in hops if hop != "forward"] == [
        "container", "veth", "bridge", "bridge", "veth", "container", "socket",
    ]  # fmt: skip
    assert hops[-1] == ("socket", "10.1.2.3 TCP/5432", "passes")


def test_a_host_port_leads_to_its_container(node: Node) -> None:
    answer = node.asks("trace", "db", "192.0.2.1:8080", "--send")
    evidence = {hop["hop"]: hop["evidence"] for hop in answer["hops"]}
    assert evidence["host port"] == "DNAT to 10.1.2.2:80 (map hostports4 of table inet podwire)"
    assert evidence["socket"] == "shop/web listens"
    assert answer["end"] == "the connection passes: connected"
    assert "inet podwire hostports goto hostports-13" in steps(answer, "request")


def test_the_path_to_a_peer_leads_through_the_tunnel(node: Node) -> None:
    answer = node.asks("trace", *TO_PEER)
    evidence = {hop["hop"]: hop["evidence"] for hop in answer["hops"]}
    assert evidence["overlay"] == "up, VNI 1, UDP port 8472, MTU 1450"
    assert evidence["fdb"] == f"VTEP {OUTSIDE}"
    assert evidence["underlay"] == "by uplink, from 192.0.2.1"


def test_the_agents_masquerading_is_known_by_its_file(node: Node) -> None:
    lines = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/29\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
    node.machine.run("sh", "-c", "mkdir /run/flannel; cat >/run/flannel/subnet.env", stdin=lines)
    try:
        outside, peer = [node.asks("trace", "api", end)["hops"] for end in (OUTSIDE, INSIDE)]
    finally:
        node.shell("rm -r /run/flannel")
    evidence = {hop["hop"]: hop["evidence"] for hop in outside}
    assert evidence["masquerade"] == "SNAT to 192.0.2.1 (by the agent that has written /run/flannel/subnet.env)"
    assert "masquerade" not in [hop["hop"] for hop in peer]


def test_what_is_known_by_its_alias_alone_is_traced_in_the_host(node: Node) -> None:
    node.shell("mkdir /run/aside; mv /run/podwire/attachment-* /run/aside")
    try:
        answer = node.asks("trace", "10.1.2.2", f"{OUTSIDE}:80")
        done = node.types("trace", "10.1.2.2", f"{OUTSIDE}:80", "--send")
    finally:
        node.shell("mv /run/aside/* /run/podwire; rmdir /run/aside")
    assert [(hop["hop"], hop["state"]) for hop in answer["hops"][:3]] == [
        ("container", "unknown"), ("veth", "passes"), ("bridge", "passes"),
    ]  # fmt: skip
    assert answer["hops"][-1]["hop"] == "neighbour"
    assert (done.returncode, done.stdout) == (3, "")
    assert "no probe can be sent: " in done.stderr


KUBE_PROXY = """
table ip kube-proxy {
    map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
    map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }
    chain shop { meta l4proto tcp dnat to 10.1.2.3:5432; }
    chain services { type nat hook prerouting priority -100; ip daddr . meta l4proto . th dport vmap @service-ips; }
}
add element ip kube-proxy service-ips { 10.96.0.9 . tcp . 80 : goto shop }
add element ip kube-proxy no-endpoint-services { 10.96.0.9 . tcp . 81 : drop }
"""


def test_the_endpoint_of_a_service_is_shown_by_a_probe(node: Node) -> None:
    node.machine.run("nft", "-f", "-", stdin=KUBE_PROXY)
    try:
        read, empty, other = [node.asks("trace", "web", f"10.96.0.9:{port}")["hops"][-1] for port in (80, 81, 82)]
        shown = node.asks("trace", "web", "10.96.0.9:80", "--send")
    finally:
        node.shell("nft delete table ip kube-proxy")
    assert (read["hop"], read["state"]) == ("service", "unknown")
    assert (empty["hop"], empty["state"]) == ("service", "stops")
    assert empty["evidence"] == "it has no endpoints (map no-endpoint-services of table ip kube-proxy)"
    assert (other["hop"], other["evidence"]) == ("route", "there is no route")
    assert shown["end"] == "the connection passes: connected"
    [rule] = [step["rule"] for step in shown["probe"]["packets"][0]["steps"] if step["chain"] == "shop"]
    assert rule.replace("l4proto 6 ", "l4proto tcp ") == "meta l4proto tcp dnat to 10.1.2.3:5432"  # /etc/protocols


def test_where_an_interface_has_no_other_end_the_rest_is_unknown(node: Node) -> None:
    """As with macvlan: the runtime's result names no interface of the host."""
    pod = node.machine.pod("alone")
    node.shell("ip link add other0 type veth peer name eth0 netns alone; ip link set other0 up")
    pod.run("sh", "-ec", "ip address add 10.6.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 10.6.0.1")
    result = {"interfaces": [{"name": "eth0", "sandbox": pod.path}], "ips": [{"address": "10.6.0.2/24"}]}
    keep(node, "alone0123456789", {"cniVersion": "1.0.0", **result}, {"type": "macvlan"}, netns=pod.path)
    node.shell("ip route add 10.6.0.0/24 dev other0")
    try:
        assert node.hops("10.6.0.2", OUTSIDE) == [
            ("container", "eth0 in lab/alo", "passes"),
            ("veth", "lab/alo", "unknown"),
        ]
        assert node.hops("web", "10.6.0.2")[-1] == ("veth", "lab/alo", "unknown")
    finally:
        node.shell(f"ip link del other0; rm {RESULTS}/*")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_hop_that_stops_a_connection_is_named(node: Node, case: Case) -> None:
    node.shell(case.damage)
    try:
        done = node.types("trace", *case.ends, "--json")
    finally:
        node.shell(case.undo)
    answer = json.loads(done.stdout)
    assert done.returncode == 1
    assert [(hop["hop"], hop["evidence"]) for hop in answer["hops"] if hop["state"] == "stops"] == [
        (case.hop, node.named(case.evidence))
    ]
    assert answer["hops"][-1]["state"] == "stops"
    assert answer["end"].startswith(f"it stops at {case.hop} ")


@pytest.mark.parametrize(
    ("destination", "answer"),
    [(f"{OUTSIDE}:80", "connected"), (f"{OUTSIDE}:53/udp", "a datagram of "), (OUTSIDE, "echo reply")],
)
def test_a_probe_is_sent_and_traced_in_both_directions(node: Node, destination: str, answer: str) -> None:
    shown = node.asks("trace", "web", destination, "--send")
    assert shown["end"].startswith(f"the connection passes: {answer}")
    assert "inet podwire masquerade-10.1.2.0/29 accept" in steps(shown, "request")
    assert steps(shown, "request")[-1] == "inet  postrouting "
    assert "inet  forward " in steps(shown, "reply")
    assert "podwire-trace" not in node.tables()


def test_a_probe_in_the_tunnel_is_traced_as_well(node: Node) -> None:
    node.shell("nft 'table inet admin { chain out { type filter hook output priority 0; udp dport 8472 drop; }; }'")
    try:
        done = node.types("trace", *TO_PEER, "--send", "--wait", "0.5")
    finally:
        node.shell(UNDO)
    assert done.returncode == 1
    assert "    inet admin out (rule 2): drop [udp dport 8472 drop]" in done.stdout.splitlines()
    assert done.stdout.splitlines()[-1] == "the tunnelled request is dropped by inet admin out (rule 2)"
    shown = node.asks("trace", *TO_PEER, "--send")
    assert shown["end"] == "the connection passes: connected"
    assert [packet["direction"] for packet in shown["probe"]["packets"]] == ["request", "tunnel", "reply"]


NOISE = """
table inet noise {
    chain pre { type filter hook prerouting priority -600; icmp type echo-request meta nftrace set 1; }
    chain in { type filter hook input priority 0; icmp type echo-request drop; }
}
"""


def test_packets_that_others_trace_are_left_out(node: Node) -> None:
    node.machine.run("nft", "-f", "-", stdin=NOISE)
    flood = ("ping", "-q", "-i", "0.002", "-w", "6", "192.0.2.1")
    node.machine.start("nsenter", "--net=/run/netns/outside", *flood)
    try:
        shown = node.asks("trace", "web", "192.0.2.77", "--send", "--wait", "1")
    finally:
        node.shell("nft delete table inet noise")
    assert shown["end"] == "it has left by uplink: no answer within 1 s"
    assert "inet noise in drop" not in steps(shown, "request")


def test_the_chain_that_drops_a_probe_is_named(node: Node) -> None:
    node.shell(DROP_FORWARDED)
    try:
        shown = node.asks("trace", *TO_OUTSIDE, "--send", "--wait", "0.5")
    finally:
        node.shell(UNDO)
    assert shown["end"] == "the request is dropped by inet admin forward (policy)"
    assert shown["probe"]["answered"] is False


def test_a_dropped_reply_is_told_from_a_dropped_request(node: Node) -> None:
    node.shell("nft 'table inet admin { chain f { type filter hook forward priority 0; iifname uplink drop; }; }'")
    try:
        shown = node.asks("trace", *TO_OUTSIDE, "--send", "--wait", "0.5")
    finally:
        node.shell(UNDO)
    assert shown["end"] == "the reply is dropped by inet admin f (rule 2)"
    assert [step["rule"] for step in shown["probe"]["packets"][-1]["steps"]][-1] == 'iifname "uplink" drop'


def test_a_reply_that_does_not_arrive_is_no_answer(node: Node) -> None:
    node.shell("sysctl -qw net.ipv4.conf.uplink.forwarding=0")
    try:
        shown = node.asks("trace", *TO_OUTSIDE, "--send", "--wait", "0.5")
    finally:
        node.shell("sysctl -qw net.ipv4.conf.uplink.forwarding=1")
    lost = "a reply has come back, and the node did not route it (rp_filter, or forwarding is off where it arrives)"
    assert shown["end"] == f"{lost}: no answer within 0.5 s"


def test_a_probe_that_the_container_refuses_was_not_sent(node: Node) -> None:
    node.shell("ip -n web route del default")
    try:
        shown = node.asks("trace", *TO_OUTSIDE, "--send", "--wait", "0.5")
    finally:
        node.shell("ip -n web route add default via 10.1.2.1")
    assert shown["end"] == "the probe did not leave the container: Network is unreachable"


def test_a_port_that_is_closed_refuses(node: Node) -> None:
    done = node.types("trace", "web", "db:99", "--send")
    assert done.returncode == 1
    assert "  stops   socket       10.1.2.3 TCP/99: nobody listens in shop/db" in done.stdout.splitlines()
    assert done.stdout.splitlines()[-1] == "the destination or a router answers: Connection refused"


def test_a_probe_that_nobody_answers_has_left(node: Node) -> None:
    shown = node.asks("trace", "web", "192.0.2.77", "--send", "--wait", "0.5")
    assert shown["end"] == "it has left by uplink: no answer within 0.5 s"


def test_both_families_are_traced(node: Node) -> None:
    for destination in ("2001:db8:2::2", OUTSIDE):
        shown = node.asks("trace", "both", destination, "--send")
        assert [hop["hop"] for hop in shown["hops"]][:3] == ["container", "veth", "route"]
        assert shown["end"] == "the connection passes: echo reply"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_trace_leaves_no_table(node: Node, number: signal.Signals) -> None:
    arguments = ("trace", "web", "192.0.2.77", "--send", "--wait", "30")
    program = str(node.bundle / "podwire")
    process = node.machine.start("sh", "-c", f"echo $$; exec {program} {' '.join(arguments)}")
    assert process.stdout is not None
    inside = process.stdout.readline().strip()
    until(lambda: "podwire-trace" in node.tables(), "the table is there")
    node.machine.run("kill", f"-{int(number)}", inside)
    process.wait()
    assert "podwire-trace" not in node.tables()


def test_a_leftover_table_is_replaced(node: Node) -> None:
    node.shell("nft 'table inet podwire-trace { chain request { type filter hook input priority 3; drop; }; }'")
    assert node.asks("trace", *TO_OUTSIDE, "--send")["end"] == "the connection passes: connected"
    assert "podwire-trace" not in node.tables()


def test_two_traces_at_once_do_not_disturb_each_other(node: Node) -> None:
    program = str(node.bundle / "podwire")
    process = node.machine.start(program, "trace", "web", "192.0.2.77", "--send", "--wait", "30")
    until(lambda: "podwire-trace" in node.tables(), "the table is there")
    shown = node.asks("trace", *TO_OUTSIDE, "--send")
    process.terminate()
    assert shown["end"] == "the connection passes: connected"
    assert shown["probe"]["untraced"] == "nftrace: table podwire-trace belongs to another podwire trace --send"


def test_names_and_ports_that_are_none_are_usage_errors(node: Node) -> None:
    errors = {
        ("nobody", OUTSIDE): "no attachment is called nobody",
        ("web", "nobody"): "'nobody' is neither an attachment's name nor an address",
        ("web", f"{OUTSIDE}:0"): f"the port of {OUTSIDE} is not a number from 1 to 65535",
        ("web", f"{OUTSIDE}/tcp"): "tcp needs a port",
        ("web", f"{OUTSIDE}:7/icmp"): "icmp has no ports",
        ("web", f"{OUTSIDE}:7/tpc"): "protocol 'tpc' is none of tcp, udp, sctp, icmp",
        ("web", "2001:db8:2::2"): "web and 2001:db8:2::2 have no addresses of the same family",
    }
    for arguments, error in errors.items():
        done = node.types("trace", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert error in done.stderr


def test_control_characters_of_names_are_not_printed(node: Node) -> None:
    node.shell("cp -a /run/podwire /run/kept; sed -i 's/K8S_POD_NAME=web/K8S_POD_NAME=\\x1b[2J/' /run/podwire/attach*")
    try:
        done = node.types("trace", "10.1.2.2", "db")
    finally:
        node.shell("cp -a /run/kept/. /run/podwire/")
    assert r"shop/\x1b[2J (10.1.2.2)" in done.stdout
    assert "\x1b" not in json.dumps(done.stdout).replace("\\u001b", "\x1b")
