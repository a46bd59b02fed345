"""Command line of `podwire`, for people: commands beyond help, version and install.

Nothing is printed here: who calls prints.
"""

from __future__ import annotations

import importlib
import io
import os
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from cni import PODWIRE
from cni.diag.asking import NoAnswer
from cni.diag.entry import ASKING, COMPLETE, SIMPLE, USAGE_ERROR, Ended
from cni.diag.output import UNANSWERED, Outcome
from cni.effects.journal import FAILURES, error_text
from cni.locks import limit_waits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Help is not in docstrings: the bundle has none.
COMPLETION_HELP = """Print a script that completes podwire's command line in a shell.

\b
Examples:
  source <(podwire completion bash)
  podwire completion fish >~/.config/fish/completions/podwire.fish
"""
# The module of each command, which has a function of the same name. It is loaded when the command is called.
COMMANDS = {name: f"cni.diag.{name}" for name in ASKING if name != "completion"}
CHANGING = ("gc", "repair", "uninstall")
WAIT_SECONDS, CHANGING_WAIT_SECONDS = 1.0, 30.0  # for all locks together, which each ADD holds for milliseconds
INTERRUPTED = 130  # as a shell reports SIGINT
SHELLS = ("bash", "fish", "zsh")


class Root(click.Group):
    """All commands; of those that cni.diag.entry serves only the names are known here."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *COMMANDS])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(importlib.import_module(COMMANDS[cmd_name]), cmd_name)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [name for name in SIMPLE if name.startswith(incomplete)]
        return [*super().shell_complete(ctx, incomplete), *map(CompletionItem, names)]


@click.group(
    PODWIRE,
    cls=Root,
    help="Look at this node's network.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
def root() -> None: ...


@root.command("completion", help=COMPLETION_HELP)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> Outcome:
    kind = get_completion_class(shell)
    assert kind is not None
    return Outcome(0, ShellComplete.source(kind(root, {}, PODWIRE, COMPLETE)))


def run(arguments: Sequence[str], environment: Mapping[str, str], is_terminal: bool) -> Ended:
    """Runs a command. The text has colours only on a terminal, and not with NO_COLOR."""
    colours = is_terminal and not environment.get("NO_COLOR")
    limit_waits(CHANGING_WAIT_SECONDS if arguments and arguments[0] in CHANGING else WAIT_SECONDS)
    printed = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)  # a shell is answered in bytes
    try:
        with redirect_stdout(printed):
            outcome = root.main([*arguments], PODWIRE, COMPLETE, standalone_mode=False)
    except SystemExit as ended:  # completion
        return Ended(int(ended.code or 0), _text(printed))
    except click.Abort:  # Ctrl-C
        return Ended(INTERRUPTED, "")
    except (NoAnswer, *FAILURES) as error:
        remedy = " (run it as root)" if isinstance(error, PermissionError) and os.geteuid() else ""
        return Ended(UNANSWERED, "", f"{PODWIRE}: {error_text(error)}{remedy}")
    except click.UsageError as error:
        return Ended(USAGE_ERROR, "", _usage_text(error))
    if not isinstance(outcome, Outcome):  # help was printed
        return Ended(int(outcome or 0), _text(printed))
    return Ended(outcome.status, outcome.text if colours else click.unstyle(outcome.text))


def _usage_text(error: click.UsageError) -> str:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error.format_message()
    hint = f"\nTry '{error.ctx.command_path} --help'." if error.ctx is not None else ""
    return f"{PODWIRE}: {error.format_message()}{hint}"


def _text(printed: io.TextIOWrapper) -> str:
    printed.seek(0)
    return printed.read().rstrip("\n")
