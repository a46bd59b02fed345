"""Tests calls as containerd, CRI-O and nerdctl make them."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from cni.diag import install
from tests.system.libcni import Container, Libcni
from tests.system.plugins import RefusedError, address_of
from tests.system.reach import NODE, OUTSIDE
from tests.system.shared import links_of, seen, without_pod
from tests.traffic import NOBODY, Answer, Target, ask_each, listen

if TYPE_CHECKING:
    from pathlib import Path

    from tests.machine import Machine, Pod
    from tests.system.plugins import Json

# What systemd gives to a service.
SERVICE = (
    "LANG=C.UTF-8",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "NOTIFY_SOCKET=/run/systemd/notify",
    "INVOCATION_ID=0f2b5f6c1d2e4d1f8e0c5a3b7a9d6c41",
    "JOURNAL_STREAM=8:31337",
    "SYSTEMD_EXEC_PID=4711",
)
IDS = ("3f" * 32, "a7" * 32)  # as long as theirs are
LOOPBACK: Json = {"cniVersion": "0.3.1", "name": "cni-loopback", "plugins": [{"type": "loopback"}]}
MAX_UINT32 = (1 << 32) - 1  # containerd's burst


@pytest.fixture
def machine(usual_machine: Machine) -> Machine:
    return usual_machine


@pytest.fixture
def runtime(machine: Machine, plugins: Path) -> Libcni:
    return Libcni(machine, plugins, SERVICE)


def network(version: str, name: str, bridge: Json, *others: Json) -> Json:
    settings = {"type": "bridge", "isGateway": True, "ipMasq": True, "hairpinMode": True, **bridge}
    return {"cniVersion": version, "name": name, "plugins": [settings, *others]}


def host_local(*subnets: str) -> Json:
    sets = [[{"subnet": subnet}] for subnet in subnets]
    return {"type": "host-local", "ranges": sets, "routes": [{"dst": "0.0.0.0/0"}]}


def capable(plugin: str) -> Json:
    return {"type": plugin, "capabilities": {"portMappings" if plugin == "portmap" else plugin: True}}


def kubernetes(container: str) -> str:
    """Returns CNI_ARGS."""
    return (
        f"K8S_POD_INFRA_CONTAINER_ID={container};K8S_POD_UID=4c1e1d9e-6f43-4a0b-9d63-0d6d4ad7a5c2;"
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0"
    )


def reached(machine: Machine, pod: Pod, port: int = 8080) -> Answer:
    """Returns what an external host reads from the node's port, which is mapped to the pod's port 80."""
    listen(pod, pod.name, 80)
    (answer,) = ask_each(machine.pods.get("outside") or machine.outside(), [Target("tcp", NODE[4], port)])
    return answer


# containerd: go-cni's structs have no JSON names, so Go's are written; all networks of a pod are attached at once.

CONTAINERD = network(
    "1.0.0",
    "containerd-net",
    {"bridge": "cni0", "capabilities": {"ipRanges": True}, "ipam": host_local()},
    capable("portmap"),
    capable("bandwidth"),
)
CONTAINERD_RUNTIME_CONFIG: Json = {
    "portMappings": [
        {"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""},
        {"HostPort": 8080, "ContainerPort": 80, "Protocol": "udp", "HostIP": ""},
    ],
    "bandwidth": {"IngressRate": 10_000_000, "IngressBurst": MAX_UINT32, "EgressRate": 0, "EgressBurst": 0},
    "ipRanges": [{"Subnet": "10.99.0.0/24", "RangeStart": "", "RangeEnd": "", "Gateway": ""}],
    "dns": {"Servers": ["10.96.0.10"], "Searches": ["default.svc.cluster.local"], "Options": ["ndots:5"]},
    "io.kubernetes.cri.pod-annotations": {"kubernetes.io/ingress-bandwidth": "10M"},
}


class Containerd:
    """The loopback network gets an empty environment, which no runtime does."""

    def __init__(self, machine: Machine, plugins: Path) -> None:
        self.networks = [
            (Libcni(machine, plugins), LOOPBACK, "lo"),
            (Libcni(machine, plugins, SERVICE), CONTAINERD, "eth0"),
        ]

    def attach(self, container: str, netns: str) -> list[Json]:
        with ThreadPoolExecutor() as pool:
            attaching = [
                pool.submit(libcni.add, conflist, self._container(container, netns, ifname))
                for libcni, conflist, ifname in self.networks
            ]
        return [future.result() for future in attaching]

    def remove(self, container: str, netns: str) -> None:
        for libcni, conflist, ifname in self.networks:
            libcni.delete(conflist, self._container(container, netns, ifname))

    def _container(self, container: str, netns: str, ifname: str) -> Container:
        return Container(container, netns, ifname, kubernetes(container), CONTAINERD_RUNTIME_CONFIG)


@pytest.fixture
def containerd(machine: Machine, plugins: Path) -> Containerd:
    return Containerd(machine, plugins)


def test_containerd_gets_both_networks_of_a_pod_at_once(each_machine: Machine, plugins: Path) -> None:
    machine, pod = each_machine, each_machine.pod("pod")
    loopback, result = Containerd(machine, plugins).attach(IDS[0], pod.path)
    assert (loopback["cniVersion"], [interface["name"] for interface in loopback["interfaces"]]) == ("0.3.1", ["lo"])
    for answer in (loopback, result):  # else go-cni says that the result is invalid
        assert all(0 <= ip["interface"] < len(answer["interfaces"]) for ip in answer["ips"])
    assert "eth0" in [interface["name"] for interface in result["interfaces"]]
    assert pod.addresses() == ["10.99.0.2/24"] == [ip["address"] for ip in result["ips"]]
    assert pod.run("ping", "-c", "1", "-W", "1", "127.0.0.1").returncode == 0
    assert reached(machine, pod) == Answer("pod", OUTSIDE[4])
    host = result["interfaces"][1]["name"]
    (bucket,) = json.loads(machine.run("tc", "-j", "qdisc", "show", "dev", host).stdout)
    assert (bucket["kind"], bucket["options"]["rate"]) == ("tbf", 10_000_000 // 8)


def test_containerd_removes_a_pod_whose_namespace_it_has_closed(machine: Machine, containerd: Containerd) -> None:
    pod = machine.pod()
    containerd.attach(IDS[0], pod.path)
    containerd.remove(IDS[0], pod.path)
    before, links = seen(machine), links_of(machine)
    containerd.attach(IDS[1], pod.path)
    pod.remove()
    for _ in range(2):
        containerd.remove(IDS[1], "")
        machine.wait_for_links(*links)
        assert seen(machine) == without_pod(before, pod)


def test_containerd_removes_what_could_not_be_attached(machine: Machine, containerd: Containerd) -> None:
    first, second = machine.pod(), machine.pod()
    containerd.attach(IDS[0], first.path)
    before = seen(machine)
    with pytest.raises(RefusedError, match="8080 is taken"):
        containerd.attach(IDS[1], second.path)
    containerd.remove(IDS[1], second.path)
    assert links_of(second) == ["lo"]
    assert without_pod(seen(machine), second) == without_pod(before, second)  # lo keeps the addresses that it got


# CRI-O: JSON names as the conventions have them, and all of the protocol's verbs. It looks after lo itself.

CRIO = network(
    "1.1.0",
    "crio",
    {"bridge": "cni0", "capabilities": {"ipRanges": True, "mac": True}, "ipam": host_local("10.85.0.0/16")},
    capable("portmap"),
    capable("bandwidth"),
    {"type": "firewall"},
    {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}},
)
LIMITS = {"ingressRate": 10_000_000, "ingressBurst": 80_000, "egressRate": 10_000_000, "egressBurst": 80_000}


def crio_container(container: str, netns: str, port: int) -> Container:
    mapping = {"hostPort": port, "containerPort": 80, "protocol": "TCP", "hostIP": ""}
    ranges = [[{"subnet": "fd00:85::/64"}]]
    runtime_config: Json = {
        "portMappings": [mapping],
        "bandwidth": LIMITS,
        "ipRanges": ranges,
        "cgroupPath": "/kubepods/pod1",
    }
    return Container(container, netns, "eth0", kubernetes(container), runtime_config)


@pytest.mark.parametrize("name", ["podwire", *install.NAMES])
def test_crio_finds_that_every_plugin_knows_its_version(runtime: Libcni, name: str) -> None:
    assert {"0.3.1", "0.4.0", "1.0.0", "1.1.0"} <= set(runtime.supported(name))


def test_crio_finds_its_network_ready_and_its_pod_in_order(machine: Machine, runtime: Libcni) -> None:
    runtime.status(CRIO)
    pod = machine.pod("pod")
    container = crio_container(IDS[0], pod.path, 8080)
    result = runtime.add(CRIO, container)
    assert [ip["address"] for ip in result["ips"]] == ["fd00:85::2/64", "10.85.0.2/16"]
    runtime.check(CRIO, container, result)
    runtime.status(CRIO)
    assert reached(machine, pod) == Answer("pod", OUTSIDE[4])


def test_crio_finds_a_network_ready_whose_ranges_it_will_bring(runtime: Libcni) -> None:
    """STATUS has no runtimeConfig of a pod, hence no ranges."""
    runtime.status(
        network("1.1.0", "crio", {"bridge": "cni0", "capabilities": {"ipRanges": True}, "ipam": host_local()})
    )


@pytest.mark.parametrize("valid", ["none", "one"])
def test_crio_collects_after_it_has_lost_its_memory(machine: Machine, runtime: Libcni, valid: str) -> None:
    """GC without a DEL before: libcni's cache is gone, and one of the namespaces."""
    stays, lost, gone = machine.pod("stays"), machine.pod("lost"), machine.pod("gone")
    others = [crio_container("b8" * 32, lost.path, 8082), crio_container("c9" * 32, gone.path, 8083)]
    living = crio_container(IDS[0], stays.path, 8080)
    result = runtime.add(CRIO, living)
    if valid == "none":
        runtime.delete(CRIO, living, result)
    before, links = without_pod(seen(machine), gone), links_of(machine)
    for other in others:
        runtime.add(CRIO, other)
    gone.remove()
    runtime.collect(CRIO, [living] if valid == "one" else None)
    machine.wait_for_links(*links)
    assert seen(machine) == before
    if valid == "one":
        runtime.check(CRIO, living, result)
        assert reached(machine, stays) == Answer("stays", OUTSIDE[4])


def test_crio_has_each_plugin_collect_what_it_made_itself(machine: Machine, runtime: Libcni) -> None:
    """The bridge plugin may be a third-party one, which does not do it for the plugins after it."""
    first, *others = CRIO["plugins"]
    stays, goes = (crio_container(IDS[number], machine.pod().path, 8080 + number) for number in range(2))
    runtime.add(CRIO, stays)
    result = runtime.add({**CRIO, "plugins": [first]}, goes)
    before = seen(machine)
    runtime.add({**CRIO, "plugins": others}, goes, result)
    runtime.collect({**CRIO, "plugins": others}, [stays])
    after = seen(machine)
    # Queues go with the interface, and what is inside the container is nobody's any more.
    assert [after[section] for section in ("links", "nft", "files")] == [
        before["links"],
        before["nft"],
        before["files"],
    ]


# nerdctl: go-cni as well, from a hook of the OCI runtime, with firewall and tuning in every network.


def nerdctl_network(name: str, bridge: str, subnet: str) -> Json:
    firewall = {"type": "firewall", "ingressPolicy": "same-bridge"}
    settings = {"bridge": bridge, "ipam": host_local(subnet)}
    return network("1.0.0", name, settings, capable("portmap"), firewall, {"type": "tuning"})


NERDCTL = nerdctl_network("bridge", "nerdctl0", "10.4.0.0/24")
OTHER = nerdctl_network("other", "br-3f3f3f3f3f3f", "10.4.1.0/24")


def nerdctl_container(pod: Pod, port: int, netns: str | None = None) -> Container:
    mapping = {"HostPort": port, "ContainerPort": 80, "Protocol": "tcp", "HostIP": "0.0.0.0"}
    args = "IgnoreUnknown=1;NERDCTL_CNI_DHCP_HOSTNAME=web"
    runtime_config = {"portMappings": [mapping]}
    return Container(f"default-{pod.name * 16:.64}", pod.path if netns is None else netns, "eth0", args, runtime_config)


def test_nerdctl_learns_that_firewall_can_isolate(machine: Machine, plugins: Path) -> None:
    """Calls without CNI_COMMAND print a text for people, which nerdctl parses."""
    done = machine.run("env", "-i", str(plugins / "firewall"))
    assert done.stdout == ""
    version = re.search(r"^CNI firewall plugin v(\d+)\.(\d+)\.(\d+)", done.stderr, re.MULTILINE)
    assert version, done.stderr
    assert tuple(map(int, version.groups())) >= (1, 7, 1)


def test_nerdctl_removes_a_container_before_it_starts_and_after_its_end(machine: Machine, runtime: Libcni) -> None:
    first, pod = machine.pod("first"), machine.pod("pod")
    runtime.add(NERDCTL, nerdctl_container(first, 8081))
    before, links = seen(machine), links_of(machine)
    runtime.delete(NERDCTL, nerdctl_container(pod, 8080, ""))
    assert seen(machine) == before
    result = runtime.add(NERDCTL, nerdctl_container(pod, 8080))
    assert reached(machine, pod) == Answer("pod", OUTSIDE[4])
    machine.pods.pop("outside").remove()
    pod.remove()
    runtime.delete(NERDCTL, nerdctl_container(pod, 8080, ""), result)
    machine.wait_for_links(*links)
    assert seen(machine) == without_pod(before, pod)


def test_nerdctl_keeps_its_networks_apart(machine: Machine, runtime: Libcni) -> None:
    outside, first, second, other = machine.outside(), machine.pod("one"), machine.pod("two"), machine.pod("other")
    addresses = {}
    for number, (pod, conflist) in enumerate(((first, NERDCTL), (second, NERDCTL), (other, OTHER))):
        addresses[pod] = address_of(runtime.add(conflist, nerdctl_container(pod, 8080 + number)))
        listen(pod, pod.name, 80)
    listen(outside, "outside", 80)
    targets = [Target("tcp", address, 80) for address in (*addresses.values(), OUTSIDE[4])]
    heard = {pod.name: [answer.name for answer in ask_each(pod, targets, seconds=1.0)] for pod in (first, other)}
    assert [names[1:] for names in heard.values()] == [["two", NOBODY, "outside"], [NOBODY, NOBODY, "outside"]]
