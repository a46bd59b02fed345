"""loopback at DEL: the interface lo goes down, but not that of another container that has the path by now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.netns.runtime import Attachment, attachment, network
from tests.netns.state import link, owners

if TYPE_CHECKING:
    from tests.machine import Machine, Pod
    from tests.netns.runtime import Node

LOOPBACK = {**network("cni-loopback"), "type": "loopback"}


def is_up(pod: Pod) -> bool:
    return "UP" in link(pod, "lo")["flags"]


@pytest.mark.parametrize("attached", [True, False])
def test_a_containers_own_goes_down(machine: Machine, node: Node, attached: bool) -> None:
    pod = machine.pod()
    if attached:
        node.add(network(), attachment(pod))
    who = attachment(pod, "lo")
    node.add(LOOPBACK, who, program="loopback")
    assert is_up(pod)
    for _ in range(2):
        node.delete(LOOPBACK, who, program="loopback")
        assert not is_up(pod)


def test_another_containers_stays_up(machine: Machine, node: Node) -> None:
    pod = machine.pod("pod10")
    node.add(network(), attachment(pod))
    node.add(LOOPBACK, attachment(pod, "lo"), program="loopback")
    node.delete(LOOPBACK, Attachment("pod1", pod.path, "lo"), program="loopback")
    assert is_up(pod)
    (port,) = owners(machine)
    machine.run("ip", "link", "set", port, "alias", "")
    node.delete(LOOPBACK, Attachment("pod1", pod.path, "lo"), program="loopback")
    assert not is_up(pod)  # nothing tells whose it is
