"""Values that are made seldom, however often somebody asks for them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Value = TypeVar("Value")

KEPT_SECONDS = 1.0  # so long a value is given again, and as many times as long as it took to make it:
PAUSES = 10


class Kept(Generic[Value]):
    """The value that `make` returns, for one thread: so at most an eleventh of its time is spent on making it."""

    def __init__(self, make: Callable[[], Value]) -> None:
        self._make = make
        self._last: tuple[float, Value] | None = None  # and until when it is given again

    def __call__(self) -> Value:
        """Raises what `make` raises, which is not kept."""
        began = time.monotonic()
        if self._last is None or began >= self._last[0]:
            value = self._make()
            now = time.monotonic()
            self._last = now + max(KEPT_SECONDS, PAUSES * (now - began)), value
        return self._last[1]
