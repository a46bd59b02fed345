"""Suggestions for misspelled keys; loaded only if a key is unknown."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST = 40  # letters: every known word is shorter


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns the known word with the least edit distance; empty if none is near enough."""
    if len(word) > LONGEST:
        return ""
    distances = [(distance(word.casefold(), candidate.casefold()), candidate) for candidate in known]
    edits, suggestion = min(distances, default=(LONGEST, ""))
    return suggestion if edits <= max(1, len(word) // 3) else ""


def distance(source: str, target: str) -> int:
    """Returns the edit distance: insertions, deletions, substitutions, transpositions (optimal string alignment)."""
    previous: list[int] = []
    row = list(range(len(target) + 1))
    for row_number, letter in enumerate(source, 1):
        second_last, previous, row = previous, row, [row_number]
        for column, target_letter in enumerate(target, 1):
            costs = [previous[column] + 1, row[column - 1] + 1, previous[column - 1] + (letter != target_letter)]
            if second_last and column > 1 and letter == target[column - 2] and source[row_number - 2] == target_letter:
                costs.append(second_last[column - 2] + 1)
            row.append(min(costs))
    return row[-1]
