"""A server that tells its callers the addresses that they come from, which is what a test of masquerading asks."""

from __future__ import annotations

import os
import socket

from tests.forkserver import enter_net

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
    if os.fork() == 0:
        try:
            _leave_all_but(server.fileno())
            _answer(server, protocol)
        finally:
            os._exit(1)
    server.close()


def ask(netns: str | None, protocol: str, host: str, port: int, seconds: float) -> str:
    """Returns the address that the server sees. To be called in a child process."""
    if netns:
        enter_net(netns)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, _KINDS[protocol]) as client:
        client.settimeout(seconds)
        client.connect((host, port))
        client.send(b"?")
        return client.recv(64).decode()


def _leave_all_but(number: int) -> None:
    """Closes what belongs to the tests, whose output may be waited for."""
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    os.closerange(3, number)
    os.closerange(number + 1, os.sysconf("SC_OPEN_MAX"))


def _answer(server: socket.socket, protocol: str) -> None:
    while True:
        if protocol == "tcp":
            caller, address = server.accept()
            with caller:
                caller.sendall(_plain(address[0]))
        else:
            _, address = server.recvfrom(64)
            server.sendto(_plain(address[0]), address)


def _plain(address: str) -> bytes:
    return address.removeprefix("::ffff:").encode()
