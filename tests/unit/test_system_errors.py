"""Failures of the system in words, whatever they come through."""

from __future__ import annotations

from errno import EINVAL, EMFILE, ENOSPC

import pytest

from cni.effects.engine import to_cni_error
from cni.effects.journal import error_text
from cni.kernel.netlink import Interrupted, NetlinkError
from cni.plugins.context import collect_errors
from cni.protocol.errors import IOFailure


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (NetlinkError(EINVAL, ""), "Invalid argument"),
        (NetlinkError(EINVAL, "no such chain"), "Invalid argument (no such chain)"),
        (OSError(ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(EMFILE, "Too many open files", "/etc/x"), "/etc/x: Too many open files"),
        (Interrupted("a dump was interrupted"), "a dump was interrupted"),
        (IOFailure("leases: full"), "leases: full"),
        (OSError(), "OSError"),
    ],
)
def test_a_failure_is_reported_in_words(error: Exception, text: str) -> None:
    def step() -> None:
        raise error

    assert error_text(error) == text
    failed: list[str] = []
    collect_errors(failed, step)
    assert failed == [text]
    assert "Errno" not in to_cni_error("link", error).message
    assert "(22" not in to_cni_error("link", error).message
