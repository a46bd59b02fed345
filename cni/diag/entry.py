"""First look at what people type: help, version and install work without the package of the command line (click)."""

from __future__ import annotations

from cni import PODWIRE, VERSION
from cni.protocol.errors import OperationFailed
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

USAGE = """usage: podwire install --bin-dir DIR [--names A,B] [--force]
       podwire uninstall [--dry-run] [--yes] [--force]
       podwire ps [NAME]...
       podwire doctor
       podwire leases [--reclaim [--dry-run]]
       podwire gc [--dry-run]
       podwire check [NAME]...
       podwire explain NAME
       podwire repair [--dry-run] [NAME]...
       podwire trace [--send] FROM TO[:PORT][/PROTOCOL]
       podwire plan [FILE]
       podwire policy why FROM TO[:PORT[/PROTOCOL]]
       podwire policy show POD
       podwire events [-n N] [--json]
       podwire status [--json] [--socket PATH]
       podwire topology [--cluster] [--svg FILE] [--html FILE]
       podwire lint [--offline] [--json] [FILE|DIR]
       podwire completion bash|zsh|fish
       podwire version
       podwire help

A CNI plugin: a container runtime runs it with CNI_COMMAND and other CNI_* variables, and the network configuration on
stdin. `podwire install --help` explains how to install it under the names of the plugins that it replaces, the other
commands with --help how to look at this node."""
SIMPLE = ("install", "version", "help")
# Commands of cni.diag.commandline.
ASKING = (
    "check",
    "completion",
    "doctor",
    "events",
    "explain",
    "gc",
    "leases",
    "lint",
    "plan",
    "policy",
    "ps",
    "repair",
    "status",
    "topology",
    "trace",
    "uninstall",
)
COMPLETE = "_PODWIRE_COMPLETE"  # the variable by which a shell asks it to complete a command line
USAGE_ERROR = 2


class Ended(Record):
    """The exit status of a command line, and what is to be printed."""

    status: int
    stdout: str
    stderr: str = ""


def run(arguments: Sequence[str], environment: Mapping[str, str], is_terminal: bool) -> Ended:
    """Runs a command. Raises CniError."""
    command = arguments[0] if arguments else ""
    if command in ASKING or COMPLETE in environment:
        return _ask(arguments, environment, is_terminal)
    if command in ("help", "--help", "-h"):
        return Ended(0, USAGE)
    if command in ("version", "--version"):
        return Ended(0, f"{PODWIRE} {VERSION}")
    if command == "install":
        from cni.diag.install import install, parse_order

        return Ended(0, "\n".join(install(parse_order(arguments[1:]))))
    known = ", ".join(sorted([*SIMPLE, *ASKING]))
    return Ended(USAGE_ERROR, "", f"{PODWIRE}: unknown command {command!r} (available: {known})")


def _ask(arguments: Sequence[str], environment: Mapping[str, str], is_terminal: bool) -> Ended:
    """Runs a command of cni.diag.commandline. Raises OperationFailed where its package is missing."""
    try:
        from cni.diag.commandline import run as run_arguments
    except ModuleNotFoundError as absent:
        raise OperationFailed(f"Python package is not installed: {absent.name} (pip install {absent.name})") from None
    return run_arguments(arguments, environment, is_terminal)
