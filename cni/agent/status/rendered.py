"""The page and the JSON of the last snapshot as bytes, made seldom, however often somebody asks for them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from cni.agent.kept import Kept
from cni.agent.status.page import page
from cni.protocol.jsontext import dump

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.protocol.jsontext import JsonValue

    Object = dict[str, JsonValue]

    class Documents(Protocol):
        def document(self, *, detailed: bool) -> Object: ...


class Rendered:
    """Answers for one thread, which the server of health has."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._pages = {detailed: Kept(partial(self._make, page, detailed=detailed)) for detailed in (False, True)}
        self._jsons = {detailed: Kept(partial(self._make, _json, detailed=detailed)) for detailed in (False, True)}

    def page(self, *, detailed: bool) -> bytes:
        return self._pages[detailed]()

    def json(self, *, detailed: bool) -> bytes:
        return self._jsons[detailed]()

    def _make(self, form: Callable[[Object], bytes], *, detailed: bool) -> bytes:
        return form(self._documents.document(detailed=detailed))


def _json(document: Object) -> bytes:
    return dump(document).encode("utf-8", "replace") + b"\n"
