"""The manual pages podwire(1) and podwired(8), made of what --help prints: click's commands and podwired's flags.

`python -m hack.bundle.manpages FOLDER` writes FOLDER/man1/podwire.1 and FOLDER/man8/podwired.8, in man(7)'s macros.
They have no date, so that equal sources give equal bytes.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cni import PODWIRE, VERSION
from cni.agent.cli import flags
from cni.diag import install
from cni.diag.commandline import root
from cni.diag.entry import USAGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

AGENT = "podwired"
SUMMARY = {PODWIRE: "CNI plugin and the command line of a node", AGENT: "node agent of podwire"}
CODE = re.compile(r"`([^`]+)`")
VERBATIM = "\b\n"  # click's mark of a paragraph that is not wrapped
SPECIAL = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"}
INSTALL_USAGE = "[--names A,B] [--force] --bin-dir DIR"


def roff(text: str) -> str:
    """Returns text of one or more lines as roff prints it, with `code` in bold."""
    escaped = CODE.sub(lambda match: f"\0B{match[1]}\0R", text)
    escaped = "".join([SPECIAL.get(letter, letter) for letter in escaped])
    lines = [rf"\&{line}" if line.startswith((".", "\\(aq")) else line for line in escaped.splitlines()]
    return "\n".join(lines).replace("\0", r"\f")


def podwire_page() -> str:
    """Returns podwire(1)."""
    usage, _, description = USAGE.partition("\n\n")
    lines = [line.strip() for line in usage.removeprefix("usage:").splitlines()]
    return _page(PODWIRE, 1, [*_synopsis(lines), ".SH DESCRIPTION", roff(description), ".SH COMMANDS", *_commands()])


def podwired_page() -> str:
    """Returns podwired(8)."""
    lines = [f"{AGENT} [FLAG]...", f"{AGENT} status [--json] [--socket PATH]"]
    parts = [*_synopsis(lines), ".SH DESCRIPTION", roff(flags.USAGE)]
    parts += [roff(f"`{AGENT} status` is the same as `{PODWIRE} status`."), ".SH OPTIONS"]
    for title, group in flags.FLAGS.items():
        parts.append(f".SS {_argument(title)}")
        for flag in group:
            default = f"; default {flag.default}" if flag.default else ""
            variable = "" if flag.name in flags.NOW else f" ({flags.PREFIXES[0]}{flag.variable}{default})"
            parts += _option(f"--{flag.name} {flag.value}".rstrip(), flag.help + variable)
    return _page(AGENT, 8, parts)


def _page(name: str, section: int, parts: Iterable[str]) -> str:
    other = f"{PODWIRE} (1)" if name == AGENT else f"{AGENT} (8)"
    head = [f'.TH {name.upper()} {section} "" "{PODWIRE} {VERSION}"', ".SH NAME", rf"{name} \- {roff(SUMMARY[name])}"]
    return "\n".join([*head, *parts, ".SH SEE ALSO", f".BR {other}", ""])


def _synopsis(lines: Iterable[str]) -> Iterator[str]:
    yield ".SH SYNOPSIS"
    for number, line in enumerate(lines):
        name, _, rest = line.partition(" ")
        yield from ([".br"] if number else [])
        yield rf"\fB{name}\fR {roff(rest)}"


def _commands() -> Iterator[str]:
    context = click.Context(root, info_name=PODWIRE, **root.context_settings)
    for name in sorted([*root.list_commands(context), "install"]):
        command = root.get_command(context, name)
        if command is None:  # of cni.diag.entry, which works without click
            yield from (f".SS {_argument(f'{PODWIRE} {name} {INSTALL_USAGE}')}", roff(install.DESCRIPTION))
            for option, text in install.OPTIONS.items():
                yield from _option(option, text)
        else:
            yield from _command(command, click.Context(command, parent=context, info_name=name))


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    """Yields a command's section, and those of its own commands."""
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f".SS {_argument(usage)}"
    yield from _paragraphs(command.help or "")
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1]:  # arguments stand in the usage, and the text explains them
            yield from _option(*record)
    if command.epilog:
        yield from (".PP", roff(command.epilog.removeprefix(VERBATIM)))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _command(below, click.Context(below, parent=context, info_name=name))


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.rstrip().split("\n\n")):
        if paragraph.startswith(VERBATIM):
            title, *lines = paragraph.removeprefix(VERBATIM).splitlines()
            yield from (".PP", roff(title), ".PP", ".nf", *[roff(line) for line in lines], ".fi")
        else:
            yield from [*([".PP"] if number else []), roff(paragraph)]


def _option(name: str, text: str) -> Iterator[str]:
    yield from (".TP", rf"\fB{roff(name)}\fR", roff(text))


def _argument(text: str) -> str:
    """Returns text as the argument of a macro."""
    quoted = roff(text).replace('"', r"\(dq")
    return f'"{quoted}"'


def main(folder: Path) -> None:
    for name, section, text in ((PODWIRE, 1, podwire_page()), (AGENT, 8, podwired_page())):
        path = folder / f"man{section}" / f"{name}.{section}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
