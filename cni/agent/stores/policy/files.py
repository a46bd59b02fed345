"""The static store of what NetworkPolicy is about: a folder of files in YAML and JSON, the same on each node.

The folder is looked at once a second. A file that cannot be read leaves its objects as they were, and an object with
an error stays as it was; neither concerns other ones. A policy with an error from the beginning closes its pods.
"""

from __future__ import annotations

import logging
import os
from errno import EFBIG
from functools import partial
from typing import TYPE_CHECKING

from cni.agent.logs import error_text
from cni.agent.policy.clusterpolicy import ClusterPolicy
from cni.agent.policy.events import (
    KINDS,
    LOCAL_PODS,
    NAMESPACES,
    REMOTE_PODS,
    PolicyEvent,
    PolicyStoreFailed,
    PolicyStoreRecovered,
)
from cni.agent.policy.objects import Pod
from cni.agent.stores.policy.known import KnownObjects
from cni.agent.stores.policy.objects import (
    PARSERS,
    Content,
    Item,
    implied_namespace,
    implied_namespaces,
    pod_without_labels,
    read_objects,
)
from cni.agent.stores.policy.yamltext import parse_documents
from cni.agent.stores.watchfile import FileWatch
from cni.agent.stores.worker import EventSource
from cni.protocol import smallfile
from cni.protocol.errors import CniError
from cni.protocol.jsontext import parse
from cni.protocol.record import Record

if TYPE_CHECKING:
    from cni.agent.policy.events import Key, PolicyObject

log = logging.getLogger("podwired.policies")

JSON, YAML = (".json",), (".yaml", ".yml")
LARGEST_JSON, LARGEST_YAML = 16 << 20, 2 << 20  # bytes: 5,000 pods as the API has them; YAML takes 5 s of CPU a MB
MOST_FILES = 1000
MOST_TOLD = 5  # errors of a file
KEPT = "keeping what was read before"
FOLDER = "folder"  # a part that may fail, as is each file by its path


class ReadFile(Record):
    """A file as it was read last: `error` is why it could not be read as it is now, and `state` is what has to differ
    before it is read again.
    """

    state: object
    content: Content
    error: str = ""


class PolicyFiles(EventSource[PolicyEvent]):
    """A store of the objects of a folder's files."""

    def __init__(self, folder: str, node: str) -> None:
        """`node` is this node's name: pods without `spec.nodeName` may be on any, and count as those of this node."""
        super().__init__(log, PolicyStoreFailed, PolicyStoreRecovered())
        self._folder, self._node = folder, node
        self._files: dict[str, ReadFile] | None = None  # by path, once the folder was read
        self._good: dict[tuple[str, Key], Item] = {}  # as they were emitted last, without those with an error
        self._attached: set[Key] = set()  # by ADD
        self._given: set[Key] = set()  # pods of files, as they were emitted last
        self._known = {kind: KnownObjects(kind, self._emit) for kind in KINDS}
        watch = FileWatch(folder, self._read, partial(self._fail, FOLDER), self._stop, folder_state, parts_of)
        self._add_thread("policy-files", watch.run)

    def note_attached(self, key: Key, attached: bool) -> None:
        """Emits the pod, without labels, while it is attached and no file has it."""
        with self._wake:
            (self._attached.add if attached else self._attached.discard)(key)
            local = self._known[LOCAL_PODS]
            if not local.is_listed or key in self._given:
                return
            namespaces, namespace = self._known[NAMESPACES], ("", key[0])
            if attached and namespace not in namespaces.hashes:
                namespaces.change(namespace, implied_namespace(key[0]))
            local.change(key, pod_without_labels(*key) if attached else None)

    def watch_remote_pods(self, wanted: bool) -> None:
        """Does nothing: the files have all pods, and each is emitted."""

    def watch_nodes(self, wanted: bool) -> None:
        """Does nothing, either."""

    def heard(self) -> dict[tuple[str, ...], float]:
        """Returns nothing: the kernel watches files."""
        return {}

    def _read(self) -> bool:
        """Returns False if a file has to be read again though it does not change. Raises OSError."""
        paths = policy_files(self._folder)
        if len(paths) > MOST_FILES:
            raise OSError(EFBIG, f"more than {MOST_FILES} files", self._folder)
        self._succeed(FOLDER)
        known = self._files or {}
        files = {path: self._read_file(path, known.get(path, ReadFile(None, Content()))) for path in paths}
        for path in known.keys() - files.keys():
            self._succeed(path)
        if files != self._files:
            self._files = files
            self._settle(files)
        return all(file.state is not None for file in files.values())

    def _read_file(self, path: str, before: ReadFile) -> ReadFile:
        state = smallfile.state(path)
        if before.state is not None and before.state == state:
            return before
        try:
            content = read_file(path)
        except CniError as error:  # until the file changes
            return ReadFile(state, before.content, error_text(error))
        except OSError as error:
            return ReadFile(None, before.content, error_text(error))
        if content.ignored:
            kinds = ", ".join([f"{count} {kind}" for kind, count in content.ignored])
            log.warning("%s: ignored %s (%s are read)", path, kinds, ", ".join(PARSERS))
        for item in content.items:
            if isinstance(item.object, ClusterPolicy) and item.object.unserved:
                log.warning("%s: %s: %s", path, item.title, item.object.unserved)
        return ReadFile(state, content)

    def _settle(self, files: dict[str, ReadFile]) -> None:
        """Emits what follows from all files, and the errors of each."""
        taken: dict[tuple[str, Key], Item] = {}
        for path, file in files.items():
            errors = [f"{file.error}{f'; {KEPT}' if file.content.items else ''}"] if file.error else []
            errors += file.content.errors
            for item in file.content.items:
                place = item.kind, item.key
                if place in taken:
                    errors.append(f"{item.title}: duplicate, the first one counts")
                    continue
                good = self._good.get(place) if item.error else None
                taken[place] = good or item
                if item.error:
                    errors.append(f"{item.title}: {item.error}{f'; {KEPT}' if good else ''}")
            self._tell(path, errors)
        self._good = {place: item for place, item in taken.items() if not item.error}
        self._emit_all([*taken.values()])

    def _tell(self, path: str, errors: list[str]) -> None:
        if not errors:
            self._succeed(path)
            return
        text = "; ".join([*errors[:MOST_TOLD], *([f"{len(errors) - MOST_TOLD} more"] if errors[MOST_TOLD:] else [])])
        self._fail(path, text if path in errors[0] else f"{path}: {text}")

    def _emit_all(self, items: list[Item]) -> None:
        objects: dict[str, dict[Key, PolicyObject]] = {kind: {} for kind in KINDS}
        objects[NAMESPACES].update(implied_namespaces(items))
        for item in items:
            objects[self._kind_of(item)][item.key] = item.object
        with self._wake:
            self._given = {*objects[LOCAL_PODS], *objects[REMOTE_PODS]}
            for key in self._attached - self._given:
                objects[LOCAL_PODS][key] = pod_without_labels(*key)
                objects[NAMESPACES].setdefault(("", key[0]), implied_namespace(key[0]))
            for kind, other in ((LOCAL_PODS, REMOTE_PODS), (REMOTE_PODS, LOCAL_PODS)):
                for key in objects[kind].keys() & self._known[other].hashes.keys():
                    self._known[other].change(key, None)  # before it comes as the other one
            for kind, known in self._known.items():
                known.replace(objects[kind])

    def _kind_of(self, item: Item) -> str:
        is_local = isinstance(item.object, Pod) and item.object.node in ("", self._node)
        return LOCAL_PODS if is_local and item.kind == REMOTE_PODS else item.kind


def policy_files(folder: str) -> list[str]:
    """Returns the paths of the files that count, in the order of their names. Raises OSError."""
    names = [name for name in os.listdir(folder) if name.endswith(JSON + YAML) and not name.startswith(".")]
    return [os.path.join(folder, name) for name in sorted(names)]


def parts_of(folder: str) -> list[str]:
    """Returns the files of a folder, and first one that is not there: the folder matters also while it is empty."""
    try:
        files = policy_files(folder)
    except OSError:
        files = []
    return [os.path.join(folder, "none"), *files]


def folder_state(folder: str) -> object:
    """Returns a value that changes whenever one of the files changes, appears or disappears."""
    try:
        return [(path, smallfile.state(path)) for path in policy_files(folder)]
    except OSError as error:
        return error.errno


def read_file(path: str) -> Content:
    """Returns the content of a file. Raises OSError, DecodingFailure."""
    if path.endswith(JSON):
        return read_objects([parse(smallfile.read(path, LARGEST_JSON), path)])
    try:
        data = smallfile.read(path, LARGEST_YAML)
    except OSError as error:
        if error.errno != EFBIG:
            raise
        raise OSError(EFBIG, f"{error.strerror} (JSON may have {LARGEST_JSON >> 20} MB)", path) from None
    return read_objects(parse_documents(data, path))
