"""The files of a report, redacted. What cannot be read is a file that says why."""

from __future__ import annotations

import glob
import json
import os
from typing import TYPE_CHECKING, Any

from cni import VERSION
from cni.diag.asking import NoAnswer
from cni.diag.events import read_events
from cni.diag.leases import pool_members
from cni.diag.node import sight
from cni.diag.node.pools import pools
from cni.diag.report import kernel
from cni.diag.report.redact import HOST, NODE, POD, REDACTED, Redactor
from cni.effects.journal import FAILURES, error_text
from cni.kernel import statefile
from cni.protocol import smallfile
from cni.protocol.control import FOLDER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cni.diag.ailments.ailment import Ailment, NodeView

FILE_BYTES = 1 << 20  # of each file, the end of it
LOG_LINES = 2000
CONFLISTS = 32
POD_LOGS = "/var/log/pods/*podwire*/podwired/*.log"
SUBNET_ENV, RELEASE = "/run/flannel/subnet.env", "/etc/os-release"
CUT = "(the beginning is left out)\n"
ABOUT = f"""A report of podwire doctor --bundle, for people who look for the cause of a failure.

Names of pods, namespaces, nodes and hosts are pseudonyms, the same in all files. Tokens, passwords, keys, certificates,
labels and values of environments are left out: {REDACTED}. Addresses, networks, interfaces and IDs of containers are
those of the node. Look at the files before you send them.
"""


def files(node: NodeView, findings: Sequence[Ailment]) -> Iterator[tuple[str, bytes]]:
    """Yields names and contents."""
    redactor = Redactor()
    documents: dict[str, Callable[[], object]] = {
        "findings.json": lambda: [finding._asdict() for finding in findings],
        "attachments.json": lambda: [each.members for each in node.attached],
        "leases.json": lambda: _leases(node),
        "status.json": lambda: node.agent or "podwired does not answer",
        "events.json": lambda: [event._asdict() for event in read_events(FOLDER)],
        "kernel.json": kernel.objects,
        "sysctls.json": kernel.settings,
        "versions.json": _versions,
    }
    texts: dict[str, Callable[[], str]] = {
        "podwire.nft": lambda: "\n".join(kernel.tables(os.environ)),
        "podwired.log": lambda: kernel.journal(os.environ, LOG_LINES) + _pod_logs(),
        "subnet.env": lambda: smallfile.read(SUBNET_ENV).decode("utf-8", "replace"),
    }
    seen = {name: _or_error(document) for name, document in documents.items()}
    seen |= {f"networks/{name}": document for name, document in _networks(node)}
    _learn(redactor, node, seen)
    yield "README.txt", ABOUT.encode()
    for name, document in seen.items():
        shown = json.dumps(redactor.value(document), indent=1, ensure_ascii=False, default=str)
        yield name, bounded(redactor.text(shown))
    for name, text in texts.items():
        yield name, bounded(redactor.text(_end_of(str(_or_error(text)))))


def _or_error(read: Callable[[], object]) -> object:
    try:
        return read()
    except (NoAnswer, *FAILURES) as error:
        return f"cannot be read: {error_text(error)}"


def _end_of(text: str) -> str:
    """Returns the last lines: the half of one may begin with a secret, and without the word that says so."""
    return text if len(text) <= FILE_BYTES else text[-FILE_BYTES:].partition("\n")[2]


def bounded(text: str) -> bytes:
    """Returns the content of a file, which has FILE_BYTES of it at most."""
    data = text.encode("utf-8", "replace")
    return data if len(data) <= FILE_BYTES else CUT.encode() + data[-FILE_BYTES:]


def _learn(redactor: Redactor, node: NodeView, documents: dict[str, Any]) -> None:
    """Notes the names that the documents give as such: others would not be recognized in a text."""
    name = os.uname().nodename
    for each in (name, name.partition(".")[0]):
        redactor.learn(HOST, each)
    status = node.agent or {}
    redactor.learn(NODE, status.get("node"))
    for peer in status.get("peers", ()):
        redactor.learn(NODE, peer.get("name"))
        redactor.learn(NODE, peer.get("key"))
    for refused in status.get("refused", ()):
        redactor.learn(NODE, refused.get("key"))
    for attached in node.attached:
        redactor.learn_pod(attached.pod)
        folder, _, name = attached.netns.rpartition("/")
        redactor.learn(POD, name if folder.endswith("/netns") else "")
    events = documents["events.json"]
    for event in events if isinstance(events, list) else ():
        redactor.learn_pod(event.get("pod"))


def _leases(node: NodeView) -> object:
    attached = list(node.attached)
    return [pool_members(pool, attached) for pool in pools(node.configs(), attached, sight.look())]


def _networks(node: NodeView) -> Iterator[tuple[str, object]]:
    """Yields the runtime's files; one that is no JSON may have secrets anywhere, and is left out."""
    for network in node.networks[:CONFLISTS]:
        name = os.path.basename(network.path)
        try:
            yield name, json.loads(statefile.read(network.path, links=True) or b"")
        except (ValueError, RecursionError):
            yield name, f"not JSON: {network.error}"
        except FAILURES as error:
            yield name, f"cannot be read: {error_text(error)}"


def _versions() -> object:
    release = smallfile.read(RELEASE).decode("utf-8", "replace").splitlines()
    uname = os.uname()
    return {
        "podwire": VERSION,
        "kernel": f"{uname.sysname} {uname.release} {uname.machine}",
        "system": next((line.partition("=")[2].strip('"') for line in release if line.startswith("PRETTY_NAME=")), ""),
    }


def _pod_logs() -> str:
    """Returns the end of podwired's newest log as a pod of Kubernetes."""
    paths = sorted(glob.glob(POD_LOGS), key=os.path.getmtime)
    if not paths:
        return ""
    with open(paths[-1], "rb") as file:
        start = max(0, os.path.getsize(paths[-1]) - FILE_BYTES)
        file.seek(start)
        text = file.read(FILE_BYTES).decode("utf-8", "replace")
    return text.partition("\n")[2] if start else text
