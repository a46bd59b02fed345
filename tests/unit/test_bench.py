"""The benchmarks' tools run on every Python that the README names."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cni.agent.policy.objects import parse_policy
from hack import benchmark
from hack.bench_policy.api import Collections, is_selected
from hack.bench_policy.objects import NODE, SPACE, TEST, World

HACK = Path(__file__).parents[2] / "hack"


def test_the_bundle_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, folder = tmp_path / "bundle", tmp_path / "folder"
    (bundle / "podwire.d").mkdir(parents=True)
    (bundle / "podwire").write_text("")
    folder.mkdir()
    archive = tmp_path / "podwire.tgz"
    subprocess.run(["tar", "-czf", archive, "-C", bundle, "."], check=True)
    build = tmp_path / "hack/build"
    build.parent.mkdir()
    build.write_text(f"#!/bin/sh\necho {archive}\n")
    build.chmod(0o755)
    monkeypatch.setattr(benchmark, "ROOT", tmp_path)
    benchmark.unpack(folder)
    assert {path.name for path in folder.iterdir()} >= {"podwire", "podwire.d"}


@pytest.mark.parametrize("kind", [[], ["agent"], ["policy"]], ids=["plugins", "agent", "policy"])
def test_each_benchmark_explains_itself(kind: list[str]) -> None:
    done = subprocess.run([HACK / "bench", *kind, "--help"], capture_output=True, text=True, check=True)
    assert f"usage: {' '.join(['hack/bench', *kind])} " in done.stdout


def test_the_measured_pods_are_selected_by_as_many_policies_as_asked_for() -> None:
    policies = [parse_policy(item) for plural, item in World(300, 7, 3).objects() if plural == "networkpolicies"]
    selecting = [policy.namespace == SPACE and policy.selector.matches(TEST) for policy in policies]
    assert selecting == [True] * 3 + [False] * 4


def test_the_api_of_the_measurement_tells_own_pods_from_others() -> None:
    pods = Collections(World(300, 0, 0)).objects["pods"].values()
    own = [pod for pod in pods if is_selected(pod, {"fieldSelector": f"spec.nodeName={NODE}"})]
    others = [pod for pod in pods if is_selected(pod, {"fieldSelector": f"spec.nodeName!=,spec.nodeName!={NODE}"})]
    assert (len(own), len(others), sum(is_selected(pod, {}) for pod in pods)) == (2, 298, 300)
