"""Traffic between the namespaces of a machine: who answers and whom he sees, and how much passes in a second."""

from __future__ import annotations

import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from tests.echo import PATIENCE, stay_behind
from tests.forkserver import enter_net
from tests.machine import Machine, MachineError, Pod

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterable

NOBODY = "nobody"
PROTOCOLS = ("tcp", "udp")
ATTEMPTS = 4

_SINK = """
import socket, sys, time
server = socket.create_server(("0.0.0.0", 5001))
print("ready", flush=True)
peer, _ = server.accept()
peer.recv(1)
time.sleep(0.5)  # the burst is over
peer.setblocking(False)
try:
    while peer.recv(1 << 20):
        pass
except BlockingIOError:
    pass
peer.setblocking(True)
start, seen = time.monotonic(), 0
while time.monotonic() - start < 1.5:
    seen += len(peer.recv(1 << 16))
print(seen * 8 / (time.monotonic() - start), flush=True)
"""
_SOURCE = """
import socket, sys
peer = socket.create_connection((sys.argv[1], 5001), 5)
try:
    while True:
        peer.sendall(bytes(1 << 16))
except OSError:
    pass
"""


class Target(NamedTuple):
    """Whom to ask; `host` is an address."""

    protocol: str
    host: str
    port: int


class Answer(NamedTuple):
    """The server that answered and the source address that it saw; NOBODY and an empty text without an answer."""

    name: str
    source: str


def listen(where: Machine | Pod, name: str, *ports: int) -> None:
    """Answers by TCP and UDP on these ports of either family until the machine ends."""
    machine, netns = _place(where)
    machine.call(_listen, netns, name, ports)


def _listen(netns: str | None, name: str, ports: Iterable[int]) -> None:
    """Answers every caller, of either family, with the name and the address that the call came from.

    By UDP the answer comes from the address that was called, which of several the kernel would choose itself.
    """
    if netns:
        enter_net(netns)
    servers = [_bound(kind, port) for port in ports for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]
    stay_behind(servers, lambda server: _answer(server, name))


def _bound(kind: socket.SocketKind, port: int) -> socket.socket:
    server = socket.socket(socket.AF_INET6, kind)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    server.bind(("::", port))
    if kind == socket.SOCK_STREAM:
        server.listen()
    return server


def _answer(server: socket.socket, name: str) -> None:
    if server.type == socket.SOCK_STREAM:
        caller, address = server.accept()
        with caller:
            caller.sendall(_reply(name, address[0]))
        return
    _, [(level, kind, called)], _, address = server.recvmsg(64, 64)
    any_interface = called[:16] + bytes(4)
    server.sendmsg([_reply(name, address[0])], [(level, kind, any_interface)], 0, address)


def _reply(name: str, address: str) -> bytes:
    return f"{name} {address.removeprefix('::ffff:')}".encode()


def ask_each(where: Machine | Pod, targets: Iterable[Target], seconds: float = 5.0) -> list[Answer]:
    """Asks all targets at once, and returns their answers in the same order."""
    machine, netns = _place(where)
    outcomes = machine.call(_ask_all, netns, [tuple(target) for target in targets], seconds)
    return [Answer(*outcome.split()) if outcome else Answer(NOBODY, "") for outcome in outcomes]


def _ask_all(netns: str | None, targets: list[tuple[str, str, int]], seconds: float) -> list[str]:
    """Asks at once, so that those out of reach cost the time of one."""
    if netns:
        enter_net(netns)
    if not targets:
        return []
    with ThreadPoolExecutor(len(targets)) as pool:  # its threads are in the namespace that this one is in
        return list(pool.map(lambda target: _ask(target, seconds), targets))


def _ask(target: tuple[str, str, int], seconds: float) -> str:
    """Returns an empty text when there is no answer."""
    protocol, host, port = target
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM) as client:
        client.settimeout(seconds)
        try:
            client.connect((host, port))
            if protocol == "tcp":
                client.settimeout(PATIENCE)
            client.send(b"?")
            return client.recv(128).decode()
        except OSError:
            return ""


def _place(where: Machine | Pod) -> tuple[Machine, str | None]:
    return (where.machine, where.path) if isinstance(where, Pod) else (where, None)


def rate(source: Machine | Pod, sink: Machine | Pod, address: str, least: float = 0.0) -> float:
    """Returns the bits a second that pass from one namespace to another, once the burst is over.

    A busy machine may let less pass than a limit allows, though never more: then it is measured again.
    """
    fastest = 0.0
    for _ in range(ATTEMPTS):
        fastest = max(fastest, _rate(source, sink, address))
        if fastest >= least:
            break
    return fastest


def _rate(source: Machine | Pod, sink: Machine | Pod, address: str) -> float:
    server = _start(sink, _SINK)
    _await_ready(server)
    _start(source, _SOURCE, address)
    assert server.stdout
    return float(server.stdout.readline())


def _start(where: Machine | Pod, program: str, *arguments: str) -> subprocess.Popen[str]:
    python = [sys.executable, "-I", "-S", "-c", program, *arguments]
    if isinstance(where, Pod):
        return where.machine.start("nsenter", f"--net={where.path}", "--", *python)
    return where.start(*python)


def _await_ready(server: subprocess.Popen[str]) -> None:
    assert server.stdout
    line = server.stdout.readline()
    if line != "ready\n":
        raise MachineError(f"no server: {line}{server.stdout.read()}")
