"""A throw-away machine for a test: network, mounts and processes of its own, gone without a trace at its end.

Rule: a test that touches the network does it in a Machine, never in the namespaces that the tests run in.
The Machine is the network namespace of a *host*; `pod()` adds containers, `outside()` a host behind a wire.
As root it needs nothing more; without root it lives in a user namespace (`unshare -Ur`) and does the same.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import time
from contextlib import ExitStack
from functools import cache
from typing import IO, TYPE_CHECKING, NamedTuple, Self, TypeVar, cast

from tests.echo import ask, serve
from tests.forkserver import Answer, answer_of, enter, fork_server
from tests.namespaces import furnish
from tests.snapshot import STATE, files_of, look

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from tests.snapshot import Snapshot

T = TypeVar("T")

NEEDS = ("unshare", "nsenter", "mount", "ip", "nft", "tc")
SECONDS = 60.0  # the longest that one command, or what is waited for, may take
SHORTEST, LONGEST = 0.01, 0.4  # seconds between two questions; a question costs more than what is waited for

# The first process of the machine. Its number is read where /proc is still that of outside, so it is the one that
# the outside knows. It waits on its standard input: whatever ends the tests closes it, and then the kernel
# ends every process in here.
_INIT = """
read -r number rest < /proc/self/stat
echo "$number"
exec cat
"""


class MachineError(Exception):
    """A command in a machine failed; the message holds what it printed."""


@cache
def missing(*, user_namespace: bool | None = None) -> str:
    """Why no such Machine can be had here, or an empty text."""
    absent = [name for name in NEEDS if shutil.which(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    try:
        with Machine(user_namespace=user_namespace) as machine:
            machine.run("nft", "add", "table", "inet", "probe")
    except (MachineError, OSError) as error:
        return f"no namespaces of its own: {error}"
    return ""


class Pod(NamedTuple):
    """A network namespace in a Machine; `path` is what CNI_NETNS says."""

    machine: Machine
    name: str
    path: str

    def run(self, *command: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a command in this network namespace."""
        return self.machine.run(*command, stdin=stdin, check=check, inside=self)

    def addresses(self, interface: str = "eth0") -> list[str]:
        """Returns the interface's global addresses with prefix, in the kernel's order."""
        shown = json.loads(self.run("ip", "-j", "address", "show", "dev", interface).stdout)
        return [
            f"{address['local']}/{address['prefixlen']}"
            for link in shown
            for address in link.get("addr_info", ())
            if address["scope"] == "global"
        ]

    def serve(self, port: int, protocol: str = "tcp") -> None:
        """Listens until the machine ends; a caller is told the address it came from."""
        self.machine.serve(port, protocol, inside=self)

    def ask(self, host: str, port: int, protocol: str = "tcp", seconds: float = 5.0) -> str:
        """Returns the address that a server at host sees us come from; raises MachineError when it is out of reach."""
        return self.machine.ask(host, port, protocol, seconds, inside=self)

    def remove(self) -> None:
        """Takes the namespace away as a runtime does; what is left open keeps it alive."""
        self.machine.run("ip", "netns", "del", self.name)


class Machine:
    """A host of its own for one test; use it with `with`."""

    def __init__(self, *, user_namespace: bool | None = None) -> None:
        """Without root there must be a user namespace; root may ask for one, to meet what others meet."""
        self.user_namespace = os.geteuid() != 0 if user_namespace is None else user_namespace
        self.pods: dict[str, Pod] = {}
        self._end = ExitStack()

    def __enter__(self) -> Self:
        user = ["--user", "--map-root-user"] if self.user_namespace else []
        init = self._end.enter_context(
            subprocess.Popen(
                ["unshare", *user, "--net", "--mount", "--pid", "--fork", "sh", "-c", _INIT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        line = _pipe(init.stdout).readline()
        if not line:
            reason = _pipe(init.stderr).read().strip()
            self._end.close()
            raise MachineError(reason)
        self._number, self._input = int(line), _pipe(init.stdin)
        try:
            self.call(furnish)
        except OSError as error:
            self.__exit__()
            raise MachineError(str(error)) from error
        return self

    def __exit__(self, *_: object) -> None:
        # The first process ends with its standard input, and only once all others in the PID namespace have.
        self._input.close()
        self._end.close()

    @property
    def root(self) -> str:
        """The machine's file system as the tests see it: root + "/run/netns/x"."""
        return f"/proc/{self._number}/root"

    def command(self, *command: str, inside: Pod | None = None) -> list[str]:
        """Returns the command line that runs a command in the machine, in the host's network namespace or a pod's."""
        user = ["--user", "--preserve-credentials"] if self.user_namespace else []
        net = f"--net={self.root}{inside.path}" if inside else "--net"
        return ["nsenter", f"--target={self._number}", *user, net, "--mount", "--pid", "--", *command]

    def run(
        self,
        *command: str,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
        check: bool = True,
        seconds: float = SECONDS,
        inside: Pod | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command in the machine; env is added to ours. Raises MachineError unless it ends with 0."""
        done = subprocess.run(
            self.command(*command, inside=inside),
            input=stdin,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if check and done.returncode:
            output = done.stdout + done.stderr
            raise MachineError(f"{' '.join(command)}: exit {done.returncode}: {output.strip()}")
        return done

    def start(
        self, *command: str, env: Mapping[str, str] | None = None, stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[str]:
        """Starts a command that lives no longer than the machine; its output is the caller's to read."""
        return self._end.enter_context(
            subprocess.Popen(
                self.command(*command),
                env={**os.environ, **(env or {})},
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )

    def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Calls a function in a child process inside the machine; all that goes in and comes out is pickled.

        What cannot be pickled, and all where the user is not root, is called in a fork of this process, which costs
        more.
        """
        kinds = (*(["user"] if self.user_namespace else []), "net", "mnt")
        request = _pickled(function, arguments) if os.geteuid() == 0 else b""
        if request:
            answer = fork_server(os.getpid()).call(self._number, kinds, request)
        else:
            answer = _call_in_fork(self._number, (*kinds, "pid"), function, arguments)
        if answer is None:
            raise MachineError(f"{function}: its process ended without an answer")
        if answer.error is not None:
            raise answer.error
        return cast("T", answer.value)

    def pod(self, name: str = "") -> Pod:
        """Adds a container's network namespace, empty but for a loopback interface that is down."""
        name = name or f"pod{len(self.pods) + 1}"
        self.run("ip", "netns", "add", name)
        self.pods[name] = Pod(self, name, f"/run/netns/{name}")
        return self.pods[name]

    def outside(self) -> Pod:
        """Adds a host behind a wire, 192.0.2.2 and 2001:db8:2::2; ours end in 1. It knows no way to pods."""
        outside = self.pod("outside")
        self.run(
            "ip",
            "-batch",
            "-",
            stdin=f"link add uplink type veth peer name eth0 netns {outside.name}\n{_end('uplink', 1)}",
        )
        outside.run("ip", "-batch", "-", stdin=_end("eth0", 2))
        return outside

    def wait_for_links(self, *names: str) -> None:
        """Waits until the host has just these: the kernel takes away a dead namespace's when it finds the time."""

        def same() -> bool:
            return {link["ifname"] for link in json.loads(self.run("ip", "-j", "link").stdout)} == set(names)

        until(same, f"the links are {', '.join(names)}")

    def serve(self, port: int, protocol: str = "tcp", *, inside: Pod | None = None) -> None:
        """Listens on the host (or inside a pod) until the machine ends; see Pod.serve."""
        try:
            self.call(serve, inside and inside.path, protocol, port)
        except OSError as error:
            raise MachineError(f"no server on {protocol} {port}: {error}") from error

    def ask(
        self, host: str, port: int, protocol: str = "tcp", seconds: float = 5.0, *, inside: Pod | None = None
    ) -> str:
        """Asks a server as the host (or from inside a pod); see Pod.ask."""
        try:
            return self.call(ask, inside and inside.path, protocol, host, port, seconds)
        except OSError as error:
            raise MachineError(f"{protocol} {host} {port}: {error}") from error

    def files(self, *folders: str) -> list[str]:
        """Returns the files below these folders, each with its text, and the folders that are empty."""
        return self.call(files_of, folders)

    def snapshot(self, state: Iterable[str] = STATE, settings: Iterable[str] = ()) -> Snapshot:
        """Returns all that a plugin may change, as sorted lines of text in sections that compare equal or differ.

        Sections: links, addresses, routes, rules, nft, qdiscs (of the host, and of each pod as "pod1: ..."),
        sysctls, files (below the folders `state`, with their text), and of the same namespaces the settings below the
        folders `settings`. Left out is what the kernel does when it likes or what never repeats: indexes, counters,
        handles, IPv6 link-local addresses, local routes; and the lock.
        """
        pods = {name: pod.path for name, pod in self.pods.items()}
        return self.call(look, pods, tuple(state), tuple(settings))


def until(ask: Callable[[], T], goal: str, seconds: float = SECONDS) -> T:
    """Asks again and again until the answer is true, and returns it; raises MachineError when that takes too long."""
    end = time.monotonic() + seconds
    for pause in pauses():
        if answer := ask():
            return answer
        if time.monotonic() > end:
            raise MachineError(f"waited {seconds} s in vain until {goal}")
        time.sleep(pause)
    raise AssertionError


def pauses() -> Iterator[float]:
    """Gives the seconds to wait before each next question, longer ones the longer it takes."""
    pause = SHORTEST
    while True:
        yield pause
        pause = min(pause * 1.5, LONGEST)


def _end(link: str, host: int) -> str:
    """Returns the commands of ip that bring up an end of the wire to an external host."""
    return f"""
        address add 192.0.2.{host}/24 dev {link}
        address add 2001:db8:2::{host}/64 dev {link} nodad
        link set {link} up
    """


def _pipe(stream: IO[str] | None) -> IO[str]:
    """Popen types its pipes as optional; ours are always asked for."""
    assert stream is not None
    return stream


def _pickled(function: Callable[..., object], arguments: tuple[object, ...]) -> bytes:
    """Returns the request to the fork server, an empty one for what would not arrive as it was sent."""
    try:
        request = pickle.dumps((function, arguments))
        arrives = pickle.loads(request) == (function, arguments)
    except (pickle.PicklingError, AttributeError, TypeError):
        return b""
    return request if arrives else b""


def _call_in_fork(
    number: int, kinds: tuple[str, ...], function: Callable[..., object], arguments: tuple[object, ...]
) -> Answer | None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            enter(number, kinds)
            inner = os.fork()  # who enters a PID namespace is the child to come
            if inner:
                os.waitpid(inner, 0)
            else:
                _write(writing, answer_of(function, arguments))
        except OSError as error:
            _write(writing, pickle.dumps(Answer(error, None)))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    answer: Answer | None = pickle.loads(data) if data else None
    return answer


def _write(pipe: int, data: bytes) -> None:
    with os.fdopen(pipe, "wb") as file:
        file.write(data)
