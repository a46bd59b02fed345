"""The publisher's rules where the kernel refuses a part of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from cni.agent.dataplane.tunnel_filter import Tunnel
from cni.agent.logs import log
from cni.agent.node import masquerade
from cni.agent.node.masquerade import Rules
from cni.agent.node.publisher import NodePublisher
from cni.protocol.errors import OperationFailed

if TYPE_CHECKING:
    from collections.abc import Callable

RULES = Rules("podwired", (), masquerades=True, fully_random=False, forwards=True, tunnel=Tunnel(1, ("flannel.1",)))
REASON = "nftables: not supported by the kernel (load the module nf_tables)"


class Settings:
    """All that the publisher reads of its settings here."""

    instance = type("Instance", (), {"name": "podwired"})


def publisher(monkeypatch: pytest.MonkeyPatch, ensure: Callable[[Any, Rules], list[str]]) -> NodePublisher:
    monkeypatch.setattr(masquerade, "ensure", ensure)
    made = NodePublisher(cast("Any", Settings), cast("Any", None))
    made._rules = RULES
    return made


def test_without_the_filter_the_agent_goes_on_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loaded: list[Rules] = []

    def ensure(_: object, rules: Rules) -> list[str]:
        if rules.tunnel is not None:
            raise OperationFailed(REASON)
        loaded.append(rules)
        return []

    made = publisher(monkeypatch, ensure)
    monkeypatch.setattr(log, "propagate", True)
    for _ in range(2):
        made._rules = RULES  # as the next `publish` has it
        assert made._load() == []
    assert [rules.tunnel for rules in loaded] == [None, None]
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "are not filtered" in warning
    assert REASON in warning


def test_rules_without_a_filter_that_are_refused_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def ensure(*_: object) -> list[str]:
        raise OperationFailed(REASON)

    with pytest.raises(OperationFailed, match="nf_tables"):
        publisher(monkeypatch, ensure)._load()
