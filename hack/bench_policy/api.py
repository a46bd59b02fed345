"""A Kubernetes API with the objects of a large cluster, kept as the text that it sends: to be listed, watched, changed.

usage: python -m hack.bench_policy.api PODS POLICIES SELECTING

POST /change takes a list of [plural, ADDED or MODIFIED or DELETED, object].
"""

from __future__ import annotations

import json
import sys
import threading
from collections import defaultdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qs, urlsplit

from hack.bench_policy.objects import NODE, PLURALS, Json, World, with_kind

if TYPE_CHECKING:
    from collections.abc import Iterator

PORT = 8001
CHUNK = 200  # objects of a watch that are sent together
TICK_SECONDS = 1.0  # a watch whose client is gone is noticed at the next event


class Stored(NamedTuple):
    """An object as it is sent, and whether it belongs to this node."""

    text: bytes
    local: bool


class Collections:
    """All objects by the plural of their kind and by their key, and what has changed since the start."""

    def __init__(self, world: World) -> None:
        self.objects: dict[str, dict[tuple[str, str], Stored]] = {plural: {} for plural in PLURALS}
        self.events: dict[str, list[tuple[int, bytes, Stored]]] = defaultdict(list)
        self.revision = 1000
        self.lock = threading.Condition()
        for plural, item in world.objects():
            item["metadata"]["resourceVersion"] = str(self.revision)
            self.objects[plural][key_of(item)] = Stored(with_kind(plural, item), is_local(item))

    def change(self, plural: str, kind: str, item: Json) -> None:
        with self.lock:
            self.revision += 1
            item["metadata"]["resourceVersion"] = str(self.revision)
            stored = Stored(with_kind(plural, item), is_local(item))
            if kind == "DELETED":
                self.objects[plural].pop(key_of(item), None)
            else:
                self.objects[plural][key_of(item)] = stored
            self.events[plural].append((self.revision, event_of(kind, stored), stored))
            self.lock.notify_all()


def key_of(item: Json) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def is_local(item: Json) -> bool:
    return NODE in (item.get("spec", {}).get("nodeName"), item["metadata"]["name"])


def event_of(kind: str, stored: Stored) -> bytes:
    return b'{"type":"%b","object":%b}\n' % (kind.encode(), stored.text)


class Handler(BaseHTTPRequestHandler):
    """Answers lists with pages, and watches with or without what was there before."""

    protocol_version = "HTTP/1.1"
    collections: Collections

    def log_message(self, *_: object) -> None:
        """Logs nothing."""

    def do_POST(self) -> None:
        for plural, kind, item in json.loads(self.rfile.read(int(self.headers["Content-Length"]))):
            self.collections.change(plural, kind, item)
        self._answer(b"{}")

    def do_PATCH(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(self.collections.objects["nodes"]["", NODE].text)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        last = url.path.rpartition("/")[2]
        if last == NODE:
            self._answer(self.collections.objects["nodes"]["", NODE].text)
        elif last not in PLURALS:
            text = b'{"kind":"Status","apiVersion":"v1","status":"Failure","code":404,"reason":"NotFound"}'
            self._answer(text, HTTPStatus.NOT_FOUND)
        elif query.get("watch") in ("true", "1"):
            self._watch(last, query)
        else:
            self._list(last, query)

    def _answer(self, body: bytes, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _list(self, plural: str, query: dict[str, str]) -> None:
        with self.collections.lock:
            items = [stored.text for stored in self.collections.objects[plural].values() if is_selected(stored, query)]
            revision = self.collections.revision
        start, limit = int(query.get("continue", "0")), int(query.get("limit", "0")) or len(items)
        metadata = {"resourceVersion": str(revision)}
        if start + limit < len(items):
            metadata["continue"] = str(start + limit)
        version, kind = PLURALS[plural]
        head = json.dumps({"apiVersion": version, "kind": f"{kind}List", "metadata": metadata})[:-1].encode()
        self._answer(b'%b,"items":[%b]}' % (head, b",".join(items[start : start + limit])))

    def _watch(self, plural: str, query: dict[str, str]) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for text in self._events(plural, query):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(text), text))
                self.wfile.flush()
        except OSError:
            self.close_connection = True

    def _events(self, plural: str, query: dict[str, str]) -> Iterator[bytes]:
        """Yields what was there before, if that is asked for, and whatever changes from then on."""
        collections = self.collections
        with collections.lock:
            since = int(query.get("resourceVersion") or collections.revision)
            initial: list[Stored] = []
            if query.get("sendInitialEvents") == "true":
                since = collections.revision
                initial = [stored for stored in collections.objects[plural].values() if is_selected(stored, query)]
        for start in range(0, len(initial), CHUNK):
            yield b"".join([event_of("ADDED", stored) for stored in initial[start : start + CHUNK]])
        if query.get("sendInitialEvents") == "true":
            yield bookmark(plural, since)
        sent = 0
        while True:
            with collections.lock:
                events = collections.events[plural]
                while sent == len(events):
                    collections.lock.wait(TICK_SECONDS)
                new, sent = events[sent:], len(events)
            for revision, text, stored in new:
                if revision > since and is_selected(stored, query):
                    yield text


def is_selected(stored: Stored, query: dict[str, str]) -> bool:
    """True if a query's selector of fields, of which podwired's are known, selects an object."""
    fields = query.get("fieldSelector", "").split(",")
    if f"spec.nodeName={NODE}" in fields or f"metadata.name={NODE}" in fields:
        return stored.local
    return not (stored.local and f"spec.nodeName!={NODE}" in fields)


def bookmark(plural: str, revision: int) -> bytes:
    """Returns the event that ends what was there before."""
    version, kind = PLURALS[plural]
    metadata = {"resourceVersion": str(revision), "annotations": {"k8s.io/initial-events-end": "true"}}
    item = {"apiVersion": version, "kind": kind, "metadata": metadata}
    return json.dumps({"type": "BOOKMARK", "object": item}).encode() + b"\n"


def main() -> None:
    Handler.collections = Collections(World(*map(int, sys.argv[1:4])))
    server = ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main()
