"""A container runtime for the tests: it calls podwire in a machine, in its own process, and remembers the answers."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from cni.main import run

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping

    from tests.machine import Machine, Pod

Json = dict[str, Any]

PLUGINS = "/opt/cni/bin"
PROGRAM = os.path.join(os.path.dirname(__file__), "podwire")
NETWORK = "net"
GONE = "/run/netns/gone"

IPV4, IPV6 = [{"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8:1::/64"}]


def host_local(*sets: list[dict[str, str]], **others: object) -> Json:
    """Returns the ipam part of a configuration: one address of each set."""
    return {"type": "host-local", "ranges": list(sets), **others}


def network(name: str = NETWORK, **settings: object) -> Json:
    """Returns a network configuration."""
    return {"cniVersion": "1.1.0", "name": name, "type": "podwire", **settings}


DUAL = host_local(IPV4, IPV6)
PLAIN = network(isDefaultGateway=True, ipam=host_local(IPV4))
MASQUERADED = network(isDefaultGateway=True, ipMasq=True, ipam=DUAL)
RICH = network(
    isDefaultGateway=True,
    ipMasq=True,
    macspoofchk=True,
    ipSpoofCheck=True,
    hairpinMode=True,
    mtu=1400,
    ipam=host_local(
        IPV4,
        IPV6,
        routes=[
            {"dst": "192.0.2.0/24"},
            {"dst": "198.51.100.0/24", "priority": 7, "mtu": 1300, "advmss": 1200},
            {"dst": "2001:db8:9::/48"},
        ],
    ),
)

# All that a container may be given at once; one container, for a host port is one's.
RICHEST = {
    **RICH,
    "capabilities": {"portMappings": True, "bandwidth": True},
    "runtimeConfig": {
        "portMappings": [
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
            {"hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": "127.0.0.1"},
        ],
        "bandwidth": {"ingressRate": 10**8, "ingressBurst": 10**6, "egressRate": 10**8, "egressBurst": 10**6},
    },
}
ROUTED = {key: value for key, value in RICHEST.items() if key not in ("macspoofchk", "hairpinMode")} | {
    "mode": "routed"
}


class AnsweredError(Exception):
    """podwire answered with an error where the test asked for success."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class Answer(NamedTuple):
    """The result of a call: its exit status and its output."""

    status: int
    stdout: str
    stderr: str = ""

    @property
    def content(self) -> Json:
        """The one JSON object on stdout, or an empty one."""
        answer: Json = json.loads(self.stdout or "{}")
        return answer

    @property
    def code(self) -> int:
        """The protocol's error code, 0 for success."""
        return int(self.content["code"]) if self.status else 0

    @property
    def message(self) -> str:
        return str(self.content["msg"]) if self.status else ""

    def succeeded(self) -> Answer:
        """Returns the answer itself, or raises AnsweredError."""
        if self.status:
            raise AnsweredError(self.code, self.message + self.stderr)
        return self


class Attachment(NamedTuple):
    """A container as a runtime names it in the environment."""

    container: str
    netns: str
    interface: str = "eth0"
    arguments: str = ""

    def environment(self, verb: str) -> dict[str, str]:
        """Returns the variables of one call."""
        environment = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": self.container,
            "CNI_NETNS": self.netns,
            "CNI_IFNAME": self.interface,
            "CNI_ARGS": self.arguments,
            "CNI_PATH": PLUGINS,
        }
        return {key: value for key, value in environment.items() if value}


def attachment(pod: Pod, interface: str = "eth0", arguments: str = "") -> Attachment:
    """Returns a pod's attachment; the container's ID is the pod's name."""
    return Attachment(pod.name, pod.path, interface, arguments)


class Text:
    """A standard stream of a call in this process."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data

    def read(self) -> bytes:
        return self.data

    def write(self, data: bytes) -> None:
        self.data += data


class Closed(Text):
    """A standard stream whose reader is gone."""

    def write(self, data: bytes) -> None:
        raise BrokenPipeError(32, os.strerror(32), len(data))


def serve(environment: Mapping[str, str], config: Json, program: str = "podwire", stdout: Text | None = None) -> Answer:
    """Serves one call in this process, which has to be inside a machine."""
    streams, heard = stdout or Text(), Text()
    inherited = {"PATH": os.environ["PATH"]}
    status = run([program], inherited | dict(environment), Text(json.dumps(config).encode()), streams, heard)
    return Answer(status, streams.data.decode(), heard.data.decode())


def _prepared(prepare: Callable[[], object], *arguments: Any) -> Answer:
    prepare()
    return serve(*arguments)


class Node:
    """A machine and the runtime on it. What ADD answered is handed back to CHECK and DEL, as the protocol asks."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.results: dict[tuple[str, str, str], Json] = {}

    def call(
        self,
        verb: str,
        config: Json,
        who: Attachment | None = None,
        *,
        program: str = "podwire",
        extra: Mapping[str, str] | None = None,
        stdout: Text | None = None,
        prepare: Callable[[], object] | None = None,
    ) -> Answer:
        """Calls podwire in a process of its own; `prepare` is called in there first, `extra` is environment."""
        environment = who.environment(verb) if who else {"CNI_COMMAND": verb, "CNI_PATH": PLUGINS}
        arguments = (environment | dict(extra or {}), config, program, stdout)
        if prepare:
            return self.machine.call(_prepared, prepare, *arguments)
        return self.machine.call(serve, *arguments)

    def add(self, config: Json, who: Attachment, **how: Any) -> Json:
        """Attaches and returns the result; raises AnsweredError where podwire refuses."""
        result = self.call("ADD", config, who, **how).succeeded().content
        self.results[config["name"], who.container, who.interface] = result
        return result

    def with_result(self, config: Json, who: Attachment) -> Json:
        """Returns the configuration as CHECK and DEL get it."""
        key = config["name"], who.container, who.interface
        return {**config, "prevResult": self.results[key]} if key in self.results else config

    def check(self, config: Json, who: Attachment, **how: Any) -> Answer:
        """Asks whether the attachment is as ADD made it."""
        return self.call("CHECK", self.with_result(config, who), who, **how)

    def delete(self, config: Json, who: Attachment, **how: Any) -> Answer:
        """Releases; raises AnsweredError where podwire cannot."""
        answer = self.call("DEL", self.with_result(config, who), who, **how).succeeded()
        self.results.pop((config["name"], who.container, who.interface), None)
        return answer

    def start(self, verb: str, config: Json, who: Attachment, program: str = PROGRAM) -> subprocess.Popen[bytes]:
        """Starts podwire as a program; the caller waits for its end."""
        import subprocess

        environment = {"PATH": os.environ["PATH"], **who.environment(verb)}
        pairs = [f"{key}={value}" for key, value in environment.items()]
        process = subprocess.Popen(
            self.machine.command("env", "-i", *pairs, sys.executable, "-I", "-S", program),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdin
        process.stdin.write(json.dumps(config).encode())
        process.stdin.close()
        process.stdin = None
        return process
