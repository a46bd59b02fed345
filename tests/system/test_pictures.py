"""The pictures and answers in documents: hack/pictures makes the same ones again, and pictures load nothing."""

from __future__ import annotations

import os
import re
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from tests.docs.documents import DOCUMENTS
from tests.machine import missing

pytest.importorskip("rich", reason="the pictures of terminals are made with it (pip install rich)")

from hack.gallery.terminal import terminal_svg

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PICTURES, ANSWERS = ROOT / ".github/pictures", ROOT / "cni/diag/README.md"
DRAWN = ("doctor.svg", "ps.svg", "topology.svg")
PHOTOGRAPHED = ("status-dark.png", "status-light.png")
LARGEST = 100_000  # bytes of a picture
REMADE = "differs (hack/pictures takes it again; look at it before it is committed)"


def texts(path: Path) -> list[str]:
    """Returns what is read in a picture, with spaces as a person types them."""
    elements = [element for element in ET.parse(path).iter() if element.tag.endswith("text")]
    return [text.rstrip() for element in elements if (text := (element.text or "").replace("\xa0", " ")).strip()]


def test_the_pictures_and_answers_are_those_that_the_bundle_gives(bundle: Path, tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    environment = {**os.environ, "PODWIRE_BUNDLE": str(bundle), "NO_COLOR": "1", "CHROMIUM": ""}
    subprocess.run([ROOT / "hack/pictures", tmp_path], env=environment, capture_output=True, check=True)
    for name in DRAWN:
        assert texts(tmp_path / name) == texts(PICTURES / name), f"{name} {REMADE}"
        assert (tmp_path / name).read_bytes() == (PICTURES / name).read_bytes(), f"{name} {REMADE}"
    assert (tmp_path / "README.md").read_text() == ANSWERS.read_text(), f"{ANSWERS} {REMADE}"
    assert {path.name for path in tmp_path.iterdir()} == {*DRAWN, "README.md"}


def test_names_are_whole_and_colours_are_for_light_and_dark() -> None:
    shown = {name: texts(PICTURES / name) for name in DRAWN}
    for pod in ("shop/web-0", "shop/web-1", "shop/db-0", "monitoring/prometheus-0", "edge/gateway-0"):
        assert any(text.startswith(f"{pod} ") for text in shown["ps.svg"])
        assert pod in shown["topology.svg"]
    assert {"node1", "node2", "flannel.1", "cni0", "10.244.1.2/24", "reachable: vxlan"} <= {*shown["topology.svg"]}
    assert {"attachment-changed", "leases-leaked"} <= {*shown["doctor.svg"]}
    for name in DRAWN:
        assert "@media(prefers-color-scheme:dark)" in (PICTURES / name).read_text()


def test_pictures_load_nothing_are_small_and_are_shown() -> None:
    assert {path.name for path in PICTURES.iterdir()} == {*DRAWN, *PHOTOGRAPHED}
    documents = "".join([(ROOT / document).read_text() for document in DOCUMENTS])
    for path in PICTURES.iterdir():
        assert path.stat().st_size < LARGEST
        assert f"pictures/{path.name}" in documents
    for name in DRAWN:
        text = (PICTURES / name).read_text()
        loads = re.findall(r"https?://[^\s\"']*|@import|@font-face|url\(|<image|<script|href=", text)
        assert set(loads) <= {"http://www.w3.org/2000/svg"}
    for name in PHOTOGRAPHED:
        data = (PICTURES / name).read_bytes()
        assert data.startswith(b"\x89PNG\r\n")
        assert struct.unpack_from(">II", data, 16) == (1000, 470)


def sources() -> Iterator[str]:
    for document in DOCUMENTS:
        text = (ROOT / document).read_text()
        for source in re.findall(r"(?:src|srcset)=\"([^\"]*)\"|!\[[^\]]*\]\(([^)]*)\)", text):
            yield f"{(ROOT / document).parent}/{''.join(source)}"


def test_every_picture_of_a_document_exists() -> None:
    shown = list(sources())
    assert len(shown) >= len(DRAWN) + len(PHOTOGRAPHED)
    assert [source for source in shown if not Path(source).is_file()] == []


def test_the_text_of_a_terminal_is_the_same_in_its_picture(tmp_path: Path) -> None:
    """Numbers of the picture are rounded, those of the text are not; and markup is text."""
    path = tmp_path / "picture.svg"
    path.write_text(terminal_svg("# x <b> & \x1b[1;31m10.244.1.123\x1b[0m and 3.14159\n\x1b[2mdim\x1b[0m\n"))
    assert texts(path) == ["# x <b> &", "10.244.1.123", " and 3.14159", "dim"]
    assert '="10.244' not in path.read_text()
