"""Answers of a store's server: what a hostile one costs."""

from __future__ import annotations

import gzip
import tracemalloc
from io import BytesIO

import pytest
from urllib3 import HTTPResponse

from cni.agent.stores import http
from cni.agent.stores.http import Lines, body_of


def response(encoding: str, data: bytes) -> HTTPResponse:
    return HTTPResponse(body=BytesIO(data), headers={"Content-Encoding": encoding}, preload_content=False)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_compressed_answer_costs_no_more_memory_than_a_plain_one(monkeypatch: pytest.MonkeyPatch, depth: int) -> None:
    monkeypatch.setattr(http, "LARGEST", 1 << 20)
    data = bytes(64 << 20)
    for _ in range(depth):
        data = gzip.compress(data)
    encoding = ", ".join(["gzip"] * depth)
    tracemalloc.start()
    try:
        with pytest.raises(OSError, match="response larger than 1 MB"):
            body_of(response(encoding, data))
        with pytest.raises(OSError, match="line larger than 1 MB"):
            list(Lines(response(encoding, data)).lines())
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_compressed_answer_below_the_limit_is_read() -> None:
    assert body_of(response("gzip", gzip.compress(b"{}"))) == b"{}"
    assert list(Lines(response("gzip", gzip.compress(b"a\n\nb\n"))).lines()) == [b"a", b"b"]
