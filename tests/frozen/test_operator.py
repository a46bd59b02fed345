"""The operator's commands of the bundle on a node with attachments: ps, leases, check."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.machine import Machine, missing, until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from tests.machine import Pod

    Json = dict[str, Any]

POOL = {"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/29"}]]}
NETWORK: Json = {
    "cniVersion": "1.1.0",
    "name": "net",
    "type": "podwire",
    "isDefaultGateway": True,
    "ipMasq": True,
    "ipam": POOL,
    "runtimeConfig": {
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 8_000_000},
    },
}
LAST = ("PORTS", "LIMITS", "AGE", "BY")  # columns
RESULTS = "/var/lib/cni/results"
LEASES = "/var/lib/cni/networks/net"


class Operator:
    """A node, the runtime that attaches pods on it, and the person at its terminal."""

    def __init__(self, machine: Machine, bundle: Path) -> None:
        self.machine, self.bundle = machine, bundle

    def attach(self, name: str, config: Json) -> Pod:
        pod = self.machine.pod(name)
        self.call("ADD", name, pod, config)
        return pod

    def call(self, verb: str, name: str, pod: Pod, config: Json, program: str = "", **more: str) -> Json:
        variables = {
            **more,
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": f"{name}0123456789abcdef",
            "CNI_NETNS": pod.path,
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name}",
            **more,
        }
        program = program or str(self.bundle / "podwire")
        command = ["env", *[f"{key}={value}" for key, value in variables.items()], program]
        answer: Json = json.loads(self.machine.run(*command, stdin=json.dumps(config)).stdout or "{}")
        return answer

    def types(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.machine.run(str(self.bundle / "podwire"), *arguments, check=False)

    def asks(self, *arguments: str) -> Json:
        answer: Json = json.loads(self.types(*arguments, "--json").stdout)
        assert answer["version"] == 1
        return answer


@pytest.fixture
def operator(bundle: Path) -> Iterator[Operator]:
    if reason := missing():
        pytest.skip(reason)
    with Machine() as machine:
        yield Operator(machine, bundle)


def test_ps_lists_pods_with_what_they_have(operator: Operator) -> None:
    operator.attach("web", NETWORK)
    done = operator.types("ps")
    assert (done.returncode, done.stderr) == (0, "")
    heading, row = done.stdout.splitlines()
    assert heading.split() == [
        "POD",
        "CONTAINER",
        "IF",
        "ADDRESSES",
        "HOST",
        "IF",
        "NETWORK",
        "PORTS",
        "LIMITS",
        "AGE",
        "BY",
    ]
    for shown in (
        "shop/web",
        "web012345678 ",
        "eth0",
        "10.1.2.2/29",
        "veth",
        " net ",
        "8080->80/tcp",
        "ingress 8 Mbit/s",
    ):
        assert shown in row
    assert row.endswith("podwire")


@pytest.mark.parametrize("name", ["shop/web", "web", "web012", "10.1.2.2"])
def test_an_attachment_has_several_names(operator: Operator, name: str) -> None:
    for pod in ("web", "db"):
        operator.attach(pod, {**NETWORK, "runtimeConfig": {}})
    [shown] = operator.asks("ps", name)["attachments"]
    assert shown["pod"] == "shop/web"


def test_ps_says_whose_interface_is_gone(operator: Operator) -> None:
    pod = operator.attach("web", NETWORK)
    pod.remove()
    until(lambda: "veth" not in operator.machine.run("ip", "link").stdout, "the kernel removes the interface")
    done = operator.types("ps")
    assert done.returncode == 1
    assert "(gone)" in done.stdout
    operator.call("DEL", "web", pod, NETWORK)
    assert operator.types("ps").returncode == 0


def test_ps_forgets_what_a_reference_plugin_has_detached(operator: Operator) -> None:
    """It takes the interface and the lease, and knows nothing of podwire's record."""
    pod = operator.attach("web", NETWORK)
    pod.remove()
    operator.machine.run("rm", f"{LEASES}/10.1.2.2")
    until(lambda: "veth" not in operator.machine.run("ip", "link").stdout, "the kernel removes the interface")
    assert operator.asks("ps")["attachments"] == []


def keep(operator: Operator, container: str, result: Json, *plugins: Json, **members: object) -> None:
    """Writes what libcni keeps of an attachment."""
    chain = {"cniVersion": "1.1.0", "name": "net", "plugins": plugins}
    kept = {
        "kind": "cniCacheV1",
        "containerId": container,
        "config": base64.b64encode(json.dumps(chain).encode()).decode(),
        "ifName": "eth0",
        "networkName": "net",
        "cniArgs": [["K8S_POD_NAMESPACE", "lab"], ["K8S_POD_NAME", container[:3]]],
        "result": result,
        **members,
    }
    script = f"mkdir -p {RESULTS}; cat >{RESULTS}/net-{container}-{kept['ifName']}"
    operator.machine.run("sh", "-c", script, stdin=json.dumps(kept))


def test_the_loopback_that_a_runtime_attaches_is_no_second_name_of_a_pod(operator: Operator) -> None:
    container = "web0123456789abcdef"
    result = operator.call("ADD", "web", operator.machine.pod("web"), NETWORK)
    keep(operator, container, result, NETWORK)
    pod = operator.asks("ps")["attachments"][0]["pod"]
    loopback = {"cniVersion": "1.1.0", "ips": [{"address": "127.0.0.1/8"}]}
    keep(operator, container, loopback, {"type": "loopback"}, ifName="lo")
    assert [each["ifname"] for each in operator.asks("ps", pod)["attachments"]] == ["eth0"]
    assert {each["ifname"] for each in operator.asks("ps", "--all")["attachments"]} == {"eth0", "lo"}
    assert operator.asks("trace", pod, "192.0.2.7:80")["from"]["address"] == "10.1.2.2"
    drawn = operator.types("topology").stdout
    assert pod in drawn
    assert "127.0.0.1" not in drawn


def test_ps_and_check_know_what_the_runtime_has_kept(operator: Operator) -> None:
    """It keeps the whole chain and the last result; reference plugins leave nothing else, and are not compared."""
    machine, pod = operator.machine, operator.machine.pod("web")
    result = operator.call("ADD", "web", pod, NETWORK)
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    keep(operator, "web0123456789abcdef", result, {**NETWORK, "type": "bridge"}, ports, {"type": "sbr"})
    machine.run("ip", "link", "add", "veth1234", "type", "veth", "peer", "name", "other")
    foreign = {**result, "interfaces": [{"name": "veth1234"}]}
    mapped = {"portMappings": [{"hostPort": 9090, "containerPort": 80, "protocol": "tcp"}]}
    keep(operator, "elsewhere", foreign, {**NETWORK, "type": "bridge"}, ports, capabilityArgs=mapped)
    machine.run("sh", "-c", f"echo '{{' >{RESULTS}/broken; echo '{{\"kind\": \"cniCacheV1\"}}' >{RESULTS}/empty")
    shown = {each["pod"]: each for each in operator.asks("ps")["attachments"]}
    assert {pod: (each["made_by"], each["program"]) for pod, each in shown.items()} == {
        "lab/web": ("podwire", "bridge"),
        "lab/els": ("another plugin", "bridge"),
    }
    assert "9090->80/tcp" in shown["lab/els"]["ports"]
    done = operator.types("check")
    assert done.returncode == 0, done.stdout
    assert "nothing of podwire's" in done.stdout
    before = machine.snapshot()
    assert operator.types("repair").returncode == 0
    assert machine.snapshot() == before


def test_an_interface_without_a_pair_is_judged_by_its_namespace(operator: Operator) -> None:
    """Containerd keeps loopback's result, and macvlan has nothing on the host either."""
    pod = operator.machine.pod("web")
    alone = {"cniVersion": "1.0.0", "interfaces": [{"name": "lo", "sandbox": pod.path}]}
    keep(operator, "looped", alone, {"type": "loopback"}, ifName="lo", netns=pod.path)
    assert operator.types("ps", "--all").returncode == 0
    assert operator.types("check").returncode == 0
    pod.remove()
    assert operator.types("ps", "--all").returncode == 1


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_check_compares_networks_of_every_version(operator: Operator, version: str) -> None:
    operator.attach("web", {**NETWORK, "cniVersion": version})
    done = operator.types("check")
    assert done.returncode == 0, done.stdout
    operator.machine.run("nft", "flush", "ruleset")
    assert operator.types("check").returncode == 1


def test_a_third_party_ipam_is_not_executed_from_a_kept_path(operator: Operator) -> None:
    machine = operator.machine
    script = """#!/bin/sh
[ "$CNI_COMMAND" = ADD ] || touch /run/executed
echo '{"cniVersion": "1.0.0", "ips": [{"address": "10.1.2.9/29"}]}'"""
    machine.run("sh", "-c", "mkdir /run/bin; cat >/run/bin/mine; chmod +x /run/bin/mine", stdin=script)
    pod = machine.pod("web")
    config = {**NETWORK, "cniVersion": "1.0.0", "isDefaultGateway": False, "ipam": {"type": "mine"}}
    operator.call("ADD", "web", pod, config, CNI_PATH="/run/bin")
    for command in ("check", "explain", "doctor", "repair"):
        operator.types(command, *(["web"] if command == "explain" else []))
    assert operator.types("check").returncode == 0
    assert machine.run("test", "-e", "/run/executed", check=False).returncode == 1


def test_check_names_the_operation_of_each_difference(operator: Operator) -> None:
    operator.attach("web", NETWORK)
    assert "as ADD made it" in operator.types("check").stdout
    assert operator.types("check").returncode == 0
    operator.machine.run("nft", "delete", "table", "inet", "podwire")
    done = operator.types("check", "shop/web")
    assert done.returncode == 1
    [attached] = operator.asks("check")["attachments"]
    operations = [each["operation"] for each in attached["differences"]]
    assert any(operation.startswith("nft add element inet podwire masquerade4") for operation in operations)
    assert all(operation in done.stdout for operation in operations)


def test_check_of_nobody_is_a_usage_error(operator: Operator) -> None:
    done = operator.types("check", "nobody")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no attachment is called nobody (podwire ps lists all)" in done.stderr


def test_an_attachment_without_a_record_is_listed_and_unknown(operator: Operator) -> None:
    operator.attach("web", NETWORK)
    operator.machine.run("sh", "-c", "rm /run/podwire/attachment-*")
    [shown] = operator.asks("ps")["attachments"]
    assert (shown["network"], shown["containerID"], shown["addresses"]) == (
        "net",
        "web0123456789abcdef",
        ["10.1.2.2/29"],
    )
    done = operator.types("check")
    assert done.returncode == 3
    assert "neither the runtime nor podwire has kept its ADD" in done.stdout


def test_leases_shows_pools_and_reclaims_what_has_leaked(operator: Operator) -> None:
    machine = operator.machine
    operator.attach("web", NETWORK)
    operator.attach("db", {**NETWORK, "runtimeConfig": {}}).remove()
    until(lambda: machine.run("ip", "-o", "link").stdout.count("veth") == 1, "the kernel removes the interface")
    [pool] = operator.asks("leases")["pools"]
    assert [pool[name] for name in ("network", "size", "used", "free", "next")] == ["net", 5, 2, 3, "10.1.2.4"]
    assert {each["address"]: each["state"] for each in pool["leases"]} == {"10.1.2.2": "held", "10.1.2.3": "new"}
    machine.run("touch", "-d", "2 minutes ago", f"{LEASES}/10.1.2.3", f"{LEASES}/10.1.2.2")
    shown = operator.types("leases", "--reclaim", "--dry-run")
    assert shown.returncode == 1
    assert "would be released: 10.1.2.3" in shown.stdout
    assert operator.asks("leases", "--reclaim")["reclaimed"] == ["10.1.2.3"]
    assert operator.types("leases").returncode == 0
    assert machine.run("ls", LEASES).stdout.split() == ["10.1.2.2", "last_reserved_ip.0", "lock"]


LEAK = f"printf 'gone\\r\\neth0' >{LEASES}/10.1.2.5; touch -d '1 hour ago' {LEASES}/*"


def test_leases_shows_what_there_is_after_a_release(operator: Operator) -> None:
    operator.attach("web", NETWORK)
    operator.machine.run("sh", "-c", LEAK)
    answer = operator.asks("leases", "--reclaim")
    assert answer["reclaimed"] == ["10.1.2.5"]
    [pool] = answer["pools"]
    assert ([each["address"] for each in pool["leases"]], pool["used"], pool["free"]) == (["10.1.2.2"], 1, 4)


def test_a_lease_is_held_as_long_as_the_namespace_of_its_add_is_there(operator: Operator) -> None:
    pod = operator.attach("web", NETWORK)
    pod.run("ip", "link", "delete", "eth0")
    operator.machine.run("touch", "-d", "1 hour ago", f"{LEASES}/10.1.2.2")
    answer = operator.asks("leases", "--reclaim")
    assert answer["reclaimed"] == []
    assert [each["state"] for each in answer["pools"][0]["leases"]] == ["held"]
    pod.remove()
    assert operator.asks("leases", "--reclaim")["reclaimed"] == ["10.1.2.2"]


def test_a_lease_is_held_as_long_as_the_runtime_keeps_its_attachment(operator: Operator) -> None:
    operator.attach("web", NETWORK)
    config = base64.b64encode(json.dumps(NETWORK).encode()).decode()
    kept = {"kind": "cniCacheV1", "containerId": "gone", "config": config, "ifName": "eth0", "networkName": "net"}
    operator.machine.run(
        "sh", "-c", f"{LEAK}; mkdir -p {RESULTS}; cat >{RESULTS}/net-gone-eth0", stdin=json.dumps(kept)
    )
    assert operator.asks("leases", "--reclaim")["reclaimed"] == []
    operator.machine.run("rm", f"{RESULTS}/net-gone-eth0")
    assert operator.asks("leases", "--reclaim")["reclaimed"] == ["10.1.2.5"]


@pytest.mark.parametrize("hiding", [("unshare", "--mount"), ("unshare", "--net"), ("touch", "/run/netns/stale")])
def test_no_lease_is_released_where_containers_may_be_hidden(operator: Operator, hiding: tuple[str, ...]) -> None:
    operator.attach("web", NETWORK)
    operator.machine.run("sh", "-c", LEAK)
    podwire = (str(operator.bundle / "podwire"), "leases")
    if hiding[0] == "touch":
        operator.machine.run(*hiding)
        hiding = ()
    done = operator.machine.run(*hiding, *podwire, "--reclaim", check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert "no lease is released: " in done.stderr
    assert " leaked" not in operator.machine.run(*hiding, *podwire, check=False).stdout
    assert operator.machine.run("cat", f"{LEASES}/10.1.2.5").stdout


def test_leases_outside_the_ranges_are_shown_and_released(operator: Operator) -> None:
    operator.attach("web", NETWORK)
    operator.machine.run("sh", "-c", f"{LEAK}; mv {LEASES}/10.1.2.5 {LEASES}/10.7.7.7")
    pool, other = operator.asks("leases")["pools"]
    assert [each["address"] for each in pool["leases"]] == ["10.1.2.2"]
    assert (other["ranges"], other["free"], [each["address"] for each in other["leases"]]) == ("", 0, ["10.7.7.7"])
    assert operator.types("leases", "--reclaim").returncode == 0
    assert operator.machine.run("ls", LEASES).stdout.split() == ["10.1.2.2", "last_reserved_ip.0", "lock"]


def test_leases_finds_an_interface_without_a_lease(operator: Operator) -> None:
    operator.attach("web", NETWORK)
    operator.machine.run("rm", f"{LEASES}/10.1.2.2")
    done = operator.types("leases")
    assert done.returncode == 1
    assert f"10.1.2.2 is not leased to shop/web in {LEASES}" in done.stdout


def test_leases_knows_the_networks_of_the_runtimes_folder(operator: Operator) -> None:
    machine = operator.machine
    unused = {
        "cniVersion": "1.0.0",
        "name": "unused",
        "plugins": [{"type": "bridge", "ipam": {**POOL, "dataDir": "/run/x"}}],
    }
    machine.run("sh", "-c", "mkdir /run/net.d; cat >/run/net.d/10-unused.conflist", stdin=json.dumps(unused))
    [pool] = operator.asks("leases", "--conf-dir", "/run/net.d")["pools"]
    assert (pool["network"], pool["folder"], pool["next"]) == ("unused", "/run/x/unused", "10.1.2.2")


@pytest.mark.parametrize("command", ["ps", "check", "explain 10.1.2.2", "repair"])
def test_control_characters_of_a_pods_name_are_not_printed(operator: Operator, command: str) -> None:
    operator.attach("web", NETWORK)
    operator.machine.run("sh", "-c", "sed -i 's/K8S_POD_NAME=web/K8S_POD_NAME=\\x1b[2J/' /run/podwire/attachment-*")
    operator.machine.run("nft", "flush", "ruleset")
    assert r"shop/\x1b[2J" in operator.types(*command.split()).stdout


@pytest.mark.parametrize(
    "damage",
    [
        "nft flush ruleset",
        "nft delete table inet podwire",
        "nft flush map inet podwire hostports4",
        "ip address flush dev cni0",
        "ip link set cni0 down",
        "tc qdisc del dev {} root",
        "sysctl -qw net.ipv4.ip_forward=0",
        "ip link set {} nomaster",
        "ip -n web route del default",
        "ip -n web address flush dev eth0",
    ],
)
def test_repair_restores_what_check_misses(operator: Operator, damage: str) -> None:
    operator.attach("web", NETWORK)
    operator.attach("db", {**NETWORK, "runtimeConfig": {}})
    [web] = operator.asks("ps", "web")["attachments"]
    operator.machine.run("sh", "-c", damage.format(web["host_interface"]))
    assert operator.types("check").returncode == 1
    shown = operator.types("repair", "--dry-run")
    assert shown.returncode == 1
    assert "would be repaired: " in shown.stdout
    assert operator.types("check").returncode == 1
    done = operator.types("repair")
    assert done.returncode == 0, done.stdout
    assert operator.types("check").returncode == 0
    assert operator.types("repair").stdout == "all attachments are as ADD made them\n"


def test_repair_says_what_it_cannot_restore(operator: Operator) -> None:
    operator.attach("web", NETWORK)
    operator.machine.run("rm", f"{LEASES}/10.1.2.2")
    assert operator.types("repair").returncode == 1
    operator.machine.run("sh", "-c", "rm /run/podwire/attachment-*")
    done = operator.types("repair")
    assert done.returncode == 1
    assert "not repaired: neither the runtime nor podwire has kept its ADD" in done.stdout


def test_every_name_has_to_be_somebodys(operator: Operator) -> None:
    operator.attach("web", NETWORK)
    for command in ("ps", "check", "repair"):
        done = operator.types(command, "web", "wbe")
        assert (done.returncode, done.stdout) == (2, "")
        assert "no attachment is called wbe" in done.stderr


def test_a_pair_that_is_gone_is_not_repaired(operator: Operator) -> None:
    operator.attach("web", NETWORK)
    [web] = operator.asks("ps")["attachments"]
    operator.machine.run("ip", "-n", "web", "link", "set", "eth0", "name", "eth9")
    done = operator.types("repair", "shop/web")
    assert done.returncode == 1
    assert "recreate the pod" in done.stdout
    assert web["interface"] == "present"


def test_explain_shows_each_operation_and_whether_it_holds(operator: Operator) -> None:
    operator.attach("web", NETWORK)
    assert operator.types("explain", "shop/web").returncode == 0
    operator.machine.run("ip", "-n", "web", "route", "del", "default")
    done = operator.types("explain", "shop/web")
    assert done.returncode == 1
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert "yes ip -n CONTAINER link set eth0 up" in lines
    assert "no  ip -n CONTAINER route add 0.0.0.0/0 via 10.1.2.1 dev eth0" in lines
    [attached] = operator.asks("explain", "web")["attachments"]
    assert sum(not each["difference"] for each in attached["operations"]) == len(attached["operations"]) - 1


def test_plan_shows_what_an_add_would_do_and_does_nothing(operator: Operator) -> None:
    machine, program = operator.machine, str(operator.bundle / "podwire")
    before = machine.snapshot()
    ports = {"type": "portmap", "runtimeConfig": NETWORK["runtimeConfig"]}
    network = {"cniVersion": "1.1.0", "name": "net", "plugins": [{**NETWORK, "runtimeConfig": {}}, ports]}
    planned = json.loads(machine.run(program, "plan", "--json", stdin=json.dumps(network)).stdout)
    assert machine.snapshot() == before
    result = operator.call("ADD", "web", machine.pod("web"), NETWORK)
    operations = [each["operation"] for each in planned["operations"]]
    assert planned["result"]["ips"] == result["ips"]
    assert "nft add element inet podwire masquerade4 { 10.1.2.2 : jump masquerade-10.1.2.0/29 }" in operations
    assert any("hostports4" in operation for operation in operations)
    shown = machine.run(program, "plan", stdin=json.dumps(network)).stdout
    assert "ip -n CONTAINER addr add 10.1.2.3/29 dev eth0" in shown


def test_plan_follows_flannel_to_its_delegate(operator: Operator) -> None:
    machine, program = operator.machine, str(operator.bundle / "podwire")
    flannel = {"type": "flannel", "subnetFile": "/run/subnet.env", "delegate": {"isDefaultGateway": True}}
    network = {"cniVersion": "1.0.0", "name": "cbr0", "plugins": [flannel]}
    refused = machine.run(program, "plan", stdin=json.dumps(network), check=False)
    assert (refused.returncode, refused.stderr.split(" (")[0]) == (3, "podwire: /run/subnet.env: not found")
    env = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
    machine.run("sh", "-c", "cat >/run/subnet.env", stdin=env)
    before = machine.snapshot()
    planned = json.loads(machine.run(program, "plan", "--json", stdin=json.dumps(network)).stdout)
    assert machine.snapshot() == before
    assert {each["plugin"] for each in planned["operations"]} == {"bridge"}
    assert "ip -n CONTAINER addr add 10.5.1.2/24 dev eth0" in [each["operation"] for each in planned["operations"]]
    assert [ip["address"] for ip in planned["result"]["ips"]] == ["10.5.1.2/24"]


@pytest.mark.parametrize(
    ("network", "error"),
    [
        ("{", "the network configuration is not JSON"),
        ('{"cniVersion": "1.0.0", "name": "net", "type": "macvlan"}', "not a plugin that podwire can plan"),
        ('{"cniVersion": "1.0.0", "name": "net", "type": "podwire", "mtu": "x"}', "mtu: "),
    ],
)
def test_plan_says_why_an_add_would_fail(operator: Operator, network: str, error: str) -> None:
    done = operator.machine.run(str(operator.bundle / "podwire"), "plan", stdin=network, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert error in done.stderr
