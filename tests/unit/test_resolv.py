"""resolv.conf(5) as the DNS part of a result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.protocol.errors import IOFailure
from cni.protocol.result import DNS
from ipam.resolv import parse_resolv_conf, read_resolv_conf

if TYPE_CHECKING:
    from pathlib import Path

TEXT = """# a comment
; another
nameserver 10.1.2.1
nameserver
domain a
domain b
search c d
search e
options ndots:5
sortlist 10.0.0.0
"""


def test_search_and_options_add_up_and_the_last_domain_wins() -> None:
    assert parse_resolv_conf(TEXT) == DNS(("10.1.2.1",), "b", ("c", "d", "e"), ("ndots:5",))


def test_dev_null_is_no_resolver(tmp_path: Path) -> None:
    assert read_resolv_conf("/dev/null") == DNS()
    (tmp_path / "resolv.conf").write_text(TEXT)
    assert read_resolv_conf(f"{tmp_path}/resolv.conf") == parse_resolv_conf(TEXT)


def test_a_file_that_is_absent_is_an_error() -> None:
    with pytest.raises(IOFailure, match=r"/nowhere/resolv\.conf: No such file or directory"):
        read_resolv_conf("/nowhere/resolv.conf")
