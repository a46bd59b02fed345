"""The documents for people, as their fenced blocks; CONTRIBUTING explains the marks above them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
FOLDERS = (".", ".github", "conf", "conf/kubernetes", "cni", "cni/agent", "cni/diag", "ipam", "hack")
DOCUMENTS = [path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.md"))]
_MARK = re.compile(r"<!-- (?P<kind>[A-Za-z ]+?)(?:: (?P<text>.*))? -->")
_FENCE = re.compile(r"(?P<indent> *)```(?P<language>\w*)$")


class Block(NamedTuple):
    """A fenced block. `kind` and `mark` are those of the mark in the line above it, empty without one."""

    document: str
    line: int
    language: str
    kind: str
    mark: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.document}:{self.line}"


def blocks(document: str) -> list[Block]:
    """Returns the fenced blocks of a document, in order."""
    lines = (ROOT / document).read_text(encoding="utf-8").splitlines()
    found: list[Block] = []
    start, indent, language = -1, "", ""
    for number, line in enumerate(lines):
        fence = _FENCE.match(line)
        if fence is None:
            continue
        if start < 0:
            start, indent, language = number, fence["indent"], fence["language"]
            continue
        mark = _MARK.fullmatch(lines[start - 1].strip()) if start else None
        text = "".join([f"{inner.removeprefix(indent)}\n" for inner in lines[start + 1 : number]])
        kind, words = (mark["kind"], mark["text"] or "") if mark else ("", "")
        found.append(Block(document, start + 1, language, kind, words, text))
        start = -1
    assert start < 0, f"{document}:{start + 1}: a fence without an end"
    return found


ALL = [block for document in DOCUMENTS for block in blocks(document)]


def session(document: str, name: str) -> str:
    """Returns the commands of a session of a document: all of its blocks, which one shell runs in order."""
    texts = [block.text for block in blocks(document) if (block.kind, block.mark) == ("run", name)]
    assert texts, f"{document} has no block with the mark <!-- run: {name} -->"
    return "".join(texts)


def prose(document: str) -> list[str]:
    """Returns the lines that are in no fenced block; those inside are empty."""
    lines, inside = [], False
    for line in (ROOT / document).read_text(encoding="utf-8").splitlines():
        fence = _FENCE.match(line) is not None
        lines.append("" if inside or fence else line)
        inside ^= fence
    return lines
