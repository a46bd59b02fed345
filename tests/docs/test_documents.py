"""The documents are whole: each command is accounted for, each link leads somewhere, and the front page is short."""

from __future__ import annotations

import re

import pytest

from tests.docs.documents import ALL, DOCUMENTS, ROOT, prose

KINDS = ("run", "not run", "parsed")
SESSIONS = {
    ("README.md", "demo"),
    ("README.md", "node"),
    ("README.md", "containerd"),
    ("README.md", "build for nodes"),
    ("README.md", "service"),
    ("conf/kubernetes/README.md", "cluster"),
    ("conf/kubernetes/README.md", "kind"),
    ("conf/kubernetes/README.md", "each node of the cluster"),
}
FRONT_PAGE_LINES = 200
# Words that readers stumbled over, and those that say the same.
PLAIN = {
    r"told|tells?": "say, log, report, name",
    r"anew": "again, recreated",
    r"rooms": "packages",
    r"faults?": "errors",
    r"the outside": "the external network",
    r"wire": "underlay",
    r"programs of others": "third-party plugins",
    r"ways to": "routes to",
    r"but for": "except",
    r"does as well": "works, too",
}
LINK = re.compile(r"\[[^]]+\]\((?P<target>[^)\s]+)\)")


def test_every_block_of_commands_is_run_or_says_why_not() -> None:
    unmarked = [block.place for block in ALL if block.language == "sh" and block.kind not in KINDS]
    assert unmarked == []
    assert [block.place for block in ALL if block.kind == "not run" and len(block.mark) < len("needs x")] == []


def test_every_session_is_one_that_a_test_runs() -> None:
    assert {(block.document, block.mark) for block in ALL if block.kind == "run"} == SESSIONS


def test_the_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= FRONT_PAGE_LINES


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_words_are_plain(document: str) -> None:
    lines = [re.sub(r"`[^`]*`", "", line) for line in prose(document)]
    found = [
        f"line {number}: {match[0]} (instead: {plain})"
        for number, line in enumerate(lines, 1)
        for words, plain in PLAIN.items()
        for match in re.finditer(rf"\b(?:{words})\b", line)
    ]
    assert found == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_to_a_file_and_a_heading(document: str) -> None:
    broken = []
    for line in prose(document):
        for target in [match["target"] for match in LINK.finditer(line)]:
            path, _, anchor = target.partition("#")
            if not re.match(r"https?://", target) and not is_there(document, path, anchor):
                broken.append(target)
    assert broken == []


def is_there(document: str, path: str, anchor: str) -> bool:
    linked = (ROOT / document).parent / path if path else ROOT / document
    if not linked.exists():
        return False
    return not anchor or anchor in anchors(linked.resolve().relative_to(ROOT).as_posix())


def anchors(document: str) -> set[str]:
    """Returns the anchors that GitHub gives to headings."""
    headings = [line.lstrip("#").strip().lower() for line in prose(document) if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}
