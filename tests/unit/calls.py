"""One call of the plugin in this process, with streams in memory that may fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from cni.main import run
from tests.calls import ENVIRONMENT, NETWORK, encode, error_object, parse_answer

if TYPE_CHECKING:
    from collections.abc import Mapping


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
        return parse_answer(self.stdout.writes[0])

    @property
    def error(self) -> tuple[int, str]:
        """(code, message) of a failure."""
        return error_object(self.status, self.json)


def call(
    document: object = NETWORK,
    environment: Mapping[str, str] | None = None,
    program: str = "/opt/cni/bin/podwire",
    stdout: Sink | None = None,
    stderr: Sink | None = None,
) -> Answer:
    """Runs one verb; `environment` is added to that of an ADD into a namespace that does not exist."""
    out, err = stdout or Sink(), stderr or Sink()
    status = run([program], ENVIRONMENT | dict(environment or {}), Source(encode(document)), out, err)
    return Answer(status, out, err)
