"""Pipes, devices and folders where a configuration names a file: an error at once, without waiting."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.calls import NETWORK
from tests.frozen.calls import Call, call, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

VERBS = ["ADD", "CHECK", "STATUS"]
ODD: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "folder": os.mkdir,
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "large": lambda path: path.write_bytes(b"a" * (1 << 20) + b"bc"),
    "loop": lambda path: path.symlink_to(path),
}


@pytest.fixture(params=ODD)
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Returns the path of something that is not a regular file."""
    path = tmp_path / "odd"
    ODD[request.param](path)
    return path


def test_a_resolv_conf_that_is_no_file_is_reported(bundle: Path, odd: Path, tmp_path: Path) -> None:
    ipam = {"type": "host-local", "subnet": "10.1.2.0/24", "dataDir": f"{tmp_path}/leases", "resolvConf": str(odd)}
    code, message = run(bundle, call(NETWORK | {"ipam": ipam}, {}, "host-local")).error
    assert code == 5
    assert message.startswith(f"ipam.resolvConf: cannot read {odd}: ")


@pytest.mark.parametrize("verb", VERBS)
def test_a_subnet_file_that_is_no_file_is_reported(bundle: Path, odd: Path, verb: str) -> None:
    answer = call(NETWORK | {"subnetFile": str(odd)}, {"CNI_COMMAND": verb}, "flannel")
    code, message = run(bundle, answer).error
    assert code in (5, 7)
    assert str(odd) in message


@pytest.mark.parametrize("verb", ["ADD", "CHECK", "DEL"])
@pytest.mark.parametrize("program", ["bridge", "tuning"])
def test_a_namespace_path_that_leads_to_something_else_hangs_nobody(
    bundle: Path, odd: Path, program: str, verb: str
) -> None:
    members = {"type": program, "prevResult": {"cniVersion": "1.1.0"}}
    ended = run(bundle, call(NETWORK | members, {"CNI_COMMAND": verb, "CNI_NETNS": str(odd)}, program))
    if verb == "DEL":
        assert ended.stdout == b""
    else:
        code, message = ended.error
        assert code == 8
        assert str(odd) in message


@pytest.mark.parametrize("verb", ["ADD", "DEL", "GC"])
@pytest.mark.parametrize(("program", "name"), [("flannel", "c1"), ("tuning", "c1_eth0.json")])
def test_a_saved_file_that_is_none_hangs_nobody(
    bundle: Path, odd: Path, tmp_path: Path, program: str, name: str, verb: str
) -> None:
    (tmp_path / "saved").mkdir()
    odd.rename(tmp_path / "saved" / name)
    members = {
        "dataDir": f"{tmp_path}/saved",
        "prevResult": {"cniVersion": "1.1.0"},
        "cni.dev/valid-attachments": [],
    }
    ended = run(bundle, call(NETWORK | members, {"CNI_COMMAND": verb}, program))
    if ended.status or ended.stdout:
        assert ended.error[0] != 999
    assert b"Traceback" not in ended.stderr


def test_no_resolver_may_be_said_as_a_device(bundle: Path) -> None:
    """The reference accepts it, too; the allocation goes on to the lease folder."""
    ipam = {"type": "host-local", "subnet": "10.1.2.0/24", "dataDir": "/proc/nowhere", "resolvConf": "/dev/null"}
    answer: Call = call(NETWORK | {"ipam": ipam}, {}, "host-local")
    assert "leases in /proc/nowhere" in run(bundle, answer).error[1]
