"""The status page in a browser: what stands on it, and that what others write is text there."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("prometheus_client", reason="podwired counts by it (pip install prometheus-client)")

from cni.agent.logs import LoggedEvent
from cni.agent.status.document import document
from cni.agent.status.page import page
from tests.unit.test_agent_status import snapshot

if TYPE_CHECKING:
    from pathlib import Path

EVIL = "<img src=x onerror=document.title='run'><script>document.title='run'</script>"
SECONDS = 300


def test_a_browser_shows_the_node_its_peers_and_nothing_that_others_have_made_markup(tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("absent: chromium (apt-get install chromium)")
    file = tmp_path / "page.html"
    file.write_bytes(
        page(document(snapshot(refused={EVIL: EVIL}), ["eth0 is down"], [LoggedEvent(0.0, "error", EVIL)]))
    )
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"file://{file}"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=SECONDS, check=True)
    dom = done.stdout
    for text in ("<title>node1: podwired</title>", ">not ready</span>", "eth0 is down", ">10.5.4.0/24</td>"):
        assert text in dom
    assert "<script" not in dom
    assert "<img" not in dom
    assert dom.count("&lt;img src=x") == 3
