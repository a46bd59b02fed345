"""podwired installed by pip without the packages that the bundle brings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cni import VERSION

ROOT = Path(__file__).parents[2]
# Isolated and without site, this interpreter finds nothing but its own library.
CALL = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from cni.main import main; sys.exit(main())"


def podwired(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.argv[0] = 'podwired'; {CALL}", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_version_and_the_help_need_nothing() -> None:
    done = podwired("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"podwired {VERSION}\n", "")
    assert "--nodes-file" in podwired("--help").stdout


@pytest.mark.parametrize(
    ("arguments", "packages"),
    [
        (["--nodes-file=/n.json"], ["prometheus-client"]),
        (["--etcd-endpoints=http://192.0.2.1:2379"], ["prometheus-client", "urllib3"]),
        (
            ["--kube-subnet-mgr", "--kubeconfig-file=/c", "--node-name=n"],
            ["prometheus-client", "urllib3", "PyYAML"],
        ),
    ],
)
def test_all_packages_that_are_missing_are_named(arguments: list[str], packages: list[str]) -> None:
    done = podwired(*arguments)
    assert done.returncode == 1
    assert f"Python packages are not installed: {', '.join(packages)} (pip install {' '.join(packages)})" in done.stderr
    assert "Traceback" not in done.stderr
