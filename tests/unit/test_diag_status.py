"""Tests `podwire status` and `podwired status`: what they ask, print, and end with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("click", reason="the command line is made with it (pip install click)")

from cni.diag.status import is_fine
from cni.diag.statustext import lines
from cni.main import run
from tests.unit.test_diag_commands import Agent, Stream, agent

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["agent"]  # a fixture

ANSWER: dict[str, Any] = {
    "version": 1,
    "ask": "status",
    "time": "2026-11-29T12:00:00Z",
    "detailed": True,
    "podwired": "0.1.0",
    "ready": True,
    "reasons": [],
    "counts": {"peers": 1, "failed": 0, "unreachable": 0, "vxlan": 1, "direct": 0, "refused": 0},
    "store_up": True,
    "lease_expires": "2026-11-30T12:00:00Z",
    "policies": None,
    "node": "node1",
    "network": {
        "networks": ["10.5.0.0/16"], "backend": "vxlan", "vni": 1, "port": 8472, "direct_routing": False,
    },
    "lease": {"subnets": ["10.5.1.0/24"], "public_ips": ["192.0.2.1"]},
    "uplink": {"interface": "eth0", "addresses": ["192.0.2.1/24"], "mtu": 1500, "up": True},
    "tunnels": [{"device": "flannel.1", "mtu": 1450, "vni": 1, "port": 8472, "mac": "02:00:00:00:00:01"}],
    "store": {"kind": "etcd", "error": "", "last_error": "", "last_error_time": None},
    "peers": [
        {
            "key": "10.5.2.0-24",
            "name": "node2",
            "state": "vxlan",
            "changed": "2026-11-29T11:00:00Z",
            "endpoints": [
                {
                    "subnet": "10.5.2.0/24",
                    "public_ip": "192.0.2.2",
                    "way": "vxlan",
                    "applied": {"route": True, "neighbour": True, "fdb": True},
                }
            ],
        }
    ],
    "refused": [],
    "events": [],
}  # fmt: skip
NOTHING = ANSWER | {
    "ready": False, "reasons": ["pods cannot be attached yet, its log says why"], "network": None, "lease": None,
    "uplink": None, "tunnels": [], "peers": [], "lease_expires": None,
    "store": {"kind": "etcd", "error": "no route to host", "last_error": "no route to host", "last_error_time": ""},
}  # fmt: skip


def typed(agent: Agent, answer: dict[str, Any], program: str, *arguments: str) -> tuple[int, str, str]:
    agent.answer = json.dumps(answer).encode()
    stdout, stderr = Stream(), Stream()
    status = run([program, "status", "--socket", agent.path, *arguments], {}, stdout, stdout, stderr)
    return status, stdout.text, stderr.text


def test_both_programs_print_the_state_of_the_node(agent: Agent) -> None:
    status, text, errors = typed(agent, ANSWER, "podwired")
    assert (status, errors, json.loads(agent.request)) == (0, "", {"version": 1, "ask": "status"})
    assert text.splitlines() == [
        "node1: ready (podwired 0.1.0, 2026-11-29T12:00:00Z)",
        "network: 10.5.0.0/16 by vxlan VNI 1 port 8472",
        "lease: 10.5.1.0/24 behind 192.0.2.1, expires 2026-11-30T12:00:00Z",
        "uplink: eth0 192.0.2.1/24 MTU 1500",
        "tunnel: flannel.1 02:00:00:00:00:01 MTU 1450 VNI 1 port 8472",
        "store: etcd",
        "peers: 1 (1 vxlan), refused leases: 0",
        "",
        "NODE   SUBNET       PUBLIC IP  WAY    STATE  CHANGED               LACKS",
        "node2  10.5.2.0/24  192.0.2.2  vxlan  vxlan  2026-11-29T11:00:00Z",
    ]


def test_json_is_the_answer_itself(agent: Agent) -> None:
    status, text, _ = typed(agent, ANSWER, "podwire", "--json")
    assert (status, json.loads(text)) == (0, ANSWER)


def test_a_node_that_is_not_ready_is_a_finding(agent: Agent) -> None:
    status, text, _ = typed(agent, NOTHING, "podwire")
    assert status == 1
    for line in ("  pods cannot be attached yet, its log says why", "network: not known yet", "lease: none yet"):
        assert line in text.splitlines()


@pytest.mark.parametrize(("name", "fine"), [("refused", False), ("failed", False), ("unreachable", False), ("x", True)])
def test_a_lease_that_is_refused_or_a_peer_that_is_not_reached_is_a_finding(name: str, *, fine: bool) -> None:
    assert is_fine(ANSWER | {"counts": ANSWER["counts"] | {name: 1}}) == fine


def shown(**more: Any) -> Sequence[str]:
    return "\n".join(lines(ANSWER | more)).splitlines()


def test_what_the_cluster_says_cannot_write_to_the_terminal() -> None:
    refused = [{"key": "\x1b[2J", "reason": "its subnet is \x1b[31mred"}]
    events = [{"time": "now", "level": "error", "message": "lease \x07 is ignored"}]
    text = "\n".join(shown(refused=refused, events=events))
    assert "\\x1b[2J: its subnet is \\x1b[31mred" in text
    assert "now error: lease \\x07 is ignored" in text


def test_policies_their_faults_and_an_error_that_is_over_are_told() -> None:
    policies = {"in_force": True, "policies": 2, "pods": 3, "sets": 4, "faults": {"tied": 0, "ignored": 1}}
    store = {"kind": "etcd", "error": "", "last_error": "gone", "last_error_time": "yesterday"}
    text = "\n".join(shown(policies=policies, store=store))
    assert "policies: in force: 2 policies, 3 pods, 4 sets" in text
    assert "at fault: 1 ignored" in text
    assert "store: etcd (last error yesterday: gone)" in text


def test_without_an_agent_it_says_so(tmp_path: Any) -> None:
    stdout, stderr = Stream(), Stream()
    arguments = ["podwired", "status", "--socket", str(tmp_path / "none")]
    assert run(arguments, {}, stdout, stdout, stderr) == 3
    assert "No such file or directory (does podwired run?" in stderr.text
