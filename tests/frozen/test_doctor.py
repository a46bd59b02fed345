"""`podwire doctor` of the bundle: on a node that is broken in one way it names this one alone, and the remedy works.

The usual ways are those of hack/tour (tests/system/test_tour.py).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.frozen.test_operator import NETWORK, Operator
from tests.machine import Machine, missing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Json = dict[str, Any]

BIN, CONF, POOL = "/run/bin", "/run/net.d", "/var/lib/cni/networks/net"
FOLDERS = ("--conf-dir", CONF, "--bin-dir", BIN)
PLUGIN = {key: NETWORK[key] for key in ("type", "ipam")}
CONFLIST = {"cniVersion": "1.1.0", "name": "net", "plugins": [PLUGIN]}


KUBE_PROXY = "nft 'table ip kube-proxy { chain services { }; }; table ip nat { chain KUBE-SERVICES { }; }'"
KUBE_PROXY_6 = "table ip6 kube-proxy { chain services { }; }"
ISOLATED = "for port in /sys/class/net/cni0/brif/*; do echo %d >$port/isolated; done"
UNFILTERED = "sysctl -qw net.bridge.bridge-nf-call-iptables=0"


class Case(NamedTuple):
    """A script that breaks a node ({veth} is the host interface of a pod), the name of the finding, and its remedy: a
    script, too, empty for the one that is printed.
    """

    damage: str
    finding: str
    remedy: str = ""


GATEWAY = {**CONFLIST, "name": "other", "plugins": [{"type": "podwire", "bridge": "br9", "isGateway": True, "ipam": {
    "type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}]]}}]}  # fmt: skip
OCCUPIED = (
    f"ip link add br9 type bridge; ip addr add ADDRESS dev br9; echo '{json.dumps(GATEWAY)}' >{CONF}/20-x.conflist"
)
# A plugin of another maker, which answers VERSION alone, with the versions that follow.
CHAINED = f"""printf '%s\\n' '#!/bin/sh' '[ $CNI_COMMAND = VERSION ] && cat /run/versions' >{BIN}/other
chmod +x {BIN}/other
echo '{json.dumps({**CONFLIST, "name": "chain", "plugins": [PLUGIN, {"type": "other"}]})}' >{CONF}/20-chain.conflist
printf '{{"cniVersion": "1.0.0", "supportedVersions": ["%s"]}}' >/run/versions"""
CASES = {
    "another address on a network's bridge": Case(OCCUPIED.replace("ADDRESS", "10.99.0.1/24"), "bridge-address"),
    "a clock that was set back": Case(
        "touch -d '2 days' /run/podwire/attachment-*", "clock-behind", "touch /run/podwire/attachment-*"
    ),
    "a plugin that does not know the configuration's version": Case(
        f"{CHAINED} '1.0.0'", "plugin-version", f"rm {CONF}/20-chain.conflist"
    ),
    "forwarding off": Case("sysctl -qw net.ipv4.ip_forward=0", "forwarding-off"),
    "port of the bridge lost": Case("ip link set {veth} nomaster", "attachment-changed"),
    "lease removed": Case(f"mv {POOL}/10.1.2.2 /run/kept", "lease-missing", f"mv /run/kept {POOL}/10.1.2.2"),
    "broken network": Case(f"sed -i s:/29:/x: {CONF}/10-net.conflist", "network-file", f"sed -i s:/x:/29: {CONF}/*"),
    "missing plugin": Case(f"rm {BIN}/host-local", "plugin-missing", f"ln -s podwire {BIN}/host-local"),
    "tunnel down": Case(
        "ip link add flannel.1 type vxlan id 1 dstport 8472 dev lo", "tunnel-down", "ip link set flannel.1 up"
    ),
    "a device of another mode has the tunnel's port": Case(
        "ip link add ext type vxlan external dstport 8472; ip link set ext up;"
        " ip link add flannel.1 type vxlan id 1 dstport 8472 dev lo",
        "tunnel-port-taken",
        "ip link delete ext; ip link set flannel.1 up",
    ),
    "a tunnel larger than its underlay": Case(
        "ip link add eth0 type veth peer name peer0; ip link add flannel.1 type vxlan id 1 dstport 8472 dev eth0;"
        " ip link set flannel.1 up; ip link set eth0 up mtu 1400",
        "tunnel-mtu",
    ),
}
OTHER = f"sed s/net/other/\\;s/10.1.2.0/10.9.0.0/\\;s/podwire/ptp/ {CONF}/10-net.conflist >{CONF}/20-other.conflist"
HEALTHY = {
    "two networks": OTHER,
    "nerdctl": 'sed -i \'s/{/{"nerdctlID": "a1", "nerdctlLabels": {"nerdctl\\/default-network": "true"},/\''
    f" {CONF}/*",
    "podman": f'sed -i \'s/{{/{{"args": {{"podman_labels": {{"a": "b"}}}},/\' {CONF}/*',
    "unknown keys": f"sed -i s/1.1.0/0.4.0/\\;s/ipam/unknown/ {CONF}/*",
    "podwired that holds its lock": "cd /run/podwire; (flock 9; touch /run/held; exec sleep 600) 9>podwired-vni-1.lock"
    " >/dev/null 2>&1 & until [ -e /run/held ]; do sleep 0.05; done",
    "a firewall for IPv6 alone, which the network has not": "nft 'table ip6 admin"
    " { chain forward { type filter hook forward priority 0; policy drop; }; }'",
    "podman's conmon, which holds a published port": "python3 -c 'import socket, time;"
    ' open("/proc/self/comm", "w").write("conmon"); s = socket.create_server(("", 8080)); time.sleep(600)\''
    " >/dev/null 2>&1 & until ss -ltn | grep -q :8080; do sleep 0.05; done",
    "flanneld, which has replaced podwired": "touch /run/podwire/podwired-vni-1.lock; python3 -c 'import time;"
    ' open("/proc/self/comm", "w").write("flanneld"); open("/run/named", "w"); time.sleep(600)\''
    " >/dev/null 2>&1 & until [ -e /run/named ]; do sleep 0.05; done",
    "several podwireds": "cd /run/podwire; touch podwired-a.sock podwired-b.sock",
    "an underlay of the tunnel's size, and two tunnels on one port": "ip link add eth0 type veth peer name peer0;"
    " ip link set eth0 up; for vni in 1 2; do ip link add flannel.$vni type vxlan id $vni dstport 8472 dev eth0;"
    " ip link set flannel.$vni up; done",
    "a plugin that knows the configuration's version": f"{CHAINED} '1.1.0'",
    "a plugin that does not say which versions it knows": f"{CHAINED} ''; echo nothing >/run/versions",
    "a network's bridge with its address": OCCUPIED.replace("ADDRESS", "10.9.0.1/24"),
    "a network's bridge without an address of its version": OCCUPIED.replace("ADDRESS", "fd00::1/64"),
    "docker's bridge and rules": "ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0;"
    " nft 'table ip filter { chain DOCKER { }; chain FORWARD { type filter hook forward priority 0; jump DOCKER; }; }'",
    "a runtime that makes lo itself": f"rm {BIN}/loopback",
}


@pytest.fixture
def operator(bundle: Path) -> Iterator[Operator]:
    """Gives a healthy node with the bundle installed, one network, and a pod."""
    if reason := missing():
        pytest.skip(reason)
    with Machine() as machine:
        operator = Operator(machine, bundle)
        machine.run(str(bundle / "podwire"), "install", "--bin-dir", BIN)
        machine.run("sh", "-c", f"mkdir {CONF}; cat >{CONF}/10-net.conflist", stdin=json.dumps(CONFLIST))
        operator.attach("web", NETWORK)
        yield operator


def test_a_healthy_node_has_no_ailment(operator: Operator) -> None:
    done = operator.types("doctor", *FOLDERS)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "nothing is wrong that podwire doctor looks for\n"
    assert operator.asks("doctor", *FOLDERS)["findings"] == []


@pytest.mark.parametrize("script", HEALTHY.values(), ids=HEALTHY)
def test_what_works_is_no_ailment(operator: Operator, script: str) -> None:
    operator.machine.run("sh", "-c", script)
    assert operator.asks("doctor", *FOLDERS)["findings"] == []


def test_nothing_is_forwarded_for_a_bridge_alone(bundle: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    with Machine() as machine:
        operator = Operator(machine, bundle)
        operator.attach("web", {**NETWORK, "isDefaultGateway": False, "ipMasq": False, "runtimeConfig": {}})
        machine.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
        assert operator.asks("doctor", *FOLDERS)["findings"] == []


def test_a_bridge_that_is_no_gateway_forwards_nothing(operator: Operator) -> None:
    machine = operator.machine
    l2 = {**NETWORK, "name": "l2", "bridge": "br2", "isDefaultGateway": False, "ipMasq": False, "runtimeConfig": {}}
    operator.attach("db", l2)
    machine.run("nft", "table inet admin { chain forward { type filter hook forward priority 0; policy drop; }; }")
    findings = operator.asks("doctor", *FOLDERS)["findings"]
    assert [(finding["name"], finding["subject"]) for finding in findings] == [("forward-dropped", "cni0")]


def test_plugins_are_also_looked_for_where_a_runtime_has_called_them(operator: Operator) -> None:
    other = {**CONFLIST, "name": "x", "plugins": [{"type": "own"}]}
    operator.machine.run("sh", "-c", f"cat >{CONF}/20-x.conflist", stdin=json.dumps(other))
    operator.machine.run("sh", "-c", f"mkdir /run/own; ln -s {BIN}/podwire /run/own/own")
    assert "own" in [each["subject"] for each in operator.asks("doctor", "--conf-dir", CONF)["findings"]]
    pod = operator.machine.pod("db")
    operator.call("ADD", "db", pod, {**NETWORK, "runtimeConfig": {}}, CNI_PATH=f"/run/own:{BIN}")
    assert operator.asks("doctor", "--conf-dir", CONF)["findings"] == []


def test_a_runtime_takes_another_file_than_the_broken_first_one(operator: Operator) -> None:
    operator.machine.run("sh", "-c", f"{OTHER}; echo '{{' >{CONF}/10-net.conflist")
    findings = operator.asks("doctor", *FOLDERS)["findings"]
    assert {finding["name"] for finding in findings} == {"several-networks", "network-file"}
    assert "20-other.conflist" in findings[0]["evidence"]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_cause_is_named_alone_and_its_remedy_works(operator: Operator, case: Case) -> None:
    machine = operator.machine
    [web] = operator.asks("ps")["attachments"]
    machine.run("sh", "-c", case.damage.replace("{veth}", web["host_interface"]))
    findings = operator.asks("doctor", *FOLDERS)["findings"]
    assert [finding["name"] for finding in findings] == [case.finding]
    done = operator.types("doctor", *FOLDERS)
    assert done.returncode == 1
    for part in ("evidence", "consequence", "remedy", "proof"):
        assert findings[0][part]
        assert findings[0][part] in done.stdout
    remedy = case.remedy or findings[0]["remedy"].replace("podwire", str(operator.bundle / "podwire"), 1)
    machine.run("sh", "-c", remedy.partition(",")[0].partition(" (")[0])
    assert operator.types("doctor", *FOLDERS).returncode == 0


def test_services_need_the_filter_of_bridges_where_pods_share_one(operator: Operator) -> None:
    machine = operator.machine
    if machine.run("sh", "-c", UNFILTERED, check=False).returncode:
        pytest.skip("the kernel has no br_netfilter")

    def names() -> list[str]:
        return [finding["name"] for finding in operator.asks("doctor", *FOLDERS)["findings"]]

    machine.run("sh", "-c", KUBE_PROXY)
    assert names() == []  # one pod
    operator.attach("db", {**NETWORK, "runtimeConfig": {}})
    [finding] = operator.asks("doctor", *FOLDERS)["findings"]
    assert (finding["name"], finding["subject"]) == ("bridge-not-filtered", "cni0")
    for change, back in (
        ("echo 1 >/sys/class/net/cni0/bridge/nf_call_iptables", "echo 0 >/sys/class/net/cni0/bridge/nf_call_iptables"),
        (ISOLATED % 1, ISOLATED % 0),
        (f"nft delete table ip kube-proxy; nft delete table ip nat; nft '{KUBE_PROXY_6}'", KUBE_PROXY),
        (finding["remedy"], UNFILTERED),
    ):
        machine.run("sh", "-ec", change)
        assert "bridge-not-filtered" not in names(), change
        machine.run("sh", "-ec", back)


def test_a_node_that_forwards_needs_to_accept_router_advertisements_anyway(bundle: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    with Machine() as machine:
        operator = Operator(machine, bundle)
        setup = "ip link add eth0 type veth peer name router; ip link set eth0 up; ip link set router up; "
        machine.run("sh", "-ec", f"{setup} ip -6 route add default via fe80::1 dev eth0 proto ra")
        pool = {"type": "host-local", "ranges": [[{"subnet": "fd00:9::/64"}]]}
        operator.attach("web", {**NETWORK, "ipam": pool, "runtimeConfig": {}})
        assert operator.asks("doctor", *FOLDERS)["findings"] == []
        machine.run("sysctl", "-qw", "net.ipv6.conf.eth0.accept_ra=1")
        [finding] = operator.asks("doctor", *FOLDERS)["findings"]
        assert (finding["name"], finding["subject"]) == ("advertisements-ignored", "eth0")
        machine.run("sh", "-ec", finding["remedy"])
        assert operator.asks("doctor", *FOLDERS)["findings"] == []


def test_without_networks_and_pods_there_is_nothing_to_find(bundle: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    with Machine() as machine:
        assert Operator(machine, bundle).types("doctor", *FOLDERS).returncode == 0


def test_a_conntrack_table_that_is_full_is_named(operator: Operator) -> None:
    machine = operator.machine
    if machine.run("sysctl", "-n", "net.netfilter.nf_conntrack_max", check=False).returncode:
        pytest.skip("the kernel has no conntrack (modprobe nf_conntrack)")
    machine.run("sh", "-c", "mkdir -p /run/counts; echo 999999999 >/run/count")
    machine.run("mount", "--bind", "/run/count", "/proc/sys/net/netfilter/nf_conntrack_count")
    [finding] = operator.asks("doctor", *FOLDERS)["findings"]
    assert finding["name"] == "conntrack-full"
    machine.run("umount", "/proc/sys/net/netfilter/nf_conntrack_count")
    assert operator.types("doctor", *FOLDERS).returncode == 0
