"""A figure as a tree for a terminal, by rich."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text
from rich.tree import Tree

from cni.diag.drawing.figure import BAD, BRIDGE, CLUSTER, DIM, PLAIN, POD, TITLE, TUNNEL, UPLINK
from cni.diag.output import rendered

if TYPE_CHECKING:
    from cni.diag.drawing.figure import Card, Figure

STYLES = {PLAIN: "", DIM: "dim", BAD: "red"}
KINDS = {CLUSTER: "magenta", UPLINK: "cyan", TUNNEL: "yellow", BRIDGE: "blue", POD: "green"}


def tree_text(figure: Figure) -> str:
    """Returns the tree as text with escape sequences for a terminal."""
    root = Tree(_text(figure.root), guide_style="dim")
    for section in figure.sections:
        branch = root.add(_text(section.head))
        for member in section.members:
            branch.add(_text(member))
    return rendered(root)


def _text(card: Card) -> Text:
    text = Text(f"{card.label} " if card.label else "", style="dim")
    for number, line in enumerate(card.lines):
        style = f"bold {KINDS.get(card.kind, '')}".strip() if line.tone == TITLE else STYLES[line.tone]
        text.append("  " if number else "")
        text.append(line.text, style)
    return text
