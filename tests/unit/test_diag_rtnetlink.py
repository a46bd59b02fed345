"""Refusals of the kernel are errors that commands expect: none ends by a traceback of pyroute2."""

from __future__ import annotations

import errno

import pytest

from cni.diag.node.rtnetlink import opened_rtnetlink
from cni.diag.report import kernel

UNUSED = 1 << 30  # the index of no interface


def test_a_refusal_is_an_oserror() -> None:
    with pytest.raises(OSError) as refused, opened_rtnetlink() as route:  # noqa: PT011  # its number is compared
        route.link("get", index=UNUSED)
    assert refused.value.errno == errno.ENODEV


def test_a_report_says_what_the_kernel_has_refused_and_has_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kernel.DUMPS, "rules6", lambda route: route.link("get", index=UNUSED))
    objects = kernel.objects()
    assert objects["rules6"] == ["cannot be read: No such device"]
    assert objects["links"]
