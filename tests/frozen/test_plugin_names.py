"""A network configuration cannot choose a file of the host to execute: no verb leaves CNI_PATH."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.calls import NETWORK
from tests.frozen.calls import call, run_all

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["../evil", "{folder}/evil", "a/../../evil", "./../evil", "", ".", "..", "..\\evil", "evil\0", "..\\/evil"]
VERBS = ["ADD", "DEL", "CHECK", "GC", "STATUS"]
SUBNETS = "FLANNEL_NETWORK=10.9.0.0/16\nFLANNEL_SUBNET=10.9.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """Returns a folder with a program that leaves a trace, and CNI_PATH in it."""
    (tmp_path / "bin" / "a").mkdir(parents=True)
    for name in ("evil", "..\\evil", "bin/..\\evil"):
        (tmp_path / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "subnet.env").write_text(SUBNETS)
    return tmp_path


def network(scene: Path, members: dict[str, Any]) -> dict[str, Any]:
    return {
        **NETWORK,
        "subnetFile": f"{scene}/subnet.env",
        "dataDir": f"{scene}/saved",
        "cni.dev/valid-attachments": [],
        "prevResult": {"cniVersion": "1.1.0"},
        **members,
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("program", ["podwire", "bridge", "ptp", "flannel"])
def test_a_name_with_a_folder_is_executed_by_no_verb(bundle: Path, scene: Path, program: str, name: str) -> None:
    kind = name.format(folder=scene)
    configs = [network(scene, {"ipam": {"type": kind}})]
    if program == "flannel":
        configs.append(network(scene, {"delegate": {"type": kind}}))
    environment = {"CNI_PATH": f"{scene}/bin"}
    calls = [call(config, environment | {"CNI_COMMAND": verb}, program) for config in configs for verb in VERBS]
    for request, ended in zip(calls, run_all(bundle, calls), strict=True):
        assert not (scene / "ran").exists(), request
        assert b"Traceback" not in ended.stderr
        if ended.status:
            assert ended.error[0] != 999, request
        elif kind:
            assert request.environment["CNI_COMMAND"] in ("DEL", "GC"), request


@pytest.mark.parametrize("verb", ["DEL", "GC"])
def test_a_refused_name_is_reported(bundle: Path, scene: Path, verb: str) -> None:
    calls = [
        call(network(scene, {"ipam": {"type": "../evil"}}), {"CNI_COMMAND": verb}, "bridge"),
        call(network(scene, {"delegate": {"type": "../evil"}}), {"CNI_COMMAND": verb}, "flannel"),
    ]
    for ended in run_all(bundle, calls):
        assert "invalid plugin name '../evil': it names a program in CNI_PATH, without a folder" in ended.error[1]


def test_a_saved_configuration_with_such_a_name_is_as_good_as_lost(bundle: Path, scene: Path) -> None:
    (scene / "saved").mkdir()
    (scene / "saved" / "c1").write_text(json.dumps(network(scene, {"type": "../evil"})))
    [ended] = run_all(bundle, [call(network(scene, {}), {"CNI_COMMAND": "DEL", "CNI_PATH": f"{scene}/bin"}, "flannel")])
    assert (ended.status, ended.stdout) == (0, b"")
    assert not (scene / "ran").exists()
