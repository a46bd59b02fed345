"""A client of the Kubernetes API: what the store needs of nodes, and nothing else."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import urllib3
from urllib3.exceptions import HTTPError, InsecureRequestWarning

from cni.agent.stores.etcd.errors import reason
from cni.agent.stores.http import Lines, parsed, pool_of, wait_of, whole
from cni.agent.stores.kube.config import ApiError
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from urllib3 import BaseHTTPResponse

    from cni.agent.stores.kube.config import Access
    from cni.agent.stores.kube.nodes import Json

log = logging.getLogger("podwired.kubernetes")

ANSWER_SECONDS = 30.0  # of silence: the first of many pages takes the server some time
MOST_PAGES = 2000
NONSENSE = "answers in other words than the Kubernetes API"
OVERTIME = 30.0  # seconds by which the server may be late to end a watch
PAGE = 100  # nodes in one answer, 1 MB: larger ones take memory, and no less time
DONE, UNAUTHORIZED, FORBIDDEN, GONE = (200, 201), 401, 403, 410


class Expired(ApiError):
    """What was asked for is older than what the API server remembers."""


class ApiRequest(Record):
    """What is asked for, in the words of the API's permissions, and where; with a body it is a patch."""

    verb: str
    resource: str
    path: str
    body: bytes = b""


class Connection(Record):
    access: Access
    pool: urllib3.PoolManager


class Watch(Lines):
    """What becomes of nodes: the kind of change, and the node."""

    def __iter__(self) -> Iterator[tuple[str, Json]]:
        """Until the server ends it as it was told to. Raises Expired, ApiError."""
        try:
            for line in self.lines():
                kind, found = _event(line)
                if kind == "ERROR":
                    raise _refusal(found.get("code"), f"the watch of nodes ended: {found.get('message')}")
                yield kind, found
        except (HTTPError, OSError) as error:
            raise ApiError(f"the watch of nodes ended: {reason(error, self._silence)}") from None

    def be_patient(self, seconds: float | None = None) -> None:
        self._silence = seconds or 0.0
        super().be_patient(seconds)


class Api:
    """For several threads. `load` is asked for the way to the server before every new connection."""

    def __init__(self, load: Callable[[], Access]) -> None:
        self._load = load
        self._connection: Connection | None = None

    def list_nodes(self, take: Callable[[Json], None]) -> str:
        """Hands over all nodes, one by one, and gives the revision at which they were so. Raises Expired, ApiError."""
        revision, rest = "", ""
        for _ in range(MOST_PAGES):
            page = self._asked(_nodes("list", limit=PAGE, **({"continue": rest} if rest else {})))
            now, rest, nodes = _page(page)
            revision = revision or now
            del page
            for node in nodes:
                take(node)
            del nodes  # before the next page comes
            if not rest:
                return revision
        raise ApiError(f"the list of nodes does not end after {MOST_PAGES * PAGE} nodes")

    def revision(self) -> str:
        """That of now. Raises ApiError."""
        return _page(self._asked(_nodes("list", limit=1)))[0]

    def watch(self, revision: str, seconds: int) -> Watch:
        """All changes since; the server ends it after so long. Raises Expired, ApiError."""
        request = _nodes(
            "watch", watch="true", resourceVersion=revision, allowWatchBookmarks="true", timeoutSeconds=seconds
        )
        found = Watch(self._answer(request))
        found.be_patient(seconds + OVERTIME)
        return found

    def patch_status(self, name: str, patch: Json) -> Json:
        """The node as it is then. Raises ApiError."""
        where = f"/api/v1/nodes/{quote(name, safe='')}/status"
        return self._asked(ApiRequest("patch", "nodes/status", where, json.dumps(patch).encode()))

    def node_of_pod(self, namespace: str, name: str) -> str:
        """Raises ApiError."""
        where = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(name, safe='')}"
        spec = self._asked(ApiRequest("get", "pods", where)).get("spec")
        node = spec.get("nodeName") if isinstance(spec, dict) else None
        if not (node and isinstance(node, str)):
            raise ApiError(f"pod {namespace}/{name} is on no node yet")
        return node

    def reset_connections(self) -> None:
        """What is open is left to those that use it; files are read again."""
        self._connection = None

    def _asked(self, request: ApiRequest) -> Json:
        data = self._whole(self._answer(request), request)
        try:
            answer = parsed(data)
        except ValueError:
            answer = None
        if not (isinstance(answer, dict) and "kind" in answer):
            raise ApiError(f"{self._connected().access.server}{request.path} {NONSENSE}")
        return answer

    def _whole(self, response: BaseHTTPResponse, request: ApiRequest) -> bytes:
        """Raises ApiError."""
        try:
            return whole(response)
        except (HTTPError, OSError) as error:
            raise self._cut_off(request, error) from None

    def _cut_off(self, request: ApiRequest, error: Exception) -> ApiError:
        server = self._connected().access.server
        self.reset_connections()
        return ApiError(f"{server}, to {request.verb} {request.resource}: {reason(error, ANSWER_SECONDS)}")

    def _answer(self, request: ApiRequest) -> BaseHTTPResponse:
        """Raises Expired, ApiError."""
        response = self._sent(request)
        if response.status == UNAUTHORIZED:  # perhaps other credentials have come in the meantime
            response.close()
            self.reset_connections()
            response = self._sent(request)
        if response.status in DONE:
            return response
        what, text = f"{request.verb} {request.resource}", _said(self._whole(response, request))
        server = self._connected().access.server
        if response.status == UNAUTHORIZED:
            text = f"{server} does not know who asks to {what}: the token or certificate is not valid (401)"
        elif response.status == FORBIDDEN:
            text = f"{server} does not permit to {what}: {text}"
        else:
            text = f"{server} does not {what}: {text} ({response.status})"
        raise _refusal(response.status, text, wait_of(response))

    def _sent(self, request: ApiRequest) -> BaseHTTPResponse:
        connection = self._connected()
        access = connection.access
        headers = {"Accept": "application/json", "User-Agent": "podwired"}
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
            raise self._cut_off(request, error) from None

    def _connected(self) -> Connection:
        """Raises ApiError."""
        connection = self._connection
        if connection is None:
            connection = self._connection = _connect(self._load())
        return connection


def _connect(access: Access) -> Connection:
    if access.insecure:
        log.warning("the certificate of %s is not verified, as the kubeconfig says", access.server)
        urllib3.disable_warnings(InsecureRequestWarning)
    return Connection(access, pool_of(access.tls(), ANSWER_SECONDS, access.server_name))


def _nodes(verb: str, **query: str | int) -> ApiRequest:
    return ApiRequest(verb, "nodes", f"/api/v1/nodes?{urlencode(query)}")


def _page(answer: Json) -> tuple[str, str, list[Json]]:
    """The revision, where the next page begins, and the nodes. Raises ApiError."""
    metadata, nodes = answer.get("metadata"), answer.get("items")
    if not isinstance(metadata, dict) or not metadata.get("resourceVersion"):
        raise ApiError("the list of nodes lacks its resourceVersion")
    if not isinstance(nodes, list):
        raise ApiError("the list of nodes lacks its items")
    return str(metadata["resourceVersion"]), str(metadata.get("continue") or ""), nodes


def _event(line: bytes) -> tuple[str, Json]:
    """Raises ApiError."""
    try:
        event = parsed(line)
        kind, found = event["type"], event["object"]
    except (ValueError, LookupError, TypeError):
        kind, found = "", None
    if not (isinstance(kind, str) and isinstance(found, dict)):
        raise ApiError(f"the watch of nodes {NONSENSE}")
    return kind, found


def _refusal(status: object, text: str, wait: float = 0.0) -> ApiError:
    return Expired(text, wait) if status == GONE else ApiError(text, wait)


def _said(body: bytes) -> str:
    """What an answer that is no success tells: an object Status, or any text."""
    try:
        return str(parsed(body)["message"])
    except (ValueError, LookupError, TypeError):
        return body.decode("utf-8", "replace").strip()
