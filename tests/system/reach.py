"""The connections between pods, hosts and the world, and the source that the other side sees: measured and expected."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.machine import until
from tests.system.networks import SUBNET_ENV, WRITTEN, runtime_config
from tests.system.plugins import CniTool, Json, address_of
from tests.traffic import NOBODY, PROTOCOLS, Target, ask_each, listen

if TYPE_CHECKING:
    from pathlib import Path

    from tests.machine import Machine, Pod
    from tests.system.networks import Network

PORT, FREE, OPEN = 8080, 9999, 8082  # of the node: the server's, nobody's, one where the node itself listens
NODE = {4: "192.0.2.1", 6: "2001:db8:2::1"}
OUTSIDE = {4: "192.0.2.2", 6: "2001:db8:2::2"}
LOCALHOST = "127.0.0.1"
# Where netfilter sees what bridges pass on (br_netfilter), a container reaches its own port of the node by hairpinMode
# alone, with any plugin: a frame that got the container's address would have to leave by the port that it came from.
BRIDGED_IS_NOT_FILTERED = "for one in /proc/sys/net/bridge/bridge-nf-call-ip*; do [ ! -e $one ] || echo 0 > $one; done"

# "server<node": the server answers, and saw the call come from the node. A stand-in for what depends on the network:
# "egress" is the node where it masquerades, else the caller.
_EXPECTED = """
           node:8080       localhost:8080  node:9999 node:8082       server:80         neighbour:80       outside:8080
outside    server<outside  -               nobody    host<outside    server<outside    neighbour<outside  -
host       server<node     server<gateway  nobody    -               server<gateway    neighbour<gateway  outside<node
server     server<gateway  -               nobody    host<server     -                 neighbour<server   outside<egress
neighbour  server<gateway  -               nobody    host<neighbour  server<neighbour  -                  outside<egress
"""

Reach = dict[str, dict[str, str]]


class World(NamedTuple):
    """A node with two pods of a network, of which the server has the node's port 8080; and a host behind a wire.

    `names` are those of the addresses, without the family.
    """

    cnitool: CniTool
    outside: Pod
    server: Pod
    neighbour: Pod
    result: Json
    names: dict[str, str]

    def address(self, name: str, family: int) -> str:
        """Returns the address with this name."""
        return next(
            address for address, known in self.names.items() if known == name and (":" in address) == (family == 6)
        )


def cnitool_for(machine: Machine, programs: tuple[Path, Path], conflist: Json, folder: Path) -> CniTool:
    """Returns cnitool with a network, on a machine where flannel's agent has run. `programs`: cnitool, its plugins."""
    machine.run("install", "-D", "/dev/stdin", SUBNET_ENV, stdin=WRITTEN)
    if any(plugin.get("promiscMode") for plugin in conflist["plugins"]):
        machine.run("sh", "-c", BRIDGED_IS_NOT_FILTERED)
    return CniTool.with_network(machine, *programs, conflist, folder)


def populate(cnitool: CniTool, network: Network) -> World:
    """Attaches both pods, and starts all that answers."""
    machine = cnitool.machine
    outside, server, neighbour = machine.outside(), machine.pod("server"), machine.pod("neighbour")
    results = {"server": cnitool("add", server, runtime_config(PORT)), "neighbour": cnitool("add", neighbour)}
    names = {LOCALHOST: "localhost"}
    for family, subnet in zip(network.families, network.subnets, strict=True):
        names |= {NODE[family]: "node", OUTSIDE[family]: "outside"}
        outside.run("ip", f"-{family}", "route", "add", subnet, "via", NODE[family])
    for name, result in results.items():
        names |= {address_of(result, index): name for index in range(len(result["ips"]))}
        names |= {ip["gateway"]: "gateway" for ip in result["ips"]}
    for pod in (server, neighbour):
        pod.run("ip", "link", "set", "lo", "up")
        listen(pod, pod.name, 80)
    listen(outside, "outside", PORT)
    listen(machine, "host", OPEN)
    if 6 in network.families:
        # The kernel forwards nothing to a new bridge before it knows that the bridge's link-local address is unique.
        until(lambda: not machine.run("ip", "-6", "address", "show", "tentative").stdout, "addresses are settled")
    return World(cnitool, outside, server, neighbour, results["server"], names)


def measured(world: World, network: Network) -> Reach:
    """Asks everybody from everywhere."""
    callers: dict[str, Machine | Pod] = {
        "outside": world.outside,
        "host": world.cnitool.machine,
        "server": world.server,
        "neighbour": world.neighbour,
    }
    answers = {}
    for caller, questions in _questions(network).items():
        targets = []
        for protocol, family, column, _ in questions:
            name, _, port = column.partition(":")
            targets.append(Target(protocol, world.address(name, family), int(port)))
        seen = [
            NOBODY if answer.name == NOBODY else f"{answer.name}<{world.names.get(answer.source, answer.source)}"
            for answer in ask_each(callers[caller], targets)
        ]
        answers[caller] = {question.title: answer for question, answer in zip(questions, seen, strict=True)}
    return answers


def expected(network: Network) -> Reach:
    """Returns what `measured` is to find."""
    return {
        caller: {
            question.title: question.seen.replace("egress", "node" if network.masquerades else caller)
            for question in questions
        }
        for caller, questions in _questions(network).items()
    }


class _Question(NamedTuple):
    protocol: str
    family: int
    column: str
    seen: str

    @property
    def title(self) -> str:
        return f"{self.protocol}{self.family} {self.column}"

    @property
    def makes_sense(self) -> bool:
        """The kernel lets nothing leave ::1, and tells of a closed UDP port so seldom that it would cost a second."""
        return (self.column, self.family) != (f"localhost:{PORT}", 6) and (self.protocol, self.seen) != ("udp", NOBODY)


def _questions(network: Network) -> dict[str, list[_Question]]:
    """Returns the table's cells by caller."""
    header, *lines = [line.split() for line in _EXPECTED.strip().splitlines()]
    questions = {}
    for caller, *cells in lines:
        asked = [(column, cell) for column, cell in zip(header, cells, strict=True) if cell != "-"]
        ways = [(protocol, family) for protocol in PROTOCOLS for family in network.families]
        every = [_Question(*way, *target) for way in ways for target in asked]
        questions[caller] = [question for question in every if question.makes_sense]
    return questions
