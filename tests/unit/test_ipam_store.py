from __future__ import annotations

import errno
import fcntl
import os
import posix
import stat
import time
from typing import TYPE_CHECKING, Any

import pytest

from cni.protocol.address import parse_ip
from cni.protocol.errors import CniError
from ipam.store import Store
from tests.unit.ipam_pool import CHANGES, Calls, Pool, alive, ended, error_of, in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ADDRESS = parse_ip("10.1.2.3")


@pytest.fixture(autouse=True)
def _run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipam.index.RUN", str(tmp_path / "run"))


@pytest.fixture
def folder(tmp_path: Path) -> str:
    os.makedirs(tmp_path / "net")
    return str(tmp_path / "net")


@pytest.fixture
def store(folder: str) -> Iterator[Store]:
    opened = Store(folder)
    yield opened
    opened.close()


def without_tmpfile(monkeypatch: pytest.MonkeyPatch, number: int = errno.EOPNOTSUPP) -> None:
    original = os.open

    def refuse(path: str, flags: int, *rest: Any, **named: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(number, os.strerror(number))
        return original(path, flags, *rest, **named)

    monkeypatch.setattr(posix, "open", refuse)


@pytest.fixture(params=["O_TMPFILE", "O_EXCL"])
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "O_EXCL":
        without_tmpfile(monkeypatch)


@pytest.mark.usefixtures("_both_ways")
def test_a_lease_is_a_private_file_that_only_the_first_creates(store: Store) -> None:
    assert store.create(ADDRESS, b"pod\r\neth0")
    assert not store.create(ADDRESS, b"other\r\neth0")
    assert store.read(ADDRESS) == b"pod\r\neth0"
    assert stat.S_IMODE(os.stat(f"{store.folder}/10.1.2.3").st_mode) == 0o600


@pytest.mark.usefixtures("_both_ways")
def test_a_lease_that_cannot_be_written_leaves_no_file(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix, "write", lambda *_: 3)  # as on a disk that fills up
    with pytest.raises(OSError, match="No space left"):
        store.create(ADDRESS, b"pod\r\neth0")
    assert os.listdir(store.folder) == ["lock"]


def test_any_other_refusal_is_no_reason_to_write_differently(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    without_tmpfile(monkeypatch, errno.EACCES)
    with pytest.raises(PermissionError):
        store.create(ADDRESS, b"pod\r\neth0")


def test_removing_what_is_gone_is_no_error(store: Store) -> None:
    store.remove(ADDRESS)
    assert store.read(ADDRESS) is None


@pytest.mark.parametrize("content", [b"", b"10.1.2", b"10.1.2.3\n", b"\xff"])
def test_a_torn_last_address_only_restarts_the_round(store: Store, content: bytes) -> None:
    with open(f"{store.folder}/last_reserved_ip.0", "wb") as file:
        file.write(content)
    assert store.last(0) is None


def test_the_last_address_is_the_file_s_whole_content(store: Store) -> None:
    assert store.last(1) is None
    for text in ("10.1.2.200", "10.1.2.3"):
        store.set_last(1, parse_ip(text))
        with open(f"{store.folder}/last_reserved_ip.1") as file:
            assert file.read() == text
        assert store.last(1) == parse_ip(text)


def test_a_scan_sees_addresses_in_their_one_spelling_only(store: Store) -> None:
    for name in ("10.1.2.3", "fd00::2", "FD00::3", "::ffff:10.1.2.4", "last_reserved_ip.0", "10.1.2.5.bak"):
        with open(f"{store.folder}/{name}", "w") as file:
            file.write("pod")
    os.mkdir(f"{store.folder}/10.1.2.6")
    assert {ip.text: content for ip, content, _ in store.scan()} == {
        "10.1.2.3": b"pod",
        "fd00::2": b"pod",
        "10.1.2.6": None,
    }


def test_a_scan_passes_over_what_vanishes_meanwhile(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix, "listdir", lambda _: ["10.1.2.3"])
    assert list(store.scan()) == []


def test_the_lock_is_the_reference_s_and_ends_with_the_process(folder: str) -> None:
    held = Store(folder)
    assert stat.S_IMODE(os.stat(f"{folder}/lock").st_mode) & 0o7 == 0
    with open(f"{folder}/lock") as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held.close()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert ended(in_child(lambda: (Store(folder), os._exit(0)))) == [0]
    Store(folder).close()


def test_a_folder_that_cannot_hold_the_lock_stays_closed(folder: str) -> None:
    os.mkdir(f"{folder}/lock")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(IsADirectoryError):
        Store(folder)
    assert len(os.listdir("/proc/self/fd")) == before


TICK = 4_000_000  # ns between the times that a kernel without multigrain timestamps (before 6.13) gives to files


def test_every_change_of_the_folder_changes_a_signed_stamp(store: Store) -> None:
    """The stamp changes within the kernel's tick, too, in which modification times stay the same."""
    for number in range(200):
        signed = store.sign()
        assert signed == store.stamp()
        store.create(ADDRESS, b"pod") if number % 2 == 0 else store.remove(ADDRESS)
        assert store.stamp() != signed
        coarse = time.time_ns() // TICK * TICK
        os.utime(store.folder, ns=(coarse, coarse))
        assert store.stamp() != signed


def test_a_file_system_with_coarse_times_has_no_signature(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    set_time = os.utime
    monkeypatch.setattr(posix, "utime", lambda file, ns: set_time(file, ns=(ns[0] // 10**9 * 10**9,) * 2))
    monkeypatch.setattr("ipam.store.time_ns", lambda: 1_700_000_000_123_456_789)
    assert store.sign() == ""


def die() -> None:
    os._exit(9)


def fill_up() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def sweep(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    work: Callable[[Pool], object],
    act: Callable[[], object],
    after: Callable[[Pool, CniError | None], object] = lambda _pool, _error: None,
) -> int:
    """Runs `act` before each change that `work` makes, one in each run; returns the number of changes."""
    number = 0
    while True:
        number += 1
        pool = Pool(tmp_path / str(number), ranges=[[{"subnet": "10.1.2.0/29"}], [{"subnet": "fd00::/125"}]])
        pool.add("earlier")
        pool.add("going")

        def scene(pool: Pool = pool, number: int = number) -> None:
            calls = Calls(monkeypatch, CHANGES)
            calls.act[number] = act
            refused = None
            try:
                work(pool)
            except CniError as error:
                refused = error
            if len(calls.names) < number:
                os._exit(3)
            calls.act.clear()
            after(pool, refused)

        (code,) = ended(in_child(scene))
        healed(pool)
        assert code in (0, 3, 9)
        if code == 3:
            return number - 1


def healed(pool: Pool) -> None:
    """Checks that other leases are unchanged, none is torn, and all can be released and used again."""
    assert pool.leased("earlier") == {"10.1.2.2", "fd00::2"}
    for container in ("going", "coming"):
        pool.delete(container)
    assert set(pool.leases()) == {"10.1.2.2", "fd00::2"}
    assert len({pool.add(f"new{number}")[0] for number in range(4)}) == 4
    assert error_of(lambda: pool.add("one-too-many")).code == 11


@pytest.mark.usefixtures("_both_ways")
def test_a_process_killed_before_any_step_of_add_leaves_nothing_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sweep(tmp_path, monkeypatch, lambda pool: pool.add("coming"), die) > 10


def test_a_process_killed_before_any_step_of_delete_leaves_nothing_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sweep(tmp_path, monkeypatch, lambda pool: pool.delete("going"), die) > 5


@pytest.mark.usefixtures("_both_ways")
def test_an_add_that_fails_at_any_step_leases_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def after(pool: Pool, refused: CniError | None) -> None:
        if refused is None:  # a step of the index, which is a cache
            assert pool.leased("coming") == {"10.1.2.4", "fd00::4"}
        else:
            assert refused.code == 5
            assert set(pool.leases()) == {"10.1.2.2", "fd00::2", "10.1.2.3", "fd00::3"}

    assert sweep(tmp_path, monkeypatch, lambda pool: pool.add("coming"), fill_up, after) > 10


def test_a_delete_that_fails_at_any_step_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def after(pool: Pool, refused: CniError | None) -> None:
        if refused:
            assert refused.code == 5
            pool.delete("going")
        assert pool.leased("going") == set()

    assert sweep(tmp_path, monkeypatch, lambda pool: pool.delete("going"), fill_up, after) > 5


def test_an_unwritable_data_dir_is_named_with_its_remedy(tmp_path: Path) -> None:
    pool = Pool(tmp_path)
    (tmp_path / "leases").write_text("not a folder")
    for call in (lambda: pool.add("pod"), lambda: pool.delete("pod"), lambda: pool.leased("pod")):
        error = error_of(call)
        assert error.code == 5
        assert error.message == f"leases in {pool.folder}: Not a directory"
        assert "ipam.dataDir" in error.details


def test_without_run_everything_works_from_the_lease_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("ipam.index.RUN", str(tmp_path / "file"))
    pool = Pool(tmp_path)
    assert [pool.add(f"pod{number}") for number in range(3)] == [["10.1.2.2"], ["10.1.2.3"], ["10.1.2.4"]]
    assert error_of(lambda: pool.add("pod1")).code == 100
    assert pool.leased("pod1") == {"10.1.2.3"}
    pool.delete("pod1")
    assert set(pool.leases()) == {"10.1.2.2", "10.1.2.4"}


@pytest.mark.parametrize("content", [b"", bytes(70), b"po\0", b"two words"])
def test_a_torn_lease_is_reclaimed_and_reused(tmp_path: Path, content: bytes) -> None:
    pool = Pool(tmp_path)
    pool.write("10.1.2.2", content)
    assert pool.leased("pod") == set()
    assert pool.leases() == {"10.1.2.2": content}  # who only reads does not heal
    assert pool.add("pod") == ["10.1.2.2"]
    assert pool.leases() == {"10.1.2.2": b"pod\r\neth0"}


def test_a_lease_that_cannot_be_read_keeps_its_address(tmp_path: Path) -> None:
    pool = Pool(tmp_path)
    os.makedirs(f"{pool.folder}/10.1.2.2")
    assert pool.add("pod", ask=alive) == ["10.1.2.3"]
    assert error_of(lambda: pool.add("other", args="IP=10.1.2.2")).code == 11
