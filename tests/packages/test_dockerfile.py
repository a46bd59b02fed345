"""The Dockerfile brings all that hack/build reads, and nothing that is not there; hack/fresh runs its commands."""

from __future__ import annotations

import re
import shlex
from fnmatch import fnmatch
from pathlib import Path

from cni import VERSION
from hack.oci import image

ROOT = Path(__file__).parents[2]
TEXT = re.sub(r" *\\\n *", " ", (ROOT / "conf/kubernetes/Dockerfile").read_text())
SOURCE = "/src/"


def copies(stage: str) -> dict[str, str]:
    """Returns the sources of a stage's COPY lines, with the place of each below /src."""
    places = {}
    for line in re.findall(r"^COPY (?!--from)(.*)$", stage, re.MULTILINE):
        *sources, target = line.split()
        assert target.startswith(SOURCE)
        for source in sources:
            place = f"{target}{Path(source).name}" if target.endswith("/") else target
            places[source] = place.removeprefix(SOURCE)
    return places


def stages() -> list[str]:
    return re.split(r"^FROM ", TEXT, flags=re.MULTILINE)[1:]


def test_it_is_built_by_hack_build_and_left_to_an_image_without_a_compiler() -> None:
    build, image = stages()
    assert "hack/build" in build
    assert re.findall(r"^RUN", image, re.MULTILINE) == []
    (left,) = re.findall(r"^COPY --from=build (\S+) \1$", image, re.MULTILINE)
    assert f"-C {left}" in build


def test_its_labels_are_those_of_the_other_image() -> None:
    """Labels of a commit are options of the build: without them they would be empty."""
    (labels,) = re.findall(r"^LABEL (.*)$", stages()[1], re.MULTILINE)
    expected = {f"{image.ANNOTATION}.{key}": value for key, value in {**image.LABELS, "version": VERSION}.items()}
    assert dict(label.split("=", 1) for label in shlex.split(labels)) == expected


def test_what_it_copies_is_sent_to_the_engine_and_caches_are_not() -> None:
    ignored = [line.lstrip("/") for line in (ROOT / ".dockerignore").read_text().splitlines()]
    assert {".git", "build", "dist"} <= {*ignored}
    sent = copies(stages()[0])
    assert [source for source in sent for pattern in ignored if fnmatch(f"{source}/", f"{pattern}/*")] == []


def test_what_it_copies_lies_where_it_lay() -> None:
    copied = copies(stages()[0])
    assert copied
    assert [source for source, place in copied.items() if source != place] == []
    assert [source for source in copied if not (ROOT / source).exists()] == []


def test_it_copies_all_that_a_bundle_is_made_of() -> None:
    (found,) = re.findall(r"find (.*) -type f", (ROOT / "hack/build").read_text())
    made_of = found.split()
    assert {"cni", "hack/bundle", "pyproject.toml"} <= {*made_of}
    assert sorted({*made_of} - copies(stages()[0]).keys()) == []
