"""Tests that are not measured run at full speed."""

from __future__ import annotations

import sys

import pytest


@pytest.mark.no_cover
def test_nothing_traces_a_test_that_is_not_measured() -> None:
    assert sys.gettrace() is None
