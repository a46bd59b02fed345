"""The errors of the stores' clients: texts for people, bounded in length."""

from __future__ import annotations

LONGEST_TEXT = 400  # characters


class StoreError(Exception):
    """A failed request to a store; the text is for people. `retry_after`: seconds that the server asks to wait."""

    def __init__(self, text: str, retry_after: float = 0.0) -> None:
        super().__init__(text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}...")
        self.retry_after = retry_after
