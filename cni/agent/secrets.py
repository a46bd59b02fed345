"""Removes credentials from log texts: user and password of every URL, whoever has written it."""

from __future__ import annotations

HIDDEN = "***@"


def without_credentials(text: str) -> str:
    """With the part of each URL hidden that stands between its slashes and the @ before the host."""
    if "@" not in text:
        return text
    front, *rest = text.split("//")
    return "//".join([front, *map(_hidden, rest)])


def _hidden(text: str) -> str:
    """Returns the part behind the slashes without user and password, which may hold all but white space and quotes."""
    end = next((place for place, letter in enumerate(text) if letter.isspace() or letter in "\"'"), len(text))
    at = text.rfind("@", 0, end)
    return text if at < 0 else HIDDEN + text[at + 1 :]
