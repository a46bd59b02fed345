"""The protocol through `run`: one result or one error object for every call."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import cni.effects.host
import cni.main
from cni import VERSION
from cni.main import Descriptor, run
from cni.protocol.versions import SUPPORTED
from tests.calls import ENVIRONMENT, NETWORK, NOWHERE
from tests.unit.calls import Sink, Source, call

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = str(Path(__file__).parents[2])
GONE = OSError(errno.EPIPE, "Broken pipe")
ALL = {"cniVersion": "1.1.0", "supportedVersions": ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]}


@pytest.mark.parametrize("document", [b"", b'{"cniVersion": "0.4.0"}', b"no JSON"])
@pytest.mark.parametrize("program", ["podwire", "bridge", "ptp", "host-local", "portmap", "loopback", "flannel"])
def test_version_answers_whatever_stdin_holds(document: bytes, program: str) -> None:
    answer = call(document, {"CNI_COMMAND": "VERSION"}, program)
    assert (answer.status, answer.json, answer.stderr.writes) == (0, ALL, [])


def test_version_needs_no_other_variable() -> None:
    out = Sink()
    assert run(["podwire"], {"CNI_COMMAND": "VERSION"}, Source(b"", GONE), out, Sink()) == 0
    assert json.loads(out.text) == ALL


DROP_INS = ["bridge", "ptp", "host-local", "portmap", "bandwidth", "firewall", "tuning", "loopback"]


def told_without_a_command(*argv: str) -> str:
    out, err = Sink(), Sink()
    assert run(argv, {}, Source(b"", GONE), out, err) == 0
    assert out.writes == []
    return err.text


SUPPORTS = f"CNI protocol versions supported: {', '.join(SUPPORTED)}\n"


@pytest.mark.parametrize("argv", [["/opt/cni/bin/podwire"], ["podwire"], []])
def test_a_person_who_calls_it_is_told_what_it_is(argv: list[str]) -> None:
    assert told_without_a_command(*argv) == f"CNI podwire plugin v{VERSION}\n{SUPPORTS}"


@pytest.mark.parametrize("name", DROP_INS)
def test_a_drop_in_has_the_version_that_it_stands_in_for(name: str) -> None:
    """Containerd's nerdctl compares it; in semantic versioning the part after the plus sign is ignored."""
    expected = f"CNI {name} plugin v1.9.1+podwire.{VERSION}\n{SUPPORTS}"
    assert told_without_a_command(f"/opt/cni/bin/{name}") == expected


def test_a_person_without_stderr_is_told_nothing() -> None:
    assert run(["podwire"], {}, Source(b""), Sink(), Sink(GONE)) == 0


@pytest.mark.parametrize("program", ["podwire", "host-local"])
@pytest.mark.parametrize(
    ("document", "environment", "code", "message"),
    [
        (NETWORK, {"CNI_COMMAND": "UPDATE"}, 4, "unknown CNI_COMMAND: UPDATE"),
        (NETWORK, {"CNI_NETNS": "", "CNI_IFNAME": ""}, 4, "required env variables [CNI_NETNS,CNI_IFNAME] missing"),
        (b"", {}, 6, "the network configuration on stdin is empty, expected a JSON object"),
        (b"{", {}, 6, "the network configuration on stdin is not JSON: "),
        (b"[]", {}, 6, "the network configuration on stdin is not a JSON object"),
        ({"cniVersion": "1.1.0"}, {}, 7, "invalid network configuration: name: missing network name"),
        (NETWORK | {"cniVersion": "9.9.9"}, {}, 1, "incompatible CNI versions"),
        (NETWORK | {"cniVersion": "0.3.1"}, {"CNI_COMMAND": "CHECK"}, 1, "config version does not allow CHECK"),
        (NETWORK | {"cniVersion": "1.0.0"}, {"CNI_COMMAND": "GC"}, 1, "config version does not allow GC"),
        (NETWORK | {"cniVersion": "1.0.0"}, {"CNI_COMMAND": "STATUS"}, 1, "config version does not allow STATUS"),
        (NETWORK | {"cniVersion": "x"}, {}, 6, "cniVersion 'x' is not a version (as in 1.1.0)"),
    ],
)
def test_a_call_at_fault_is_answered_before_anything_is_done(
    program: str, document: Any, environment: dict[str, str], code: int, message: str
) -> None:
    answer = call(document, environment, program)
    assert answer.error[0] == code
    assert answer.error[1].startswith(message)
    assert answer.stderr.writes == []


def test_details_are_reported_where_there_are_any() -> None:
    assert (
        call(NETWORK | {"cniVersion": "9.9.9"}).json["details"].startswith("config is '9.9.9', plugin supports 0.1.0,")
    )
    assert "details" not in call(b"").json


@pytest.mark.parametrize("command", ["ADD", "CHECK", "STATUS"])
def test_all_faults_of_a_configuration_are_reported_at_once(command: str) -> None:
    code, message = call(
        NETWORK | {"bridge": "a/b", "mtu": "x", "ipam": {"type": "host-local"}}, {"CNI_COMMAND": command}
    ).error
    assert code == 7
    for error in ("bridge: interface name contains", "mtu: expected an integer", "ipam: no IP ranges specified"):
        assert error in message


def test_add_into_a_namespace_that_is_not_there_is_refused() -> None:
    assert call().error == (8, f"cannot open CNI_NETNS '{NOWHERE}': No such file or directory")


def test_add_into_a_file_that_is_no_namespace_is_refused() -> None:
    code, message = call(environment={"CNI_NETNS": "/dev/null"}).error
    assert code == 8
    assert message.startswith("cannot enter '/dev/null': Invalid argument; is it a network namespace")


def test_add_into_the_plugins_own_namespace_is_refused() -> None:
    code, message = call(environment={"CNI_NETNS": "/proc/self/ns/net"}).error
    assert code == 8
    assert "is the plugin's own network namespace" in message


def test_check_needs_the_earlier_answer() -> None:
    code, message = call(environment={"CNI_COMMAND": "CHECK"}).error
    assert (code, message) == (7, "prevResult: missing, CHECK compares with what ADD answered")


def test_check_refuses_an_earlier_answer_at_fault() -> None:
    code, message = call(NETWORK | {"prevResult": {"ips": [{}]}}, {"CNI_COMMAND": "CHECK"}).error
    assert (code, message) == (7, "invalid network configuration: prevResult.ips[0].address: missing")


def test_gc_without_a_list_does_nothing() -> None:
    answer = call(environment={"CNI_COMMAND": "GC"})
    assert (answer.status, answer.stdout.writes, answer.stderr.writes) == (0, [], [])


def test_gc_with_a_list_at_fault_is_refused() -> None:
    code, _ = call(NETWORK | {"cni.dev/valid-attachments": [1]}, {"CNI_COMMAND": "GC"}).error
    assert code == 7


def test_a_notice_goes_to_stderr_alone() -> None:
    answer = call(NETWORK | {"ipMasqBackend": "iptables"})
    assert answer.error[0] == 8
    assert answer.stderr.text.startswith("ipMasqBackend iptables: ")


def test_a_notice_that_nobody_can_read_is_no_failure() -> None:
    assert call(NETWORK | {"ipMasqBackend": "iptables"}, stderr=Sink(GONE)).error[0] == 8


def test_stdin_that_cannot_be_read_is_named() -> None:
    out = Sink()
    assert run(["podwire"], ENVIRONMENT, Source(b"", OSError(errno.EBADF, "Bad file descriptor")), out, Sink()) == 1
    assert json.loads(out.text) == {
        "cniVersion": "1.1.0",
        "code": 5,
        "msg": "error reading from stdin: Bad file descriptor",
    }


@pytest.mark.parametrize("command", ["VERSION", "ADD"])
def test_an_answer_that_cannot_be_written_still_has_its_status(command: str) -> None:
    answer = call(environment={"CNI_COMMAND": command}, stdout=Sink(GONE))
    assert (answer.status, answer.stdout.writes) == (1, [])


def failing(*_: object) -> None:
    raise ZeroDivisionError("one by none") from KeyError("cause")


@pytest.mark.parametrize("stderr", [Sink(), Sink(GONE)])
def test_a_defect_is_answered_and_shown(monkeypatch: pytest.MonkeyPatch, stderr: Sink) -> None:
    monkeypatch.setattr(cni.main, "_attach", failing)
    answer = call(stderr=stderr)
    assert answer.error == (999, "internal error, please report it: one by none: 'cause'")
    assert stderr.failure or "ZeroDivisionError: one by none" in stderr.text


def test_an_answer_of_odd_characters_is_plain_ascii() -> None:
    code, message = call(environment={"CNI_NETNS": "/nowhere/\udcffé"}).error
    assert code == 8
    assert "/nowhere/" in message


def test_a_defect_with_odd_characters_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(*_: object) -> None:
        raise ValueError("\udcff \ud800")

    monkeypatch.setattr(cni.main, "_attach", odd)
    answer = call()
    assert answer.error == (999, "internal error, please report it: \ufffd \ufffd")
    assert "\\udcff \\ud800" in answer.stderr.text


def test_a_signal_ends_the_call_at_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal during the search for the namespace is answered with `try again` (code 11)."""

    def interrupted(machine: cni.effects.host.Host, *_: object) -> None:
        os.kill(os.getpid(), 15)
        machine.raise_if_interrupted()

    monkeypatch.setattr(cni.effects.host.Host, "open_container", interrupted)
    assert call().error == (11, "interrupted by a signal, everything done so far is undone")


@pytest.mark.parametrize("size", [0, 1, 1 << 16, (1 << 17) + 1])
def test_a_descriptor_is_read_to_its_end(size: int) -> None:
    data = os.urandom(size)
    reading, writing = os.pipe()
    if not os.fork():
        os.close(reading)
        Descriptor(writing).write(data)
        os._exit(0)
    os.close(writing)
    assert Descriptor(reading).read() == data
    os.close(reading)
    os.wait()


def test_a_short_write_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []

    def short(_: int, data: bytes) -> int:
        written.append(data[:3])
        return min(3, len(data))

    monkeypatch.setattr("cni.main.os.write", short)
    Descriptor(1).write(b"abcdefgh")
    monkeypatch.undo()
    assert written == [b"abc", b"def", b"gh"]


@pytest.mark.parametrize("use", [lambda stream: stream.read(), lambda stream: stream.write(b"a")])
def test_a_descriptor_that_is_closed_is_an_os_error(use: Callable[[Descriptor], object]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    os.close(writing)
    with pytest.raises(OSError, match="Bad file descriptor"):
        use(Descriptor(reading))


ENTRY = f"import sys; sys.path.insert(0, {ROOT!r}); sys.argv = ['podwire']; from cni.main import main; sys.exit(main())"


@pytest.mark.parametrize(
    ("closed", "command", "status", "code"),
    [("", "VERSION", 0, None), ("", "ADD", 1, 6), ("<&-", "ADD", 1, 5), ("2>&-", "ADD", 1, 6), ("2>&-", "", 0, None)],
)
def test_the_entry_serves_the_process_itself(closed: str, command: str, status: int, code: int | None) -> None:
    """The runtime may have closed any descriptor."""
    script = f'exec "$0" -I -S -c "$1" {closed}'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable, ENTRY],
        env=ENVIRONMENT | {"CNI_COMMAND": command},
        input=b"",
        capture_output=True,
        check=False,
    )
    assert done.returncode == status
    assert done.stderr == b""
    if command:
        assert json.loads(done.stdout).get("code") == code


def test_the_entry_without_stdout_still_has_its_status() -> None:
    """A runtime must not take silence for success, of any verb."""
    environment = ENVIRONMENT | {"CNI_COMMAND": "VERSION"}
    script = 'exec "$0" -I -S -c "$1" >&-'
    done = subprocess.run(["sh", "-c", script, sys.executable, ENTRY], env=environment, check=False)
    assert done.returncode == 1


def test_the_environment_may_hold_any_bytes() -> None:
    """A path on Linux is bytes; one that is not UTF-8 is named in the error, which is not a defect (999)."""
    environment = ENVIRONMENT | {"CNI_NETNS": "/nowhere/\udcff"}
    stdin = json.dumps(NETWORK).encode()
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ENTRY], env=environment, input=stdin, capture_output=True, check=False
    )
    answer = json.loads(done.stdout)
    assert answer["code"] == 8
    assert answer["msg"] == f"cannot open CNI_NETNS {environment['CNI_NETNS']!r}: No such file or directory"
