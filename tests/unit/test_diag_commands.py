"""Tests `podwire policy` and `podwire completion`: what they ask, print, and end with."""

from __future__ import annotations

import json
import re
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("click", reason="the command line is made with it (pip install click)")

from cni.diag import asking, commandline, entry
from cni.diag.asking import NoAnswer, ask
from cni.diag.entry import ASKING, SIMPLE, USAGE
from cni.diag.policy import Target, parse_target
from cni.main import COMPLETE, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AGREES = {
    "map": "ingress4",
    "address": "10.1.0.2",
    "expected": "c",
    "chain": "class/in/c",
    "agrees": True,
    "difference": "",
}
DIFFERS = AGREES | {"chain": "", "agrees": False, "difference": "10.1.0.2 leads to no chain, expected: class/in/c"}


class Agent:
    """Answers one request with bytes, and keeps it."""

    def __init__(self, path: Path) -> None:
        self.path, self.answer, self.request = str(path), b"", b""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        caller, _ = self._listener.accept()
        with caller:
            self.request = caller.recv(1 << 16)
            caller.sendall(self.answer)

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(self.path)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    agent = Agent(tmp_path / "a.sock")
    yield agent
    agent.close()


class Stream:
    """A standard stream that keeps its text."""

    def __init__(self) -> None:
        self.text = ""

    def read(self) -> bytes:
        raise AssertionError("people type no stdin")

    def write(self, data: bytes) -> None:
        self.text += data.decode()


def typed(*arguments: str, **environment: str) -> tuple[int, str, str]:
    stdout, stderr = Stream(), Stream()
    status = run(["podwire", *arguments], environment, stdout, stdout, stderr)
    return status, stdout.text, stderr.text


def direction(verdict: str = "denied", **more: Any) -> dict[str, Any]:
    return {
        "direction": "ingress",
        "pod": "shop/db",
        "verdict": verdict,
        "reason": "ingress of shop/db: isolated by shop/closed; no rules in its ingress",
        "isolating": ["shop/closed"],
        "rule": None,
        "misses": [],
        "left_out": 0,
        "kernel": AGREES,
    } | more


def connection(*directions: dict[str, Any], verdict: str = "denied") -> dict[str, Any]:
    return {
        "from": {"address": "192.0.2.7", "pod": "", "here": False},
        "to": {"address": "10.1.0.2", "pod": "shop/db", "here": True},
        "verdict": verdict,
        "reason": "from its own node everything reaches a pod",
        "directions": list(directions),
    }


def why(agent: Agent, *connections: dict[str, Any], flags: tuple[str, ...] = (), **more: Any) -> tuple[int, str, str]:
    answer = {
        "version": 1,
        "ask": "why",
        "protocol": "TCP",
        "port": 80,
        "in_force": True,
        "connections": [*connections],
    }
    agent.answer = json.dumps(answer | more).encode()
    return typed("policy", "why", "192.0.2.7", "shop/db:80", "--socket", agent.path, *flags)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("shop/db", Target("shop/db")),
        ("shop/db:80", Target("shop/db", "TCP", 80)),
        ("shop/db:53/udp", Target("shop/db", "UDP", 53)),
        ("10.0.0.1", Target("10.0.0.1")),
        ("10.0.0.1:65535/SCTP", Target("10.0.0.1", "SCTP", 65535)),
        ("fd00::1", Target("fd00::1")),
        ("[fd00::1]", Target("fd00::1")),
        ("[fd00::1]:80/tcp", Target("fd00::1", "TCP", 80)),
    ],
)
def test_a_destination_may_have_a_port_and_a_protocol(text: str, target: Target) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("db", "'db' is neither NAMESPACE/NAME of a pod nor an address"),
        ("", "'' is neither"),
        ("a/b/c", "'a/b/c' is neither"),
        ("/db", "'/db' is neither"),
        ("db:80", "'db' is neither"),
        ("shop/db:http", "'http' is not a port from 1 to 65535"),
        ("shop/db:0", "'0' is not a port"),
        ("shop/db:65536", "'65536' is not a port"),
        ("shop/db:²", "is not a port"),
        ("shop/db:", "'' is not a port"),
        ("shop/db:80/icmp", "'icmp' is not one of tcp, udp, sctp"),
        ("[fd00::1]:x", "'x' is not a port"),
    ],
)
def test_a_destination_that_is_none_is_a_usage_error(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=re.escape(error)):
        parse_target(text)
    status, stdout, stderr = typed("policy", "why", "shop/web", text)
    assert (status, stdout) == (2, "")
    assert error in stderr


def test_a_denied_connection_is_told_with_what_denies_it(agent: Agent) -> None:
    misses = [
        {"rule": "shop/db ingress 0", "because": "peer", "allows": "from pods app=web in shop, TCP 80"},
        {"rule": "shop/db ingress 1", "because": "protocol", "allows": "from anybody, UDP 53"},
        {"rule": "shop/closed", "because": "no rules", "allows": ""},
    ]
    status, stdout, stderr = why(agent, connection(direction(misses=misses, left_out=3)))
    assert (status, stderr) == (1, "")
    assert stdout.splitlines() == [
        "192.0.2.7 -> shop/db (10.1.0.2) TCP/80: denied",
        "  ingress of shop/db: denied: isolated by shop/closed; no rules in its ingress",
        "    shop/db ingress 0: the peer is another: from pods app=web in shop, TCP 80",
        "    shop/db ingress 1: the protocol is another: from anybody, UDP 53",
        "    shop/closed: it has no rules for this direction",
        "    and 3 more that do not match",
        "    the kernel agrees: map ingress4 leads 10.1.0.2 to class/in/c",
    ]
    assert json.loads(agent.request) == {
        "version": 1, "ask": "why", "from": "192.0.2.7", "to": "shop/db", "protocol": "TCP", "port": 80,
    }  # fmt: skip
    assert agent.request.endswith(b"\n")


def test_an_allowed_connection_is_told_with_the_rule(agent: Agent) -> None:
    rule = {"rule": "shop/db ingress 0", "because": "", "allows": "from anybody, TCP 80"}
    status, stdout, _ = why(agent, connection(direction("allowed", rule=rule), verdict="allowed"))
    assert status == 0
    assert "    shop/db ingress 0 matches: from anybody, TCP 80" in stdout.splitlines()


def test_without_a_port_rules_for_some_ports_are_told_so(agent: Agent) -> None:
    miss = {"rule": "shop/db ingress 0", "because": "protocol", "allows": "from anybody, TCP 80"}
    _, stdout, _ = why(agent, connection(direction(misses=[miss])), protocol="", port=0)
    assert "shop/db (10.1.0.2) every port and protocol: denied" in stdout
    assert "it is about some ports alone: from anybody, TCP 80" in stdout


def test_a_kernel_that_does_not_agree_is_a_finding(agent: Agent) -> None:
    status, stdout, _ = why(agent, connection(direction("allowed", kernel=DIFFERS), verdict="allowed"))
    assert status == 1
    assert "the kernel does not agree: map ingress4: 10.1.0.2 leads to no chain, expected: class/in/c" in stdout


def test_what_is_judged_elsewhere_is_no_answer(agent: Agent) -> None:
    status, stdout, _ = why(agent, connection(direction("elsewhere", kernel=None), verdict="elsewhere"), in_force=False)
    assert status == 3
    assert stdout.startswith("The table of policies is not in the kernel yet")


def test_a_verdict_without_directions_has_its_reason(agent: Agent) -> None:
    status, stdout, _ = why(agent, connection(verdict="allowed"))
    assert status == 0
    assert stdout.splitlines()[1] == "  from its own node everything reaches a pod"


def test_json_is_the_agents_answer(agent: Agent) -> None:
    status, stdout, _ = why(agent, connection(direction()), flags=("--json",))
    assert status == 1
    assert json.loads(stdout)["connections"] == [connection(direction())]


def test_a_pod_is_shown(agent: Agent) -> None:
    policy = {
        "policy": "shop/db",
        "chain": "policy/shop/db/in",
        "error": "",
        "rules": ["from anybody, TCP 80"],
        "sets": [{"name": "pods/1_4", "size": 7, "of": "all pods in shop"}],
    }
    nothing = {"policy": "shop/closed", "chain": "policy/shop/closed/in", "error": "", "rules": [], "sets": []}
    broken = nothing | {"policy": "shop/odd", "error": "spec.ingress: expected a list"}
    answer = {
        "version": 1,
        "ask": "show",
        "pod": "shop/db",
        "here": True,
        "in_force": False,
        "labels": {"app": "db", "tier": "x"},
        "addresses": ["10.1.0.2"],
        "directions": [
            {"direction": "egress", "isolated": False, "policies": [], "kernel": [AGREES | {"chain": ""}]},
            {"direction": "ingress", "isolated": True, "policies": [policy, nothing, broken], "kernel": [DIFFERS]},
        ],
    }
    agent.answer = json.dumps(answer).encode()
    status, stdout, _ = typed("policy", "show", "shop/db", "--socket", agent.path)
    assert status == 1
    assert stdout.splitlines() == [
        "The table of policies is not in the kernel yet: podwired's log and /readyz say why.",
        "pod shop/db (10.1.0.2), this node",
        "labels: app=db, tier=x",
        "egress: not isolated",
        "  the kernel agrees: map ingress4 leads 10.1.0.2 to no chain (not isolated)",
        "ingress: isolated",
        "  shop/db (chain policy/shop/db/in)",
        "    allows from anybody, TCP 80",
        "    set pods/1_4: 7 (all pods in shop)",
        "  shop/closed (chain policy/shop/closed/in)",
        "    allows nothing",
        "  shop/odd (chain policy/shop/closed/in)",
        "    it cannot be understood and allows nothing: spec.ingress: expected a list",
        "  the kernel does not agree: map ingress4: 10.1.0.2 leads to no chain, expected: class/in/c",
    ]
    assert json.loads(agent.request) == {"version": 1, "ask": "show", "pod": "shop/db"}


def test_a_pod_is_shown_with_what_is_at_fault(agent: Agent) -> None:
    policy = {
        "policy": "names", "tier": "Admin", "chain": "admin/out/1", "error": "",
        "unsupported": "spec.egress[0].to[0].domainNames: not supported, matches nothing",
        "same_priority": ["a", "b"], "rules": ["deny to all nodes, every port and protocol"], "sets": [],
    }  # fmt: skip
    bare = policy | {"policy": "bare", "chain": "", "same_priority": [], "rules": []}
    answer = {
        "version": 1,
        "ask": "show",
        "pod": "shop/db",
        "here": True,
        "in_force": True,
        "labels": {},
        "addresses": ["10.1.0.2"],
        "ignored": ["ClusterNetworkPolicy odd: spec.priority: is missing"],
        "directions": [{"direction": "egress", "isolated": False, "policies": [policy, bare], "kernel": []}],
    }
    agent.answer = json.dumps(answer).encode()
    status, stdout, _ = typed("policy", "show", "shop/db", "--socket", agent.path)
    assert status == 0
    assert stdout.splitlines()[2:] == [
        "ignored: ClusterNetworkPolicy odd: spec.priority: is missing",
        "egress: not isolated",
        "  names (ClusterNetworkPolicy of tier Admin, chain admin/out/1)",
        "    spec.egress[0].to[0].domainNames: not supported, matches nothing",
        "    has the priority of a, b: the order of their names decides",
        "    deny to all nodes, every port and protocol",
        "  bare (ClusterNetworkPolicy of tier Admin, no chain)",
        "    spec.egress[0].to[0].domainNames: not supported, matches nothing",
        "    has no rules for this direction",
    ]


@pytest.mark.parametrize(
    ("environment", "terminal", "colours"),
    [({}, True, True), ({}, False, False), ({"NO_COLOR": "1"}, True, False), ({"NO_COLOR": ""}, True, True)],
)
def test_colours_are_for_terminals(agent: Agent, environment: dict[str, str], terminal: bool, colours: bool) -> None:
    answer = {"version": 1, "protocol": "", "in_force": True, "connections": [connection(direction())]}
    agent.answer = json.dumps(answer).encode()
    arguments = ["policy", "why", "192.0.2.7", "shop/db", "--socket", agent.path]
    ended = commandline.run(arguments, environment, terminal)
    assert ("\x1b[" in ended.stdout) is colours


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "the answer is not that of a podwired"),
        (b"HTTP/1.1 400 Bad Request\r\n", "the answer is not that of a podwired"),
        (b"[1]", "the podwired there is of another version"),
        (b'{"version": 2}', "the podwired there is of another version"),
        (b'{"version": 1, "error": "pod shop/x is not known here"}', "podwire: pod shop/x is not known here\n"),
    ],
)
def test_an_answer_that_is_none_has_a_status_of_its_own(agent: Agent, answer: bytes, error: str) -> None:
    agent.answer = answer
    status, stdout, stderr = typed("policy", "show", "shop/x", "--socket", agent.path)
    assert (status, stdout) == (3, "")
    assert error in stderr


def test_a_socket_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = f"{tmp_path}/no.sock"
    status, _, stderr = typed("policy", "show", "shop/x", "--socket", path)
    assert (status, stderr) == (
        3, f"podwire: {path}: No such file or directory (does podwired run? --socket names another)\n",
    )  # fmt: skip


def test_the_only_socket_of_the_node_is_asked(agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "FOLDER", str(tmp_path))
    agent.answer = b'{"version": 1, "it": 1}'
    assert ask("", ask="show")["it"] == 1
    (tmp_path / "b.sock").touch()
    with pytest.raises(NoAnswer, match="several podwireds can be asked"):
        ask("", ask="show")
    monkeypatch.setattr(asking, "FOLDER", f"{tmp_path}/absent")
    with pytest.raises(NoAnswer, match=r"/run/podwire/podwired\.sock"):
        ask("", ask="show")


def test_an_answer_that_does_not_end_is_given_up(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ANSWER_BYTES", 100)
    agent.answer = b"x" * 1000
    with pytest.raises(NoAnswer, match="the answer does not end"):
        ask(agent.path, ask="show")


COMMANDS = [*[[name] for name in commandline.COMMANDS], ["policy", "why"], ["policy", "show"], ["completion"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_two_examples_and_tells_the_statuses(command: list[str]) -> None:
    for flag in ("--help", "-h"):
        status, stdout, stderr = typed(*command, flag)
        assert (status, stderr) == (0, "")
        examples = stdout.partition("Examples:\n")[2].partition("\n\n")[0].splitlines()
        assert len([line for line in examples if "podwire" in line]) == 2
        assert ("Exit status: 0" in stdout) is (command != ["completion"])


def test_usage_and_completion_name_every_command() -> None:
    assert set(ASKING) == {*commandline.COMMANDS, "completion"}
    for name in (*ASKING, *SIMPLE):
        assert re.search(rf"^(usage:|      ) podwire {name}\b", USAGE, re.MULTILINE), name


def test_a_group_without_a_command_tells_its_own() -> None:
    status, stdout, stderr = typed("policy")
    assert (status, stdout) == (2, "")
    assert stderr.startswith("Usage: podwire policy")
    assert typed("policy", "whine")[::2] == (2, "podwire: No such command 'whine'.\nTry 'podwire policy --help'.\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_a_script_and_its_answers(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    status, script, _ = typed("completion", shell)
    assert status == 0
    assert f"{COMPLETE}={shell}_complete" in script
    assert entry.COMPLETE == COMPLETE
    monkeypatch.setenv("COMP_WORDS", "podwire ")
    monkeypatch.setenv("COMP_CWORD", "" if shell == "fish" else "1")
    monkeypatch.setenv(COMPLETE, f"{shell}_complete")
    status, stdout, stderr = typed(**{COMPLETE: f"{shell}_complete"})
    assert (status, stderr) == (0, "")
    assert {*ASKING, *SIMPLE} <= {*re.split(r"[\n,\t]", stdout)}
