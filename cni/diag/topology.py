"""`podwire topology`: a drawing of this node's network, and of its cluster's nodes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from cni.diag.asking import NoAnswer, ask
from cni.diag.drawing.clustermap import cluster_map
from cni.diag.drawing.figure import figure
from cni.diag.drawing.members import cluster_members, node_members
from cni.diag.drawing.nodemap import node_map
from cni.diag.drawing.page import page
from cni.diag.drawing.svg import svg
from cni.diag.drawing.tree import tree_text
from cni.diag.node import conflists
from cni.diag.node.attachments import GONE, attachments, without_loopbacks
from cni.diag.node.devices import read_kernel
from cni.diag.node.here import opened_host
from cni.diag.output import FINDING, FINE, UNANSWERED, Outcome, outcome, printable
from cni.kernel import statefile
from cni.protocol.control import STATUS

if TYPE_CHECKING:
    from cni.diag.drawing.clustermap import ClusterMap
    from cni.diag.drawing.nodemap import NodeMap

    Json = dict[str, Any]

# Help is not in docstrings: the bundle has none.
HELP = """Draw this node's network: uplinks, tunnels with their peers, bridges, pods with addresses and ports.

The drawing shows the kernel's state, with the names of pods that `podwire ps` has. Without a file it is a tree. With
--cluster it has all nodes that podwired knows.

\b
Examples:
  podwire topology --cluster
  podwire topology --svg node.svg --html node.html
"""
STATUSES = f"""\b
Exit status: {FINE} drawn; {FINDING} drawn, and a pod's interface is gone or a
node is not reached; 2 usage; {UNANSWERED} the kernel or podwired (--cluster)
cannot be asked, or a file cannot be written."""
CLUSTER_HELP = "Draw all nodes that podwired knows, too, with subnets, public IPs, and if they are reached."
SOCKET_HELP = "With --cluster: podwired's socket, where it is not the usual one in /run/podwire."
SVG_HELP = "Write the drawing as SVG."
HTML_HELP = "Write the drawing as a page for a browser."
JSON_HELP = "Print JSON (version 1: objects `node`, `cluster`)."
FILE = click.Path(readable=False)  # for completion: it is written, and may be missing
READABLE, FOLDER_MODE = 0o666, 0o755  # of files, but for the umask; no folder is made


@click.command("topology", help=HELP, epilog=STATUSES)
@click.option("--cluster", "with_cluster", is_flag=True, help=CLUSTER_HELP)
@click.option("--svg", "svg_path", type=FILE, metavar="FILE", help=SVG_HELP)
@click.option("--html", "html_path", type=FILE, metavar="FILE", help=HTML_HELP)
@click.option("--conf-dir", default=conflists.FOLDER, metavar="DIR", help="The runtime's networks.")
@click.option("--socket", "path", default="", metavar="PATH", help=SOCKET_HELP)
@click.option("--json", "as_json", is_flag=True, help=JSON_HELP)
def topology(
    with_cluster: bool, svg_path: str | None, html_path: str | None, conf_dir: str, path: str, as_json: bool
) -> Outcome:
    if path and not with_cluster:
        raise click.UsageError("--socket is for --cluster")
    answer = ask(path, ask=STATUS) if with_cluster else None
    node, cluster = _look(conf_dir, answer), cluster_map(answer) if answer is not None else None
    drawing = figure(node, cluster)
    files = [(file, draw) for file, draw in ((svg_path, svg), (html_path, page)) if file is not None]
    for file, draw in files:
        _write(file, draw(drawing))
    members: dict[str, object] = {
        "node": node_members(node),
        "cluster": cluster_members(cluster) if cluster is not None else None,
    }
    status = FINE if is_whole(node, cluster) else FINDING
    text = "\n".join([f"written: {printable(file)}" for file, _ in files]) or tree_text(drawing)
    return outcome(status, as_json, members, lambda: text)


def _look(conf_dir: str, answer: Json | None) -> NodeMap:
    """Raises OSError, CniError."""
    with opened_host() as host:
        attached = without_loopbacks(attachments(host))
    name, uplink = (answer["node"], answer["uplink"]) if answer is not None else (os.uname().nodename, None)
    pinned = uplink["interface"] if uplink is not None else ""
    return node_map(name, read_kernel(), attached, conflists.networks(conf_dir), pinned)


def is_whole(node: NodeMap, cluster: ClusterMap | None) -> bool:
    """Returns True if all pods have their interface, and all nodes that podwired knows are reached."""
    nodes = cluster.nodes if cluster is not None else ()
    return all(each.interface != GONE for each in node.elsewhere) and all(each.is_reachable for each in nodes)


def _write(file: str, text: str) -> None:
    """Replaces a file in an existing folder. Raises NoAnswer."""
    path = os.path.realpath(file)
    umask = os.umask(0o077)
    os.umask(umask)
    reason = _reason_against(path)
    try:
        if not reason:
            statefile.replace(path, text.encode(), READABLE & ~umask, FOLDER_MODE)
    except OSError as error:
        reason = error.strerror or "cannot be written"
    if reason:
        raise NoAnswer(f"{printable(file)}: {reason} (name a file that this user may write)")


def _reason_against(path: str) -> str:
    """Returns why a path must not be replaced; empty if it may be. A device or a folder would be replaced, too."""
    if not os.path.isdir(os.path.dirname(path)):
        return "its folder does not exist"
    return "not a regular file" if os.path.exists(path) and not os.path.isfile(path) else ""
