"""The status page in a browser: what stands on it, and that what others write is text there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("prometheus_client", reason="podwired counts by it (pip install prometheus-client)")

from cni.agent.logs import LoggedEvent
from cni.agent.status.document import document
from cni.agent.status.page import page
from tests.machine import until
from tests.unit.test_agent_status import snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from tests.machine import Machine

EVIL = "<img src=x onerror=document.title='run'><script>document.title='run'</script>"
SECONDS = 300
NODES = [
    {"name": f"node{number}", "PublicIP": f"192.0.2.{number}", "Subnet": f"10.5.{number}.0/24"} for number in (1, 2)
]
CLUSTER = {"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}, "nodes": NODES}
UPLINK = """link add eth0 type veth peer name other
link set other up
address add 192.0.2.1/24 dev eth0
link set eth0 up
route add default via 192.0.2.254
"""
PAGE = "http://127.0.0.1:8081/"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-sync",
)  # fmt: skip


def browser(home: Path) -> tuple[list[str], dict[str, str]]:
    """Returns the command and the environment of a browser that prints a page as it is after its scripts."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("absent: chromium (hack/peers brings it)")
    command = [chromium, *FLAGS, f"--user-data-dir={home}/profile", "--dump-dom"]
    return command, {"HOME": str(home), "PATH": os.environ["PATH"]}


def test_a_browser_shows_the_page_of_a_running_podwired(usual_machine: Machine, bundle: Path, tmp_path: Path) -> None:
    command, environment = browser(tmp_path)
    machine, agent = usual_machine, str(bundle / "podwired")
    machine.run("ip", "-batch", "-", stdin=UPLINK)
    machine.run("sh", "-c", "cat >/run/nodes.json", stdin=json.dumps(CLUSTER))
    machine.start(agent, "--nodes-file=/run/nodes.json", "--node-name=node1", "--healthz-port=8081")
    until(lambda: machine.run(agent, "status", check=False).returncode == 0, "podwired is ready")
    dom = machine.run(*command, PAGE, env=environment, seconds=SECONDS).stdout
    rows = [[*map(plain, re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row))] for row in re.findall(r"<tr>(.*?)</tr>", dom)]
    assert plain(dom.partition("<h1>")[2].partition("</h1>")[0]) == "node1: ready"
    facts = {row[0]: row[1] for row in rows if len(row) == 2}
    assert facts["network"] == "10.5.0.0/16 by vxlan, VNI 1, UDP port 8472"
    assert facts["lease"] == "10.5.1.0/24 behind 192.0.2.1"
    assert facts["uplink"] == "eth0 192.0.2.1/24, MTU 1500"
    assert (facts["store"], facts["peers"], facts["refused leases"]) == ("nodes file", "1, 1 vxlan", "0")
    assert ["Node", "Subnet", "Public IP", "Way", "State", "Changed", "Lacks"] in rows
    [peer] = [row for row in rows if row[0] == "node2"]
    assert (peer[1:5], peer[6]) == (["10.5.2.0/24", "192.0.2.2", "vxlan", "vxlan"], "")


def plain(markup: str) -> str:
    return re.sub(r"<[^>]*>", "", markup)


def test_a_browser_shows_the_node_its_peers_and_nothing_that_others_have_made_markup(tmp_path: Path) -> None:
    command, environment = browser(tmp_path)
    file = tmp_path / "page.html"
    file.write_bytes(
        page(document(snapshot(refused={EVIL: EVIL}), ["eth0 is down"], [LoggedEvent(0.0, "error", EVIL)]))
    )
    command.append(f"file://{file}")
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=SECONDS, check=True)
    dom = done.stdout
    for text in ("<title>node1: podwired</title>", ">not ready</span>", "eth0 is down", ">10.5.4.0/24</td>"):
        assert text in dom
    assert "<script" not in dom
    assert "<img" not in dom
    assert dom.count("&lt;img src=x") == 3
