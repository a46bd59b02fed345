"""Instances of podwired on one node: their names, and the locks that keep two from being the same."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cni.agent.runtime import instance
from cni.agent.runtime.instance import Instance, Occupied

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the folder of the tunnels' locks, and lets nobody wait."""
    monkeypatch.setattr(instance, "FOLDER", str(tmp_path / "podwire"))
    monkeypatch.setattr(instance, "PATIENCE_SECONDS", 0.0)
    return tmp_path / "podwire"


def begun(file: Path, vni: int | None = None) -> Instance:
    agent = Instance(str(file))
    agent.begin()
    agent.serve(vni)
    return agent


def test_the_usual_subnet_file_gives_the_usual_name_and_others_names_of_their_own(tmp_path: Path) -> None:
    assert Instance("/run/flannel/subnet.env").name == Instance("/run/flannel/../flannel/subnet.env").name == "podwired"
    names = [Instance(str(tmp_path / name)).name for name in ("a", "b", "a")]
    assert names[0] == names[2] != names[1]
    assert all(name.startswith("podwired-") for name in names)


def test_a_link_to_the_folder_is_the_same_folder(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").symlink_to("here")
    assert Instance(str(tmp_path / "here/x")).name == Instance(str(tmp_path / "there/x")).name


def test_the_same_subnet_file_is_refused_and_the_first_is_named(tmp_path: Path) -> None:
    first = begun(tmp_path / "subnet.env")
    with pytest.raises(Occupied) as caught:
        begun(tmp_path / "subnet.env")
    assert f"pid {os.getpid()}," in str(caught.value)
    first.forget()
    begun(tmp_path / "subnet.env")


def test_the_same_vni_is_refused_whatever_the_subnet_file(tmp_path: Path) -> None:
    first = begun(tmp_path / "one", 7)
    begun(tmp_path / "two", 8)
    begun(tmp_path / "three")
    with pytest.raises(Occupied) as caught:
        begun(tmp_path / "four", 7)
    assert f"VNI 7 is used by another podwired (pid {os.getpid()}, subnet file {tmp_path}/one)" in str(caught.value)
    first.serve(9)
    begun(tmp_path / "five", 7)


def test_policies_are_enforced_by_one_whatever_its_subnet_file(tmp_path: Path) -> None:
    first, second = begun(tmp_path / "one"), begun(tmp_path / "two")
    first.hold_policies()
    with pytest.raises(Occupied) as caught:
        second.hold_policies()
    assert f"NetworkPolicy is enforced by another podwired (pid {os.getpid()}, subnet" in str(caught.value)
    second.release_policies()
    first.release_policies()
    second.hold_policies()


def test_what_is_refused_keeps_what_it_had(tmp_path: Path) -> None:
    begun(tmp_path / "one", 7)
    second = begun(tmp_path / "two", 8)
    with pytest.raises(Occupied):
        second.serve(7)
    with pytest.raises(Occupied):
        begun(tmp_path / "three", 8)


def test_nobody_else_can_open_a_lock_whatever_the_mask(tmp_path: Path, locks: Path) -> None:
    before = os.umask(0)
    try:
        begun(tmp_path / "subnet.env", 7)
    finally:
        os.umask(before)
    paths = [tmp_path / ".subnet.env.lock", *locks.iterdir()]
    assert [stat.S_IMODE(file.stat().st_mode) for file in paths] == [0o600, 0o600]
    assert stat.S_IMODE(locks.stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", ["link", "fifo", "open"])
def test_what_others_have_put_in_the_place_is_removed_or_passed_by(tmp_path: Path, kind: str) -> None:
    lock, victim = tmp_path / ".subnet.env.lock", tmp_path / "victim"
    victim.write_text("precious")
    if kind == "link":
        lock.symlink_to(victim)
    elif kind == "fifo":
        os.mkfifo(lock)
    else:
        lock.write_text("")
        lock.chmod(0o666)
    begun(tmp_path / "subnet.env")
    assert victim.read_text() == "precious"


def test_a_lock_goes_with_its_process(tmp_path: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {os.getcwd()!r})
from cni.agent.runtime.instance import Instance
Instance({str(tmp_path / "subnet.env")!r}).begin()
print("ready", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(Occupied, match=f"pid {other.pid},"):
            begun(tmp_path / "subnet.env")
        other.kill()
    begun(tmp_path / "subnet.env")


def ended(file: Path, locks: Path, vni: int) -> None:
    """Lets one run that is killed, so that its files stay."""
    code = f"""
import os, sys
sys.path.insert(0, {os.getcwd()!r})
from cni.agent.runtime import instance
instance.FOLDER = {str(locks)!r}
one = instance.Instance({str(file)!r})
one.begin()
one.serve({vni})
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_forgotten_leaves_no_file_but_those_of_others(tmp_path: Path, locks: Path) -> None:
    other = begun(tmp_path / "other", 8)
    ended(tmp_path / "one", locks, 9)
    Instance(str(tmp_path / "unused")).forget()
    assert len([*locks.iterdir()]) == 2
    Instance(str(tmp_path / "one")).forget()
    assert [file.name.rpartition("-")[2] for file in locks.iterdir()] == ["8.lock"]
    assert other.name


def test_where_no_lock_can_be_had_the_agent_runs_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    begun(tmp_path / "file" / "subnet.env")
    assert "another podwired would not be noticed" in caplog.text


def test_who_served_the_tunnel_before_with_another_subnet_file_is_known(tmp_path: Path) -> None:
    first = begun(tmp_path / "one", 7)
    assert first.predecessor == ""
    assert first._tunnel is not None
    os.close(first._tunnel._descriptor)  # as when its process ends
    second = begun(tmp_path / "two", 7)
    assert second.predecessor == first.name
    assert second._tunnel is not None
    os.close(second._tunnel._descriptor)
    second.forget()
    third = Instance(str(tmp_path / "two"))
    third.begin()
    third.serve(7)
    assert third.predecessor == ""
