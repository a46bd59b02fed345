"""`podwire uninstall`: removes what is podwire's from this node, once it was asked for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
from click import style

from cni.diag.asking import NoAnswer
from cni.diag.belongings import agent, kernel, programs, state
from cni.diag.belongings.belonging import AGENT, Belonging, Kept
from cni.diag.node.attachments import OWN, PRESENT, attachments
from cni.diag.node.conflists import FOLDER
from cni.diag.node.here import opened_host
from cni.diag.node.sight import foreign_namespace
from cni.diag.output import FINDING, FINE, UNANSWERED, Outcome, outcome, print_now, printable
from cni.effects.journal import FAILURES, error_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni.effects.host import Host

# Help is not in docstrings: the bundle has none.
HELP = """Remove what is podwire's from this node: programs, tables, rules, interfaces, state, and what podwired made.

All of it is listed, and asked for on a terminal. What other programs have installed or written stays, and so do leases
that somebody holds. It is refused while podwired runs, and while containers are attached, unless --force is given: then
these keep their interfaces and lose their rules.

\b
Examples:
  podwire uninstall --dry-run
  podwire uninstall --bin-dir /opt/cni/bin --yes
"""
STATUSES = f"""\b
Exit status: {FINE} all is removed, or with --dry-run can be; {FINDING} refused,
declined, or something could not be removed; 2 usage;
{UNANSWERED} the node cannot be read."""
BIN_DIRS = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")
BIN_HELP = f"Folders of plugins (default: {', '.join(BIN_DIRS)}, and each CNI_PATH of an ADD)."
ANSWER_BYTES = 64
NOTHING = "nothing of podwire's is on this node"


class Node:
    """A node with what is podwire's on it, and the reasons to leave that."""

    def __init__(self, host: Host, bin_dirs: tuple[str, ...], conf_dir: str) -> None:
        """Changes nothing. Raises one of FAILURES."""
        seen = attachments(host)
        self.attached = [each.name for each in seen if each.made_by == OWN and each.interface == PRESENT]
        kept = [each.kept for each in seen if each.kept is not None]
        called = [folder for call in kept for folder in call.path.split(":") if folder]
        ipams = [config.get("ipam") for call in kept for config in call.configs]
        data_dirs = [str(ipam["dataDir"]) for ipam in ipams if isinstance(ipam, dict) and ipam.get("dataDir")]
        self.running = agent.running()
        things: list[Belonging | Kept] = [*agent.parts(), *agent.network_files(conf_dir)]
        things += [*kernel.tables(host), *kernel.foreign_rules(host), *kernel.interfaces(host)]
        things += [*state.lease_folders(data_dirs), *state.run_folder()]
        for folder in bin_dirs or dict.fromkeys([*BIN_DIRS, *called]):
            things += programs.programs(folder.rstrip("/"))
        self.belongings = [each for each in things if isinstance(each, Belonging)]
        self.kept = [each for each in things if isinstance(each, Kept)]

    def refusal(self, *, force: bool) -> str:
        """Returns why nothing may be removed; empty if it may."""
        if self.running:
            return f"podwired runs (it holds {', '.join(self.running)}): stop it first, and what starts it again"
        if self.attached and not force:
            return f"attached: {', '.join(self.attached)} (delete these pods first, or give --force)"
        return ""


@click.command("uninstall", help=HELP, epilog=STATUSES)
@click.option("--bin-dir", "bin_dirs", multiple=True, metavar="DIR", help=BIN_HELP)
@click.option("--conf-dir", default=FOLDER, metavar="DIR", help=f"The runtime's networks (default: {FOLDER}).")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Also while containers are attached.")
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (version 1: lists `belongings`, `kept`, `errors`).")
def uninstall(
    bin_dirs: tuple[str, ...], conf_dir: str, yes: bool, force: bool, dry_run: bool, as_json: bool
) -> Outcome:
    if hidden := foreign_namespace():
        raise NoAnswer(f"nothing is removed: {hidden}")
    with opened_host() as host:
        node = Node(host, bin_dirs, conf_dir)
    refusal, errors = node.refusal(force=force), list[str]()
    asks = not (yes or dry_run or as_json or refusal or not node.belongings) and _is_terminal()
    if not (yes or dry_run or asks or refusal) and node.belongings:
        raise click.UsageError("--yes is needed where nobody can be asked (--dry-run shows what would be removed)")
    shown = asks and _confirmed(node)
    if asks and not shown:
        return Outcome(FINDING, "nothing is removed")
    removes = not (dry_run or refusal)
    members: dict[str, object] = {
        "belongings": [{"kind": each.kind, "object": each.object} for each in node.belongings],
        "kept": [each._asdict() for each in node.kept],
        "attached": node.attached,
        "refused": refusal,
        "removed": removes,
        "errors": errors,
    }
    if removes:
        errors += _remove(node, bin_dirs, conf_dir, force=force)
    status = FINDING if refusal or errors else FINE
    return outcome(status, as_json, members, lambda: "\n".join(_lines(node, errors, refusal, shown, removes)))


def _is_terminal() -> bool:
    return os.isatty(0) and os.isatty(1)


def _confirmed(node: Node) -> bool:
    """Shows what would be removed, and asks at the terminal."""
    print_now("\n".join([*_listed(node), "Remove all of this? [y/N] "]))
    answer = os.read(0, ANSWER_BYTES).decode("utf-8", "replace").strip().lower()
    return answer in ("y", "yes")


def _remove(node: Node, bin_dirs: tuple[str, ...], conf_dir: str, *, force: bool) -> list[str]:
    """Removes all, podwired's part first: its --cleanup takes the host's lock itself. Programs are last: this one is
    among them. Returns errors.
    """
    errors = [error for each in node.belongings if each.kind == AGENT for error in _error_of(each)]
    with opened_host() as host:
        host.lock.lock_exclusive()  # no ADD meanwhile
        now = Node(host, bin_dirs, conf_dir)
        if refusal := now.refusal(force=force):
            return [*errors, refusal]
        return errors + [error for each in now.belongings if each.kind != AGENT for error in _error_of(each)]


def _error_of(thing: Belonging) -> Iterator[str]:
    try:
        thing.remove()
    except FAILURES as error:
        yield f"{thing.object}: {error_text(error)}"


def _listed(node: Node) -> Iterator[str]:
    for thing in node.belongings:
        yield printable(f"  {thing.kind:10} {thing.object}")
    for each in node.kept:
        yield printable(f"  {'stays':10} {each.object}: {each.reason}")


def _lines(node: Node, errors: Sequence[str], refusal: str, shown: bool, removes: bool) -> Iterator[str]:
    if not shown:
        yield from _listed(node)
    if not node.belongings:
        yield style(NOTHING, fg="green")
    for error in errors:
        yield style(f"not removed: {printable(error)}", fg="red")
    if refusal:
        yield style(f"nothing is removed: {printable(refusal)}", fg="red")
    elif node.belongings:
        yield f"{'removed' if removes else 'would be removed'}: {len(node.belongings) - len(errors)}"
