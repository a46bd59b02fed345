"""Failures of the system in words, whatever they come through."""

from __future__ import annotations

from errno import EINVAL, EMFILE, ENOSPC

import pytest

from cni.effects.engine import explain
from cni.effects.journal import words_of
from cni.kernel.netlink import Interrupted, Refused
from cni.plugins.context import collecting
from cni.protocol.errors import InputOutput


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Refused(EINVAL, ""), "Invalid argument"),
        (Refused(EINVAL, "no such chain"), "Invalid argument (no such chain)"),
        (OSError(ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(EMFILE, "Too many open files", "/etc/x"), "/etc/x: Too many open files"),
        (Interrupted("a dump was interrupted"), "a dump was interrupted"),
        (InputOutput("leases: full"), "leases: full"),
        (OSError(), "OSError"),
    ],
)
def test_a_failure_is_told_in_words(error: Exception, words: str) -> None:
    def step() -> None:
        raise error

    assert words_of(error) == words
    failed: list[str] = []
    collecting(failed, step)
    assert failed == [words]
    assert "Errno" not in explain("link", error).message
    assert "(22" not in explain("link", error).message
