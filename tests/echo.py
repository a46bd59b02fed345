"""A server that tells its callers the addresses that they come from, which is what a test of masquerading asks."""

from __future__ import annotations

import os
import selectors
import socket
import time
from contextlib import suppress
from errno import EINPROGRESS
from typing import TYPE_CHECKING

from tests.forkserver import enter_net

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 30.0  # seconds
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def serve(netns: str | None, protocol: str, port: int) -> None:
    """Answers from now on, in a child that ends with the machine. To be called in a child process."""
    if netns:
        enter_net(netns)
    server = socket.socket(socket.AF_INET6, _KINDS[protocol])
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("::", port))
    if protocol == "tcp":
        server.listen()
    stay_behind([server], lambda server: _answer(server, protocol))


def stay_behind(servers: list[socket.socket], answer: Callable[[socket.socket], None]) -> None:
    """Answers each caller of the servers, in a child that ends with the machine; returns in this process."""
    if os.fork() == 0:
        try:
            leave_all_but({server.fileno() for server in servers})
            with selectors.DefaultSelector() as watched:
                for server in servers:
                    watched.register(server, selectors.EVENT_READ, server)
                while True:
                    for key, _ in watched.select():
                        answer(key.data)
        finally:
            os._exit(1)
    for server in servers:
        server.close()


def ask(netns: str | None, protocol: str, host: str, port: int, seconds: float) -> str:
    """Returns the address that the server sees. To be called in a child process."""
    if netns:
        enter_net(netns)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, _KINDS[protocol]) as client:
        client.settimeout(seconds)
        client.connect((host, port))
        if protocol == "tcp":
            client.settimeout(PATIENCE)  # who is connected is answered, on a busy machine later
        client.send(b"?")
        return client.recv(64).decode()


def ask_all(questions: list[tuple[str, str, int]], seconds: float) -> list[bool]:
    """Returns for each network namespace, address and TCP port if the server there answers: all are asked at once, so
    that those without an answer share one wait. To be called in a child process.
    """
    end = time.monotonic() + seconds
    clients: list[socket.socket] = []
    answered: set[socket.socket] = set()
    with selectors.DefaultSelector() as watched:
        for netns, host, port in questions:
            enter_net(netns)
            client = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            client.setblocking(False)
            clients.append(client)
            if client.connect_ex((host, port)) == EINPROGRESS:  # else there is no way there
                watched.register(client, selectors.EVENT_WRITE, client)
        while watched.get_map() and (left := end - time.monotonic()) > 0:
            for key, _ in watched.select(left):
                watched.unregister(key.fd)
                if not key.data.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    answered.add(key.data)
    return [client in answered and _is_answered(client) for client in clients]


def _is_answered(client: socket.socket) -> bool:
    """Returns True unless the connection is reset: who is connected is answered, on a busy machine later."""
    client.settimeout(PATIENCE)
    try:
        client.send(b"?")
        return client.recv(64) != b""
    except ConnectionError:
        return False


def leave_all_but(numbers: set[int]) -> None:
    """Closes what belongs to the tests, whose output may be waited for."""
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    for number in {int(name) for name in os.listdir("/proc/self/fd")} - numbers - {0, 1, 2}:
        with suppress(OSError):  # the one that listed the folder
            os.close(number)


def _answer(server: socket.socket, protocol: str) -> None:
    if protocol == "tcp":
        caller, address = server.accept()
        with caller:
            caller.sendall(_plain(address[0]))
    else:
        _, address = server.recvfrom(64)
        server.sendto(_plain(address[0]), address)


def _plain(address: str) -> bytes:
    return address.removeprefix("::ffff:").encode()
