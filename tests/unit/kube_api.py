"""A Kubernetes API for nodes, small and true to the real one, with faults that a test writes into its script."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.unit.scripted import Server, answer, chunk, head

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.unit.scripted import Request

PREFIX = "flannel.alpha.coreos.com/"


class KubeApi:
    """`script`: by verb (list, watch, patch, get) the faults of the next requests, each the pieces of an answer."""

    def __init__(self) -> None:
        self.nodes: dict[str, dict[str, Any]] = {}
        self.events: list[tuple[int, dict[str, Any]]] = []
        self.revision = 10
        self.forgotten = 0  # of this revision and older ones no events are known
        self.script: dict[str, list[Iterable[bytes]]] = {}
        self.watching = 0
        self._changed = threading.Condition()
        self.server = Server(self.answer)

    def put(self, name: str, number: int, *, mac: str = "", **metadata: Any) -> None:
        """A node as flannel leaves it, or without a MAC address as it joins."""
        said = {
            "kube-subnet-manager": "true",
            "backend-type": "vxlan",
            "public-ip": f"192.0.2.{number}",
            "backend-data": f'{{"VNI":1,"VtepMAC":"{mac}"}}',
        }
        annotations = {PREFIX + key: text for key, text in said.items()} if mac else {}
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
            self.tell({"type": "MODIFIED" if name in self.nodes else "ADDED", "object": node})
            self.nodes[name] = node

    def delete(self, name: str) -> None:
        with self._changed:
            self.revision += 1
            node = self.nodes.pop(name)
            node["metadata"]["resourceVersion"] = str(self.revision)
            self.tell({"type": "DELETED", "object": node})

    def tell(self, event: dict[str, Any]) -> None:
        """To all that watch, whatever it is."""
        with self._changed:
            self.events.append((self.revision, event))
            self._changed.notify_all()

    def bookmark(self) -> None:
        with self._changed:
            self.revision += 1
            self.tell({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self.revision)}}})

    def fail(self, verb: str, *errors: Iterable[bytes]) -> None:
        self.script.setdefault(verb, []).extend(errors)

    def verbs(self) -> list[str]:
        return [_verb(request) for request in self.server.requests]

    def answer(self, request: Request) -> Iterable[bytes]:
        verb = _verb(request)
        if self.script.get(verb):
            return self.script[verb].pop(0)
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
            return refusal(404, f'nodes "{name}" not found')
        node = self.nodes[name]
        annotations = {**node["metadata"]["annotations"], **patch.get("metadata", {}).get("annotations", {})}
        self.store({**node, "metadata": {**node["metadata"], "annotations": annotations},
                    "status": {**node["status"], **patch.get("status", {})}})  # fmt: skip
        return answer({"kind": "Node", **self.nodes[name]})

    def _watch(self, since: int, seconds: float) -> Iterable[bytes]:
        if since < self.forgotten:
            return refusal(410, f"too old resource version: {since}")
        return self._events(since, time.monotonic() + seconds)

    def _events(self, since: int, end: float) -> Iterator[bytes]:
        yield head(Transfer_Encoding="chunked")
        told = next((index for index, (number, _) in enumerate(self.events) if number > since), len(self.events))
        self.watching += 1
        try:
            while time.monotonic() < end and not self.server.over.is_set():
                with self._changed:
                    if len(self.events) == told:
                        self._changed.wait(0.05)
                    news, told = self.events[told:], len(self.events)
                yield from [chunk(json.dumps(event).encode() + b"\n") for _, event in news]
        finally:
            self.watching -= 1
        yield b"0\r\n\r\n"


def refusal(status: int, message: str, **headers: str) -> list[bytes]:
    return answer({"kind": "Status", "status": "Failure", "message": message, "code": status}, status, **headers)


def _verb(request: Request) -> str:
    if "watch=true" in request.path:
        return "watch"
    return "patch" if request.method == "PATCH" else "list" if request.path.startswith("/api/v1/nodes?") else "get"
