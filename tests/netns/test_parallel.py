"""Many calls at once on one machine, as programs of their own: all are served, and none undoes another's work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni.effects.engine import EFFECTS, FILES, effect_of
from cni.kernel.hostlock import HostLock
from cni.kernel.netns import OWN, Netns
from tests.netns.runtime import DUAL, RICH, Answer, Attachment, network
from tests.netns.state import difference, elements, leases, link, owners, whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.machine import Machine
    from tests.netns.runtime import Json, Node

CONTAINERS = 20
EACH = 2 + 2 + 7  # elements of a container: masquerade, MAC address, sources
ROOT = Path(__file__).parents[2]


def answers(running: list[subprocess.Popen[bytes]]) -> list[Answer]:
    """Waits for all."""
    ended = []
    for process in running:
        output, heard = process.communicate(timeout=60)
        ended.append(Answer(process.returncode, output.decode(), heard.decode()))
    return ended


def containers(machine: Machine, count: int, prefix: str = "pod") -> list[Attachment]:
    names = [f"{prefix}{number}" for number in range(count)]
    return [Attachment(name, machine.pod(name).path) for name in names]


def test_twenty_at_once_on_a_fresh_machine(machine: Machine, node: Node) -> None:
    everybody = containers(machine, CONTAINERS)
    added = answers([node.start("ADD", RICH, attachment) for attachment in everybody])
    assert [answer.message for answer in added if answer.status] == []
    results = [answer.content for answer in added]
    for family in (0, 1):
        assert len({result["ips"][family]["address"] for result in results}) == CONTAINERS
    assert {result["interfaces"][0]["mac"] for result in results} == {link(machine, "cni0")["address"]}
    assert len(owners(machine)) == CONTAINERS
    # Two families of masquerade, and two sets that guard.
    assert len(elements(machine)) == EACH * CONTAINERS
    checks = [
        node.start("CHECK", {**RICH, "prevResult": result}, attachment)
        for result, attachment in zip(results, everybody, strict=True)
    ]
    assert [answer.message for answer in answers(checks) if answer.status] == []
    deletions = answers([node.start("DEL", RICH, attachment) for attachment in everybody])
    assert [answer.message for answer in deletions if answer.status] == []
    assert (owners(machine), elements(machine), leases(machine)) == ({}, {}, {})


UNREACHABLE = network(
    isDefaultGateway=True, ipMasq=True, ipam={**DUAL, "routes": [{"dst": "192.0.2.0/24", "gw": "203.0.113.9"}]}
)


def test_adds_that_fail_take_nothing_from_adds_that_succeed(machine: Machine, node: Node) -> None:
    """All begin on a fresh machine, so each has the bridge and the rules to make, and the failing ones to undo."""
    good, bad = containers(machine, 6, "good"), containers(machine, 6, "bad")
    running = []
    for attachment, failing in zip(good, bad, strict=True):
        running += [node.start("ADD", UNREACHABLE, failing), node.start("ADD", RICH, attachment)]
    ended = answers(running)
    assert [answer.code for answer in ended] == [100, 0] * 6
    results: list[Json] = [json.loads(answer.stdout) for answer in ended[1::2]]
    for result, attachment in zip(results, good, strict=True):
        node.call("CHECK", {**RICH, "prevResult": result}, attachment).succeeded()
    assert len(owners(machine)) == 6
    assert set(elements(machine).values()) == {f"{attachment.container}/eth0" for attachment in good}


def test_adds_that_all_fail_leave_a_fresh_machine_to_the_last(machine: Machine, node: Node) -> None:
    """Whoever fails while others are at work leaves them what they share; alone, an ADD takes everything back."""
    everybody = containers(machine, 4)
    before = whole(machine)
    ended = answers([node.start("ADD", UNREACHABLE, attachment) for attachment in everybody])
    assert {answer.code for answer in ended} == {100}
    assert (owners(machine), elements(machine), leases(machine)) == ({}, {}, {})
    shared = difference(before, whole(machine))
    assert not any("eth0" in line or "veth" in line for line in shared)


def test_adds_and_deletes_cross(machine: Machine, node: Node) -> None:
    first, second = containers(machine, 8, "first"), containers(machine, 8, "second")
    added = answers([node.start("ADD", RICH, attachment) for attachment in first])
    assert [answer.status for answer in added] == [0] * 8
    running = []
    for leaving, coming in zip(first, second, strict=True):
        running += [node.start("DEL", RICH, leaving), node.start("ADD", RICH, coming)]
    assert [answer.message for answer in answers(running) if answer.status] == []
    assert set(owners(machine).values()) == {f"{attachment.container}/eth0" for attachment in second}
    assert len(elements(machine)) == EACH * 8
    assert len(leases(machine)) == 2 * 8


def _alone() -> bool:
    """True if the host lock can be held exclusively now. To be called in the machine."""
    host = Netns(OWN)
    lock = HostLock(host)
    try:
        return lock.try_lock_exclusive()
    finally:
        lock.close()
        host.close()


def _refuses_company() -> None:
    """In this process, whatever is applied or released asks first that nobody can have the machine alone."""

    def held(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            assert not _alone()
            return function(*arguments)

        return wrapped

    for kind in FILES:
        effect = effect_of(kind)
        EFFECTS[kind] = effect._replace(apply=held(effect.apply), release=held(effect.release))


def test_nobody_has_the_machine_alone_while_a_pod_comes_or_goes(machine: Machine, node: Node) -> None:
    (attachment,) = containers(machine, 1)
    assert machine.call(_alone)
    node.call("ADD", RICH, attachment, prepare=_refuses_company).succeeded()
    node.call("DEL", RICH, attachment, prepare=_refuses_company).succeeded()
    assert machine.call(_alone)


HOLD = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from cni.kernel.hostlock import HostLock
from cni.kernel.netns import OWN, Netns
HostLock(Netns(OWN)).lock_shared()
print("held", flush=True)
sys.stdin.read()
"""


BARE = {**UNREACHABLE, "ipMasq": False}  # to load rules, an ADD waits until no other is at work


def test_what_is_shared_stays_while_another_is_at_work(machine: Machine, node: Node) -> None:
    """The other may have found the bridge, and is about to join it."""
    first, second = containers(machine, 2)
    before = whole(machine)
    other = subprocess.Popen(
        machine.command(sys.executable, "-I", "-S", "-c", HOLD), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with other:
        assert other.stdout
        assert other.stdout.readline() == b"held\n"
        assert node.call("ADD", BARE, first).code == 100
        assert link(machine, "cni0")
        other.communicate()
    machine.run("ip", "link", "delete", "cni0")
    machine.run("sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0")
    assert difference(before, whole(machine)) == []
    assert node.call("ADD", BARE, second).code == 100
    assert difference(before, whole(machine)) == []
