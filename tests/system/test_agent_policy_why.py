"""Questions about policies as people ask them: `podwire policy` on a node where podwired enforces them."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.test_agent_policy import ADMIN, CLOSED, FLAGS, OTHER_PORT, PORT, WEB_ONLY, Shop

if TYPE_CHECKING:
    from pathlib import Path

    from tests.machine import Machine
    from tests.system.nodes import Cluster, Node

SOCKET = "/run/podwire/podwired.sock"
CALLERS, HUGE = 1000, 100 << 20
ANYTHING = f"""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: anything, namespace: shop}}
spec: {{podSelector: {{matchLabels: {{app: db}}}}, ingress: [{{ports: [{{port: {OTHER_PORT}}}, {{protocol: UDP}}]}}]}}
"""


@pytest.fixture
def machine(usual_machine: Machine) -> Machine:
    return usual_machine


@pytest.fixture
def shop(cluster: Cluster, podwired: Path) -> Shop:
    """Gives a node with the pods db and web, and one with far."""
    shop = Shop(cluster, podwired)
    for name in ("db", "web"):
        shop.attach(shop.nodes[0], name)
    shop.attach(shop.nodes[1], "far")
    shop.write()
    for source in ("web", "far"):
        shop.until(source, shop.pods.keys() - {source})
    return shop


def policy(shop: Shop, *arguments: str, node: int = 0) -> tuple[int, str]:
    """Returns status and output of `podwire policy`."""
    program = shop.podwired.parent / "podwire"
    done = shop.nodes[node].run("env", "-i", str(program), "policy", *arguments, check=False)
    return done.returncode, done.stdout + done.stderr


def why(shop: Shop, *ends: str, node: int = 0) -> tuple[int, dict[str, Any]]:
    status, output = policy(shop, "why", *ends, "--json", node=node)
    answer: dict[str, Any] = json.loads(output)
    return status, answer


def trace(shop: Shop, *arguments: str) -> dict[str, Any]:
    program = str(shop.podwired.parent / "podwire")
    answer: dict[str, Any] = json.loads(shop.nodes[0].run(program, "trace", *arguments, "--json", check=False).stdout)
    return answer


def test_it_is_told_why_before_and_after_a_policy_that_allows(shop: Shop) -> None:
    question = "why", "shop/web", f"shop/db:{PORT}"
    shop.cluster.until(lambda: policy(shop, *question)[0] == 0, "the pods are known")
    shop.apply(CLOSED, WEB_ONLY)
    shop.until("far", {"web"})
    assert shop.reached("web", OTHER_PORT) == {"far"}
    db, web = shop.pods["db"].addresses, shop.pods["web"].addresses

    status, answer = why(shop, "shop/web", f"shop/db:{OTHER_PORT}/tcp")
    assert (status, answer["version"]) == (1, 1)
    assert [connection["to"]["address"] for connection in answer["connections"]] == [db[4], db[6]]
    for connection in answer["connections"]:
        assert connection["verdict"] == "denied"
        egress, ingress = connection["directions"]
        assert egress["verdict"] == "allowed"
        assert ingress["isolating"] == ["shop/closed", "shop/web-only"]
        assert {miss["rule"]: miss["because"] for miss in ingress["misses"]} == {
            "shop/web-only ingress 0": "port", "shop/closed": "no rules",
        }  # fmt: skip
        assert [direction["kernel"]["agrees"] for direction in (egress, ingress)] == [True, True]

    shown = trace(shop, "web", f"{db[4]}:{OTHER_PORT}", "--send", "--wait", "0.5")
    assert (shown["hops"][-1]["hop"], shown["hops"][-1]["state"]) == ("policy", "stops")
    assert "isolated by shop/closed, shop/web-only" in shown["hops"][-1]["evidence"]
    assert shown["end"].startswith("the request is dropped by inet podwire-policy ")

    shop.apply(CLOSED, WEB_ONLY, ANYTHING)
    shop.until("web", {"db", "far"}, OTHER_PORT)
    shown = trace(shop, "web", f"{shop.pods['far'].addresses[4]}:{OTHER_PORT}", "--send")
    assert [hop["hop"] for hop in shown["hops"]][-5:] == ["neighbour", "fdb", "underlay", "neighbour", "peer"]
    assert shown["end"] == "the connection passes: connected"
    status, output = policy(shop, "why", "shop/web", f"{db[4]}:{OTHER_PORT}")
    assert status == 0
    assert output.splitlines()[0] == f"shop/web ({web[4]}) -> shop/db ({db[4]}) TCP/{OTHER_PORT}: allowed"
    assert f"    shop/anything ingress 0 matches: from anybody, TCP {OTHER_PORT}, UDP" in output.splitlines()
    assert output.count("the kernel agrees") == 2


def test_each_node_answers_for_its_own_pods(shop: Shop) -> None:
    shop.apply(CLOSED)
    shop.until("far", {"web"})
    db, far = shop.pods["db"].addresses[4], shop.pods["far"].addresses[4]
    status, answer = why(shop, far, f"shop/db:{PORT}")
    assert (status, answer["connections"][0]["verdict"]) == (1, "denied")
    status, answer = why(shop, far, f"{db}:{PORT}", node=1)
    [connection] = answer["connections"]
    assert (status, connection["verdict"]) == (0, "allowed")
    assert {direction["direction"]: direction["verdict"] for direction in connection["directions"]} == {
        "egress": "allowed", "ingress": "elsewhere",
    }  # fmt: skip

    status, output = policy(shop, "show", "shop/db")
    assert status == 0
    assert "ingress: isolated\n  shop/closed (chain policy/shop/closed/in)\n    allows nothing\n" in output
    assert policy(shop, "show", "shop/nobody")[0] == 3


def test_cluster_policies_at_fault_are_told_by_log_metric_and_show(shop: Shop) -> None:
    def guard(name: str, rules: str, priority: int = 10) -> str:
        return ADMIN[: ADMIN.index("  ingress:")].replace("guard", name).replace("10", str(priority)) + rules

    denial = "{action: Deny, to: [{networks: [198.51.100.0/24]}]}"
    faulty = {
        "names": guard("names", f"  egress: [{{action: Accept, to: [{{domainNames: [a.example]}}]}}, {denial}]\n"),
        "twin": guard("twin", f"  egress: [{denial}]\n"),
        "field": guard("field", "  egress: [{action: Deny, to: [{services: {}}]}]\n", 900),
        "action": guard("action", "  egress: [{action: Log, to: [{networks: [192.0.2.0/24]}]}]\n", 901),
        "late": guard("late", f"  egress: [{denial}]\n", 1001),
        "tier": guard("tier", f"  egress: [{denial}]\n").replace("Admin", "Middle"),
    }
    shop.apply(*faulty.values())
    reasons = {
        "names": "spec.egress[0].to[0].domainNames: not supported, matches nothing",
        "field": "spec.egress[0].to[0].services: unknown field",
        "action": "spec.egress[0].action: 'Log' is not one of Accept, Deny, Pass",
        "late": "spec.priority: expected an integer between 0 and 1000",
        "tier": "spec.tier: 'Middle' is neither Admin nor Baseline",
    }
    agent = shop.node.agent
    assert agent is not None
    for name, reason in reasons.items():
        shop.cluster.until(lambda text=f"{name}: {reason}": text in agent.log, f"{name} is in the log")  # type: ignore[misc]
    tie = "ClusterNetworkPolicies names, twin of tier Admin: they select the same pods with priority 10"
    shop.cluster.until(lambda: agent.log.count(tie) == 1, "the tie is in the log")
    lines = [line for line in shop.node.probe("metrics")[1].splitlines() if "policy_faults{" in line]
    samples = dict(line.rsplit(" ", 1) for line in lines)
    assert {key.split('"')[1]: float(number) for key, number in samples.items()} == {
        "ignored": 2, "closed": 2, "unsupported": 1, "tied": 2,
    }  # fmt: skip
    status, output = policy(shop, "show", "shop/db")
    assert status == 0
    for text in (*reasons.values(), "names (ClusterNetworkPolicy of tier Admin, ", "has the priority of twin: "):
        assert text in output


def test_denied_packets_are_lines_of_the_log_and_are_counted(shop: Shop) -> None:
    node: Node = shop.node
    node.stop_agent()
    agent = node.start_agent(
        shop.podwired, *FLAGS, f"--node-name={node.name}", "--policy-log=denied", "--policy-counters"
    )
    shop.apply(CLOSED)
    shop.until("web", {"far"})
    db, web, far = (shop.pods[name].addresses for name in ("db", "web", "far"))

    def is_logged(name: str, source: str, destination: str, traffic: str) -> bool:
        shop.reached(name)
        ends = f"src=shop/{name}({source}) dst=shop/db({destination})"
        return f'msg="denied ingress {ends} {traffic} isolated-by=shop/closed"' in agent.log

    for name, addresses in (("web", web), ("far", far)):
        for family in (4, 6):
            for traffic in (f"tcp/{PORT}", f"udp/{PORT}"):
                expected = name, addresses[family], db[family], traffic
                shop.cluster.until(lambda expected=expected: is_logged(*expected), f"{expected} is logged")  # type: ignore[misc]
    assert [line for line in agent.log.splitlines() if "level=warning" in line] == []
    counted = samples(node)
    assert counted['podwired_policy_denied_packets_total{direction="ingress"}'] > 0
    assert counted['podwired_policy_denied_packets_total{direction="egress"}'] == 0
    shop.apply(CLOSED, WEB_ONLY)
    shop.until("web", {"db", "far"})
    matched = 'podwired_policy_rule_packets_total{direction="ingress",policy="shop/web-only",rule="0"}'
    shop.cluster.until(lambda: samples(node).get(matched, 0) > 0, "the packets that the rule matched are counted")
    assert samples(node)["podwired_policy_elements"] > 0


def samples(node: Node) -> dict[str, float]:
    """Returns the metrics of a node."""
    lines = [line.rsplit(" ", 1) for line in node.probe("metrics")[1].splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def abuse(path: str) -> dict[str, float]:
    """Inside: sends to the socket what nobody should; returns how long honest questions took meanwhile."""
    took = {}
    question = b'{"version": 1, "ask": "show", "pod": "shop/db"}\n'

    def honest(when: str) -> None:
        began = time.monotonic()
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(30)
            asking.connect(path)
            asking.sendall(question)
            answer = b"".join(iter(lambda: asking.recv(1 << 16), b""))
        assert json.loads(answer)["pod"] == "shop/db", answer
        took[when] = time.monotonic() - began

    honest("before")
    held = []
    for number in range(CALLERS):
        caller = socket.socket(socket.AF_UNIX)
        caller.settimeout(30)
        caller.connect(path)
        with suppress(OSError):
            caller.sendall((b"", question[:20], b"\xff" * 50, b"[" * 4000 + b"\n", question)[number % 5])
        held.append(caller)
        if number in (CALLERS // 2, CALLERS - 1):
            honest(f"beside {number}")
    for caller in held:
        caller.close()
    with socket.socket(socket.AF_UNIX) as huge:
        huge.connect(path)
        with suppress(OSError):
            for _ in range(HUGE >> 20):
                huge.sendall(b"x" * (1 << 20))
    honest("after")
    return took


def test_the_agent_goes_on_whatever_is_sent_to_its_socket(shop: Shop) -> None:
    shop.apply(CLOSED)
    shop.until("web", {"far"})
    assert shop.node.run("stat", "-c", "%a %F", SOCKET).stdout == "600 socket\n"
    assert len(shop.node.call(abuse, SOCKET)) == 4
    shop.apply(CLOSED, WEB_ONLY)
    shop.until("web", {"db", "far"})
    assert shop.node.agent
    assert shop.node.agent.runs
    assert [line for line in shop.node.agent.log.splitlines() if "level=error" in line] == []


def test_the_socket_ends_with_the_agent_and_outlives_none(shop: Shop) -> None:
    node: Node = shop.node
    node.stop_agent("KILL")
    assert node.run("test", "-S", SOCKET, check=False).returncode == 0
    assert policy(shop, "show", "shop/db") == (
        3, f"podwire: {SOCKET}: Connection refused (does podwired run? --socket names another)\n",
    )  # fmt: skip
    shop.start(node)
    shop.cluster.until(lambda: policy(shop, "show", "shop/db")[0] == 0, "the pods are known")
    node.stop_agent()
    assert node.run("test", "-e", SOCKET, check=False).returncode == 1
