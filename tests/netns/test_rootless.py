"""Without root: a user namespace made in one step with its network, and one made before it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import pytest

from cni.effects import iptables_legacy
from cni.kernel import sysctl
from tests.machine import Machine, missing
from tests.netns.runtime import MASQUERADED, Node, attachment

if TYPE_CHECKING:
    from collections.abc import Iterator

FIREWALL = {"cniVersion": "1.1.0", "name": "net", "type": "firewall"}


@pytest.fixture
def rootless() -> Iterator[Machine]:
    if reason := missing(user_namespace=True):
        pytest.skip(reason)
    with Machine(user_namespace=True) as machine:
        yield machine


@pytest.mark.parametrize("run", ["own", "read-only"])
def test_networks_and_firewall_are_served(rootless: Machine, run: str) -> None:
    node, who = Node(rootless), attachment(rootless.pod())
    if run == "read-only":
        rootless.run("mount", "-o", "remount,bind,ro", "/run")
    node.call("STATUS", MASQUERADED).succeeded()
    chained = {**FIREWALL, "prevResult": node.add(MASQUERADED, who)}
    for verb in ("ADD", "STATUS", "CHECK"):
        answer = node.call(verb, chained, who, program="firewall").succeeded()
        assert verb != "ADD" or json.loads(answer.stdout)["ips"]
    node.check(MASQUERADED, who).succeeded()
    node.call("DEL", chained, who, program="firewall").succeeded()
    node.delete(MASQUERADED, who)


def test_names_of_tables_that_may_not_be_read_tell_of_no_drop(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> str:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(sysctl, "read_text", refuse)
    iptables_legacy.refuse_drops(cast("Any", None), (4, 6), "eth0")
