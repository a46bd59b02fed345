"""The page and the JSON of the last snapshot as bytes, made seldom, however often somebody asks for them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from cni.agent.status.page import page
from cni.protocol.jsontext import dump

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.protocol.jsontext import JsonValue

    Object = dict[str, JsonValue]

    class Documents(Protocol):
        def document(self, *, detailed: bool) -> Object: ...


KEPT_SECONDS = 1.0  # so long an answer is given again, and as many times as long as it took to make it:
PAUSES = 10


class Rendered:
    """Answers for one thread, which the server of health has."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._kept: dict[tuple[Callable[[Object], bytes], bool], tuple[float, bytes]] = {}

    def page(self, *, detailed: bool) -> bytes:
        return self._render(page, detailed=detailed)

    def json(self, *, detailed: bool) -> bytes:
        return self._render(_json, detailed=detailed)

    def _render(self, form: Callable[[Object], bytes], *, detailed: bool) -> bytes:
        end, answer = self._kept.get((form, detailed), (0.0, b""))
        began = time.monotonic()
        if began >= end:
            answer = form(self._documents.document(detailed=detailed))
            now = time.monotonic()
            self._kept[form, detailed] = now + max(KEPT_SECONDS, PAUSES * (now - began)), answer
        return answer


def _json(document: Object) -> bytes:
    return dump(document).encode("utf-8", "replace") + b"\n"
