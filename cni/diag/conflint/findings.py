"""A finding about a configuration, and the collector that takes all errors of the plugins' own parsers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.protocol.fields import ConfigErrors
from cni.protocol.record import Record

if TYPE_CHECKING:
    from typing import Self


class Finding(Record):
    """`path` is a JSON path, empty for the whole file; the remedy may be empty."""

    file: str
    path: str
    cause: str
    remedy: str

    @classmethod
    def of(cls, file: str, path: str, message: str) -> Self:
        """Splits a message of the form `cause (remedy)`."""
        cause, opening, remedy = message.rpartition(" (")
        if not opening or not remedy.endswith(")") or remedy.count("(") != remedy.count(")") - 1:
            return cls(file, path, message, "")
        return cls(file, path, cause, remedy[:-1])

    @property
    def text(self) -> str:
        place = f"{self.file}: {self.path}" if self.path else self.file
        return f"{place}: {self.cause}{f' ({self.remedy})' if self.remedy else ''}"


class Collected(ConfigErrors):
    """Errors of any number and length as (path, message); the caller goes on in spite of them."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[tuple[str, str]] = []

    def add(self, path: str, error: str) -> None:
        self.count += 1
        self.pairs.append((path, error))

    def raise_if_any(self) -> None:
        """Raises nothing: all is to be heard."""
