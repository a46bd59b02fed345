"""One call of the plugin with streams in memory: what it is told, what it says, where it fails."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from cni.main import run

if TYPE_CHECKING:
    from collections.abc import Mapping

NOWHERE = "/nowhere/netns"
ENVIRONMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": NOWHERE,
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/nowhere",
}
NETWORK = {"cniVersion": "1.1.0", "name": "net", "type": "podwire"}


class Source:
    """A stdin that holds a document, or fails."""

    def __init__(self, data: bytes, failure: OSError | None = None) -> None:
        self.data = data
        self.failure = failure

    def read(self) -> bytes:
        if self.failure:
            raise self.failure
        return self.data


class Sink:
    """A stdout or stderr that keeps every write, or fails."""

    def __init__(self, failure: OSError | None = None) -> None:
        self.writes: list[bytes] = []
        self.failure = failure

    def write(self, data: bytes) -> None:
        if self.failure:
            raise self.failure
        self.writes.append(data)

    @property
    def text(self) -> str:
        return b"".join(self.writes).decode()


class Answer(NamedTuple):
    status: int
    stdout: Sink
    stderr: Sink

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout, written whole."""
        assert len(self.stdout.writes) == 1, self.stdout.writes
        assert self.stdout.text.endswith("\n")
        assert self.stdout.text.isascii()
        answer = json.loads(self.stdout.text)
        assert isinstance(answer, dict)
        return answer

    @property
    def error(self) -> tuple[int, str]:
        """(code, message) of a failure."""
        assert self.status == 1
        assert self.json["cniVersion"] == "1.1.0"
        return self.json["code"], self.json["msg"]


def call(
    document: object = NETWORK,
    environment: Mapping[str, str] | None = None,
    program: str = "/opt/cni/bin/podwire",
    stdout: Sink | None = None,
    stderr: Sink | None = None,
) -> Answer:
    """Run one verb; `environment` is added to that of an ADD into a namespace that does not exist."""
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    out, err = stdout or Sink(), stderr or Sink()
    status = run([program], ENVIRONMENT | dict(environment or {}), Source(data), out, err)
    return Answer(status, out, err)
