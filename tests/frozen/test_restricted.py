"""The operator's commands where they may not see the node: they say so, and take nothing for healthy, gone or lost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.frozen.test_operator import NETWORK, Operator
from tests.machine import Machine, missing

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
BUNDLE = "/opt/bundle"
COMMANDS = ("ps", "leases", "check", "explain web", "repair", "doctor", "topology", "trace web 192.0.2.7:80", "gc")


@pytest.fixture(scope="module")
def operator(bundle: Path) -> Iterator[Operator]:
    """Gives a node with a pod, for tests that change nothing."""
    if reason := missing():
        pytest.skip(reason)
    with Machine() as machine:
        machine.run("cp", "-a", str(bundle), BUNDLE)  # other users may not enter the folder of a test's bundle
        operator = Operator(machine, Path(BUNDLE))
        operator.attach("web", NETWORK)
        yield operator


def test_who_may_not_read_what_was_kept_gets_no_answer(operator: Operator) -> None:
    machine = operator.machine
    if machine.run(*NOBODY, str(operator.bundle / "podwire"), "version", check=False).returncode:
        pytest.skip("no second user in this user namespace")
    for command in COMMANDS:
        done = machine.run(*NOBODY, str(operator.bundle / "podwire"), *command.split(), check=False)
        assert (done.returncode, done.stdout) == (3, ""), command
        assert "/run/podwire" in done.stderr
        assert "Permission denied" in done.stderr


def hidden(operator: Operator, command: str) -> tuple[int, str]:
    """Returns status and output of a command that has other files below /run, as in a container of its own."""
    script = f"mount -t tmpfs tmpfs /run; exec {operator.bundle}/podwire {command}"
    done = operator.machine.run("unshare", "-m", "sh", "-c", script, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_nobody_is_told_to_recreate_a_pod_whose_files_are_hidden(operator: Operator) -> None:
    for command, status in (("check", 3), ("explain web0123", 3), ("repair --dry-run", 1)):
        assert hidden(operator, command)[0] == status
        assert "run it as root in the host's namespaces" in hidden(operator, command)[1]
        assert "recreate" not in hidden(operator, command)[1]


def test_doctor_names_attachments_that_it_cannot_look_into(operator: Operator) -> None:
    script = f"mount -t tmpfs tmpfs /run/netns; exec {operator.bundle}/podwire doctor"
    done = operator.machine.run("unshare", "-m", "sh", "-c", script, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("not-examined: shop/web\n")
    assert "cannot open CNI_NETNS" in done.stdout
