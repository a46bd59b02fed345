"""`podwire lint`: what is wrong with network configurations, before a runtime uses them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from cni.diag.asking import NoAnswer
from cni.diag.conflint import chains, documents, folders, plugins
from cni.diag.conflint.findings import Finding
from cni.diag.conflint.folders import Network
from cni.diag.node.conflists import FOLDER, files_in
from cni.diag.output import FINDING, FINE, JSON_VERSION, UNANSWERED, Outcome, outcome, printable
from cni.effects.journal import FAILURES, error_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.diag.conflint.documents import Document

HELP = f"""Find errors in network configurations, each with its JSON path and remedy.

PATH is a plugin list (.conflist), a single configuration (.conf, .json), or a folder of them (default: {FOLDER}).
Found are unknown keys, wrong values, a wrong order of a chain, and in a folder names, bridges and subnets that do not
go together. Subnets are compared with the addresses of this node.

\b
Examples:
  podwire lint
  podwire lint --offline --json 10-mynet.conflist
"""
STATUSES = f"""\b
Exit status: {FINE} nothing is wrong; {FINDING} there are findings; 2 usage; {UNANSWERED} the
kernel does not answer."""
OFFLINE_HELP = "Judge the files alone: ask nothing of this node."
JSON_HELP = f"Print JSON (version {JSON_VERSION}: lists `files` and `findings`, text `first`)."


@click.command("lint", help=HELP, epilog=STATUSES)
@click.argument("path", required=False, metavar="[PATH]", type=click.Path(exists=True))
@click.option("--offline", is_flag=True, help=OFFLINE_HELP)
@click.option("--json", "as_json", is_flag=True, help=JSON_HELP)
def lint(path: str | None, offline: bool, as_json: bool) -> Outcome:
    is_folder = path is None or os.path.isdir(path)
    path = path or FOLDER
    try:
        files = files_in(path) if is_folder else [path]
    except FileNotFoundError:
        files = []
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror}") from None
    read = [documents.read(file) for file in files]
    findings = judge(read, on_node=not offline)
    if is_folder and not files:
        findings.append(Finding(path, "", "no network configuration", "a runtime needs a .conflist here"))
    first = _first(read) if is_folder else ""
    found = [finding._asdict() for finding in findings]
    members: dict[str, object] = {"files": files, "first": first, "findings": found}

    def text() -> str:
        lines = [finding.text for finding in findings] or [
            f"{path}: no errors in {len(files)} file{'s' * (len(files) != 1)}"
        ]
        if len(files) > 1:
            lines.append(f"{first}: the first file by name, whose network most runtimes use; others are used by name")
        return "\n".join(map(printable, lines))

    return outcome(FINDING if findings else FINE, as_json, members, text)


def _first(read: Sequence[Document]) -> str:
    return next((document.file for document in read if document.plugins), "")


def judge(read: Sequence[Document], *, on_node: bool) -> list[Finding]:
    """Returns the findings, file by file. Raises NoAnswer if the kernel does not answer."""
    found: dict[str, list[Finding]] = {document.file: [*document.findings] for document in read}
    networks = []
    for document in read:
        file = document.file
        for plugin in document.plugins:
            judged = plugins.judge(plugin, on_node=on_node)
            found[file] += [_finding(file, plugin.prefix, *pair) for pair in judged.pairs]
            if judged.conf is not None:
                networks.append(Network(file, document.name, plugin.prefix, judged.conf, judged.sets))
        found[file] += [Finding.of(file, *pair) for pair in chains.judge(document.plugins)]
    between = [*folders.judge_names([(document.file, document.name) for document in read])]
    between += folders.judge_pairs(networks)
    if on_node and any(network.sets for network in networks):
        try:
            between += folders.judge_node(networks, folders.node_addresses())
        except FAILURES as error:
            raise NoAnswer(f"addresses of this node: {error_text(error)} (--offline needs none)") from None
    for file, path, message in between:
        found[file].append(Finding.of(file, path, message))
    return list(dict.fromkeys([finding for findings in found.values() for finding in findings]))


def errors(read: Sequence[Document]) -> list[Finding]:
    """Returns the findings that make ADD fail: those of the parsers alone."""
    found: dict[Finding, None] = {}
    for document in read:
        found.update(dict.fromkeys(document.errors))
        for plugin in document.plugins:
            pairs = plugins.errors(plugin).pairs
            found.update(dict.fromkeys([_finding(document.file, plugin.prefix, *pair) for pair in pairs]))
    return list(found)


def _finding(file: str, prefix: str, path: str, message: str) -> Finding:
    return Finding.of(file, f"{prefix}{path}" if path else prefix.rstrip("."), message)
