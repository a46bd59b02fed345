"""Tests of a group run on one worker: what they share is made once."""

from __future__ import annotations

import pytest


@pytest.mark.xdist_group("a group")
def test_a_group_is_known_to_what_distributes_tests(request: pytest.FixtureRequest) -> None:
    """pytest-xdist appends the group to the test's name; where pytest ignores that, groups silently have no effect."""
    distributed = getattr(request.config.option, "loadgroup", False)  # by hack/test
    assert request.node.nodeid.endswith("@a group") == distributed
