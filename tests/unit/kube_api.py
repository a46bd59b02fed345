"""A Kubernetes API, small and true to the real one, with errors that a test writes into its script."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.unit.scripted import ScriptedApi, answer, chunk, head

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.unit.scripted import Request

PREFIX = "flannel.alpha.coreos.com/"


class Collection:
    """Objects of one resource with their events, which can be listed in pages and watched."""

    def __init__(self, is_over: Callable[[], bool]) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.events: list[tuple[int, dict[str, Any]]] = []
        self.revision = 10
        self.watching = 0
        self._is_over = is_over
        self.lock = threading.Condition()

    def store(self, name: str, item: dict[str, Any]) -> None:
        with self.lock:
            self.revision += 1
            item["metadata"]["resourceVersion"] = str(self.revision)
            self.send({"type": "MODIFIED" if name in self.objects else "ADDED", "object": item})
            self.objects[name] = item

    def delete(self, name: str) -> None:
        with self.lock:
            self.revision += 1
            item = self.objects.pop(name)
            self.send({"type": "DELETED", "object": {**item, "metadata": {**item["metadata"],
                       "resourceVersion": str(self.revision)}}})  # fmt: skip

    def send(self, event: dict[str, Any]) -> None:
        """Sends an event to all that watch, whatever it is."""
        with self.lock:
            self.events.append((self.revision, event))
            self.lock.notify_all()

    def bookmark(self) -> None:
        with self.lock:
            self.revision += 1
            self.send({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self.revision)}}})

    def page(self, limit: int, start: int) -> list[bytes]:
        with self.lock:
            rest = len(self.objects) - start - limit
            metadata = {"resourceVersion": str(self.revision), **({"continue": str(start + limit)} if rest > 0 else {})}
            return answer({"kind": "List", "metadata": metadata, "items": [*self.objects.values()][start:][:limit]})

    def watch(self, since: int, seconds: float) -> Iterator[bytes]:
        end = time.monotonic() + seconds
        yield head(Transfer_Encoding="chunked")
        sent = next((index for index, (number, _) in enumerate(self.events) if number > since), len(self.events))
        self.watching += 1
        try:
            while time.monotonic() < end and not self._is_over():
                with self.lock:
                    if len(self.events) == sent:
                        self.lock.wait(0.05)
                    events, sent = self.events[sent:], len(self.events)
                yield from [chunk(json.dumps(event).encode() + b"\n") for _, event in events]
        finally:
            self.watching -= 1
        yield b"0\r\n\r\n"

    def answer(self, query: dict[str, str]) -> Iterable[bytes]:
        """Returns the answer to a list or a watch."""
        if "watch" in query:
            return self.watch(int(query["resourceVersion"]), float(query["timeoutSeconds"]))
        return self.page(int(query.get("limit", 0)), int(query.get("continue", 0)))


class ObjectApi(ScriptedApi):
    """An API of any resources; the kinds of requests are a verb and a collection, which is a plural with a selector of
    fields if there is one, as in `list pods` and `watch pods spec.nodeName=one`.
    """

    def __init__(self, *resources: str) -> None:
        super().__init__()
        self.collections = {name: Collection(self.is_over) for name in resources}

    def kind_of(self, request: Request) -> str:
        verb = "watch" if "watch=true" in request.path else "list" if "?" in request.path else "get"
        return f"{verb} {self.name_of(request)}"

    def name_of(self, request: Request) -> str:
        """Returns the name of the collection that a request is about."""
        plural = request.path.partition("?")[0].rpartition("/")[2]
        return f"{plural} {query_of(request).get('fieldSelector', '')}".strip()

    def respond(self, verb: str, request: Request) -> Iterable[bytes]:
        del verb
        collection = self.collections.get(self.name_of(request))
        return rejection(404, "not found") if collection is None else collection.answer(query_of(request))


class KubeApi(ScriptedApi):
    """An API of nodes, whose kinds of requests are verbs: list, watch, patch, get."""

    def __init__(self) -> None:
        super().__init__()
        self._collection = Collection(self.is_over)
        self.nodes = self._collection.objects
        self.send, self.bookmark, self.delete = (
            self._collection.send, self._collection.bookmark, self._collection.delete,
        )  # fmt: skip

    @property
    def is_watched(self) -> bool:
        return self._collection.watching > 0

    def put(self, name: str, number: int, *, mac: str = "", **metadata: Any) -> None:
        """Stores a node as flannel leaves it, or without a MAC address as it joins."""
        values = {
            "kube-subnet-manager": "true",
            "backend-type": "vxlan",
            "public-ip": f"192.0.2.{number}",
            "backend-data": f'{{"VNI":1,"VtepMAC":"{mac}"}}',
        }
        annotations = {PREFIX + key: text for key, text in values.items()} if mac else {}
        self.store({
            "metadata": {"name": name, "uid": name, "annotations": annotations, **metadata},
            "spec": {"podCIDR": f"10.244.{number}.0/24", "podCIDRs": [f"10.244.{number}.0/24"]},
            "status": {},
        })  # fmt: skip

    def store(self, node: dict[str, Any]) -> None:
        self._collection.store(node["metadata"]["name"], node)

    def kind_of(self, request: Request) -> str:
        if "watch=true" in request.path:
            return "watch"
        return "patch" if request.method == "PATCH" else "list" if request.path.startswith("/api/v1/nodes?") else "get"

    def respond(self, verb: str, request: Request) -> Iterable[bytes]:
        if verb == "patch":
            return self._patch(request)
        if verb == "get":
            return answer({"kind": "Pod", "spec": {"nodeName": "one"}})
        return self._collection.answer(query_of(request))

    def _patch(self, request: Request) -> list[bytes]:
        name, patch = request.path.split("/")[4], request.json()
        with self._collection.lock:
            if name not in self.nodes:
                return rejection(404, f'nodes "{name}" not found')
            node = self.nodes[name]
            annotations = {**node["metadata"]["annotations"], **patch.get("metadata", {}).get("annotations", {})}
            self.store({**node, "metadata": {**node["metadata"], "annotations": annotations},
                        "status": {**node["status"], **patch.get("status", {})}})  # fmt: skip
            return answer({"kind": "Node", **self.nodes[name]})


def query_of(request: Request) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(urlsplit(request.path).query).items()}


def rejection(status: int, message: str, **headers: str) -> list[bytes]:
    return answer({"kind": "Status", "status": "Failure", "message": message, "code": status}, status, **headers)
