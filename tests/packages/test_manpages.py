"""The manual pages in the archive: they have each command and option that --help has, and are what man can print."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import click
import pytest

from cni import VERSION
from cni.agent.cli.flags import BY_NAME, PREFIXES
from cni.diag import install
from cni.diag.commandline import root
from cni.diag.entry import SIMPLE, USAGE
from hack.bundle import manpages

if TYPE_CHECKING:
    from pathlib import Path

PAGES = ("man1/podwire.1", "man8/podwired.8")
DATELESS = re.compile(r".*: WARNING: missing date, using \"\": TH$")  # a date would differ between equal builds
OVERSTRUCK = re.compile(".\b")


def source(bundle: Path, page: str) -> str:
    return (bundle / "man" / page).read_text(encoding="ascii").replace(r"\-", "-").replace(r"\(aq", "'")


def sections(page: str) -> dict[str, str]:
    """Returns the text below each heading of a command, by its usage."""
    parts = re.split(r'^\.SS "(.*)"$', page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def commands() -> list[tuple[str, click.Command]]:
    """Returns all commands of click by what a person types, also those of a group."""
    context = click.Context(root)
    listed = [(name, root.get_command(context, name)) for name in root.list_commands(context)]
    below = [
        (f"{name} {inner}", command.get_command(context, inner))
        for name, command in listed
        if isinstance(command, click.Group)
        for inner in command.list_commands(context)
    ]
    return [(name, command) for name, command in [*listed, *below] if command is not None]


def options(text: str) -> set[str]:
    return set(re.findall(r"^\\fB(-.*)\\fR$", text, re.MULTILINE))


def test_podwires_page_has_every_command_with_its_options_and_examples(bundle: Path) -> None:
    page = source(bundle, PAGES[0])
    below = sections(page)
    for name, command in commands():
        [text] = [text for usage, text in below.items() if usage.startswith(f"podwire {name} [OPTIONS]")]
        context = click.Context(command, **root.context_settings)
        records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
        assert options(text) == {record[0] for record in records if record is not None and record[1]}
        for record in records:
            assert record is None or record[1].replace("`", "") in text.replace(r"\fB", "").replace(r"\fR", "")
        examples = (command.help or "").partition("Examples:\n")[2].split("\n")
        for example in filter(None, map(str.strip, examples)):
            assert example in text.replace(r"\(ti", "~")
    [text] = [text for usage, text in below.items() if usage.startswith("podwire install ")]
    assert options(text) == {*install.OPTIONS}
    for line in USAGE.partition("\n\n")[0].removeprefix("usage:").splitlines():
        name, rest = line.split(maxsplit=1)
        assert rf"\fB{name}\fR {rest}" in page.splitlines()
    assert all(f" {name}" in page for name in SIMPLE)


def test_podwireds_page_has_every_flag_with_its_variable_and_default(bundle: Path) -> None:
    page = source(bundle, PAGES[1])
    assert options(page) == {f"--{flag.name} {flag.value}".rstrip() for flag in BY_NAME.values()}
    for flag in BY_NAME.values():
        assert flag.help.replace("`", "") in page.replace(r"\fB", "").replace(r"\fR", "")
        assert flag.name in ("help", "version", "cleanup") or f"{PREFIXES[0]}{flag.variable}" in page
        assert flag.default in page


def test_equal_sources_give_equal_pages(bundle: Path, tmp_path: Path) -> None:
    manpages.main(tmp_path)
    for page in PAGES:
        assert (tmp_path / page).read_bytes() == (bundle / "man" / page).read_bytes()


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(
    "command",
    [
        ("man", "--warnings", "--encoding=UTF-8", "--local-file"),
        ("groff", "-ww", "-man", "-Tutf8"),
        ("mandoc", "-Tlint", "-Wwarning"),
    ],
    ids=lambda command: command[0],
)
def test_programs_that_print_manual_pages_do_not_complain(bundle: Path, page: str, command: tuple[str, ...]) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"absent: {command[0]} (hack/peers brings it)")
    done = subprocess.run([*command, bundle / "man" / page], capture_output=True, text=True, check=False)
    complaints = done.stderr.splitlines() + (done.stdout.splitlines() if command[0] == "mandoc" else [])
    assert [line for line in complaints if not DATELESS.fullmatch(line)] == []
    if command[0] != "mandoc":
        name = page.partition("/")[2].partition(".")[0]
        text = OVERSTRUCK.sub("", re.sub("\x1b\\[[0-9;]*m", "", done.stdout))
        assert f"podwire {VERSION}" in text
        assert re.search(rf"^NAME\n\s+{name} - ", text, re.MULTILINE)


@pytest.mark.parametrize("text", [".TH x", "'quoted'", r"a\b", "--flag `podwire ps`", "~ ^ `"])
def test_text_is_printed_as_it_is(text: str) -> None:
    if shutil.which("groff") is None:
        pytest.skip("absent: groff (hack/peers brings it)")
    source = f'.TH X 1 "" ""\n.SH X\n{manpages.roff(text)}\n'
    command = ["groff", "-man", "-Tascii", "-P-c"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=True)
    assert re.sub(r"`([^`]+)`", r"\1", text) in OVERSTRUCK.sub("", done.stdout)
