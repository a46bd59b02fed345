"""The lines that calls leave for people: in the file of events, in the system's log, in a file of the user's."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from cni import main
from cni.kernel import eventlog, hostlock
from cni.protocol.callevent import CallEvent, parse_line
from tests.netns.runtime import NETWORK, PLAIN, Json, Text, attachment, host_local, network, serve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.machine import Machine
    from tests.netns.runtime import Node

EVENTS, OLDER = "/run/podwire/events", "/run/podwire/events.1"
LOG = "/run/system-log"
POD = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1"
ADD = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/run/netns/gone", "CNI_IFNAME": "eth0"}
STATUS = {"CNI_COMMAND": "STATUS"}
FULL = network(ipam={"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/31"}]]})


class Log(NamedTuple):
    """The traces of calls: the lines of the file of events, the messages to the system's log."""

    lines: list[bytes]
    messages: list[str]

    @property
    def events(self) -> list[CallEvent]:
        parsed = [parse_line(line) for line in self.lines]
        assert None not in parsed
        return [event for event in parsed if event is not None]


def receive(listener: socket.socket) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(listener.recv(1 << 16).decode())
        except BlockingIOError:
            return messages


def served(*calls: tuple[Mapping[str, str], Json]) -> Log:
    """Serves the calls in this process, which has to be inside a machine, with a system's log that listens."""
    return served_as("podwire", *[(environment, json.dumps(config).encode()) for environment, config in calls])


def served_as(program: str, *calls: tuple[Mapping[str, str], bytes]) -> Log:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.setblocking(False)
    listener.bind(LOG)
    eventlog.SYSTEM_LOG = LOG
    for environment, data in calls:
        main.run([program], {"PATH": os.environ["PATH"]} | dict(environment), Text(data), Text(), Text())
    messages = receive(listener)
    listener.close()
    os.unlink(LOG)
    return Log(recorded(), messages)


def recorded() -> list[bytes]:
    """Returns the lines of the file of events of the machine that this process is in."""
    if not os.path.exists(EVENTS):
        return []
    with open(EVENTS, "rb") as file:
        return file.read().splitlines()


def test_a_failed_add_leaves_one_line_that_says_whose_it_was(machine: Machine) -> None:
    log = machine.call(served, (ADD | {"CNI_ARGS": POD}, PLAIN))
    (event,) = log.events
    assert event.time.endswith("Z")
    assert event[2:11] == ("error", "podwire", "ADD", "shop/web-1", NETWORK, "c1", "eth0", 8, event.message)
    assert event.message == "cannot open CNI_NETNS '/run/netns/gone': No such file or directory"
    assert 0 < event.seconds < 60
    (message,) = log.messages
    head, _, line = message.partition(": ")
    assert head.startswith("<27>")  # daemon.err
    assert head.endswith(f"podwire[{head[head.index('[') + 1 : -1]}]")
    assert parse_line(line.encode()) == event
    assert machine.run("stat", "-c", "%a %U", EVENTS).stdout == "600 root\n"


@pytest.mark.parametrize(
    ("environment", "stdin", "known"),
    [
        (ADD, b"{", ("ADD", "", "c1", 6)),
        (ADD, b'{"name": "net", "cniVersion": "9.0.0"}', ("ADD", "net", "c1", 1)),
        ({**ADD, "CNI_CONTAINERID": ""}, b'{"name": "net"}', ("ADD", "", "", 4)),
        ({"CNI_COMMAND": "PAUSE"}, b'{"name": "net"}', ("PAUSE", "", "", 4)),
        ({"CNI_COMMAND": "GC"}, b'{"cniVersion": "1.1.0"}', ("GC", "", "", 7)),
    ],
)
@pytest.mark.parametrize("program", ["podwire", "host-local", "firewall"])
def test_a_call_that_is_not_understood_leaves_what_is_known(
    machine: Machine, environment: dict[str, str], stdin: bytes, known: tuple[str, str, str, int], program: str
) -> None:
    log = machine.call(served_as, program, (environment, stdin))
    assert [(event.verb, event.network, event.container, event.code) for event in log.events] == [known]
    assert [event.program for event in log.events] == [program]
    assert len(log.messages) == 1


def test_version_and_calls_that_succeed_leave_nothing(machine: Machine) -> None:
    who = attachment(machine.pod())
    calls = [(who.environment(verb), PLAIN) for verb in ("ADD", "DEL")]
    assert machine.call(served, *calls, ({"CNI_COMMAND": "VERSION"}, {})) == Log([], [])
    assert machine.run("find", "/run/podwire", "-name", "events*").stdout == ""


def test_successful_calls_are_logged_at_the_level_info_alone(machine: Machine) -> None:
    who = attachment(machine.pod(), arguments=POD)
    config = PLAIN | {"LogLevel": "info"}
    log = machine.call(served, *[(who.environment(verb), config) for verb in ("ADD", "DEL")], (STATUS, config))
    assert log.events == []  # of failures alone
    assert all(message.startswith("<30>") for message in log.messages)  # daemon.info
    lines = [json.loads(message.partition(": ")[2]) for message in log.messages]
    assert [(line["level"], line["verb"], line["pod"], line["code"]) for line in lines] == [
        ("info", "ADD", "shop/web-1", 0),
        ("info", "DEL", "shop/web-1", 0),
        ("info", "STATUS", "", 0),
    ]
    assert machine.call(served, (STATUS, PLAIN | {"logLevel": "error"})) == Log([], [])


def test_a_file_takes_the_place_of_the_systems_log(machine: Machine) -> None:
    log = machine.call(served, (ADD, PLAIN | {"logFile": "/run/mine.log"}), (ADD, PLAIN | {"logFile": "/run/mine.log"}))
    lines = machine.run("cat", "/run/mine.log").stdout.splitlines()
    assert [parse_line(line.encode()) for line in lines] == log.events
    assert (len(log.events), log.messages) == (2, [])
    assert machine.run("stat", "-c", "%a", "/run/mine.log").stdout == "600\n"


@pytest.mark.parametrize("file", ["/run/link", "/run/pipe", "/run/nowhere/x", "mine.log", "/run", 7, "/run/\0"])
def test_a_file_that_cannot_be_written_leaves_the_line_to_the_systems_log(machine: Machine, file: Any) -> None:
    machine.run("ln", "-s", "/run/target", "/run/link")
    machine.run("mkfifo", "/run/pipe")
    log = machine.call(served, (ADD, PLAIN | {"logFile": file}))
    assert (len(log.events), len(log.messages)) == (1, 1)
    assert machine.run("ls", "/run/target", "mine.log", check=False).stdout == ""


def test_names_from_pods_begin_no_line_of_their_own(machine: Machine) -> None:
    names = "IgnoreUnknown=1;K8S_POD_NAMESPACE=a\nb\x1b[31m\u2028;K8S_POD_NAME=" + "x" * 100_000
    log = machine.call(served, (ADD | {"CNI_ARGS": names, "CNI_CONTAINERID": "c\n1"}, network("a\nb")))
    (event,) = log.events
    assert event.container == "c\n1"
    assert "a\nb\x1b[31m\u2028/xxx" in event.pod
    for text in (machine.run("cat", EVENTS).stdout, *log.messages):
        assert text.rstrip("\n").isprintable()
        assert len(text) < 8192


def deny(environment: Mapping[str, str]) -> tuple[int, str, bool]:
    """Fails a call as a user without rights, of whom /run is not."""
    os.setgid(65534)
    os.setuid(65534)
    answer = serve(environment, PLAIN)
    return answer.status, answer.stderr, os.path.exists(EVENTS)


def test_a_user_who_may_not_write_there_has_his_answer(machine: Machine) -> None:
    if machine.user_namespace:
        pytest.skip("a user namespace without a second user (run the tests as root)")
    status, stderr, exists = machine.call(deny, ADD)
    assert (status, stderr, exists) == (1, "", False)


@pytest.mark.parametrize("obstacle", ["link", "folder", "pipe", "readable", "foreign folder", "no memory"])
def test_nothing_but_a_file_of_roots_alone_is_written_to(machine: Machine, obstacle: str) -> None:
    machine.run("mkdir", "-m", "700", "/run/podwire")
    prepare = {
        "link": "echo -n keep >/run/target; chmod 600 /run/target; ln -s /run/target /run/podwire/events",
        "folder": "mkdir /run/podwire/events",
        "pipe": "mkfifo /run/podwire/events",
        "readable": "touch /run/podwire/events; chmod 644 /run/podwire/events",
        "foreign folder": "chmod 777 /run/podwire",
        "no memory": "mount -t tmpfs -o size=4k,nr_inodes=2 none /run/podwire; head -c 4096 /dev/zero >/run/podwire/x",
    }[obstacle]
    machine.run("sh", "-c", prepare)
    answer = machine.call(serve, ADD, PLAIN)
    assert answer.code == 8
    assert answer.stderr == ""
    if obstacle == "link":
        assert machine.run("cat", "/run/target").stdout == "keep"
    if obstacle in ("readable", "foreign folder", "no memory"):
        assert machine.run("sh", "-c", "cat /run/podwire/events || true").stdout == ""


def fail(number: int) -> None:
    """Fails so many calls with a small file, which is renamed often."""
    eventlog.LARGEST = 4096
    for _ in range(number):
        serve(ADD, PLAIN)


def test_the_file_is_bounded_and_no_line_is_torn(machine: Machine) -> None:
    machine.call(fail, 60)
    sizes = [int(text) for text in machine.run("stat", "-c", "%s", EVENTS, OLDER).stdout.split()]
    assert all(0 < size < 4096 + 1024 for size in sizes)
    for file in (EVENTS, OLDER):
        assert all(parse_line(line.encode()) for line in machine.run("cat", file).stdout.splitlines())


def fail_at_once(processes: int, each: int) -> int:
    """Fails calls in several processes at once. Returns the number of lines in both files."""
    eventlog.LARGEST = 1 << 16
    children = []
    for _ in range(processes):
        child = os.fork()
        if not child:
            for _ in range(each):
                serve(ADD, PLAIN)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    lines = []
    for path in (OLDER, EVENTS):
        if os.path.exists(path):
            with open(path, "rb") as file:
                lines += file.read().splitlines()
    assert all(parse_line(line) for line in lines)
    return len(lines)


def test_calls_at_once_leave_a_whole_line_each(machine: Machine) -> None:
    assert machine.call(fail_at_once, 8, 40) == 8 * 40  # about 100 KiB: the file is renamed once


def test_a_status_that_goes_on_failing_is_written_once_in_ten_minutes(machine: Machine) -> None:
    log = machine.call(served, *[(STATUS, FULL)] * 5, (ADD, PLAIN), (STATUS, FULL), (STATUS, FULL | {"name": "b"}))
    assert [(event.verb, event.network) for event in log.events] == [("STATUS", "net"), ("ADD", "net"), ("STATUS", "b")]
    assert len(log.messages) == 3
    machine.run("sed", "-i", r's/"time":"\(....\)/"time":"2020/', EVENTS)
    assert len(machine.call(served, (STATUS, FULL)).messages) == 1


def test_a_delegate_in_the_same_process_adds_no_line(machine: Machine) -> None:
    env = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
    machine.run("sh", "-c", "mkdir /run/flannel; cat >/run/flannel/subnet.env", stdin=env)
    config = network(type="flannel", delegate={"bridge": "cni0"})
    log = machine.call(served_as, "flannel", (ADD, json.dumps(config).encode()))
    assert [(event.program, event.code) for event in log.events] == [("flannel", 8)]


def test_an_add_that_is_interrupted_leaves_its_line(machine: Machine, node: Node) -> None:
    who = attachment(machine.pod())
    answer = node.call("ADD", network(ipam=host_local([{"subnet": "10.1.2.0/24"}])), who, prepare=interrupt)
    assert answer.code == 11
    (event,) = Log(machine.call(recorded), []).events
    assert (event.verb, event.code) == ("ADD", 11)
    assert "interrupted" in event.message


def interrupt() -> None:
    """Sends SIGTERM when the call takes the host's lock."""
    import signal

    lock = hostlock.HostLock.lock_shared

    def interrupted(self: hostlock.HostLock) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        lock(self)

    hostlock.HostLock.lock_shared = interrupted  # type: ignore[method-assign]  # the process ends with the call
