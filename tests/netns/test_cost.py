"""Tests that the kernel requests of an ADD or DEL do not grow with the number of pods: counted, not timed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from cni.kernel import netlink
from tests.netns.runtime import RICH, Attachment, attachment, serve

if TYPE_CHECKING:
    from tests.machine import Machine
    from tests.netns.runtime import Json, Node

MANY = 50


class Exchange(NamedTuple):
    """One message: its type and the number of bytes answered."""

    kind: int
    received: int


class Counting:
    """A socket that notes what passes; each is one thread's."""

    all: list[Counting] = []  # noqa: RUF012 - of this process, which makes one call

    def __init__(self, *arguments: Any) -> None:
        self._socket = _SOCKET(*arguments)
        self.seen: list[Exchange] = []
        self.all.append(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def send(self, data: bytes) -> int:
        self.seen.append(Exchange(int.from_bytes(data[4:6], "little"), 0))
        sent: int = self._socket.send(data)
        return sent

    def recvmsg(self, *arguments: int) -> Any:
        answer = self._socket.recvmsg(*arguments)
        last = self.seen[-1]
        self.seen[-1] = last._replace(received=last.received + len(answer[0]))
        return answer


_SOCKET: Any = vars(netlink)["socket"]


def exchanges(verb: str, config: Json, who: Attachment) -> list[Exchange]:
    """Inside: serves a call and returns what it cost; waiting, which is asking the same again, counts once."""
    vars(netlink)["socket"] = Counting
    serve(who.environment(verb), config).succeeded()
    return sorted(
        exchange
        for counting in Counting.all
        for number, exchange in enumerate(counting.seen)
        if number == 0 or exchange != counting.seen[number - 1]
    )


def cost(machine: Machine, config: Json, who: Attachment) -> dict[str, list[Exchange]]:
    """Returns the exchanges of an ADD and of the DEL after it."""
    return {verb: machine.call(exchanges, verb, config, who) for verb in ("ADD", "DEL")}


def test_fifty_other_pods_cost_nothing(machine: Machine, node: Node) -> None:
    config = RICH
    who = attachment(machine.pod("measured"))
    node.add(config, Attachment("other00", machine.pod("other00").path))
    # Always the same addresses: the alias that the kernel tells holds them.
    measured = {**config, "runtimeConfig": {"ips": ["10.1.2.200", "2001:db8:1::200"]}}
    alone = cost(machine, measured, who)
    for number in range(1, MANY):
        name = f"other{number:02}"
        node.add(config, Attachment(name, machine.pod(name).path))
    crowded = cost(machine, measured, who)
    for verb in alone:
        assert crowded[verb] == alone[verb], verb
        assert len(alone[verb]) > 1
