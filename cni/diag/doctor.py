"""`podwire doctor`: what makes pods of this node fail, with evidence and remedy."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click
from click import style

from cni.diag.ailments import attachments, bridges, hostports, modules, networks, pools, resources, settings
from cni.diag.ailments.ailment import Ailment, NodeView
from cni.diag.ailments.overlay import agent, engines, peers, subnetfile, tunnel
from cni.diag.asking import NoAnswer, NotRunning, Silent, ask
from cni.diag.node import conflists
from cni.diag.node.agentlocks import is_held
from cni.diag.node.attachments import attachments as all_attachments
from cni.diag.node.here import opened_host
from cni.diag.node.links import links
from cni.diag.node.sight import REMEDY, foreign_namespace
from cni.diag.output import FINDING, FINE, Outcome, outcome, printable
from cni.effects.journal import FAILURES, error_text
from cni.protocol.control import FOLDER, STATUS
from cni.protocol.errors import chain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Json = dict[str, Any]

HELP = """Find what makes pods fail on this node: each finding with evidence, consequence, remedy and proof.

It looks at attachments and their rules, pools of addresses, the runtime's networks and their plugins, firewalls, host
ports, connection tracking, disks, podwired, its tunnel, and its peers, to which it sends ICMP echo requests and TCP
SYNs. It changes nothing.

With --bundle it also writes an archive for a bug report: findings, attachments, leases, events, podwired's state and
log, the kernel's network, podwire's rules. Secrets are left out, and names of pods, nodes and hosts are pseudonyms.

\b
Examples:
  podwire doctor
  podwire doctor --bundle report.tar.gz
"""
STATUSES = f"""\b
Exit status: {FINE} nothing is wrong; {FINDING} there are findings; 2 usage."""
BIN_DIRS = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")
BIN_HELP = f"The runtime's plugins (default: {', '.join(BIN_DIRS)}, and each CNI_PATH of an ADD)."
KINDS: dict[str, Callable[[NodeView], Iterator[Ailment]]] = {
    "attachments": attachments.find,
    "pools": pools.find,
    "networks": networks.find,
    "modules": modules.find,
    "bridges": bridges.find,
    "host ports": hostports.find,
    "agent": agent.find,
    "subnet file": subnetfile.find,
    "policy engines": engines.find,
    "tunnel": tunnel.find,
    "peers": peers.find,
    "settings": settings.find,
    "resources": resources.find,
}
UNSEEN = "ailments of this kind cannot be found"
SECONDS = 5.0  # in which podwired has to answer
HEALTHY = "nothing is wrong that podwire doctor looks for"


@click.command("doctor", help=HELP, epilog=STATUSES)
@click.option("--conf-dir", default=conflists.FOLDER, metavar="DIR", help="The runtime's networks.")
@click.option("--bin-dir", "bin_dirs", multiple=True, metavar="DIR", help=BIN_HELP)
@click.option("--bundle", "archive", metavar="FILE", help="Write an archive (tar.gz) for a bug report.")
@click.option("--force", is_flag=True, help="With --bundle: replace FILE if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (version 1: a list `findings`, and `bundle`).")
def doctor(conf_dir: str, bin_dirs: tuple[str, ...], archive: str | None, force: bool, as_json: bool) -> Outcome:
    if force and archive is None:
        raise click.UsageError("--force is for --bundle")
    if archive is not None and os.path.lexists(archive) and not force:
        raise click.UsageError(f"{archive} exists (--force replaces it)")
    node = look(conf_dir, bin_dirs)
    findings = examine(node)
    texts = list(map(_text, findings)) or [style(HEALTHY, fg="green")]
    if archive is not None:
        texts.append(_pack(archive, node, findings, force))
    members: dict[str, object] = {"findings": [finding._asdict() for finding in findings], "bundle": archive}
    return outcome(FINDING if findings else FINE, as_json, members, lambda: "\n\n".join(texts))


def _pack(path: str, node: NodeView, findings: list[Ailment], force: bool) -> str:
    """Writes the report; returns what is to be said about it. Raises OSError."""
    from cni.diag.report import archive, contents

    data = archive.packed(contents.files(node, findings))
    archive.write(path, data, replace=force)
    return f"written: {printable(path)} ({len(data) >> 10} KiB): look at it before you send it"


def look(conf_dir: str, bin_dirs: tuple[str, ...]) -> NodeView:
    """Returns the state of this node. Raises OSError, CniError."""
    with opened_host() as host:
        attached = all_attachments(host)
    paths = [each.kept.path for each in attached if each.kept is not None]
    called = [folder for path in paths for folder in path.split(":") if folder]
    bin_dirs = bin_dirs or tuple(dict.fromkeys([*BIN_DIRS, *called]))
    return NodeView(tuple(attached), tuple(links()), tuple(conflists.networks(conf_dir)), conf_dir, bin_dirs, *_agent())


def _agent() -> tuple[Json | None, str, str]:
    """Returns podwired's status, None where none answers, and then why if one has been here and runs no longer, or why
    if it is silent.
    """
    try:
        return ask("", SECONDS, ask=STATUS), "", ""
    except NoAnswer as error:  # else there are several, or one of another version
        is_gone = isinstance(error, NotRunning) and _has_left()
        is_silent = isinstance(error, Silent)
        return None, str(error) if is_gone else "", str(error) if is_silent else ""


def _has_left() -> bool:
    """Returns True if a podwired has left its socket or its locks, which it removes where it is not to come back, and
    none holds a lock.
    """
    try:
        names = [name for name in os.listdir(FOLDER) if name.startswith("podwired")]
    except OSError:
        return False
    return bool(names) and not any(is_held(f"{FOLDER}/{name}") for name in names if name.endswith(".lock"))


def examine(node: NodeView) -> list[Ailment]:
    """Returns all findings; a kind that cannot be examined is a finding of its own."""
    return [finding for name, find in KINDS.items() for finding in _examined(name, find, node)]


def _examined(name: str, find: Callable[[NodeView], Iterator[Ailment]], node: NodeView) -> Iterator[Ailment]:
    try:
        yield from find(node)
    except FAILURES as error:
        is_hidden = bool(os.geteuid() or foreign_namespace())
        remedy = REMEDY if is_hidden else "as the evidence says: what cannot be read, ADD cannot use either"
        yield Ailment("not-examined", name, error_text(error), UNSEEN, remedy, "id -u; podwire events")
    except Exception as error:  # noqa: BLE001  # a defect must not hide what the others find
        cause = f"internal error: {chain(error)}"
        yield Ailment(
            "not-examined", name, cause, UNSEEN, "report it (podwire doctor --bundle FILE)", "podwire version"
        )


def _text(finding: Ailment) -> str:
    heading = f"{style(finding.name, fg='red', bold=True)}: {printable(finding.subject)}"
    parts = (
        ("evidence", finding.evidence),
        ("consequence", finding.consequence),
        ("remedy", finding.remedy),
        ("proof", finding.proof),
    )
    return "\n".join([heading, *[f"  {label + ':':13}{printable(text)}" for label, text in parts]])
