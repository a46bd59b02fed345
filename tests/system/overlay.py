"""An agent's state on a node, as text to compare, and traffic without loss."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.machine import MachineError
from tests.system.nodes import SUBNET_ENV

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping

    from tests.system.nodes import Guest, Node

DEVICE = {4: "flannel.1", 6: "flannel-v6.1"}
ECHO_PORT = 8001

# Each line of the answer belongs to the kind of the same place; ip answers with a line for each of its commands.
_KINDS = ("links", "addresses", "routes", "neighbours", "routes", "fdb")
_STATE = f"""
printf 'link\\naddress\\nroute\\nneighbour show nud permanent\\n' | ip -j -d -batch -
ip -j -d -6 route
bridge -j fdb
printf '\\nrest\\n'; nft -s list ruleset; cat {SUBNET_ENV} 2>/dev/null || true
"""

# Numbered datagrams, about 200 a second; those not answered two seconds after the last are lost.
_STREAM = """
import json, os, select, socket, sys, time
host, port, end = sys.argv[1], int(sys.argv[2]), sys.argv[3]
client = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
client.connect((host, port))
answered = set()
def receive(seconds):
    limit = time.monotonic() + seconds
    while (left := limit - time.monotonic()) > 0:
        if select.select([client], [], [], left)[0]:
            try:
                answered.add(int(client.recv(64)))
            except OSError:
                pass
def send(number):
    try:
        client.send(b"%d" % number)
    except OSError:
        pass
while not answered:
    send(0)
    receive(0.1)
print("ready", flush=True)
sent = 0
while not os.path.exists(end):
    sent += 1
    send(sent)
    receive(0.005)
for _ in range(20):
    if len(answered) <= sent:
        receive(0.1)
print(json.dumps([sent, sorted({*range(1, sent + 1)} - answered)]))
"""
_ECHO = """
import socket, sys
server = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
server.bind(("::", int(sys.argv[1])))
print("ready", flush=True)
while True:
    server.sendto(*server.recvfrom(64))
"""


class Seen(NamedTuple):
    """All state that agents may change on a node, line by line, without counters and timers."""

    lines: tuple[str, ...]

    def __sub__(self, other: Seen) -> list[str]:
        return [line for line in self.lines if line not in other.lines]

    def of(self, *arguments: str) -> list[str]:
        """Returns the lines with one of these words."""
        return [line for line in self.lines if any(word in line for word in arguments)]


def seen(node: Node) -> Seen:
    """Looks at the node's links, addresses, routes, permanent neighbours, FDB entries, nft rules and subnet.env."""
    head, _, rest = node.run("sh", "-c", _STATE).stdout.partition("\nrest\n")
    lines = [f"rest {line}" for line in rest.splitlines()]
    for kind, text in zip(_KINDS, head.splitlines(), strict=True):
        for item in json.loads(text):
            lines.extend(f"{kind} {line}" for line in _LINES[kind](item))
    return Seen(tuple(sorted(lines)))


def ifindex(node: Node, device: str = DEVICE[4]) -> int:
    index: int = json.loads(node.run("ip", "-j", "link", "show", device).stdout)[0]["ifindex"]
    return index


def _link(item: Mapping[str, Any]) -> Iterator[str]:
    info = item.get("linkinfo", {})
    attributes = info.get("info_data", {}) if info.get("info_kind") == "vxlan" else {}
    up = "up" if "UP" in item["flags"] else "down"
    fields = [item["ifname"], item.get("address"), item.get("ifalias", ""), f"mtu {item['mtu']}", up, _text(attributes)]
    yield " ".join(fields)


def _addresses(item: Mapping[str, Any]) -> Iterator[str]:
    for address in item.get("addr_info", ()):
        if address["scope"] != "link":
            yield f"{item['ifname']} {address['local']}/{address['prefixlen']} {address['scope']}"


def _route(item: Mapping[str, Any]) -> Iterator[str]:
    if not item["dst"].startswith("fe80:"):
        onlink = [flag for flag in item["flags"] if flag == "onlink"]
        yield _text({**item, "flags": onlink})


def _fdb(item: Mapping[str, Any]) -> Iterator[str]:
    if "dst" in item:
        yield _text(item)


_LINES = {
    "links": _link,
    "addresses": _addresses,
    "routes": _route,
    "neighbours": lambda item: [_text(item)],
    "fdb": _fdb,
}


def _text(item: Mapping[str, Any]) -> str:
    return json.dumps(item, sort_keys=True)


@contextmanager
def lossless(source: Guest, target: Guest, family: int = 4) -> Iterator[None]:
    """Sends numbered datagrams from one pod to the other, which answers each, and asserts that none was lost."""
    python = [sys.executable, "-I", "-S", "-c"]
    end = "/run/stream-ends"
    source.pod.machine.run("rm", "-f", end)
    _ready(_start(target, *python, _ECHO, str(ECHO_PORT)))
    stream = _start(source, *python, _STREAM, target.addresses[family], str(ECHO_PORT), end)
    _ready(stream)
    try:
        yield
    finally:
        source.pod.machine.run("touch", end)
        output, _ = stream.communicate()
    sent, lost = json.loads(output)
    assert sent > 0
    assert lost == [], f"{len(lost)} of {sent} lost"


def _start(where: Guest, *command: str) -> subprocess.Popen[str]:
    return where.pod.machine.start("nsenter", f"--net={where.pod.path}", "--", *command)


def _ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout
    line = process.stdout.readline()
    if line != "ready\n":
        raise MachineError(f"no traffic: {line}{process.stdout.read()}")
