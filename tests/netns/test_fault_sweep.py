"""Whatever step of an ADD fails, and however: the machine afterwards is the machine before."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.machine import Machine
from tests.netns.faults import STORE, Case, count, lose, refuse, sweep, terminate, wrap_effects, wrap_operations
from tests.netns.runtime import RICH, RICHEST, ROUTED, Attachment, Node, attachment
from tests.netns.state import difference, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.netns.faults import Fault, Wrap
    from tests.netns.runtime import Json
    from tests.snapshot import Snapshot

    Install = Callable[[Wrap], None]

TOGETHER = 48  # so many failed ADDs of different containers are looked at together

# What the first pod of a machine brings and the last leaves.
SHARED = (
    "ip link delete cni0",
    "nft flush ruleset",
    "sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0",
)


# The machine's (100), the disk's (5) and the namespace's (8) refusal; an interruption (11).
CODES: dict[Fault, tuple[int, ...]] = {refuse: (100, 5, 8), lose: (100, 5), terminate: (11,)}


# Without its memory the allocator works as well, only slower.
TOLERATED = (STORE,)


class Scene(NamedTuple):
    """The machine that the faulty ADDs meet, and what they are asked for."""

    config: Json
    others: int = 0
    before: tuple[str, ...] = ()
    clean_up: tuple[str, ...] = ()


FRESH = Scene(RICH, clean_up=SHARED)
MAPPED = Scene(RICHEST, clean_up=SHARED)
BOUND = Scene({**RICHEST, "conditionsV4": ["tcp", "sport", "!=", "1"], "markMasqBit": 7}, clean_up=SHARED)
UNBRIDGED = Scene(ROUTED, clean_up=SHARED[1:])
CROWDED = Scene(RICH, others=1)
# The bridge is somebody else's: down, with another address, which has to come back.
THEIRS = ("ip link add cni0 address 02:00:00:00:00:77 type bridge", "ip address add 10.1.2.99/24 dev cni0")
FOREIGN = Scene(
    {**RICH, "hairpinMode": False, "promiscMode": True, "forceAddress": True, "portIsolation": True},
    before=THEIRS,
    clean_up=(*SHARED, *THEIRS),
)


def prepared(scene: Scene, machine: Machine) -> str:
    """Builds the scene; returns the path of the namespace that is to be attached."""
    node = Node(machine)
    for command in scene.before:
        machine.run(*command.split())
    for number in range(scene.others):
        node.add(scene.config, attachment(machine.pod(f"other{number}")))
    return machine.pod("victim").path


def effects_of(install: Install, scene: Scene) -> list[str]:
    with Machine() as machine:
        return machine.call(count, install, scene.config, Attachment("container", prepared(scene, machine)))


def failed_adds(
    install: Install, fault: Fault, scene: Scene, numbers: Iterable[int]
) -> tuple[list[Case], Snapshot, Snapshot]:
    """Returns the cases, and the machine before and after them."""
    with Machine() as machine:
        netns = prepared(scene, machine)
        before = whole(machine)
        cases = machine.call(sweep, install, fault, scene.config, netns, numbers, scene.clean_up, scene.others == 0)
        return cases, before, whole(machine)


def culprits(install: Install, fault: Fault, scene: Scene, numbers: Iterable[int]) -> list[str]:
    """Repeats faults one by one, to tell which of them left something."""
    names = []
    for number in numbers:
        cases, before, after = failed_adds(install, fault, scene, [number])
        if changed := difference(before, after):
            names.append("\n".join([str(cases[0]), *changed]))
    return names


def anything(name: str) -> bool:
    del name
    return True


def changes(name: str) -> bool:
    """True if an effect changes something: the loss of an answer to a question is as good as a refusal."""
    return name in ("Netlink.request", "Netlink.batch", "sysctl.write", "proc.run")


@pytest.mark.parametrize(
    ("install", "fault", "concerns", "scene"),
    [
        # Whatever this ADD asks, the one with ports and limits asks as well.
        pytest.param(wrap_effects, refuse, changes, FRESH, id="a change refused on a fresh machine"),
        pytest.param(wrap_effects, refuse, anything, MAPPED, id="an effect refused with ports and limits"),
        pytest.param(wrap_effects, lose, changes, BOUND, id="an answer lost with ports under conditions"),
        pytest.param(wrap_effects, lose, changes, UNBRIDGED, id="an answer lost without a bridge"),
        pytest.param(wrap_effects, terminate, changes, UNBRIDGED, id="SIGTERM without a bridge"),
        pytest.param(wrap_effects, refuse, anything, CROWDED, id="an effect refused beside another pod"),
        pytest.param(wrap_effects, lose, changes, FRESH, id="an answer lost on a fresh machine"),
        pytest.param(wrap_effects, lose, changes, CROWDED, id="an answer lost beside another pod"),
        pytest.param(wrap_effects, lose, changes, FOREIGN, id="an answer lost on another's bridge"),
        pytest.param(wrap_effects, terminate, changes, FRESH, id="SIGTERM on a fresh machine"),
        pytest.param(wrap_effects, terminate, changes, CROWDED, id="SIGTERM beside another pod"),
        pytest.param(wrap_operations, refuse, anything, FRESH, id="an operation refused on a fresh machine"),
        pytest.param(wrap_operations, lose, anything, CROWDED, id="an operation failed late beside another pod"),
        pytest.param(wrap_operations, refuse, anything, FOREIGN, id="an operation refused on another's bridge"),
    ],
)
def test_a_failed_add_leaves_the_machine_as_it_was(
    install: Install, fault: Fault, concerns: Callable[[str], bool], scene: Scene
) -> None:
    numbers = [number for number, name in enumerate(effects_of(install, scene)) if concerns(name)]
    assert len(numbers) > 10, "the wrappers no longer sit where podwire passes"
    left = []
    for start in range(0, len(numbers), TOGETHER):
        together = numbers[start : start + TOGETHER]
        cases, before, after = failed_adds(install, fault, scene, together)
        for case in cases:
            # How often podwire asks whether a port forwards varies, so the last number may hit nothing.
            passes = not case.effect or (fault is refuse and case.effect.startswith(TOLERATED))
            assert case.answer.code in CODES[fault] or (passes and case.answer.status == 0), case
            assert "could be undone" not in case.answer.message, case
        if difference(before, after):
            left += culprits(install, fault, scene, together) or difference(before, after)
    assert not left, "\n\n".join(left)
