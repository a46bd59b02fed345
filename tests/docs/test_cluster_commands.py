"""The commands of conf/kubernetes/README.md on a cluster that is given away for it: podwire comes, and goes."""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.docs.documents import ROOT, session

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENT = "conf/kubernetes/README.md"
SECONDS = 1200.0
FILES = ("/opt/cni/bin/podwire", "/run/flannel/subnet.env", "/etc/cni/net.d/10-podwire.conflist")
KUBECTL = """#!/bin/sh
# Answers with the image, and keeps what replaces the DaemonSet.
case "$*" in
    *"get daemonset podwire"*) echo registry.example:5000/podwire@sha256:0123 ;;
    replace*) cat >"$REPLACED" ;;
esac
"""


def test_podwire_is_installed_and_removed() -> None:
    """PODWIRE_DOCS_CLUSTER names what runs a program on a node, as PODWIRE_NODE_COMMAND does for tests/cluster."""
    node_command = os.environ.get("PODWIRE_DOCS_CLUSTER", "")
    if not (node_command and os.environ.get("KUBECONFIG")):
        pytest.skip("PODWIRE_DOCS_CLUSTER and KUBECONFIG name no cluster that may lose its network")
    run("bash", "-euxo", "pipefail", "-c", session(DOCUMENT, "cluster"))
    nodes = run("kubectl", "get", "nodes", "--output=jsonpath={.items[*].metadata.name}").split()
    assert nodes
    for node in nodes:
        on_node = [part.replace("{node}", node) for part in shlex.split(node_command)]
        run(*on_node, "bash", "-euxo", "pipefail", "-c", session(DOCUMENT, "each node of the cluster"))
        left = f"ls {shlex.join(FILES)}; ip link show flannel.1"
        done = subprocess.run([*on_node, "sh", "-c", left], capture_output=True, text=True, check=False)
        assert done.stdout == "", node


def test_the_removal_has_the_image_and_the_namespace_of_the_installation(tmp_path: Path) -> None:
    (tmp_path / "kubectl").write_text(KUBECTL)
    (tmp_path / "kubectl").chmod(0o755)
    replaced = tmp_path / "replaced.yaml"
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "REPLACED": str(replaced)}
    commands = session(DOCUMENT, "cluster").replace("namespace=podwire-system\n", "namespace=overlay\n")
    run("bash", "-euxo", "pipefail", "-c", commands, **environment)
    daemon_set = yaml.safe_load(replaced.read_text())
    pod = daemon_set["spec"]["template"]["spec"]
    images = [container["image"] for container in pod["initContainers"] + pod["containers"]]
    assert images == ["registry.example:5000/podwire@sha256:0123"] * 2
    assert daemon_set["metadata"]["namespace"] == "overlay"


def run(*command: str, **environment: str) -> str:
    """Runs a command in the checkout and returns what it printed."""
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, f"{shlex.join(command)}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout
