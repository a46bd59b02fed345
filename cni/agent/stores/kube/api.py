"""A client of the Kubernetes API: what the store needs of nodes, and nothing else."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import urllib3
from urllib3.exceptions import HTTPError, InsecureRequestWarning, ReadTimeoutError

from cni.agent.stores.etcd.errors import CONNECT_SECONDS, reason
from cni.agent.stores.kube.access import ApiError
from cni.agent.stores.streams import KEEPALIVE, Lines
from cni.spec.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from urllib3 import BaseHTTPResponse

    from cni.agent.stores.kube.access import Access
    from cni.agent.stores.kube.node import Json

log = logging.getLogger("podwired.kubernetes")

ANSWER_SECONDS = 30.0  # of silence: the first of many pages takes the server some time
OVERTIME = 30.0  # seconds by which the server may be late to end a watch
PAGE = 100  # nodes in one answer, 1 MB: larger ones take memory, and no less time
DONE, UNAUTHORIZED, FORBIDDEN, GONE = (200, 201), 401, 403, 410


class Expired(ApiError):
    """What was asked for is older than what the API server remembers."""


class Aim(Record):
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
                event = json.loads(line)
                kind, found = event["type"], event["object"]
                if kind == "ERROR":
                    raise _refusal(int(found.get("code") or 0), f"the watch of nodes ended: {found.get('message')}")
                yield kind, found
        except (HTTPError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ApiError(f"the watch of nodes ended: {reason(error)}") from None


class Api:
    """For several threads. `load` is asked for the way to the server before every new connection."""

    def __init__(self, load: Callable[[], Access]) -> None:
        self._load = load
        self._connection: Connection | None = None

    def list_nodes(self, take: Callable[[Json], None]) -> str:
        """Hands over all nodes, one by one, and gives the revision at which they were so. Raises Expired, ApiError."""
        revision, rest = "", ""
        while True:
            page = self._asked(_nodes("list", limit=PAGE, **({"continue": rest} if rest else {})))
            try:
                revision = revision or page["metadata"]["resourceVersion"]
                rest = page["metadata"].get("continue", "")
                nodes = page["items"]
            except (LookupError, TypeError) as error:
                raise ApiError(f"the list of nodes lacks {error}") from None
            del page
            for node in nodes:
                take(node)
            del nodes  # before the next page comes
            if not rest:
                return revision

    def revision(self) -> str:
        """That of now. Raises ApiError."""
        return str(self._asked(_nodes("list", limit=1))["metadata"]["resourceVersion"])

    def watch(self, revision: str, seconds: int) -> Watch:
        """All changes since; the server ends it after so long. Raises Expired, ApiError."""
        aim = _nodes(
            "watch", watch="true", resourceVersion=revision, allowWatchBookmarks="true", timeoutSeconds=seconds
        )
        found = Watch(self._answer(aim))
        found.be_patient(seconds + OVERTIME)
        return found

    def patch_status(self, name: str, patch: Json) -> Json:
        """The node as it is then. Raises ApiError."""
        where = f"/api/v1/nodes/{quote(name, safe='')}/status"
        return self._asked(Aim("patch", "nodes/status", where, json.dumps(patch).encode()))

    def node_of_pod(self, namespace: str, name: str) -> str:
        """Raises ApiError."""
        where = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(name, safe='')}"
        pod = self._asked(Aim("get", "pods", where))
        node = pod.get("spec", {}).get("nodeName", "")
        if not node:
            raise ApiError(f"pod {namespace}/{name} is on no node yet")
        return str(node)

    def connect_anew(self) -> None:
        """What is open is left to those that use it; files are read again."""
        self._connection = None

    def _asked(self, aim: Aim) -> Json:
        response = self._answer(aim)
        try:
            answer = json.loads(response.data)
        except ValueError:
            answer = None
        if not (isinstance(answer, dict) and "kind" in answer):
            raise ApiError(f"{response.url} answers in other words than the Kubernetes API")
        return answer

    def _answer(self, aim: Aim) -> BaseHTTPResponse:
        """Raises Expired, ApiError."""
        response = self._sent(aim)
        if response.status == UNAUTHORIZED:  # perhaps other credentials have come in the meantime
            response.close()
            self.connect_anew()
            response = self._sent(aim)
        if response.status in DONE:
            return response
        what, text = f"{aim.verb} {aim.resource}", _said(response.data)
        server = self._connected().access.server
        if response.status == UNAUTHORIZED:
            text = f"{server} does not know who asks to {what}: the token or certificate is not valid (401)"
        elif response.status == FORBIDDEN:
            text = f"{server} does not permit to {what}: {text}"
        else:
            text = f"{server} does not {what}: {text} ({response.status})"
        raise _refusal(response.status, text)

    def _sent(self, aim: Aim) -> BaseHTTPResponse:
        connection = self._connected()
        access = connection.access
        headers = {"Accept": "application/json", "User-Agent": "podwired"}
        if aim.verb == "list":
            headers["Accept-Encoding"] = "gzip"
        if aim.body:
            headers["Content-Type"] = "application/strategic-merge-patch+json"
        if token := access.bearer():
            headers["Authorization"] = f"Bearer {token}"
        try:
            return connection.pool.request(
                "PATCH" if aim.body else "GET",
                access.server + aim.path,
                body=aim.body or None,
                headers=headers,
                preload_content=aim.verb != "watch",
                redirect=False,
            )
        except (HTTPError, OSError) as error:
            self.connect_anew()
            late = isinstance(error, ReadTimeoutError)
            text = f"no answer within {ANSWER_SECONDS:g} s" if late else reason(error)
            raise ApiError(f"{access.server}, to {aim.verb} {aim.resource}: {text}") from None

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
    pool = urllib3.PoolManager(
        retries=False,
        maxsize=2,
        ssl_context=access.tls(),
        socket_options=KEEPALIVE,
        timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=ANSWER_SECONDS),
        server_hostname=access.server_name or None,
    )
    return Connection(access, pool)


def _nodes(verb: str, **query: str | int) -> Aim:
    return Aim(verb, "nodes", f"/api/v1/nodes?{urlencode(query)}")


def _refusal(status: int, text: str) -> ApiError:
    return Expired(text) if status == GONE else ApiError(text)


def _said(body: bytes) -> str:
    """What an answer that is no success tells: an object Status, or any text."""
    try:
        return str(json.loads(body)["message"])
    except (ValueError, LookupError, TypeError):
        return body.decode("utf-8", "replace").strip()
