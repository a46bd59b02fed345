"""Passwords in URLs are hidden, and nothing else is."""

from __future__ import annotations

import io
import logging

import pytest

from cni.agent import logs
from cni.agent.secrets import without_credentials


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:secret@etcd:2379", "https://***@etcd:2379"),
        ("at 'http://user@a:1' and \"https://u:p@b/c\".", "at 'http://***@a:1' and \"https://***@b/c\"."),
        ("http://a:1,https://user:sec@ret@b:2,http://c", "http://a:1,https://***@b:2,http://c"),
        ("https://user:sec/ret@host/path: refused", "https://***@host/path: refused"),
        ("moved to //user:secret@host", "moved to //***@host"),
        ("https://etcd:2379/v3 says a@b", "https://etcd:2379/v3 says a@b"),
        ("nobody@example.org", "nobody@example.org"),
        ("", ""),
    ],
)
def test_who_asks_is_not_told(text: str, shown: str) -> None:
    assert without_credentials(text) == shown


def test_no_line_of_the_log_tells_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    handler = logs.BoundedHandler()
    monkeypatch.setattr(handler, "stream", io.StringIO())
    error = ValueError("https://user:secret@host is not to be had")
    exception = (ValueError, error, None)
    handler.handle(logging.LogRecord("podwired", logging.ERROR, "", 1, "%s", ("http://user:secret@a",), exception))
    written = handler.stream.getvalue()
    assert "secret" not in written
    assert "http://***@a" in written


def test_what_libraries_log_does_not_pass_by_the_budget(capfd: pytest.CaptureFixture[str]) -> None:
    library = logging.getLogger("urllib3")
    before = library.propagate, library.handlers[:]
    try:
        logs.quiet_libraries()
        logging.getLogger("urllib3.connection").warning("Failed to parse headers", exc_info=ValueError("x"))
    finally:
        library.propagate, library.handlers[:] = before
    assert capfd.readouterr().err == ""
