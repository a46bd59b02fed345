"""A figure as SVG: one file, with colours for light and dark, and nothing from elsewhere: no scripts, no fonts."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from rich.cells import cell_len

from cni.diag.drawing.layout import CELL, FONT, LINE, MARGIN, PAD, layout
from cni.diag.drawing.palette import FONTS, styles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.diag.drawing.figure import Figure
    from cni.diag.drawing.layout import Box, Group

SPINE = 12.0  # from the left edge of the root's card
CORNER = 6
SPACES = "white-space:pre"  # of names, too


def svg(figure: Figure) -> str:
    """Returns the drawing as an SVG document."""
    placed = layout(figure)
    size = (
        f'width="{placed.width:.0f}" height="{placed.height:.0f}" viewBox="0 0 {placed.width:.0f} {placed.height:.0f}"'
    )
    title = escape(f"Network of {figure.root.lines[0].text}")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{title}">',
        f"<title>{title}</title><style>{styles()} text{{font:{FONT}px {FONTS};{SPACES}}}</style>",
        '<rect class="back" width="100%" height="100%"/>',
        *_links(placed.groups, placed.root),
        *_box(placed.root),
    ]
    for group in placed.groups:
        parts += _box(group.head)
        if group.members:
            parts.append(_rectangle("frame", group.x, group.y, group.width, group.height))
        for box in group.members:
            parts += _box(box)
    return "\n".join([*parts, "</svg>", ""])


def _links(groups: tuple[Group, ...], root: Box) -> Iterator[str]:
    """Yields a line from the root to each section's head, and from there to its members."""
    x, y = MARGIN + SPINE, root.y + root.height
    for group in groups:
        middle = group.head.y + min(group.head.height, LINE * 2) / 2
        yield f'<path class="link" d="M{x:.1f} {y:.1f}V{middle:.1f}H{group.head.x:.1f}"/>'
        if group.members:
            kind = f"link {group.head.card.kind}"
            yield f'<path class="{kind}" d="M{group.head.x + group.head.width:.1f} {middle:.1f}H{group.x:.1f}"/>'


def _rectangle(kind: str, x: float, y: float, width: float, height: float) -> str:
    size = f'width="{width:.1f}" height="{height:.1f}" rx="{CORNER}"'
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" {size}/>'


def _box(box: Box) -> Iterator[str]:
    kind = f"card {box.card.kind}{' broken' if box.card.is_bad else ''}"
    yield f"<g>{_rectangle(kind, box.x, box.y, box.width, box.height)}"
    for number, line in enumerate(box.lines, 1):
        x, y = box.x + PAD, box.y + number * LINE
        length = f'textLength="{cell_len(line.text) * CELL:.2f}"'
        yield f'<text class="{line.tone}" x="{x:.1f}" y="{y:.1f}" {length}>{escape(line.text)}</text>'
    yield "</g>"
