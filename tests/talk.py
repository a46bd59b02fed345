"""Connections that stay: the same sockets are asked again and again whether answers still come."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.machine import MachineError, Pod
from tests.traffic import PROTOCOLS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.machine import Machine
    from tests.traffic import Target

_ECHO = """
import selectors, socket, sys
watched = selectors.DefaultSelector()
protocols, *ports = sys.argv[1:]
for port in map(int, ports):
    for name in protocols.split(","):
        kind = socket.SOCK_DGRAM if name == "udp" else socket.SOCK_STREAM
        server = socket.socket(socket.AF_INET6, kind, socket.IPPROTO_SCTP if name == "sctp" else 0)
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, name == "udp")
        server.bind(("::", port))
        if kind == socket.SOCK_STREAM:
            server.listen()
        watched.register(server, selectors.EVENT_READ, "accept" if kind == socket.SOCK_STREAM else "answer")
print("ready", flush=True)
while True:
    for key, _ in watched.select():
        if key.data == "accept":
            watched.register(key.fileobj.accept()[0], selectors.EVENT_READ, "echo")
        elif key.data == "answer":
            data, [(level, kind, called)], _, address = key.fileobj.recvmsg(64, 64)
            key.fileobj.sendmsg([data], [(level, kind, called[:16] + bytes(4))], 0, address)
        elif data := key.fileobj.recv(64):
            key.fileobj.sendall(data)
        else:
            watched.unregister(key.fileobj)
"""
_TALK = """
import select, socket, sys, time
sockets = []
for target in sys.argv[1:]:
    protocol, host, port = target.split(",")
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    one = socket.socket(family, kind, socket.IPPROTO_SCTP if protocol == "sctp" else 0)
    if ":" in host:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # else SCTP offers the IPv4 address as a second path
    one.settimeout(20)
    one.connect((host, int(port)))
    one.setblocking(False)
    sockets.append(one)
print("ready", flush=True)
for number, line in enumerate(sys.stdin, 1):
    asked, end, again = bytes([number % 256]), time.monotonic() + float(line), 0.0
    silent, heard = list(sockets), {one: b"" for one in sockets}
    while silent and time.monotonic() < end:
        if time.monotonic() > again:
            for one in silent:
                if not again or one.type == socket.SOCK_DGRAM:
                    try:
                        one.send(asked)
                    except OSError:
                        pass
            again = time.monotonic() + 0.1
        for one in select.select(silent, [], [], 0.05)[0]:
            try:
                heard[one] += one.recv(4096)
            except OSError:
                pass
        silent = [one for one in silent if asked not in heard[one]]
    print("".join("-" if one in silent else "+" for one in sockets), flush=True)
"""


def echo(where: Machine | Pod, *ports: int, protocols: Iterable[str] = PROTOCOLS) -> None:
    """Sends back what comes by these protocols on these ports of either family until the machine ends."""
    _start(where, _ECHO, [",".join(protocols), *map(str, ports)])


class Talk:
    """A connection to each target, at the same time. They end with `end`, or with the machine."""

    def __init__(self, where: Machine | Pod, targets: Iterable[Target]) -> None:
        self._process = _start(where, _TALK, [",".join(map(str, target)) for target in targets])

    def ask(self, seconds: float) -> str:
        """Returns for each target in turn `+` if an answer comes in time, else `-`. TCP repeats what was lost."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        self._process.communicate()


def _start(where: Machine | Pod, program: str, arguments: Iterable[str]) -> subprocess.Popen[str]:
    python = [sys.executable, "-I", "-S", "-c", program, *arguments]
    if isinstance(where, Pod):
        process = where.machine.start("nsenter", f"--net={where.path}", "--", *python, stdin=subprocess.PIPE)
    else:
        process = where.start(*python, stdin=subprocess.PIPE)
    assert process.stdout
    line = process.stdout.readline()
    if line != "ready\n":
        raise MachineError(f"not ready: {line}{process.stdout.read()}")
    return process
