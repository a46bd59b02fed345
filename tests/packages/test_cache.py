"""The folder that the scripts in hack keep between runs: the user's own, as they execute what lies there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

COMMON = Path(__file__).parents[2] / "hack/common.sh"
SCRIPT = f'set -euo pipefail; me=script; . {COMMON}; echo "$cache"; echo "$HOME"'
ENTRY = "user:x:1000:1000::{home}:/bin/sh"


def opened(passwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Opens the cache of a user whose entry is in the file, in an environment of these variables alone."""
    getent = passwd.with_name("getent")
    getent.write_text(f"#!/bin/sh\n[ \"$*\" = 'passwd {os.geteuid()}' ] && test -s {passwd} || exit 2\ncat {passwd}\n")
    getent.chmod(0o755)
    environment = {"PATH": f"{getent.parent}:{os.environ['PATH']}", **variables}
    return subprocess.run(["bash", "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def passwd(tmp_path: Path) -> Path:
    """Returns a file with the user's entry."""
    (tmp_path / "bin").mkdir()
    path = tmp_path / "bin/passwd"
    path.write_text(ENTRY.format(home=tmp_path / "passwd-home"))
    return path


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({"HOME": "{}/home"}, "home/.cache/podwire"),
        ({"HOME": "{}/home", "XDG_CACHE_HOME": "{}/caches"}, "caches/podwire"),
        ({"HOME": "{}/home", "PODWIRE_CACHE": "{}/own"}, "own"),
        ({}, "passwd-home/.cache/podwire"),
        ({"HOME": ""}, "passwd-home/.cache/podwire"),
    ],
)
def test_it_is_made_for_the_user_alone(passwd: Path, tmp_path: Path, variables: dict[str, str], place: str) -> None:
    done = opened(passwd, **{name: value.format(tmp_path) for name, value in variables.items()})
    cache = tmp_path / place
    assert done.stdout.splitlines() == [
        str(cache),
        str(tmp_path / ("home" if variables.get("HOME") else "passwd-home")),
    ]
    assert cache.stat().st_mode & 0o777 == 0o700


def test_one_of_the_user_is_left_as_it_is(passwd: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir(mode=0o755)
    done = opened(passwd, PODWIRE_CACHE=str(tmp_path / "own"))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o755


def test_a_user_without_a_home_is_told_how_to_name_a_folder(passwd: Path, tmp_path: Path) -> None:
    passwd.write_text("")
    done = opened(passwd)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("hack/script: HOME: not set")
    assert "PODWIRE_CACHE" in done.stderr
    assert opened(passwd, PODWIRE_CACHE=str(tmp_path / "own")).returncode == 0


def test_one_of_another_user_is_refused(passwd: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    try:
        os.chown(foreign, os.geteuid() + 1, -1)
    except OSError as error:
        pytest.skip(f"needs a second user: {error}")
    done = opened(passwd, PODWIRE_CACHE=str(foreign))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"hack/script: {foreign}: not a folder of user {os.geteuid()} (set PODWIRE_CACHE to one)\n"


INTERPRETER = """#!/bin/sh
# `python -m venv FOLDER` makes a pip that fails until there is a network.
case "$*" in
    -VV) echo "Python 3.11" ;;
    "-m venv "*)
        mkdir -p "$3/bin"
        printf '#!/bin/sh\\ntest -e "%s/network"\\n' "$TOP" >"$3/bin/python"
        chmod +x "$3/bin/python"
        ;;
esac
"""


def test_an_environment_that_could_not_be_made_is_made_again(tmp_path: Path) -> None:
    """A download that failed once would leave one without packages for good."""
    python = tmp_path / "python"
    python.write_text(INTERPRETER)
    python.chmod(0o755)
    script = f'set -euo pipefail; me=script; . {COMMON}; made=$(environment {python} click); echo "$made"'
    variables = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TOP": str(tmp_path)}

    def make() -> subprocess.CompletedProcess[str]:
        return subprocess.run(["bash", "-c", script], env=variables, capture_output=True, text=True, check=False)

    failed = make()
    assert (failed.returncode, failed.stdout) == (1, "")
    (tmp_path / "network").touch()
    made = make()
    assert (made.returncode, Path(made.stdout.strip(), "ready").exists()) == (0, True)
