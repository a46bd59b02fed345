"""The errors: each has the code that a runtime reads (SPEC, "Error").

Codes 1 to 99 are the specification's; from 100 on they are podwire's own.
"""

from __future__ import annotations

LIMIT = 4000  # characters of a message: runtimes log it, and put it into a pod's events
DETAILS_LIMIT = 1000
ESCAPED = 6  # characters that JSON may need for one


class CniError(Exception):
    """An error answer to the runtime: `code`, a message with cause and remedy, optional details."""

    code = 999

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class IncompatibleVersion(CniError):
    """The configuration's cniVersion is not supported, or does not know the verb."""

    code = 1


class InvalidEnvironment(CniError):
    """A CNI_* variable is missing or malformed."""

    code = 4


class IOFailure(CniError):
    """stdin, stdout or a file of the configuration could not be read or written."""

    code = 5


class DecodingFailure(CniError):
    """stdin, or another plugin's answer, is not the expected JSON."""

    code = 6


class InvalidConfig(CniError):
    """The network configuration is invalid; the message lists every error with its JSON path."""

    code = 7


class InvalidNetns(CniError):
    """CNI_NETNS is not a network namespace in which a container may be attached."""

    code = 8


class TryAgain(CniError):
    """A later call may succeed: the pool is exhausted, the plugin was interrupted."""

    code = 11


class PluginNotAvailable(CniError):
    """STATUS: ADD cannot be served at present."""

    code = 50


class OperationFailed(CniError):
    """The kernel, a file system or another program rejected a step; the steps before it are undone."""

    code = 100


class CheckFailed(CniError):
    """CHECK: the container's network differs from what ADD configured; the message lists every difference."""

    code = 101


class Delegated(CniError):
    """The error answer of an executed plugin, returned with its own code."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(message, details)
        self.code = code


def shortened(text: str, limit: int = LIMIT) -> str:
    """Returns the text without its middle if it is too long: it begins with the object and ends with the cause."""
    if not (text.isascii() and text.isprintable()):
        limit //= ESCAPED
    if len(text) <= limit:
        return text
    head, tail = limit * 3 // 4, limit // 4
    return f"{text[:head]} ... ({len(text) - head - tail} characters left out) ... {text[-tail:]}"


def chain(error: BaseException) -> str:
    """Returns `a: b: c` along the causes of an error."""
    parts = []
    cause: BaseException | None = error
    while cause is not None:
        parts.append(str(cause) or type(cause).__name__)
        cause = cause.__cause__
    return ": ".join(parts)
