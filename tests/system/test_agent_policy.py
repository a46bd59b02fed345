"""NetworkPolicy by podwired as a process: between pods of one node and of two, past its death, and past a flush."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.netns.test_agent_policy import remove_bridge_filter
from tests.system.nodes import MASQUERADE, POD_PORT
from tests.system.programs import Program
from tests.talk import Talk, echo
from tests.traffic import NOBODY, PROTOCOLS, Target, ask_each, listen

if TYPE_CHECKING:
    from pathlib import Path

    from tests.machine import Machine
    from tests.system.nodes import Cluster, Guest, Node

FOLDER = "/run/policies"
FLAGS = (MASQUERADE, "--network-policy", f"--policy-files={FOLDER}", "--v=1")
PORT, OTHER_PORT, ECHO_PORT = 8080, 8081, 8082
TABLE = ("nft", "list", "table", "inet", "podwire-policy")
SETTING = "net.bridge.bridge-nf-call-iptables"
DENIED_SECONDS, PATIENT_SECONDS = 0.5, 20.0
CLOSED = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: shop}
spec: {podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress]}
"""
WEB_ONLY = f"""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: web-only, namespace: shop}}
spec:
  podSelector: {{matchLabels: {{app: db}}}}
  ingress:
    - from: [{{podSelector: {{matchLabels: {{app: web}}}}}}]
      ports: [{{port: {PORT}}}, {{port: {PORT}, protocol: UDP}}]
"""
ECHO_ONLY = WEB_ONLY.replace(str(PORT), str(ECHO_PORT))
CUT = "podwired_policy_revoked_connections_total "
NO_WAY_OUT = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: no-way-out, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}
"""
ADMIN = """
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: guard}
spec:
  tier: Admin
  priority: 10
  subject: {pods: {podSelector: {matchLabels: {app: db}}}}
  ingress:
    - {action: Accept, from: [{pods: {podSelector: {matchLabels: {app: far}}}}]}
    - {action: Deny, name: not from other, from: [{pods: {podSelector: {matchLabels: {app: other}}}}]}
"""
BASELINE = ADMIN.replace("Admin", "Baseline").replace("guard", "base")


@pytest.fixture
def machine(usual_machine: Machine) -> Machine:
    return usual_machine


class Shop:
    """Pods of two nodes by name, and the files that podwired follows on both. `filters`: they have br_netfilter."""

    def __init__(self, cluster: Cluster, podwired: Path, *, filters: bool = True) -> None:
        self.cluster, self.podwired = cluster, podwired
        cluster.configure(families=(4, 6))
        self.nodes = cluster.add("one", "two")
        self.pods: dict[str, Guest] = {}
        for node in self.nodes:
            node.run("mkdir", FOLDER)
            if not filters:
                remove_bridge_filter(node)
            self.start(node)

    @property
    def node(self) -> Node:
        return self.nodes[0]

    def start(self, node: Node, *flags: str) -> None:
        node.start_agent(self.podwired, *FLAGS, f"--node-name={node.name}", *flags)

    def attach(self, node: Node, name: str) -> None:
        guest = node.attach(name)
        listen(guest.pod, name, PORT, OTHER_PORT)
        self.pods[name] = guest

    def write(self, **apps: str) -> None:
        """Tells both nodes which pods there are, with their labels."""
        items = [
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": "shop", "labels": {"app": apps.get(name, name)}},
                "spec": {"nodeName": node.name, "containers": [{"name": "it"}]},
                "status": {"podIPs": [{"ip": address} for address in guest.addresses.values()]},
            }
            for node in self.nodes
            for name, guest in self.pods.items()
            if guest in node.guests
        ]
        self._write("pods.yaml", yaml.safe_dump_all(items))

    def apply(self, *policies: str) -> None:
        """Puts the policies in the place of those before. An empty file would leave these as they were."""
        if policies:
            self._write("policies.yaml", "---".join(policies))
        for node in self.nodes if not policies else ():
            node.run("rm", f"{FOLDER}/policies.yaml")

    def _write(self, name: str, text: str) -> None:
        for node in self.nodes:
            node.run("sh", "-c", f"cat >{FOLDER}/.new && mv {FOLDER}/.new {FOLDER}/{name}", stdin=text)

    def reached(self, source: str, port: int = PORT) -> set[str]:
        """Returns the pods that a pod reaches, with TCP and UDP over IPv4 and IPv6."""
        others = {name: guest for name, guest in self.pods.items() if name != source}
        targets = [
            (name, Target(protocol, host, port))
            for name, guest in others.items()
            for host in guest.addresses.values()
            for protocol in PROTOCOLS
        ]
        answers = ask_each(self.pods[source].pod, [target for _, target in targets], DENIED_SECONDS)
        verdicts: dict[str, set[bool]] = {}
        for (name, _), answer in zip(targets, answers, strict=True):
            verdicts.setdefault(name, set()).add(answer.name != NOBODY)
        mixed = [name for name, passes in verdicts.items() if len(passes) > 1]
        return {f"{name} in part" if name in mixed else name for name, passes in verdicts.items() if True in passes}

    def until(self, source: str, expected: set[str], port: int = PORT) -> None:
        self.cluster.until(lambda: self.reached(source, port) == expected, f"{source} reaches {expected or 'nobody'}")


@pytest.fixture
def shop(cluster: Cluster, podwired: Path) -> Shop:
    """Gives a node with the pods db, web and other, and one with far."""
    shop = Shop(cluster, podwired)
    for name in ("db", "web", "other"):
        shop.attach(shop.nodes[0], name)
    shop.attach(shop.nodes[1], "far")
    shop.write()
    for source in ("web", "far"):
        shop.until(source, shop.pods.keys() - {source})
    return shop


def table(node: Node) -> str:
    return node.run(*TABLE, check=False).stdout


def records(node: Node) -> str:
    """Returns the folders of records: while there is one, the plugin closes new pods."""
    return node.run("sh", "-c", "ls -d /run/podwire/pods-*", check=False).stdout


def test_policies_hold_on_a_node_and_across_nodes(shop: Shop) -> None:
    shop.apply(CLOSED)
    shop.until("web", {"other", "far"})
    shop.until("far", {"web", "other"})
    assert shop.node.run("sysctl", "-n", SETTING).stdout == "1\n"
    assert shop.node.ask(shop.pods["db"].addresses[4], POD_PORT)  # the node itself always may

    shop.apply(CLOSED, WEB_ONLY)
    shop.until("web", {"db", "other", "far"})
    assert shop.reached("web", OTHER_PORT) == {"other", "far"}
    assert shop.reached("other") == {"web", "far"}
    assert shop.reached("far") == {"web", "other"}

    shop.write(far="web")  # the labels of a pod on another node
    shop.until("far", {"db", "web", "other"})

    shop.apply(WEB_ONLY, NO_WAY_OUT)
    shop.until("web", set())
    shop.apply()
    shop.until("web", {"db", "other", "far"})
    shop.until("far", {"db", "web", "other"}, OTHER_PORT)


def test_tiers_of_cluster_policies_come_before_and_behind_network_policies(shop: Shop) -> None:
    shop.apply(ADMIN)
    shop.until("other", {"web", "far"})
    assert shop.reached("web") == {"db", "other", "far"}
    shop.apply(ADMIN, CLOSED)
    shop.until("web", {"other", "far"})
    assert shop.reached("far") == {"db", "web", "other"}
    shop.apply(BASELINE, CLOSED)
    shop.until("far", {"web", "other"})
    shop.apply(BASELINE)
    shop.until("web", {"db", "other", "far"})
    assert shop.reached("other") == {"web", "far"}
    shop.apply()
    shop.until("other", {"db", "web", "far"})


def test_policies_hold_between_pods_of_a_bridge_without_br_netfilter(cluster: Cluster, podwired: Path) -> None:
    """Until the module is there; then by it."""
    shop = Shop(cluster, podwired, filters=False)
    for name in ("db", "web", "other"):
        shop.attach(shop.node, name)
    shop.write()
    shop.until("web", {"db", "other"})
    shop.apply(CLOSED, WEB_ONLY)
    shop.until("other", {"web"})
    assert shop.reached("web") == {"db", "other"}
    assert shop.reached("web", OTHER_PORT) == {"other"}
    assert shop.node.agent
    assert "cannot be enforced" not in shop.node.agent.log
    ports = ("bridge", "-d", "link", "show")
    assert shop.node.run(*ports).stdout.count("isolated on") == len(shop.pods)

    shop.node.run("umount", "/proc/sys/net/bridge")
    shop.attach(shop.node, "late")
    shop.write()
    shop.cluster.until(lambda: "isolated on" not in shop.node.run(*ports).stdout, "no port is isolated any more")
    assert shop.node.run("sysctl", "-n", SETTING).stdout == "1\n"
    shop.until("other", {"web", "late"})
    shop.until("late", {"web", "other"})


def test_a_killed_agent_leaves_policies_in_force_and_a_new_one_changes_nothing(shop: Shop) -> None:
    shop.apply(CLOSED, WEB_ONLY)
    shop.until("other", {"web", "far"})
    shop.until("far", {"web", "other"})
    before = table(shop.node)
    assert shop.node.stop_agent("KILL") == -9
    assert shop.reached("other") == {"web", "far"}
    assert shop.reached("web") == {"db", "other", "far"}

    monitor = Program(shop.node, "monitor", "nft", "monitor")

    def heard() -> bool:
        shop.node.run("sh", "-ec", "nft add table ip sign; nft delete table ip sign")
        return "sign" in monitor.log

    shop.cluster.until(heard, "the monitor listens")
    logged = len(monitor.log)
    shop.start(shop.node)
    assert shop.node.agent
    agent = shop.node.agent
    shop.cluster.until(lambda: agent.log.count("NetworkPolicy is enforced") == 2, "the new agent has compared")
    assert [line for line in monitor.log[logged:].splitlines() if "podwire-policy" in line] == []
    assert [line for line in table(shop.node).splitlines() if "counter" not in line] == [
        line for line in before.splitlines() if "counter" not in line
    ]
    assert shop.reached("other") == {"web", "far"}


def talks(shop: Shop, *names: str) -> list[Talk]:
    """Begins connections to db, with TCP and UDP over IPv4 and IPv6, in which answers come."""
    targets = [
        Target(protocol, host, ECHO_PORT) for protocol in PROTOCOLS for host in shop.pods["db"].addresses.values()
    ]
    begun = [Talk(shop.pods[name].pod, targets) for name in names]
    assert [talk.ask(PATIENT_SECONDS) for talk in begun] == ["++++"] * len(names)
    return begun


def cut(shop: Shop) -> int:
    """Returns how many connections the node of db has cut; those that have ended are remembered for a while."""
    (line,) = [sample for sample in shop.node.probe("metrics")[1].splitlines() if sample.startswith(CUT)]
    return int(float(line.removeprefix(CUT)))


def test_what_is_no_longer_allowed_is_cut_and_nothing_else_past_the_death_of_the_agent(shop: Shop) -> None:
    echo(shop.pods["db"].pod, ECHO_PORT)
    web, other, far = talks(shop, "web", "other", "far")
    shop.apply(ECHO_ONLY)
    shop.cluster.until(lambda: cut(shop) >= 8, "the connections of other and far are cut")
    assert [other.ask(DENIED_SECONDS), far.ask(DENIED_SECONDS)] == ["----", "----"]
    assert web.ask(PATIENT_SECONDS) == "++++"

    assert shop.node.stop_agent("KILL") == -9
    assert [web.ask(PATIENT_SECONDS), other.ask(DENIED_SECONDS)] == ["++++", "----"]
    shop.write(web="x", other="web")
    shop.start(shop.node)
    shop.cluster.until(lambda: cut(shop) >= 4, "the connections of web are cut")
    assert [web.ask(DENIED_SECONDS), other.ask(PATIENT_SECONDS)] == ["----", "++++"]

    shop.apply()
    assert [talk.ask(PATIENT_SECONDS) for talk in (web, other, far)] == ["++++"] * 3


def test_connections_are_kept_where_that_is_wanted(shop: Shop) -> None:
    echo(shop.pods["db"].pod, ECHO_PORT)
    shop.node.stop_agent()
    shop.start(shop.node, "--policy-established=keep")
    (web,) = talks(shop, "web")
    shop.apply(CLOSED)
    shop.until("web", {"other", "far"})
    assert web.ask(PATIENT_SECONDS) == "++++"
    assert "ct label" not in table(shop.node)


def test_no_pod_is_attached_before_policies_are_in_force(cluster: Cluster, podwired: Path) -> None:
    cluster.configure(families=(4,))
    (node,) = cluster.add("one")
    agent = node.start_agent(podwired, *FLAGS, "--node-name=one", ready=False)
    cluster.until(lambda: "is written once NetworkPolicy is enforced" in agent.log, "the agent waits for the folder")
    assert (node.subnet_env(), table(node)) == ("", "")
    assert node.probe("readyz")[0] == http.client.SERVICE_UNAVAILABLE
    node.run("mkdir", FOLDER)
    node.until(lambda: node.probe("readyz")[0] == http.client.OK, "the agent is ready")
    assert node.subnet_env()
    assert table(node)


@pytest.mark.parametrize("command", ["flush ruleset", "delete table inet podwire-policy"])
def test_a_table_that_somebody_removes_is_made_again(shop: Shop, command: str) -> None:
    shop.apply(CLOSED)
    shop.until("web", {"other", "far"})
    before = [line for line in table(shop.node).splitlines() if "counter" not in line]
    shop.node.run("nft", *command.split())
    shop.cluster.until(
        lambda: [line for line in table(shop.node).splitlines() if "counter" not in line] == before,
        "the table is whole",
    )
    shop.until("web", {"other", "far"})
    status, text = shop.node.probe("metrics")
    assert status == http.client.OK
    assert "podwired_policy_healed_total 1.0" in text
    assert "podwired_policies 1.0" in text
    assert 'podwired_policy_pods{what="local"} 3.0' in text


def test_an_agent_without_the_flag_removes_the_table_as_does_cleanup(shop: Shop, podwired: Path) -> None:
    assert table(shop.node)
    assert records(shop.node)
    shop.node.stop_agent()
    assert table(shop.node)
    shop.node.start_agent(podwired, MASQUERADE)
    assert not table(shop.node)
    assert not records(shop.node)

    other = shop.nodes[1]
    other.stop_agent()
    assert table(other)
    cleaning = Program(other, "cleanup", str(podwired), "--cleanup", f"--etcd-endpoints={shop.cluster.etcd.endpoint}")
    shop.cluster.until(lambda: not cleaning.runs, "cleanup has ended")
    assert not table(other)
    assert not records(other)
