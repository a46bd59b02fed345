"""Rules that somebody flushes while a container is being attached: they are made again, a few times."""

from __future__ import annotations

import subprocess
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from cni.effects import nft_socket
from cni.effects.engine import FLUSHES
from cni.effects.nft_socket import Nft
from tests.netns.runtime import DUAL, RICHEST, attachment, network
from tests.netns.state import difference, elements, whole

if TYPE_CHECKING:
    from tests.machine import Machine
    from tests.netns.runtime import Json, Node

MASQUERADED = network(isDefaultGateway=True, ipMasq=True, ipam=DUAL)


def flush_before(changes: set[int]) -> None:
    """In this process, the rules are flushed right before these changes of elements, counted from 0."""
    change, count = Nft.change, iter(range(1 << 16))

    def flushed(self: Nft, *messages: Any) -> Any:
        if next(count) in changes:
            subprocess.run(["nft", "flush", "ruleset"], check=True)
        return change(self, *messages)

    vars(nft_socket)["Nft"].change = flushed


@pytest.mark.parametrize("config", [MASQUERADED, RICHEST], ids=["masqueraded", "rich"])
@pytest.mark.parametrize("number", range(4))
def test_an_add_survives_a_flush(machine: Machine, node: Node, config: Json, number: int) -> None:
    who = attachment(machine.pod())
    node.add(config, who, prepare=partial(flush_before, {number}))
    node.check(config, who).succeeded()
    node.delete(config, who)
    assert elements(machine) == {}


def test_an_add_gives_up_where_flushing_does_not_end(machine: Machine, node: Node) -> None:
    who = attachment(machine.pod())
    before = whole(machine)
    answer = node.call("ADD", MASQUERADED, who, prepare=partial(flush_before, set(range(1000))))
    assert answer.code == 100
    assert "No such file or directory" in answer.message
    assert difference(before, whole(machine)) == []


def test_so_many_flushes_are_put_up_with(machine: Machine, node: Node) -> None:
    who = attachment(machine.pod())
    node.add(MASQUERADED, who, prepare=partial(flush_before, set(range(FLUSHES))))
    node.check(MASQUERADED, who).succeeded()
