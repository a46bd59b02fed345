"""The places of a figure's cards, in pixels: computed from the text alone, so that nothing overlaps and nothing is cut.

Text is monospaced. A drawing fixes the width of each line (textLength), whatever font a viewer has.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.cells import cell_len

from cni.diag.drawing.figure import Line
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni.diag.drawing.figure import Card, Figure, Section

CELL, LINE = 7.25, 17.0  # of a character: the width at FONT pixels, and the distance of lines
FONT = 12
COLUMNS = 40  # characters of a line; longer ones are wrapped
PAD, GAP, MARGIN, INDENT = 10.0, 10.0, 24.0, 28.0
LINK = 36.0  # between the head of a section and its members
SHAPE = 1.6  # width by height that a drawing of many cards comes near
NARROWEST = 900.0
BREAKS = "/-.,: "  # a line is rather wrapped behind these


class Box(Record):
    """A card in its place."""

    x: float
    y: float
    width: float
    height: float
    card: Card
    lines: tuple[Line, ...]


class Group(Record):
    """A section in its place; the frame of its members is at x, y."""

    head: Box
    members: tuple[Box, ...]
    x: float
    y: float
    width: float
    height: float


class Layout(Record):
    """A whole figure in its place."""

    width: float
    height: float
    root: Box
    groups: tuple[Group, ...]


def layout(figure: Figure) -> Layout:
    """Returns the places of all cards. Cards of a section have one width, and those of a row one height."""
    root = box_of(figure.root, MARGIN, MARGIN)
    heads = max([box_of(section.head, 0, 0).width for section in figure.sections], default=0.0)
    left = MARGIN + INDENT
    room = _room(figure)
    groups, y = [], MARGIN + root.height + GAP * 2
    for section in figure.sections:
        group = _group(section, left, y, heads, room)
        groups.append(group)
        y += max(group.head.height, group.height) + GAP * 2
    right = max([MARGIN + root.width, *[max(each.x + each.width, left + heads) for each in groups]])
    return Layout(right + MARGIN, y - GAP * 2 + MARGIN, root, tuple(groups))


def _room(figure: Figure) -> float:
    """Returns the width for members: more of them make a drawing wider and higher."""
    boxes = [box_of(card, 0, 0) for section in figure.sections for card in section.members]
    area = sum((box.width + GAP) * (box.height + GAP) for box in boxes)
    return max(NARROWEST, math.sqrt(area * SHAPE))


def _group(section: Section, x: float, y: float, head_width: float, room: float) -> Group:
    head = box_of(section.head, x, y)._replace(width=head_width)
    frame = x + head_width + LINK
    boxes = [box_of(card, 0, 0) for card in section.members]
    if not boxes:
        return Group(head, (), frame, y, 0.0, 0.0)
    width = max(box.width for box in boxes)
    columns = max(1, min(len(boxes), int((room - GAP) // (width + GAP))))
    placed, top = [], y + GAP
    for first in range(0, len(boxes), columns):
        row = boxes[first : first + columns]
        height = max(box.height for box in row)
        for column, box in enumerate(row):
            left = frame + GAP + column * (width + GAP)
            placed.append(box._replace(x=left, y=top, width=width, height=height))
        top += height + GAP
    return Group(head, tuple(placed), frame, y, GAP + columns * (width + GAP), top - y)


def box_of(card: Card, x: float, y: float) -> Box:
    """Returns a card as large as its text."""
    lines = [*([Line(card.label, "label")] if card.label else []), *_wrapped(card.lines)]
    widest = max([cell_len(line.text) for line in lines], default=0)
    return Box(x, y, widest * CELL + PAD * 2, len(lines) * LINE + PAD, card, tuple(lines))


def _wrapped(lines: Sequence[Line]) -> Iterator[Line]:
    for line in lines:
        for part in wrapped(line.text):
            yield Line(part, line.tone)


def wrapped(text: str) -> Iterator[str]:
    """Yields the text in pieces of no more than COLUMNS cells, which together are the whole text."""
    while cell_len(text) > COLUMNS:
        end = next(end for end in range(len(text), 0, -1) if cell_len(text[:end]) <= COLUMNS)
        behind = [text.rfind(letter, 0, end) + 1 for letter in BREAKS]
        end = max(behind) if max(behind) > end // 2 else end
        yield text[:end]
        text = text[end:]
    yield text
