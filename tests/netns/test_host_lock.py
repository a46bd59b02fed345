"""The host's lock: none but root can hold it, nobody waits for it without end, and it leaves but a few files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from typing import TYPE_CHECKING, Any, cast

import pytest

from cni import locks
from cni.effects.journal import Journal
from cni.kernel.hostlock import FILES, RUN, SETTING, HostLock, file_of
from cni.kernel.netns import OWN, Netns
from cni.protocol.errors import TryAgain
from tests.machine import Machine, missing, until
from tests.netns.runtime import PLAIN, Node, attachment
from tests.netns.state import difference, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--")
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")
HOLD = """
import fcntl, os, sys
held = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(held, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def lock_files(machine: Machine) -> list[str]:
    listed = machine.run("sh", "-c", f"cd {RUN} && stat -c '%n %a %u' lock-*", check=False).stdout
    return [line.partition(" ")[2] for line in listed.splitlines()]


@contextmanager
def held(machine: Machine, path: str, *as_whom: str) -> Iterator[str]:
    """Another process has the lock on a file; says what it said."""
    command = machine.command(*as_whom, sys.executable, "-I", "-S", "-c", HOLD, path)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as other:
        assert other.stdout
        yield other.stdout.readline().decode().strip()
        other.communicate()


def lock_path(machine: Machine) -> str:
    """Returns the path of the machine's lock, once it was used."""
    paths = machine.run("sh", "-c", f"ls {RUN}/lock-*").stdout.split()
    assert len(paths) == 1
    return paths[0]


def name_of_lock() -> str:
    lock = HostLock(Netns(OWN))
    assert lock.try_lock_exclusive()
    return lock._name


def impatient() -> None:
    locks.WAIT_SECONDS = 0.3


# --- Who may hold it


def test_it_is_roots_alone(machine: Machine, node: Node) -> None:
    node.add(PLAIN, attachment(machine.pod()))
    assert lock_files(machine) == ["600 0"]
    assert machine.run("stat", "-c", "%a %u", RUN).stdout.split()[1] == "0"


@pytest.mark.parametrize("umask", [0, 0o777])
def test_its_mode_is_its_own_whatever_the_umask(machine: Machine, umask: int) -> None:
    def named() -> str:
        os.umask(umask)
        return name_of_lock()

    assert machine.call(named).startswith(RUN)
    assert not int(lock_files(machine)[0].split()[0], 8) & 0o077
    assert not int(machine.run("stat", "-c", "%a", RUN).stdout, 8) & 0o077


@NEEDS_ROOT
def test_others_cannot_open_it(machine: Machine, node: Node) -> None:
    node.add(PLAIN, attachment(machine.pod()))
    for path in (lock_path(machine), SETTING):
        refused = machine.run(*NOBODY, "cat", path, check=False)
        assert "Permission denied" in refused.stderr


@NEEDS_ROOT
def test_what_others_lock_holds_nobody_up(machine: Machine, node: Node) -> None:
    """The namespace itself can be opened by everybody."""
    who = attachment(machine.pod())
    with held(machine, "/proc/self/ns/net", *NOBODY) as holder:
        assert holder == "held"
        node.add(PLAIN, who, prepare=impatient)
        node.call("DEL", PLAIN, who, prepare=impatient).succeeded()


# --- Where the file cannot be had


SPOILED = {
    "a read-only /run": "mount -o remount,bind,ro /run",
    "another's folder": f"mkdir -m 755 {RUN}; chown 65534 {RUN}",
    "a folder that others write to": f"mkdir -m 777 {RUN}; chmod 777 {RUN}",
    "a link in the folder's place": f"mkdir /tmp/elsewhere; ln -s /tmp/elsewhere {RUN}",
    "a file in the folder's place": f": > {RUN}",
}


@pytest.mark.parametrize("spoiled", SPOILED)
def test_a_setting_of_the_namespace_stands_in_for_it(machine: Machine, node: Node, spoiled: str) -> None:
    if "chown" in SPOILED[spoiled] and machine.user_namespace:
        pytest.skip("needs root")
    pod = machine.pod()
    machine.run("mount", "-t", "tmpfs", "tmpfs", "/tmp")
    machine.run("sh", "-c", SPOILED[spoiled])
    assert machine.call(name_of_lock) == SETTING
    node.add(PLAIN, attachment(pod))
    node.check(PLAIN, attachment(pod)).succeeded()
    node.delete(PLAIN, attachment(pod)).succeeded()


@pytest.mark.parametrize("how", ["ln -sf /etc/passwd", "mkfifo -m 600", "mkdir -m 700", "install -m 644 /dev/null"])
def test_what_is_no_private_file_is_no_lock(machine: Machine, how: str) -> None:
    path = machine.call(name_of_lock)
    machine.run("sh", "-c", f"rm {path}; {how} {path}")
    assert machine.call(name_of_lock) == SETTING


@pytest.mark.skipif(bool(missing(user_namespace=True)), reason="no user namespaces")
def test_a_user_namespace_has_a_lock_of_its_own() -> None:
    with Machine(user_namespace=True) as machine:
        machine.run("mount", "-o", "remount,bind,ro", "/run")
        assert machine.call(name_of_lock) == SETTING
        with held(machine, SETTING):
            assert not machine.call(_free)


def _free() -> bool:
    return HostLock(Netns(OWN)).try_lock_exclusive()


def test_namespaces_that_come_and_go_leave_few_files() -> None:
    names = [file_of(4, inode) for inode in range(4026531840, 4026531840 + 10 * FILES)]
    assert len(set(names)) == FILES
    assert len(set(names[:FILES])) == FILES


# --- Waiting


@pytest.fixture
def file(tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A file that somebody else has locked."""
    path = os.path.join(tmp_path, "lock")
    other = os.open(path, os.O_RDWR | os.O_CREAT)
    flock(other, LOCK_EX)
    mine = os.open(path, os.O_RDONLY)
    monkeypatch.setattr(locks, "WAIT_SECONDS", 30.0)
    before = signal.getsignal(signal.SIGALRM)
    yield mine
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    locks.set_interrupts()
    os.close(mine)
    os.close(other)


def test_a_wait_has_a_bound_and_its_end_names_lock_and_holder(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "WAIT_SECONDS", 0.1)
    with pytest.raises(TryAgain) as caught:
        locks.acquire(file, LOCK_EX, "/leases/lock")
    assert caught.value.code == 11
    assert "/leases/lock: not free within" in caught.value.message
    assert f"held by process {os.getpid()} (" in caught.value.message


def test_a_wait_ends_at_a_signal_that_came_before_it_or_during_it(file: int) -> None:
    stopped: list[bool] = []
    locks.set_interrupts(lambda: bool(stopped))
    thread = threading.Timer(0.2, lambda: stopped.append(True))
    thread.start()
    for _ in range(2):
        with pytest.raises(TryAgain, match="interrupted by a signal while waiting for it"):
            locks.acquire(file, LOCK_EX, "/leases/lock")
    thread.join()


def test_a_lock_that_becomes_free_is_had(file: int) -> None:
    other = os.open(f"/proc/self/fd/{file}", os.O_RDONLY)
    holder = next(int(number) for number in os.listdir("/proc/self/fd") if _same(int(number), file))
    threading.Timer(0.2, lambda: flock(holder, LOCK_UN)).start()
    locks.acquire(file, LOCK_EX, "/leases/lock")
    with pytest.raises(BlockingIOError):
        flock(other, LOCK_EX | LOCK_NB)
    os.close(other)


def _same(number: int, file: int) -> bool:
    try:
        return number != file and os.path.samestat(os.fstat(number), os.fstat(file))
    except OSError:
        return False


def test_an_add_that_waits_in_vain_is_told_to_try_again(machine: Machine, node: Node) -> None:
    who, other = attachment(machine.pod()), attachment(machine.pod())
    node.add(PLAIN, other)
    before = whole(machine)
    with held(machine, lock_path(machine)):
        for verb in ("ADD", "DEL"):
            answer = node.call(verb, PLAIN, who, prepare=impatient)
            assert answer.code == 11
            assert lock_path(machine) in answer.message
    assert difference(before, whole(machine)) == []


LOCKS: dict[str, Callable[[Machine], str]] = {
    "the host's": lock_path,
    "the leases'": lambda _: "/var/lib/cni/networks/net/lock",
}


@pytest.mark.parametrize("which", LOCKS)
def test_a_program_that_waits_hears_sigterm(machine: Machine, node: Node, which: str) -> None:
    node.add(PLAIN, attachment(machine.pod()))
    who, before = attachment(machine.pod()), whole(machine)
    path = LOCKS[which](machine)
    with held(machine, path):
        running = node.start("ADD", PLAIN, who)
        (number,) = until(lambda: _waiting(machine), "the ADD waits")
        machine.run("sh", "-c", f"kill -TERM {number}")
        output, _ = running.communicate(timeout=20)
    assert b'"code":11' in output
    assert path.encode() in output
    assert difference(before, whole(machine)) == []


def _waiting(machine: Machine) -> list[str]:
    """The processes that wait for a lock, as their machine numbers them."""
    lines = machine.run("cat", "/proc/locks").stdout.splitlines()
    return [line.split()[5] for line in lines if "->" in line]


def test_going_back_is_not_interrupted(file: int) -> None:
    locks.set_interrupts(lambda: True)
    journal = Journal(cast("Any", None))
    holder = next(int(number) for number in os.listdir("/proc/self/fd") if _same(int(number), file))
    journal.add(lambda: locks.acquire(file, LOCK_EX, "/leases/lock"))
    threading.Timer(0.2, lambda: flock(holder, LOCK_UN)).start()
    assert journal.roll_back() == []
