"""The commands of conf/kubernetes/README.md on a cluster that is given away for it: podwire comes, and goes."""

from __future__ import annotations

import os
import shlex
import subprocess

import pytest

from tests.docs.documents import ROOT, session

DOCUMENT = "conf/kubernetes/README.md"
SECONDS = 1200.0
FILES = ("/opt/cni/bin/podwire", "/run/flannel/subnet.env", "/etc/cni/net.d/10-podwire.conflist")


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
        left = (
            "ls /opt/cni/bin/podwire /run/flannel/subnet.env /etc/cni/net.d/10-podwire.conflist; ip link show flannel.1"
        )
        done = subprocess.run([*on_node, "sh", "-c", left], capture_output=True, text=True, check=False)
        assert done.stdout == "", node


def run(*command: str) -> str:
    """Runs a command in the checkout and returns what it printed."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, f"{shlex.join(command)}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout
