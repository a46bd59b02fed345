"""Calls of functions in other namespaces, each in a child of a small process that does nothing else.

The process that runs the tests is large, for it holds them all: to fork it costs ten times as much as to fork this one.
A function is known here by its name alone: what a test patched in its own process is not patched here.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import os
import pickle
import selectors
import socket
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = Path(__file__).parents[1]
_LIBC = ctypes.CDLL(None, use_errno=True)  # os.setns came with Python 3.12


class Answer(NamedTuple):
    """The result of a call, and the modules that it was the first to load."""

    error: BaseException | None
    value: object
    loaded: tuple[str, ...] = ()


def enter(number: int, kinds: Iterable[str]) -> None:
    """Enters the namespaces of a process; those who enter a PID namespace are the children to come."""
    for door in [os.open(f"/proc/{number}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds]:
        _set_namespace(door)


def enter_net(path: str) -> None:
    """Enters a network namespace by its path."""
    _set_namespace(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def _set_namespace(door: int) -> None:
    try:
        if _LIBC.setns(door, 0):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(door)


def answer_of(function: Callable[..., object], arguments: tuple[object, ...]) -> bytes:
    """Calls and returns the pickled Answer, whatever happens."""
    before = len(sys.modules)
    failure: BaseException | None = None
    value: object = None
    try:
        value = function(*arguments)
    except BaseException as error:  # noqa: BLE001 - every fault belongs to the caller
        failure = error
    # The last ones. To look at the others would copy what a forked process shares, for it counts references.
    new = [name for name, _ in zip(reversed(sys.modules), range(len(sys.modules) - before), strict=False)][::-1]
    new = [name for name in new if getattr(sys.modules[name], "__spec__", None)]
    try:
        return pickle.dumps(Answer(failure, value, tuple(new)))
    except Exception as error:  # noqa: BLE001 - any class may refuse to be pickled
        return pickle.dumps(Answer(RuntimeError(f"{function}: {error!r}, from {failure!r} {value!r}"), None))


class ForkServer:
    """The process, as the tests see it; it ends with the one that started it."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._known: dict[str, None] = {}  # modules, in the order in which calls loaded them
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from tests.forkserver import serve; serve({theirs.fileno()})"],
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def end(self) -> None:
        self._control.close()
        self._process.wait()

    def call(self, number: int, kinds: tuple[str, ...], request: bytes) -> Answer | None:
        """Calls in the namespaces of a process, its PID namespace included; None when the child ended without a word.

        `request` is the pickled (function, arguments).
        """
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                socket.send_fds(self._control, [b"?"], [theirs.fileno()])
            ours.sendall(pickle.dumps((number, kinds, tuple(self._known), request)))
            ours.shutdown(socket.SHUT_WR)
            data = _all_of(ours)
        if not data:
            return None
        answer: Answer = pickle.loads(data)
        self._known.update(dict.fromkeys(answer.loaded))
        return answer


@cache
def fork_server(owner: int) -> ForkServer:
    """Gives the one of the process `owner`, which is the caller's: a fork of it needs its own."""
    del owner
    server = ForkServer()
    atexit.register(server.end)
    return server


def _all_of(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


class _Children:
    """The server's side: the calls that go on, each with the connection that waits for its answer."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._watched = selectors.DefaultSelector()
        self._watched.register(control, selectors.EVENT_READ)
        self._imported = 0

    def serve(self) -> None:
        """Starts a child for each request, until nobody is there who asks."""
        while True:
            for key, _ in self._watched.select():
                if key.fileobj is not self._control:
                    self._bury(key.fd, key.data)
                    continue
                _, doors, _, _ = socket.recv_fds(self._control, 1, 1)
                if not doors:
                    return
                self._start(socket.socket(fileno=doors[0]))

    def _start(self, connection: socket.socket) -> None:
        number, kinds, modules, request = pickle.loads(_all_of(connection))
        try:
            for module in modules[self._imported :]:
                importlib.import_module(module)
                self._imported += 1
            function, arguments = pickle.loads(request)
            child = self._fork_inside(number)
        except Exception as error:  # noqa: BLE001 - it belongs to the caller
            with connection:
                connection.sendall(pickle.dumps(Answer(error, None)))
            return
        if child == 0:
            self._watched.close()
            self._control.close()
            connection.sendall(answer_of(_inside, (number, kinds, function, arguments)))
            os._exit(0)
        self._watched.register(os.pidfd_open(child), selectors.EVENT_READ, (child, connection))

    def _fork_inside(self, number: int) -> int:
        """Forks a child into the PID namespace of a process."""
        gc.freeze()  # a child that collects garbage leaves alone what it shares with this process
        own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        enter(number, ["pid"])
        if child := os.fork():
            _set_namespace(own)
        return child

    def _bury(self, door: int, data: tuple[int, socket.socket]) -> None:
        """Tells the caller that a child has ended, with all that it held: others may hold its connection as well."""
        child, connection = data
        self._watched.unregister(door)
        os.close(door)
        os.waitpid(child, 0)
        with connection:
            connection.shutdown(socket.SHUT_RDWR)


def _inside(number: int, kinds: tuple[str, ...], function: Callable[..., object], arguments: tuple[Any, ...]) -> object:
    enter(number, kinds)
    return function(*arguments)


def serve(control: int) -> None:
    sys.path[0] = str(ROOT)  # not the current folder, which changes
    warnings.simplefilter("error")  # as pytest has it
    _Children(socket.socket(fileno=control)).serve()
