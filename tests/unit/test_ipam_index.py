"""The index is a cache: it always agrees with the lease folder, however many leases there are."""

from __future__ import annotations

import os
import pathlib
import random
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.protocol.address import IP, parse_ip
from ipam.index import BITMAP, FORMAT, Index
from ipam.store import Store
from tests.unit.ipam_pool import Calls, Pool, error_of, names_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def _run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipam.index.RUN", str(tmp_path / "run"))


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """A pool with three leases, and an index of them."""
    result = Pool(tmp_path)
    for number in range(3):
        result.add(f"pod{number}")
    return result


def index_by_hand(folder: Path, leased: set[int], family: int = 4) -> Index:
    index = Index(str(folder))
    index.fill([])
    for value in leased:
        index.mark(IP(family, value), leased=True)
    return index


@pytest.mark.parametrize("seed", range(10))
def test_the_first_free_address_is_that_of_a_naive_search(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    edge = BITMAP * dice.randint(1, 3)
    leased = {edge + dice.randint(-40, 40) for _ in range(dice.choice([0, 20, 500]))}
    index = index_by_hand(tmp_path, leased)
    for _ in range(300):
        low = edge + dice.randint(-50, 50)
        high = low + dice.randint(-1, 90)
        expected = next((value for value in range(low, high + 1) if value not in leased), None)
        assert index.first_free(4, low, high) == expected


def test_the_search_crosses_full_bitmaps_and_is_at_home_in_any_address_space(tmp_path: Path) -> None:
    full = set(range(BITMAP, 3 * BITMAP))
    assert index_by_hand(tmp_path, full).first_free(4, BITMAP, 4 * BITMAP) == 3 * BITMAP
    assert index_by_hand(tmp_path, full).first_free(4, BITMAP, 3 * BITMAP - 1) is None
    assert index_by_hand(tmp_path, full, family=6).first_free(4, BITMAP, BITMAP) == BITMAP
    end = (1 << 128) - 1
    assert index_by_hand(tmp_path, {end - 1}, family=6).first_free(6, end - 1, end) == end
    assert index_by_hand(tmp_path, {end}, family=6).first_free(6, end, end) is None


def test_a_saved_index_answers_as_before(tmp_path: Path) -> None:
    os.makedirs(tmp_path / "net")
    store = Store(str(tmp_path / "net"))
    index = Index(str(tmp_path / "index"))
    index.fill([])
    for number in range(40):
        index.add(f"{number % 16:x}{number:015x}", IP(4, 1000 + number))
    index.add(f"{0:016x}", parse_ip("fd00::5"))
    index.save(store)
    read = Index(str(tmp_path / "index"))
    assert read.matches(store)
    assert read.find(f"{0:016x}") == ["0.0.3.232", "fd00::5"]
    assert read.find(f"{15:x}{31:015x}") == ["0.0.4.7"]
    assert read.find("f" * 16) == []
    assert read.first_free(4, 1000, 2000) == 1040
    read.discard(f"{0:016x}", parse_ip("0.0.3.232"))
    read.save(store)
    again = Index(str(tmp_path / "index"))
    assert again.find(f"{0:016x}") == ["fd00::5"]
    assert again.first_free(4, 1000, 2000) == 1000
    store.close()


def test_a_warm_index_reads_neither_the_folder_nor_others_leases(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch)
    for call in (lambda: pool.add("new"), lambda: pool.leased("new"), lambda: pool.delete("new")):
        assert "listdir" not in calls.during(call)


@pytest.mark.parametrize("repeat", range(5))  # foreign changes fall into one tick with ours most of the time
def test_leases_made_and_given_back_by_another_program_are_seen(pool: Pool, repeat: int) -> None:
    pool.foreign_add("10.1.2.5", "foreign")
    assert pool.leased("foreign") == {"10.1.2.5"}
    assert error_of(lambda: pool.add("foreign")).code == 100
    pool.foreign_delete("10.1.2.3")
    assert pool.add(f"new{repeat}") == ["10.1.2.6"]
    assert pool.add("next") == ["10.1.2.3"]
    pool.foreign_delete("10.1.2.5")
    assert pool.leased("foreign") == set()
    assert pool.add("last") == ["10.1.2.5"]


def test_an_address_given_to_another_owner_behind_our_back_stays_that_owner_s(pool: Pool) -> None:
    pool.foreign_delete("10.1.2.3")
    pool.foreign_add("10.1.2.3", "foreign")
    pool.delete("pod1")
    assert pool.leases()["10.1.2.3"] == b"foreign\r\neth0"


def test_what_the_index_names_is_read_before_it_counts(pool: Pool) -> None:
    """A lease that is rewritten in place does not change the folder's stamp."""
    pool.write("10.1.2.3", b"foreign\r\neth0")
    assert pool.leased("pod1") == set()
    pool.delete("pod1")
    assert pool.leases()["10.1.2.3"] == b"foreign\r\neth0"
    assert pool.leased("foreign") == {"10.1.2.3"}


def test_an_address_wrongly_free_in_the_index_is_passed_over(pool: Pool) -> None:
    with open(f"{pool.folder}/10.1.2.5", "w") as file:  # by a program that ignores the lock, while we hold it
        file.write("unlocked")
    with open(f"{pool.index}/stamp", "w") as stamp:
        status = os.stat(pool.folder)
        stamp.write(f"{FORMAT} {status.st_mtime_ns} {status.st_ino}")
    assert pool.add("new") == ["10.1.2.6"]


@pytest.mark.parametrize("damage", ["folder", "run", "stamp", "owners", "taken", "garbage", "file", "below"])
def test_the_index_may_be_deleted_or_damaged_at_any_time(pool: Pool, tmp_path: Path, damage: str) -> None:
    def pages(name: str) -> list[str]:
        return [f"{pool.index}/{page}" for page in os.listdir(pool.index) if page.startswith(name)]

    if damage in ("folder", "run"):
        shutil.rmtree(pool.index if damage == "folder" else tmp_path / "run")
    elif damage == "garbage":
        Path(pool.index, "stamp").write_bytes(b"\xff\0 garbage")
    elif damage == "file":
        shutil.rmtree(pool.index)
        Path(pool.index).write_text("")
    elif damage == "below":
        os.unlink(f"{pool.index}/stamp")
        os.mkdir(f"{pool.index}/folder")
    else:
        assert pages(damage)
        for page in pages(damage):
            os.unlink(page)
    assert pool.leased("pod1") == {"10.1.2.3"}
    assert error_of(lambda: pool.add("pod1")).code == 100
    assert pool.add("new", args="IP=10.1.2.6") == ["10.1.2.6"]
    assert pool.leased("new") == {"10.1.2.6"}
    pool.delete("pod1")
    assert set(pool.leases()) == {"10.1.2.2", "10.1.2.4", "10.1.2.6"}


def flip(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1]) if content else b"x"


def replace(page: Path, put: Callable[[Path], object]) -> None:
    moved = page.rename(page.parent.parent / f"moved-{page.name}")
    put(page)
    if not page.exists():
        page.symlink_to(moved)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "emptied": lambda page: page.write_bytes(b""),
    "cut": lambda page: page.write_bytes(page.read_bytes()[:-2]),
    "its end flipped": lambda page: page.write_bytes(flip(page.read_bytes())),
    "its beginning flipped": lambda page: page.write_bytes(flip(page.read_bytes()[::-1])[::-1]),
    "longer": lambda page: page.write_bytes(page.read_bytes() + b"0123456789"),
    "not text": lambda page: page.write_bytes(b"\xff\xfe" * 9),
    "ones": lambda page: page.write_bytes(b"\xff" * 4104),
    "huge": lambda page: os.truncate(page, 1 << 40),
    "a folder": lambda page: replace(page, os.mkdir),
    "a link": lambda page: replace(page, str),
    "a pipe": lambda page: replace(page, os.mkfifo),
}


@pytest.mark.parametrize("name", ["owners", "taken", "stamp"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_read_anew_from_the_folder(pool: Pool, name: str, damage: str) -> None:
    pages = [page for page in Path(pool.index).iterdir() if page.name.startswith(name)]
    verbs: list[Callable[[], object]] = [
        lambda: pool.leased("pod1"),
        lambda: error_of(lambda: pool.add("pod1")).code,
        lambda: pool.add("new"),
        lambda: pool.delete("new"),
        lambda: pool.add("new", args="IP=10.1.2.6"),
        lambda: pool.delete("new"),
        lambda: pool.delete("pod2"),
        lambda: pool.leased("pod2"),
        lambda: pool.delete("pod2"),
        lambda: set(pool.leases()),
    ]
    expected = [{"10.1.2.3"}, 100, ["10.1.2.5"], None, ["10.1.2.6"], None, None, set(), None, {"10.1.2.2", "10.1.2.3"}]
    for verb, wanted in zip(verbs, expected, strict=True):
        for page in pages:
            if page.is_file() and not page.is_symlink():
                DAMAGES[damage](page)
        assert verb() == wanted
    pool.add("last")
    assert all(page.is_file() and not page.is_symlink() for page in pages)


def test_the_page_of_another_network_is_no_page(pool: Pool, tmp_path: Path) -> None:
    other = Pool(tmp_path / "more", subnet="10.1.2.0/24")
    for number in range(30):
        other.add(f"other{number}")
    for page in Path(other.index).iterdir():
        if page.name != "stamp":
            shutil.copy(page, pool.index)
    assert pool.leased("pod1") == {"10.1.2.3"}
    assert pool.add("new") == ["10.1.2.5"]


def test_an_index_of_another_format_is_not_believed(pool: Pool) -> None:
    stamp = Path(pool.index, "stamp")
    stamp.write_bytes(stamp.read_bytes().removeprefix(f"{FORMAT} ".encode()))
    index = Index(pool.index)
    store = Store(pool.folder)
    assert not index.matches(store)
    store.close()


def test_a_folder_that_others_write_to_is_not_believed_and_taken_from_them(pool: Pool, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    os.chmod(pool.index, 0o777)
    for page in Path(pool.index).iterdir():
        page.unlink()
        page.symlink_to(victim)
    assert pool.add("new") == ["10.1.2.5"]
    assert pool.leased("pod1") == {"10.1.2.3"}
    assert victim.read_text() == "untouched"
    assert os.stat(pool.index).st_mode & 0o777 == 0o700
    assert not any(page.is_symlink() for page in Path(pool.index).iterdir())


@pytest.mark.parametrize("umask", [0, 0o077])
def test_the_modes_are_the_indexs_own(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        result = Pool(tmp_path / "a" / "b")
        result.add("pod")
        for top in (Path(result.index), tmp_path / "run", tmp_path / "a"):
            for entry in (top, *top.rglob("*")):
                assert not entry.stat().st_mode & 0o022, entry
        for page in Path(result.index).iterdir():
            assert page.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


def test_an_add_undone_on_a_damaged_index_leaves_no_false_memory(tmp_path: Path) -> None:
    dual = Pool(tmp_path, ranges=[[{"subnet": "10.1.2.0/29"}], [{"subnet": "fd00::/125"}]])
    dual.add("pod")
    for page in os.listdir(dual.index):
        if page.startswith("owners"):
            os.unlink(f"{dual.index}/{page}")
    wanted = {"ips": ["10.1.2.5", "fd00::2"]}
    assert error_of(lambda: dual.add("new", runtimeConfig=wanted)).code == 11
    assert dual.leased("new") == set()
    assert dual.leased("pod") == {"10.1.2.2", "fd00::2"}


def test_a_folder_recreated_with_the_same_name_is_another_one(pool: Pool) -> None:
    shutil.rmtree(pool.folder)
    assert pool.leased("pod1") == set()
    assert pool.add("pod9") == ["10.1.2.2"]


def test_reading_alone_writes_nothing(pool: Pool, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "run")
    assert pool.leased("pod1") == {"10.1.2.3"}
    assert not os.path.exists(tmp_path / "run")


MANY = 40_000  # one bitmap is full, and the next one begun
LOW, HIGH = "10.1.0.2", "10.1.255.254"


def fill(pool: Pool, addresses: list[str]) -> None:
    """Leases addresses to one container; all but the first are links, which cost a third of a file."""
    os.makedirs(pool.folder)
    pool.write(addresses[0], b"other\r\neth0")
    for address in addresses[1:]:
        os.link(f"{pool.folder}/{addresses[0]}", f"{pool.folder}/{address}")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, if this machine has one."""
    shared = "/dev/shm"
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as folder:
        yield pathlib.Path(folder)


def crowd(folder: Path, kind: str) -> Pool:
    """Returns a /16 with 40,000 leases, the last of them at its end, so that round robin starts again."""
    pool = Pool(folder, subnet="10.1.0.0/16")
    everything = list(names_in(LOW, 65_533))
    fill(pool, everything[:MANY] if kind == "contiguous" else random.Random(1).sample(everything, MANY))
    pool.write("last_reserved_ip.0", HIGH.encode())
    pool.delete("nobody")  # warms the index
    return pool


@pytest.mark.no_cover
@pytest.mark.parametrize("kind", ["contiguous", "random"])
def test_forty_thousand_leases_cost_what_two_cost(
    kind: str, memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = crowd(memory, kind)
    few = Pool(tmp_path, subnet="10.1.0.0/16")
    fill(few, ["10.1.0.2", "10.1.255.250"])
    few.write("last_reserved_ip.0", HIGH.encode())
    few.delete("nobody")
    calls = Calls(monkeypatch)

    def costs(pool: Pool) -> list[list[str]]:
        verbs: list[Callable[[], object]] = [
            lambda: pool.add("first"),
            lambda: pool.add("second"),
            lambda: error_of(lambda: pool.add("first")),
            lambda: pool.leased("first"),
            lambda: pool.delete("first"),
            lambda: pool.delete("nobody"),
        ]
        return [calls.during(verb) for verb in verbs]

    cheap, dear = costs(few), costs(many)
    for low, high in zip(cheap, dear, strict=True):
        assert "listdir" not in high
        assert len(high) <= len(low) + 2 * 2  # the search may read both bitmaps of the /16: open, fstat, read
