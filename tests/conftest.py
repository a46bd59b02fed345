"""What several folders of tests share: the bundle, as it lies in a CNI bin folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

BUILD = Path(__file__).parents[1] / "hack/build"


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder with the executable podwire: PODWIRE_BUNDLE names one already built, else it is built now."""
    if named := os.environ.get("PODWIRE_BUNDLE"):
        return Path(named).absolute()
    built = subprocess.run([BUILD], stdout=subprocess.PIPE, text=True, check=False)
    if built.returncode:
        pytest.skip("hack/build made no bundle; its message says what is missing")
    folder = tmp_path_factory.mktemp("bundle")
    subprocess.run(["tar", "-xzf", built.stdout.strip(), "-C", folder], check=True)
    return folder
