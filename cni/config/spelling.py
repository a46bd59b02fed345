"""Finds the known word that an unknown one was meant to be; loaded only if there is one."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST = 40  # letters: no word that is known has as many


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that is the fewest strokes away; empty where none is near enough to be meant."""
    if len(word) > LONGEST:
        return ""
    distances = [(distance(word.casefold(), one.casefold()), one) for one in known]
    strokes, meant = min(distances, default=(LONGEST, ""))
    return meant if strokes <= max(1, len(word) // 3) else ""


def distance(one: str, other: str) -> int:
    """Letters to put in, to take out, to change, or to exchange with their neighbour (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        earlier, before, row = before, row, [i]
        for j, wanted in enumerate(other, 1):
            ways = [before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted)]
            if earlier and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                ways.append(earlier[j - 2] + 1)
            row.append(min(ways))
    return row[-1]
