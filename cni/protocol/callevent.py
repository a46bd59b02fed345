"""One call of a runtime as a line of JSON, for people: `podwire events`, the journal, the file of the key logFile.

JSON in ASCII has no control characters, so that no name from a pod and no message can begin another line.
"""

from __future__ import annotations

from cni.protocol.errors import CniError, shortened
from cni.protocol.jsontext import dump, parse_object
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = ("events.1", "events")  # of the files below /run/podwire, the older one first
ERROR, INFO = "error", "info"
NAME_SHOWN, TEXT_SHOWN = 256, 1000  # characters of a name, of a message


class CallEvent(Record):
    """The line. `time` is in UTC (RFC 3339), `seconds` the call's duration; unknown texts are empty.

    The members from `level` on are those that a repeated call has in common.
    """

    time: str
    seconds: float
    level: str
    program: str
    verb: str
    pod: str
    network: str
    container: str
    interface: str
    code: int
    message: str
    details: str


def event_of(
    program: str, environment: Mapping[str, str], network: str, error: CniError | None, *, time: str, seconds: float
) -> CallEvent:
    """Returns the line of a call that has ended; `error`: None after a success."""
    args = dict([pair.partition("=")[::2] for pair in environment.get("CNI_ARGS", "").split(";")])
    pod = [args[key] for key in ("K8S_POD_NAMESPACE", "K8S_POD_NAME") if args.get(key)]
    return CallEvent(
        time=time,
        seconds=seconds,
        level=ERROR if error is not None else INFO,
        program=shortened(program, NAME_SHOWN),
        verb=shortened(environment.get("CNI_COMMAND", ""), NAME_SHOWN),
        pod=shortened("/".join(pod), NAME_SHOWN),
        network=shortened(network, NAME_SHOWN),
        container=shortened(environment.get("CNI_CONTAINERID", ""), NAME_SHOWN),
        interface=shortened(environment.get("CNI_IFNAME", ""), NAME_SHOWN),
        code=error.code if error is not None else 0,
        message=shortened(error.message, TEXT_SHOWN) if error is not None else "",
        details=shortened(error.details, TEXT_SHOWN) if error is not None else "",
    )


def line_of(event: CallEvent) -> str:
    return dump(event._asdict())


def parse_line(line: bytes) -> CallEvent | None:
    """Returns None for a line that is torn, or of another version of podwire."""
    try:
        members = parse_object(line, "an event")
        event = CallEvent(**members)  # type: ignore[arg-type]  # the kinds are compared below
    except (CniError, TypeError):
        return None
    kinds = {"seconds": (int, float), "code": (int,)}
    return event if all(type(value) in kinds.get(key, (str,)) for key, value in members.items()) else None
