"""The keys logFile and logLevel, which every plugin has: where a line of each call goes, and of which calls."""

from __future__ import annotations

from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.fields import Fields

ERROR, INFO = "error", "info"
LEVELS = ("", ERROR, INFO)


class CallLog(Record):
    """`file`: an absolute path; empty: the system's log. `successes`: successful calls are logged, too."""

    file: str
    successes: bool


def parse_calllog(fields: Fields) -> CallLog:
    """Parses the keys. A call ignores the errors: logging never makes one fail."""
    file, level = fields.file_path("logFile"), fields.text("logLevel")
    if file and not file.startswith("/"):
        fields.error("logFile", f"{file!r} is not an absolute path")
        file = ""
    if level not in LEVELS:
        fields.error("logLevel", f"{level!r} is neither {ERROR} nor {INFO}")
    return CallLog(file, level == INFO)
