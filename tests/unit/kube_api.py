"""A Kubernetes API for nodes, small and true to the real one, with errors that a test writes into its script."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.unit.scripted import ScriptedApi, answer, chunk, head

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.unit.scripted import Request

PREFIX = "flannel.alpha.coreos.com/"


class KubeApi(ScriptedApi):
    """An API whose kinds of requests are verbs: list, watch, patch, get."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes: dict[str, dict[str, Any]] = {}
        self.events: list[tuple[int, dict[str, Any]]] = []
        self.revision = 10
        self.forgotten = 0  # of this revision and older ones no events are known
        self._changed = threading.Condition()

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
        with self._changed:
            self.revision += 1
            node["metadata"]["resourceVersion"] = str(self.revision)
            name = node["metadata"]["name"]
            self.send({"type": "MODIFIED" if name in self.nodes else "ADDED", "object": node})
            self.nodes[name] = node

    def delete(self, name: str) -> None:
        with self._changed:
            self.revision += 1
            node = self.nodes.pop(name)
            node["metadata"]["resourceVersion"] = str(self.revision)
            self.send({"type": "DELETED", "object": node})

    def send(self, event: dict[str, Any]) -> None:
        """Sends an event to all that watch, whatever it is."""
        with self._changed:
            self.events.append((self.revision, event))
            self._changed.notify_all()

    def bookmark(self) -> None:
        with self._changed:
            self.revision += 1
            self.send({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self.revision)}}})

    def kind_of(self, request: Request) -> str:
        if "watch=true" in request.path:
            return "watch"
        return "patch" if request.method == "PATCH" else "list" if request.path.startswith("/api/v1/nodes?") else "get"

    def respond(self, verb: str, request: Request) -> Iterable[bytes]:
        query = {key: values[0] for key, values in parse_qs(urlsplit(request.path).query).items()}
        with self._changed:
            if verb == "watch":
                return self._watch(int(query["resourceVersion"]), float(query["timeoutSeconds"]))
            if verb == "list":
                return self._page(int(query.get("limit", 0)), int(query.get("continue", 0)))
            if verb == "patch":
                return self._patch(request)
            return answer({"kind": "Pod", "spec": {"nodeName": "one"}})

    def _page(self, limit: int, start: int) -> list[bytes]:
        rest = len(self.nodes) - start - limit
        metadata = {"resourceVersion": str(self.revision), **({"continue": str(start + limit)} if rest > 0 else {})}
        return answer({"kind": "NodeList", "metadata": metadata, "items": [*self.nodes.values()][start:][:limit]})

    def _patch(self, request: Request) -> list[bytes]:
        name, patch = request.path.split("/")[4], request.json()
        if name not in self.nodes:
            return rejection(404, f'nodes "{name}" not found')
        node = self.nodes[name]
        annotations = {**node["metadata"]["annotations"], **patch.get("metadata", {}).get("annotations", {})}
        self.store({**node, "metadata": {**node["metadata"], "annotations": annotations},
                    "status": {**node["status"], **patch.get("status", {})}})  # fmt: skip
        return answer({"kind": "Node", **self.nodes[name]})

    def _watch(self, since: int, seconds: float) -> Iterable[bytes]:
        if since < self.forgotten:
            return rejection(410, f"too old resource version: {since}")
        return self._events(since, time.monotonic() + seconds)

    def _events(self, since: int, end: float) -> Iterator[bytes]:
        yield head(Transfer_Encoding="chunked")
        sent = next((index for index, (number, _) in enumerate(self.events) if number > since), len(self.events))
        self.watching += 1
        try:
            while time.monotonic() < end and not self.server.over.is_set():
                with self._changed:
                    if len(self.events) == sent:
                        self._changed.wait(0.05)
                    events, sent = self.events[sent:], len(self.events)
                yield from [chunk(json.dumps(event).encode() + b"\n") for _, event in events]
        finally:
            self.watching -= 1
        yield b"0\r\n\r\n"


def rejection(status: int, message: str, **headers: str) -> list[bytes]:
    return answer({"kind": "Status", "status": "Failure", "message": message, "code": status}, status, **headers)
