"""`podwire doctor` and its kin of the bundle on a host that others have changed: all tests have one, and mend it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.frozen.test_operator import LEASES, NETWORK, POOL, RESULTS, Operator, keep
from tests.machine import Machine, missing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Json = dict[str, Any]

CONF, BIN = "/run/net.d", "/opt/cni/bin"
WEB = "web0123456789abcdef"
PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}
PORTS = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
BRIDGE = {"type": "bridge", "isDefaultGateway": True, "ipMasq": True, "ipam": POOL}
CONFLIST = {"cniVersion": "1.1.0", "name": "net", "plugins": [BRIDGE, PORTMAP]}
HOLD = f"""
flock -o {LEASES}/lock sleep 600 </dev/null >/dev/null 2>&1 & echo $! >/run/holder
while flock -n {LEASES}/lock true; do sleep 0.02; done"""
FULL = f"""
cp -a {LEASES} /run/copy; mount -t tmpfs -o size=64k tmpfs {LEASES}/..
cp -a /run/copy {LEASES}; dd if=/dev/zero of={LEASES}/../file 2>/dev/null || true"""
RELEASE = "kill $(cat /run/holder)"
RATES = {"ingressRate": 8_000_000, "ingressBurst": 80_000, "egressRate": 8_000_000, "egressBurst": 80_000}
LIMIT = {"bandwidth": RATES}


class Case(NamedTuple):
    """Scripts that break the host and mend it ({web}, {db}: host interfaces), the finding, and part of its evidence.
    An empty `mend` stands for the remedy.
    """

    damage: str
    finding: str
    evidence: str
    mend: str = ""


CASES = {
    "a route of the host to a pod": Case(
        "ip route add 10.1.2.2/32 dev uplink",
        "route-diverted",
        "the host's route to 10.1.2.2 is by uplink, not by cni0",
        "ip route del 10.1.2.2/32 dev uplink",
    ),
    "a pod's address on the host": Case(
        "ip address add 10.1.2.3/32 dev uplink",
        "route-diverted",
        "10.1.2.3 is an address of the host as well",
        "ip address del 10.1.2.3/32 dev uplink",
    ),
    "forwarding off for the bridge alone": Case(
        "sysctl -qw net.ipv4.conf.cni0.forwarding=0", "forwarding-off", "net.ipv4.conf.cni0.forwarding=0"
    ),
    "forwarding off for the uplink alone": Case(
        "sysctl -qw net.ipv4.conf.uplink.forwarding=0", "forwarding-off", "net.ipv4.conf.uplink.forwarding=0"
    ),
    "a file system that is read-only": Case(
        "mount --bind /var/lib/cni /var/lib/cni; mount -o remount,ro,bind /var/lib/cni",
        "read-only",
        "mounted read-only",
        "umount /var/lib/cni",
    ),
    "a full file system of leases": Case(
        FULL,
        "no-disk",
        "no disk left",
        f"umount {LEASES}/..",
    ),
    "a lock that a process keeps": Case(HOLD, "lock-held", "held by process", RELEASE),
    "a lease that is another container's": Case(
        f"cp {LEASES}/10.1.2.2 /run/kept; echo other >{LEASES}/10.1.2.2",
        "lease-missing",
        "not leased: 10.1.2.2 of lab/web",
        f"cp /run/kept {LEASES}/10.1.2.2",
    ),
    "an interface that was renamed": Case(
        "ip -n db link set eth0 down; ip -n db link set eth0 name eth1",
        "attachment-changed",
        "the interface is gone from the container",
        "ip -n db link set eth1 name eth0; ip -n db link set eth0 up; ip -n db route add default via 10.1.2.1",
    ),
    "another rate": Case(
        "tc qdisc replace dev {db} root tbf rate 1mbit burst 10k latency 25ms",
        "attachment-changed",
        "does not limit the bandwidth",
    ),
    "an ifb that is gone": Case("ip link del $(ls /sys/class/net | grep ^ifb)", "attachment-changed", "is gone"),
    "a plugin that cannot be executed": Case(
        f"rm {BIN}/portmap; echo >{BIN}/portmap", "plugin-missing", f"{BIN}/portmap cannot be executed"
    ),
    "a network that wants another gateway": Case(
        f"cp {CONF}/10-net.conflist /run/kept; sed -i s/10.1.2.0/10.1.3.0/ {CONF}/10-net.conflist",
        "bridge-address",
        "it has 10.1.2.1/29, and network net wants 10.1.3.1/29 there; it is the gateway of lab/web, shop/db",
        f"cp /run/kept {CONF}/10-net.conflist",
    ),
    "no file of the node's subnet": Case(
        f"""echo '{{"cniVersion": "1.0.0", "name": "fl", "type": "flannel"}}' >{CONF}/20-fl.conf""",
        "subnet-file",
        "no such file",
        f"rm {CONF}/20-fl.conf",
    ),
    "no network of the runtime": Case(
        f"mv {CONF} /run/moved; mkdir {CONF}",
        "no-network",
        "no network configuration, and a runtime has attached lab/web by one",
        f"rmdir {CONF}; mv /run/moved {CONF}",
    ),
}


class Host(Operator):
    """A host with two pods: one attached by a list of plugins, of which a runtime keeps the result."""

    def furnish(self) -> None:
        self.machine.outside()
        self.machine.run("ip", "route", "add", "default", "via", "192.0.2.2")
        self.machine.run(str(self.bundle / "podwire"), "install", "--bin-dir", BIN)
        self.machine.run("sh", "-c", f"mkdir {CONF}; cat >{CONF}/10-net.conflist", stdin=json.dumps(CONFLIST))
        keep(self, WEB, self.attach_list(), BRIDGE, PORTMAP, capabilityArgs=PORTS, netns="/run/netns/web")
        self.pods = {"db": self.attach("db", {**NETWORK, "runtimeConfig": LIMIT})}
        self.interfaces = {
            each["pod"].partition("/")[2]: each["host_interface"] for each in self.asks("ps")["attachments"]
        }

    def attach_list(self) -> Json:
        """Attaches a pod by the plugins of a list, as libcni does; returns the last one's result."""
        pod = self.machine.pod("web")
        result: Json = {}
        for plugin in (BRIDGE, {**PORTMAP, "runtimeConfig": PORTS}):
            config = {"cniVersion": "1.1.0", "name": "net", **plugin, **({"prevResult": result} if result else {})}
            result = self.call("ADD", "web", pod, config, f"{BIN}/{plugin['type']}")
        return result

    def shell(self, script: str) -> None:
        for name, interface in self.interfaces.items():
            script = script.replace(f"{{{name}}}", interface)
        self.machine.run("sh", "-ec", script)

    def findings(self) -> list[Json]:
        findings: list[Json] = self.asks("doctor", "--conf-dir", CONF)["findings"]
        return findings


@pytest.fixture(scope="module")
def host(bundle: Path) -> Iterator[Host]:
    if reason := missing():
        pytest.skip(reason)
    with Machine() as machine:
        host = Host(machine, bundle)
        host.furnish()
        assert host.findings() == []
        yield host


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_cause_is_named_alone(host: Host, case: Case) -> None:
    host.shell(case.damage)
    try:
        [finding] = host.findings()
    finally:
        host.shell(case.mend or "true")
    assert finding["name"] == case.finding
    assert case.evidence in finding["evidence"]
    if not case.mend:
        host.shell(finding["remedy"].partition(" (")[0].partition(", ")[0].replace("podwire", f"{BIN}/podwire"))
    assert host.findings() == []


def test_a_diverted_route_opens_no_other_interface_to_127_0_0_1(host: Host) -> None:
    """The interface of portmap's setting is that of the host's route."""
    host.shell("ip route add 10.1.2.2/32 dev uplink")
    try:
        done, traced = host.types("repair"), host.asks("trace", "web", "10.1.2.3")
        opened = host.machine.run("sysctl", "-n", "net.ipv4.conf.uplink.route_localnet").stdout
    finally:
        host.shell("ip route del 10.1.2.2/32 dev uplink")
    assert done.returncode == 1
    assert "the host's route to 10.1.2.2 is by uplink, not by cni0 (remove that route" in done.stdout
    assert opened == "0\n"
    assert [hop["subject"] for hop in traced["hops"] if hop["hop"] == "host route"] == ["lab/web"]


def test_packets_pass_a_restored_limit(host: Host) -> None:
    """A redirect to an ifb that is gone drops them, also where another redirect is behind it."""
    for _ in range(2):
        host.shell("ip link del $(ls /sys/class/net | grep ^ifb)")
        assert host.types("repair").returncode == 0
        assert host.pods["db"].run("ping", "-c1", "-W2", "10.1.2.1", check=False).returncode == 0


def test_nobody_waits_long_for_a_lock_that_is_kept(host: Host) -> None:
    host.shell(HOLD)
    try:
        ended = [(command, host.types(*command.split())) for command in ("check", "leases", "gc --dry-run")]
    finally:
        host.shell(RELEASE)
    for command, done in ended[:2]:
        assert done.returncode == 3, command
        assert "held by process" in done.stdout + done.stderr


def test_an_interface_that_is_gone_is_a_difference(host: Host) -> None:
    pod = host.attach("old", {**NETWORK, "runtimeConfig": {}})
    [shown] = host.asks("ps", "old")["attachments"]
    host.machine.run("ip", "link", "del", shown["host_interface"])
    for command in ("check", "explain"):
        done = host.types(command, "old")
        assert done.returncode == 1
        assert "the host interface is gone, and DEL was never called" in done.stdout
    host.call("DEL", "old", pod, NETWORK)


def test_what_a_predecessor_has_attached_is_not_compared(host: Host) -> None:
    """A reference plugin maps ports by rules of its own, which serve a pod also after podwire has its name."""
    host.shell("ip link add veth1234 type veth peer name other")
    result = {"cniVersion": "1.1.0", "interfaces": [{"name": "veth1234"}], "ips": [{"address": "10.7.0.2/24"}]}
    ports = {"portMappings": [{"hostPort": 9090, "containerPort": 80, "protocol": "tcp"}]}
    keep(host, "elsewhere", result, BRIDGE, PORTMAP, capabilityArgs=ports)
    try:
        assert [finding["name"] for finding in host.findings()] == ["attachment-changed"]
        host.shell(f"touch -d '1 hour ago' {RESULTS}/net-elsewhere-eth0")
        assert host.findings() == []
        assert host.types("repair").stdout == "all attachments are as ADD made them\n"
    finally:
        host.shell(f"ip link del veth1234; rm {RESULTS}/net-elsewhere-eth0")


@pytest.mark.parametrize("damage", [{"netns": "/run/\0"}, {"ips": [{"address": "none"}, {}]}], ids=str)
def test_a_damaged_result_is_no_defect(host: Host, damage: Json) -> None:
    members = {"netns": "/run/netns/web"} | {key: value for key, value in damage.items() if key == "netns"}
    result = {"cniVersion": "1.1.0", "interfaces": [], "ips": damage.get("ips", [])}
    keep(host, "damaged0123456", result, BRIDGE, PORTMAP, **members)
    try:
        for command in ("doctor", "leases", "repair --dry-run", "check", "topology"):
            done = host.types(*command.split())
            assert (done.returncode in (0, 1), done.stderr) == (True, ""), command
    finally:
        host.shell(f"rm {RESULTS}/net-damaged0123456-eth0")


def test_a_pod_that_lives_without_an_interface_is_to_be_recreated(host: Host) -> None:
    pod = host.attach("bare", {**NETWORK, "runtimeConfig": {}})
    [shown] = host.asks("ps", "bare")["attachments"]
    host.shell(f"ip link del {shown['host_interface']}; touch -d '1 hour ago' /run/podwire/attachment-*")
    [finding] = host.findings()
    assert (finding["name"], finding["remedy"]) == ("attachment-gone", "recreate the pod")
    host.call("DEL", "bare", pod, NETWORK)
    assert host.findings() == []


def test_a_name_comes_before_the_first_digits_of_an_id(host: Host) -> None:
    """The ID of the first pod begins as the second one is called."""
    pod = host.attach(WEB[:6], {**NETWORK, "runtimeConfig": {}})
    assert [each["pod"] for each in host.asks("ps", WEB[:6])["attachments"]] == [f"shop/{WEB[:6]}"]
    assert host.asks("trace", WEB[:6], "10.1.2.1")["from"]["name"] == f"shop/{WEB[:6]}"
    host.call("DEL", WEB[:6], pod, NETWORK)


def test_lint_misses_the_runtimes_folder(host: Host) -> None:
    done = host.types("lint")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("/etc/cni/net.d: no network configuration")
