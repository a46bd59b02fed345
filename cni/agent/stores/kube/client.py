"""A client of the Kubernetes API: lists and watches any resource, and patches the status of nodes."""

from __future__ import annotations

import json
import logging
from errno import EMSGSIZE
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import urllib3
from urllib3.exceptions import HTTPError, InsecureRequestWarning

from cni.agent.stores.http import Lines, body_of, connection_error, parsed, pool_of, retry_after, status_text
from cni.agent.stores.kube.errors import Absent, ApiError, Expired, Forbidden, TooLarge
from cni.agent.stores.kube.resource import NODES, OBJECTS, resource_version
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from urllib3 import BaseHTTPResponse

    from cni.agent.stores.kube.config import Access
    from cni.agent.stores.kube.resource import Json, Resource

log = logging.getLogger("podwired.kubernetes")

ANSWER_SECONDS = 30.0  # of silence: the first of many pages takes the server some time
MOST_PAGES = 2000
SMALLER = 8  # by how much, after a page that was too large
NONSENSE = "unexpected response (not the Kubernetes API)"
OVERTIME = 30.0  # seconds by which the server may be late to end a watch
DONE, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, GONE = (200, 201), 401, 403, 404, 410


class ApiRequest(Record):
    """A request: verb and resource as in the API's permissions, its path, and the media type of what it asks for; with
    a body it is a patch.
    """

    verb: str
    resource: str
    path: str
    body: bytes = b""
    accept: str = OBJECTS


class Page(Record):
    """Some objects of a list; `rest` is the place where the next page begins, empty at the end."""

    revision: str
    rest: str
    items: list[Json]


class Connection(Record):
    access: Access
    pool: urllib3.PoolManager


class Watch(Lines):
    """The events of a resource: the type of change, and the object."""

    def __init__(self, response: BaseHTTPResponse, resource: Resource, silence: float) -> None:
        super().__init__(response)
        self._resource, self._silence = resource.name, silence
        self.set_silence(silence)

    def __iter__(self) -> Iterator[tuple[str, Json]]:
        """Yields until the server ends the watch at its time. Raises Expired, ApiError."""
        try:
            for line in self.lines():
                kind, item = self._event(line)
                if kind == "ERROR":
                    raise _rejection(item.get("code"), f"watch {self._resource} ended: {item.get('message')}")
                yield kind, item
        except (HTTPError, OSError) as error:
            raise ApiError(f"watch {self._resource} ended: {connection_error(error, self._silence)}") from None

    def _event(self, line: bytes) -> tuple[str, Json]:
        """Raises ApiError."""
        try:
            event = parsed(line)
            kind, item = event["type"], event["object"]
        except (ValueError, LookupError, TypeError):
            kind, item = "", None
        if not (isinstance(kind, str) and isinstance(item, dict)):
            raise ApiError(f"watch {self._resource}: {NONSENSE}")
        return kind, item


class Api:
    """The API server, for several threads. `load` returns how it is reached, before every new connection."""

    def __init__(self, load: Callable[[], Access]) -> None:
        self._load = load
        self._connection: Connection | None = None

    def list(self, resource: Resource, handle: Callable[[Json], None]) -> str:
        """Hands over all objects, one by one; returns the revision of the list. Raises Expired, ApiError."""
        revision, rest = "", ""
        for _ in range(MOST_PAGES):
            page = self._page(resource, {"continue": rest} if rest else {})
            revision, rest = revision or page.revision, page.rest
            for item in page.items:
                handle(item)
            del page  # before the next one comes
            if not rest:
                return revision
        raise ApiError(f"list {resource.name}: no end after {MOST_PAGES * resource.page} objects")

    def _page(self, resource: Resource, place: dict[str, str]) -> Page:
        """Returns a page that begins at a place. One that is too large is asked for in smaller ones: whoever may store
        a few huge objects must not keep all others from being read. Raises Expired, ApiError.
        """
        limit = resource.page
        while True:
            try:
                return _page(resource, self._json(_list(resource, limit=limit, **place)))
            except TooLarge:
                if limit == 1:
                    raise
                limit = max(1, limit // SMALLER)

    def revision(self, resource: Resource) -> str:
        """Returns the current one. Raises ApiError."""
        return _page(resource, self._json(_list(resource, limit=1))).revision

    def watch(self, resource: Resource, revision: str, seconds: int) -> Watch:
        """Opens a watch of all changes since; the server ends it after so long. Raises Expired, ApiError."""
        query: dict[str, str | int] = {"watch": "true", "resourceVersion": revision, "allowWatchBookmarks": "true"}
        path = _path(resource, {**query, "timeoutSeconds": seconds})
        response = self._response(ApiRequest("watch", resource.name, path, accept=resource.types[1]))
        return Watch(response, resource, seconds + OVERTIME)

    def patch_status(self, name: str, patch: Json) -> Json:
        """Returns the patched node. Raises ApiError."""
        path = f"{NODES.path}/{quote(name, safe='')}/status"
        return self._json(ApiRequest("patch", f"{NODES.name}/status", path, json.dumps(patch).encode()))

    def node_of_pod(self, namespace: str, name: str) -> str:
        """Returns the name of a pod's node. Raises ApiError."""
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(name, safe='')}"
        spec = self._json(ApiRequest("get", "pods", path)).get("spec")
        node = spec.get("nodeName") if isinstance(spec, dict) else None
        if not (node and isinstance(node, str)):
            raise ApiError(f"pod {namespace}/{name} has no spec.nodeName yet")
        return node

    def reset_connections(self) -> None:
        """Drops the pool: open connections stay with their users, credentials are read again."""
        self._connection = None

    def _json(self, request: ApiRequest) -> Json:
        data = self._body(self._response(request), request)
        try:
            answer = parsed(data)
        except ValueError:
            answer = None
        if not (isinstance(answer, dict) and "kind" in answer):
            raise ApiError(f"{self._connected().access.server}{request.path}: {NONSENSE}")
        return answer

    def _body(self, response: BaseHTTPResponse, request: ApiRequest) -> bytes:
        """Raises ApiError."""
        try:
            return body_of(response)
        except (HTTPError, OSError) as error:
            raise self._broken(request, error) from None

    def _broken(self, request: ApiRequest, error: Exception) -> ApiError:
        prefix = self._prefix(request)
        self.reset_connections()
        kind = TooLarge if isinstance(error, OSError) and error.errno == EMSGSIZE else ApiError
        return kind(f"{prefix}: {connection_error(error, ANSWER_SECONDS)}")

    def _prefix(self, request: ApiRequest) -> str:
        return f"{self._connected().access.server}: {request.verb} {request.resource}"

    def _response(self, request: ApiRequest) -> BaseHTTPResponse:
        """Raises Expired, ApiError."""
        response = self._send(request)
        if response.status == UNAUTHORIZED:  # perhaps other credentials have come in the meantime
            response.close()
            self.reset_connections()
            response = self._send(request)
        if response.status in DONE:
            return response
        message = _message(self._body(response, request))
        text = f"{self._prefix(request)}: {status_text(response.status)}"
        if response.status == UNAUTHORIZED:
            text = f"{text} (invalid token or certificate)"
        elif message:
            text = f"{text}: {message}"
        raise _rejection(response.status, text, retry_after(response))

    def _send(self, request: ApiRequest) -> BaseHTTPResponse:
        connection = self._connected()
        access = connection.access
        headers = {"Accept": request.accept, "User-Agent": "podwired"}
        if request.verb == "list":
            headers["Accept-Encoding"] = "gzip"
        if request.body:
            headers["Content-Type"] = "application/strategic-merge-patch+json"
        if token := access.bearer():
            headers["Authorization"] = f"Bearer {token}"
        try:
            return connection.pool.request(
                "PATCH" if request.body else "GET",
                access.server + request.path,
                body=request.body or None,
                headers=headers,
                preload_content=False,
                redirect=False,
            )
        except (HTTPError, OSError) as error:
            raise self._broken(request, error) from None

    def _connected(self) -> Connection:
        """Raises ApiError."""
        connection = self._connection
        if connection is None:
            connection = self._connection = _connect(self._load())
        return connection


def _connect(access: Access) -> Connection:
    if access.insecure:
        log.warning("%s: certificate is not verified (insecure-skip-tls-verify of the kubeconfig)", access.server)
        urllib3.disable_warnings(InsecureRequestWarning)
    return Connection(access, pool_of(access.tls(), ANSWER_SECONDS, access.server_name))


def _list(resource: Resource, **query: str | int) -> ApiRequest:
    return ApiRequest("list", resource.name, _path(resource, query), accept=resource.types[0])


def _path(resource: Resource, query: Mapping[str, str | int]) -> str:
    selector = {"fieldSelector": resource.fields} if resource.fields else {}
    return f"{resource.path}?{urlencode({**query, **selector})}"


def _page(resource: Resource, answer: Json) -> Page:
    """Raises ApiError."""
    revision, items = resource_version(resource, answer), answer.get("items")
    if not isinstance(items, list):
        raise ApiError(f"list {resource.name}: response without items")
    return Page(revision, str(answer["metadata"].get("continue") or ""), items)


def _rejection(status: object, text: str, wait: float = 0.0) -> ApiError:
    kinds: dict[object, type[ApiError]] = {FORBIDDEN: Forbidden, NOT_FOUND: Absent, GONE: Expired}
    return kinds.get(status, ApiError)(text, wait)


def _message(body: bytes) -> str:
    """Returns the message of an answer that is not a success: that of an object Status, or any text."""
    try:
        return str(parsed(body)["message"])
    except (ValueError, LookupError, TypeError):
        return body.decode("utf-8", "replace").strip()
