"""The built bundle leaves a line of a call that fails, in the system's log of the machine and for `podwire events`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.calls import ENVIRONMENT, NETWORK
from tests.machine import Machine, missing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOG = "/dev/log"
POD = {"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web"}
KEPT = ("null", "urandom")  # of /dev


@pytest.fixture
def machine() -> Iterator[Machine]:
    if reason := missing():
        pytest.skip(reason)
    with Machine() as machine:
        machine.call(own_devices)
        yield machine


def own_devices() -> None:
    """Mounts an empty /dev with the least that programs need: the real one has the real system's log."""
    script = "mkdir /run/dev && mount --rbind /dev /run/dev && mount -t tmpfs none /dev"
    for name in KEPT:
        script += f" && touch /dev/{name} && mount --bind /run/dev/{name} /dev/{name}"
    subprocess.run(["sh", "-c", script], check=True)


def call(
    program: str, executable: str, stdin: bytes, environment: dict[str, str], *, listens: bool
) -> tuple[int, bytes, str]:
    """Makes one call. Returns its status, its stdout, and the message that the system's log has got."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.setblocking(False)
    if listens:
        listener.bind(LOG)
    done = subprocess.run(
        [program], executable=executable, input=stdin, env=environment, stdout=subprocess.PIPE, check=False
    )
    try:
        message = listener.recv(1 << 16).decode() if listens else ""
    except BlockingIOError:
        message = ""
    listener.close()
    if listens:
        os.unlink(LOG)
    return done.returncode, done.stdout, message


def test_a_failed_call_is_in_the_log_and_among_the_events(machine: Machine, bundle: Path) -> None:
    executable, stdin = str(bundle / "podwire"), json.dumps(NETWORK).encode()
    assert machine.run(executable, "events", check=False).returncode == 0
    environment = ENVIRONMENT | POD | {"TZ": "XYZ-5"}  # five hours east of UTC
    status, stdout, message = machine.call(lambda: call("podwire", executable, stdin, environment, listens=True))
    assert status == 1
    head, _, line = message.partition(" podwire[")
    event = json.loads(line.partition(": ")[2])
    moment = time.strptime(event["time"], "%Y-%m-%dT%H:%M:%S.%fZ")
    local = time.strftime("%b %e %H:%M:%S", time.gmtime(calendar(moment) + 5 * 3600))
    assert head == f"<27>{local}"
    answer = json.loads(stdout)
    assert (event["pod"], event["verb"], event["code"], event["message"]) == ("shop/web", "ADD", 8, answer["msg"])
    shown = machine.run(executable, "events", check=False)
    assert shown.returncode == 1
    assert shown.stdout.splitlines()[-1].split()[2:5] == ["shop/web", "ADD", "8"]
    assert json.loads(machine.run(executable, "events", "--json", check=False).stdout)["events"] == [event]


def calendar(moment: time.struct_time) -> float:
    """Returns the seconds since 1970 of a time in UTC."""
    from calendar import timegm

    return timegm(moment)


@pytest.mark.parametrize("program", ["bridge", "host-local", "tuning", "flannel"])
def test_a_node_without_a_log_has_events(machine: Machine, bundle: Path, program: str) -> None:
    executable = str(bundle / "podwire")
    status, _, _ = machine.call(lambda: call(program, executable, b"{", dict(ENVIRONMENT), listens=False))
    assert status == 1
    (event,) = json.loads(machine.run(executable, "events", "--json", check=False).stdout)["events"]
    assert (event["program"], event["code"]) == (program, 6)


def test_the_examples_have_no_findings_and_a_misspelling_has_one(bundle: Path, tmp_path: Path) -> None:
    network = NETWORK | {"ipmask": True}
    (tmp_path / "10-net.conf").write_text(json.dumps(network))
    done = subprocess.run(
        [bundle / "podwire", "lint", "--offline", tmp_path], env={}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == f"{tmp_path}/10-net.conf: ipmask: unknown key, ignored (did you mean ipMasq?)\n"
    (tmp_path / "10-net.conf").write_text(json.dumps(NETWORK))
    done = subprocess.run([bundle / "podwire", "lint", tmp_path], env={}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
