"""Entry point: dispatches on argv[0] and CNI_COMMAND. The only module that writes to stdout, and that turns exceptions
into error objects.

It imports what every call needs; each verb imports the rest.
"""

from __future__ import annotations

import posix as os  # see cni/__init__.py
import sys
from errno import EMFILE, ENFILE, ENOMEM
from time import monotonic

from cni import (
    AGENT,
    CHAINED,
    DELEGATING,
    HOST_LOCAL,
    PODWIRE,
    PROGRAMS,
    VERSION,
    kind_of,
    reference_of,
)
from cni.protocol.errors import DETAILS_LIMIT, CniError, IOFailure, OperationFailed, TryAgain, chain, shortened
from cni.protocol.jsontext import dump
from cni.protocol.versions import ANSWER, CURRENT, SUPPORTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Protocol

    from cni.plugins.context import Call
    from cni.protocol.jsontext import JsonValue
    from cni.protocol.plugin_config import PluginConfig
    from cni.protocol.request import Request
    from cni.protocol.result import Result

    class Readable(Protocol):
        def read(self) -> bytes: ...

    class Writable(Protocol):
        def write(self, data: bytes) -> object: ...


try:
    from _signal import SIGINT, SIGTERM, signal  # type: ignore[import-not-found]  # private, hence unlisted
except ImportError:
    from signal import SIGINT, SIGTERM, signal

COMPLETE = "_PODWIRE_COMPLETE"  # the variable by which a shell asks it to complete a command line
UNANSWERED = 3  # of cni.diag.output
STATUS = "status"  # podwired's one command; all else are flags
LOG_LEVEL = b"loglevel"  # the key, in lower case, without which a successful call leaves no line
PIPE_BYTES = 1 << 16


class Descriptor:
    """A standard stream by its descriptor: sys.stdout and the like are None if the descriptor is closed."""

    def __init__(self, number: int) -> None:
        self._number = number

    def read(self) -> bytes:
        parts = []
        while part := os.read(self._number, PIPE_BYTES):
            parts.append(part)
        return b"".join(parts)

    def write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._number, data) :]


def run(
    argv: Sequence[str], environment: Mapping[str, str], stdin: Readable, stdout: Writable, stderr: Writable
) -> int:
    """Serves one call and returns the exit status. Writes exactly one result, or one error object."""
    name = argv[0].rpartition("/")[2] if argv else "podwire"
    if name == AGENT and argv[1:2] == [STATUS]:
        return _run_command(argv[1:], environment, stdout, stderr)
    if name == AGENT:
        from cni.agent.main import run as serve_node

        return serve_node(argv[1:], environment, lambda text: _try_print(stdout, text))
    command = environment.get("CNI_COMMAND", "")
    if not command and name == PODWIRE and (len(argv) > 1 or COMPLETE in environment):
        return _run_command(argv[1:], environment, stdout, stderr)
    if not command:
        reference = reference_of(name)
        version = f"{reference}+{PODWIRE}.{VERSION}" if reference else VERSION
        _try_print(stderr, f"CNI {name} plugin v{version}\nCNI protocol versions supported: {', '.join(SUPPORTED)}")
        return 0
    return _call(name, environment, stdin, stdout, stderr)


def _call(name: str, environment: Mapping[str, str], stdin: Readable, stdout: Writable, stderr: Writable) -> int:
    """Serves a call of a runtime and returns the exit status."""
    started, command = monotonic(), environment["CNI_COMMAND"]
    data: list[bytes] = []  # what stdin had
    try:
        if command == "VERSION":
            _print(stdout, ANSWER)
        else:
            _serve(name, environment, stdin, data, stdout, stderr)
    except CniError as error:
        failure = error
    except KeyboardInterrupt:
        failure = TryAgain("interrupted by a signal")
    except Exception as error:  # noqa: BLE001  # a defect needs an error object, too
        failure = _unexpected_error(error, stderr)
    else:
        if data and LOG_LEVEL in data[0].lower():
            _log(name, environment, data, started, None)
        return 0
    _fail(stdout, failure)  # not in a handler: here the memory of the call is released
    if command != "VERSION":
        _log(name, environment, data, started, failure)
    return 1


def _log(
    name: str, environment: Mapping[str, str], data: Sequence[bytes], started: float, error: CniError | None
) -> None:
    """Leaves a line of the call for people, once it is answered. Never fails."""
    try:
        from cni.plugins.calllog import log

        log(name, environment, b"".join(data), monotonic() - started, error)
    except (Exception, KeyboardInterrupt):  # noqa: BLE001  # the call has its answer, which is all that counts
        return


def _unexpected_error(error: Exception, stderr: Writable) -> CniError:
    """Returns the error for an unexpected exception: a shortage on the host, or a defect of podwire."""
    if shortage := _shortage(error):
        return OperationFailed(shortage)
    import traceback

    _try_print(stderr, traceback.format_exc())
    return CniError(f"internal error, please report it: {chain(error)}")


def _shortage(error: Exception) -> str:
    """Returns what the host lacks (memory, descriptors, a library); empty if the exception is a defect."""
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    if isinstance(error, ImportError) and not isinstance(error, ModuleNotFoundError):  # a library of the bundle's
        return f"a part of podwire cannot be loaded: {error.msg}"
    if isinstance(error, OSError) and error.errno in (EMFILE, ENFILE, ENOMEM):
        return f"{error.strerror}: raise the limit (ulimit -n, ulimit -v)"
    return ""


def _run_command(arguments: Sequence[str], environment: Mapping[str, str], stdout: Writable, stderr: Writable) -> int:
    """Runs a command of the command line and returns the exit status."""
    try:
        from cni.diag.entry import run as run_arguments

        ended = run_arguments(arguments, environment, os.isatty(1))
    except CniError as error:
        _try_print(stderr, f"podwire: {error.message}")
        return 1
    except Exception as error:  # noqa: BLE001  # a defect has a status as well
        _try_print(stderr, f"podwire: {_unexpected_error(error, stderr).message}")
        return UNANSWERED
    try:
        if ended.stdout:
            stdout.write(ended.stdout.encode("utf-8", "backslashreplace") + b"\n")
    except BrokenPipeError:  # `| head`: who reads has enough
        return ended.status
    except OSError as error:
        _try_print(stderr, f"podwire: cannot write the answer: {error.strerror}")
        return UNANSWERED
    if ended.stderr:
        _try_print(stderr, ended.stderr)
    return ended.status


def _serve(
    name: str,
    environment: Mapping[str, str],
    stdin: Readable,
    data: list[bytes],
    stdout: Writable,
    stderr: Writable,
) -> None:
    from cni.protocol.plugin_config import parse_plugin_config
    from cni.protocol.request import parse_request

    request = parse_request(environment, reads_args=kind_of(name) not in (CHAINED, DELEGATING))
    try:
        data.append(stdin.read())
    except OSError as error:
        raise IOFailure(f"error reading from stdin: {error.strerror}") from None
    config = parse_plugin_config(data[0], request.command)

    def answer(text: str) -> None:
        _print(stdout, text)

    if request.command == "ADD":
        from cni.config.keys import ignored

        for text in ignored(name, config):
            _try_print(stderr, shortened(text))
    if name == HOST_LOCAL:
        _allocate(request, config, answer)
    else:
        _attach(name, request, config, answer, stderr)


def _attach(name: str, request: Request, config: PluginConfig, answer: Callable[[str], None], stderr: Writable) -> None:
    """Runs a verb of a plugin that needs the host: any but host-local."""
    from cni.effects.host import Host
    from cni.effects.journal import FAILURES
    from cni.locks import set_interrupts
    from cni.plugins.context import Call

    def render(result: Result) -> str:
        return _render(result, config)

    def warn(text: str) -> None:
        _try_print(stderr, shortened(text))

    host: Host | None = None
    try:
        host = opened = Host(request.environment, warn)
        for number in (SIGINT, SIGTERM):
            signal(number, lambda *_: opened.stop())
        set_interrupts(lambda: opened.stopped)
        verbs = _verbs(name)
        verbs[request.command](Call(name, request, config, opened, render, answer, warn))
    except FAILURES as error:  # outside of operations, as when facts of the host are read
        from cni.effects.engine import to_cni_error

        raise to_cni_error(request.command, error) from None
    finally:
        if host is not None:
            host.close()


def _verbs(name: str) -> Mapping[str, Callable[[Call], None]]:
    """Returns the verbs of a plugin; an executable of any other name is podwire."""
    kind, module, _ = PROGRAMS.get(name, PROGRAMS[PODWIRE])
    if kind == CHAINED:
        module = "cni.plugins.chained"
    __import__(module)
    verbs: Mapping[str, Callable[[Call], None]] = sys.modules[module].VERBS
    return verbs


def _allocate(request: Request, config: PluginConfig, answer: Callable[[str], None]) -> None:
    """Runs a verb of host-local, called as an executable."""
    import ipam.main
    from cni.effects.alive import alive_in
    from cni.protocol.plugin_config import VALIDATED_VERBS, previous_result, valid_attachments

    alive = alive_in(config.name)
    errors = config.validate()
    previous = previous_result(config, errors)
    if request.command in VALIDATED_VERBS:
        ipam.main.validate(request, config, errors)
        errors.raise_if_any()
    if request.command == "ADD":
        answer(_render(ipam.main.add(request, config, alive), config))
    elif request.command == "DEL":
        ipam.main.delete(request, config, alive)
    elif request.command == "CHECK":
        ipam.main.check(request, config, previous)
    elif request.command == "STATUS":
        ipam.main.status(config, alive)
    else:
        ipam.main.collect(config, valid_attachments(config), alive)


def _render(result: Result, config: PluginConfig) -> str:
    """Returns the result's text. Raises InvalidConfig if the configuration's cniVersion cannot express it."""
    from cni.protocol.result import result_json

    return dump(result_json(result, config.version))


def _print(stream: Writable, text: str) -> None:
    """Writes a text and a newline with one write(2), so that no reader sees a part. Raises IOFailure."""
    try:
        stream.write(text.encode("utf-8", "backslashreplace") + b"\n")
    except OSError as error:
        raise IOFailure(f"cannot write the answer: {error.strerror}") from None


def _try_print(stderr: Writable, text: str) -> None:
    """Writes a line for people; a closed or full stderr is ignored."""
    try:
        _print(stderr, text)
    except IOFailure:
        return


def _fail(stdout: Writable, error: CniError) -> None:
    """Writes the error object. A runtime that has closed our stdout has the exit status."""
    answer: dict[str, JsonValue] = {"cniVersion": CURRENT, "code": error.code, "msg": shortened(error.message)}
    if error.details:
        answer["details"] = shortened(error.details, DETAILS_LIMIT)
    try:
        _print(stdout, dump(answer))
    except IOFailure:
        return


def _text(data: bytes) -> str:
    """Returns the text as os.environ decodes it: bytes that are not UTF-8 survive a round trip."""
    return data.decode("utf-8", "surrogateescape")


def main() -> int:
    """Runs the call of this process: the entry of the bundle and of the console script."""
    environment = {_text(name): _text(value) for name, value in os.environ.items()}
    return run(sys.argv, environment, Descriptor(0), Descriptor(1), Descriptor(2))
