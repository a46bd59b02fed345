"""A reboot leaves leases without containers. They are released only if both their age and the host show it."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING

import pytest

from ipam import boot, main
from tests.unit.ipam_pool import Pool, alive, dead, ended, in_child

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ipam.lease import Lease

HOUR = 3600


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("ipam.index.RUN", str(tmp_path / "run"))
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Fakes a host that started an hour ago, and whose PID 1 started 100 s later."""
    folder = tmp_path / "proc"
    os.makedirs(folder / "1")
    ticks = 100 * os.sysconf("SC_CLK_TCK")
    fields = " ".join(["0"] * 17)
    (folder / "stat").write_text(f"cpu 1 2\nintr 5 btime\nbtime {int(time.time()) - HOUR - 100}\nprocesses 7\n")
    (folder / "1/stat").write_text(f"1 (init (x) 3) S 0 {fields} {ticks} 7 8\n")
    monkeypatch.setattr(boot, "PROC", str(folder))
    return folder


def aged(pool: Pool, address: str, container: str, hours: float) -> None:
    """Writes a lease of so many hours ago."""
    pool.write(address, f"{container}\r\neth0".encode())
    written = time.time() - hours * HOUR
    os.utime(f"{pool.folder}/{address}", (written, written))


def test_the_boot_is_the_start_of_process_one(proc: Path) -> None:
    started = boot.boot_time()
    assert started is not None
    assert abs(started / 1e9 - (time.time() - HOUR)) < 3
    (proc / "1/stat").write_text("1 (init")
    assert boot.boot_time() is None


@pytest.mark.usefixtures("run")
def test_the_boot_of_this_machine_was_in_the_past(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "PROC", "/proc")
    started = boot.boot_time()
    assert started is not None
    assert 0 < started < time.time_ns()


@pytest.mark.parametrize(
    ("hours", "answer", "fresh", "kept"),
    [
        (2, dead, True, False),  # before this boot, no interface, /run is fresh: only this lease goes
        (2, alive, True, True),  # restored from a backup, or written while the clock was wrong
        (0.5, dead, True, True),  # the reference's, which podwire knows no interface of; or /run/podwire was deleted
        (0.5, alive, True, True),
        (2, dead, False, True),  # podwire has seen these leases since the boot
        (2, alive, False, True),
        (0.5, dead, False, True),
        (0.5, alive, False, True),
    ],
)
def test_a_lease_goes_only_when_both_witnesses_agree_and_only_once_a_boot(
    run: Path, tmp_path: Path, hours: float, answer: Callable[[Lease], bool], fresh: bool, kept: bool
) -> None:
    pool = Pool(tmp_path)
    pool.add("first", ask=answer)
    aged(pool, "10.1.2.5", "pod", hours)
    if fresh:
        shutil.rmtree(run)
    pool.add("second", ask=answer)
    assert ("10.1.2.5" in pool.leases()) == kept
    assert {"10.1.2.2", "10.1.2.3"} <= set(pool.leases())


@pytest.mark.usefixtures("run")
def test_the_machine_is_asked_with_the_whole_lease(tmp_path: Path) -> None:
    pool = Pool(tmp_path)
    aged(pool, "10.1.2.5", "pod", 2)
    aged(pool, "10.1.2.6", "new", 0.1)
    asked: list[tuple[str, str, str]] = []

    def ask(lease: Lease) -> bool:
        asked.append((lease.ip.text, lease.container_id, lease.ifname))
        return True

    pool.add("a", ask=ask)
    pool.add("b", ask=ask)
    assert asked == [("10.1.2.5", "pod", "eth0")]


@pytest.mark.usefixtures("run")
def test_without_a_boot_time_nothing_is_given_back(tmp_path: Path, proc: Path) -> None:
    pool = Pool(tmp_path)
    aged(pool, "10.1.2.5", "pod", 2000)
    shutil.rmtree(proc)
    pool.add("a", ask=dead)
    assert "10.1.2.5" in pool.leases()


@pytest.mark.usefixtures("run")
def test_what_cannot_be_read_is_never_given_back(tmp_path: Path) -> None:
    pool = Pool(tmp_path)
    os.makedirs(f"{pool.folder}/10.1.2.5")
    os.utime(f"{pool.folder}/10.1.2.5", (0, 0))
    pool.add("a", ask=dead)
    assert os.path.isdir(f"{pool.folder}/10.1.2.5")


@pytest.mark.usefixtures("run")
def test_readers_give_nothing_back(tmp_path: Path) -> None:
    pool = Pool(tmp_path)
    aged(pool, "10.1.2.5", "pod", 2)
    assert pool.leased("pod") == {"10.1.2.5"}


@pytest.mark.usefixtures("run")
def test_a_pool_full_of_an_earlier_boot_is_available_again(tmp_path: Path) -> None:
    """Otherwise STATUS would keep the runtime from calling the ADD that releases them."""
    pool = Pool(tmp_path)
    for number in range(2, 7):
        aged(pool, f"10.1.2.{number}", "pod", 2)
    main.status(pool.network(), dead)
    assert pool.leases() == {}


@pytest.mark.usefixtures("run")
def test_an_interrupted_return_is_taken_up_by_the_next_call(tmp_path: Path) -> None:
    pool = Pool(tmp_path)
    for number in (2, 3, 4):
        aged(pool, f"10.1.2.{number}", "pod", 2)
    asked: list[Lease] = []

    def killed_at_the_second(lease: Lease) -> bool:
        asked.append(lease)
        if len(asked) == 2:
            os._exit(9)
        return False

    assert ended(in_child(lambda: pool.add("a", ask=killed_at_the_second))) == [9]
    assert len(pool.leases()) == 2
    pool.add("a", ask=dead)
    assert list(pool.leases().values()) == [b"a\r\neth0"]


@pytest.mark.usefixtures("run")
def test_many_first_adds_at_once_give_back_once_and_lose_nothing_new(tmp_path: Path) -> None:
    """Another program leases between both."""
    pool = Pool(tmp_path, subnet="10.1.2.0/24")
    for number in range(2, 100):
        aged(pool, f"10.1.2.{number}", f"old{number}", 2)
    asked = tmp_path / "asked"
    asked.touch()

    def ask(lease: Lease) -> bool:
        with open(asked, "a") as file:
            file.write(f"{lease.ip.text}\n")
        return False

    children = [in_child(lambda n=n: pool.add(f"new{n}", ask=ask)) for n in range(6)]  # type: ignore[misc]
    children += [in_child(lambda n=n: pool.foreign_add(f"10.1.2.{110 + 20 * n}", f"foreign{n}")) for n in range(6)]  # type: ignore[misc]
    assert ended(*children) == [0] * 12
    assert sorted(asked.read_text().split()) == sorted([f"10.1.2.{number}" for number in range(2, 100)])
    owners = sorted(content.split(b"\r\n")[0].decode() for content in pool.leases().values())
    assert owners == sorted([f"{kind}{n}" for kind in ("new", "foreign") for n in range(6)])
