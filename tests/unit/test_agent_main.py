"""podwired's entry, as a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cni import VERSION
from cni.agent.main import COLLECT_AFTER

ROOT = Path(__file__).parents[2]
CALL = "import gc; from cni.agent.main import run; run(['--version'], {}, print); print(gc.get_threshold()[0])"


def test_garbage_is_not_looked_for_while_a_page_of_objects_is_read() -> None:
    done = subprocess.run([sys.executable, "-c", CALL], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"podwired {VERSION}", str(COLLECT_AFTER)]
