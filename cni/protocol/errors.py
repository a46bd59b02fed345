"""The one family of errors: each knows the code that a runtime reads (SPEC, "Error").

Codes 1 to 99 are the specification's; from 100 on they are podwire's own.
"""

from __future__ import annotations

LIMIT = 4000  # characters of a message: runtimes log it, and put it into a pod's events
DETAILS_LIMIT = 1000
ESCAPED = 6  # characters that JSON may need for one


class CniError(Exception):
    """An answer to the runtime: `code`, a message that names culprit and remedy, optional details."""

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
    """stdin, or another plugin's answer, is not the JSON that it should be."""

    code = 6


class InvalidConfig(CniError):
    """The network configuration is at fault; the message lists every fault with its JSON path."""

    code = 7


class InvalidNetns(CniError):
    """CNI_NETNS is not a network namespace that a container may be attached in."""

    code = 8


class TryAgain(CniError):
    """Nothing is wrong but the moment: the pool is exhausted, the plugin was interrupted."""

    code = 11


class PluginNotAvailable(CniError):
    """STATUS: ADD cannot be served at present."""

    code = 50


class OperationFailed(CniError):
    """The kernel, a file system or another program refused a step; everything done before is undone."""

    code = 100


class CheckFailed(CniError):
    """CHECK: the container's network is no longer what ADD made; the message lists every difference."""

    code = 101


class Delegated(CniError):
    """The answer of an executed plugin, handed on with its own code."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(message, details)
        self.code = code


def shortened(text: str, limit: int = LIMIT) -> str:
    """The text with its middle left out where it is too long: culprits stand at its beginning, reasons at its end."""
    if not (text.isascii() and text.isprintable()):
        limit //= ESCAPED
    if len(text) <= limit:
        return text
    head, tail = limit * 3 // 4, limit // 4
    return f"{text[:head]} ... ({len(text) - head - tail} characters left out) ... {text[-tail:]}"


def chain(error: BaseException) -> str:
    """`a: b: c` along the causes of an error."""
    parts = []
    step: BaseException | None = error
    while step is not None:
        parts.append(str(step) or type(step).__name__)
        step = step.__cause__
    return ": ".join(parts)
