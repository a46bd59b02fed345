"""conf/podwired.service: what systemd runs, and where it finds its nodes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from cni.agent.cli.flags import InvalidOptions
from cni.agent.cli.options import Options, parse_options

CONF = Path(__file__).parents[2] / "conf"
README = CONF.parent / "README.md"


def settings(key: str) -> list[str]:
    """The values of a key of the unit, in order."""
    lines = (CONF / "podwired.service").read_text().splitlines()
    return [line.removeprefix(f"{key}=") for line in lines if line.startswith(f"{key}=")]


def started(**file: str) -> Options:
    """As systemd starts it, with these variables in its environment file."""
    environment = dict(setting.split("=", 1) for setting in settings("Environment"))
    (command,) = settings("ExecStart")
    return parse_options(shlex.split(command)[1:], environment | file)


def test_as_shipped_the_store_is_a_file_of_nodes() -> None:
    options = started()
    assert options.etcd is None
    assert options.kube is None
    assert options.nodes_file == "/etc/podwire/nodes.json"
    assert options.ip_masq


def test_the_environment_file_chooses_another_store() -> None:
    options = started(PODWIRED_NODES_FILE="", PODWIRED_ETCD_ENDPOINTS="https://etcd.example:2379")
    assert options.etcd is not None
    assert options.etcd.endpoints == ("https://etcd.example:2379",)


def test_two_stores_are_an_error_that_names_both() -> None:
    with pytest.raises(InvalidOptions, match=r"PODWIRED_ETCD_ENDPOINTS: .* PODWIRED_NODES_FILE"):
        started(PODWIRED_ETCD_ENDPOINTS="https://etcd.example:2379")


def test_the_readme_puts_what_the_unit_names_where_it_looks() -> None:
    text = README.read_text()
    assert "conf/nodes.json conf/podwired.service" in text
    (command,) = settings("ExecStart")
    assert f"-C {Path(shlex.split(command)[0]).parent}" in text
    assert f"cp node/nodes.json {Path(started().nodes_file).parent}/" in text
    assert "cp node/podwired.service /etc/systemd/system/" in text
    assert json.loads((CONF / "nodes.json").read_text())["nodes"]
