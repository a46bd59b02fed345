"""A client of etcd's JSON gateway (etcd 3.4 and newer, under /v3), with the calls that the store needs.

Endpoints are tried in turn, from the one that answered last. So a request may be executed twice: only those are sent
for which that does no harm.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from urllib3.exceptions import HTTPError

from cni.agent.stores.etcd.errors import NONSENSE, EtcdRejected, GatewayError, error_of, hint, message_of
from cni.agent.stores.etcd.messages import Json, KeyValue, key_value, prefix_range, revision_of, text64
from cni.agent.stores.http import Lines, body_of, connection_error, parsed, pool_of, retry_after
from cni.agent.stores.tls import context_of
from cni.protocol import smallfile
from cni.protocol.record import Record

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    import urllib3
    from urllib3 import BaseHTTPResponse

    from cni.agent.stores.etcd.options import EtcdOptions

T = TypeVar("T")

ANSWER_SECONDS = 10.0  # of silence: etcd itself gives up after 7 where it has no leader
PAGE = 2000  # keys in one answer
MOST_KEYS, MOST_BYTES = 200_000, 64 << 20  # of a list: ten times what the largest networks have
STALE_TOKEN = ("invalid auth token", "user name is empty", "revision of auth store is old", "revision in header is old")


class EtcdLease(Record):
    """A lease of etcd that keys are bound to; `expires` in seconds since the epoch, None for never."""

    lease: int
    expires: float | None


class Stream(Lines):
    """The messages of a watch."""

    def __iter__(self) -> Iterator[Json]:
        """Yields message by message; ends only with GatewayError."""
        try:
            yield from map(_result_of, self.lines())
        except (HTTPError, OSError) as error:
            raise GatewayError(f"etcd watch ended: {connection_error(error, ANSWER_SECONDS)}") from None
        raise GatewayError("etcd watch ended: connection closed by etcd")


class Gateway:
    """etcd's JSON gateway, at several endpoints, for several threads."""

    def __init__(self, options: EtcdOptions) -> None:
        self._options = options
        self._endpoints = tuple([_url(endpoint) for endpoint in options.endpoints])
        self._turn = 0
        self._token = ""
        self._pool: urllib3.PoolManager | None = None

    def get(self, key: bytes) -> tuple[int, KeyValue | None]:
        """Returns the revision of the store, and the key if it exists."""
        answer = self.call("kv/range", {"key": text64(key)})
        with understood("kv/range"):
            return revision_of(answer), next(map(key_value, answer.get("kvs", ())), None)

    def list_keys(self, folder: bytes) -> tuple[int, list[KeyValue]]:
        """Returns a revision, and all keys of the folder as they were at it."""
        request = {**prefix_range(folder), "limit": str(PAGE)}
        answer = self.call("kv/range", request)
        with understood("kv/range"):
            revision, entries = revision_of(answer), [key_value(message) for message in answer.get("kvs", ())]
        while answer.get("more"):
            if not entries or len(entries) > MOST_KEYS or sum(len(entry.value) for entry in entries) > MOST_BYTES:
                raise GatewayError(f"etcd lists more than {MOST_KEYS} keys, or {MOST_BYTES >> 20} MB, or an empty page")
            last = entries[-1].key
            answer = self.call("kv/range", {**request, "key": text64(last + b"\0"), "revision": str(revision)})
            with understood("kv/range"):
                entries += [key_value(message) for message in answer.get("kvs", ())]
            if entries[-1].key <= last:
                raise GatewayError("etcd lists the same keys again and again")
        return revision, entries

    def txn(self, compare: list[Json], success: list[Json], failure: list[Json]) -> Json:
        """Returns the answer, whose member "succeeded" is true if every comparison held."""
        return self.call("kv/txn", {"compare": compare, "success": success, "failure": failure})

    def grant(self, seconds: int) -> EtcdLease:
        """Returns a new lease of etcd."""
        now = time.time()
        answer = self.call("lease/grant", {"TTL": str(seconds)})
        with understood("lease/grant"):
            return EtcdLease(int(answer["ID"]), now + int(answer["TTL"]))

    def revoke(self, grant: EtcdLease) -> None:
        self.call("lease/revoke", {"ID": str(grant.lease)})

    def time_to_live(self, lease: int) -> EtcdLease:
        """Returns a lease of etcd as it is now; one that is gone has expired."""
        now = time.time()
        answer = self.call("lease/timetolive", {"ID": str(lease)})
        with understood("lease/timetolive"):
            return EtcdLease(lease, now + int(answer.get("TTL", 0)))

    def watch(self, creates: list[Json]) -> Stream:
        """Opens several watches in one stream. A member of the cluster that has lost the leader ends it."""
        body = b"\n".join([json.dumps({"create_request": create}).encode() for create in creates])
        headers = {**self._authorization(), "Grpc-Metadata-hasleader": "true"}
        return Stream(self._post("watch", body, headers, lambda response: response))

    def call(self, path: str, request: Json) -> Json:
        """Returns the answer; a rejected token is replaced once. Raises GatewayError."""
        body = json.dumps(request).encode()
        try:
            return self._request(path, body, self._authorization())
        except EtcdRejected as error:
            if not (self._options.username and any(text in str(error) for text in STALE_TOKEN)):
                raise
        self.forget_token()
        return self._request(path, body, self._authorization())

    def forget_token(self) -> None:
        self._token = ""

    def reset_connections(self) -> None:
        """Drops the pool: open connections stay with their users, certificates are read again."""
        self._pool = None

    def rotate_endpoint(self) -> None:
        """Starts the next request at another endpoint."""
        self._turn += 1

    def _authorization(self) -> dict[str, str]:
        if not self._options.username:
            return {}
        if not self._token:
            credentials = {"name": self._options.username, "password": self._options.password}
            try:
                answer = self._request("auth/authenticate", json.dumps(credentials).encode(), {})
            except EtcdRejected as error:
                if "authentication is not enabled" in str(error):
                    return {}
                text = f"authenticate user {self._options.username!r}: {error}"
                raise EtcdRejected(text, error.retry_after) from None
            with understood("auth/authenticate"):
                self._token = str(answer["token"])
        return {"Authorization": self._token}

    def _request(self, path: str, body: bytes, headers: dict[str, str]) -> Json:
        data = self._post(path, body, headers, body_of)
        with understood(path):
            answer = parsed(data)
            revision_of(answer)  # every answer has one, if only 0
        return dict(answer)

    def _post(self, path: str, body: bytes, headers: dict[str, str], read: Callable[[BaseHTTPResponse], T]) -> T:
        """Returns what `read` makes of the answer of the first endpoint that has one."""
        errors: dict[str, str] = {}
        wait = 0.0
        for turn in range(self._turn, self._turn + len(self._endpoints)):
            endpoint = self._endpoints[turn % len(self._endpoints)]
            try:
                response = self._connected().request(
                    "POST", f"{endpoint}/v3/{path}", body=body, headers=headers, preload_content=False, redirect=False
                )
                if response.status == 200:
                    value = read(response)
                    self._turn = turn
                    return value
                text = error_of(response.status, body_of(response))
            except (HTTPError, OSError) as error:
                self.reset_connections()
                reason = connection_error(error, ANSWER_SECONDS)
                errors[endpoint] = f"{reason}{hint(error, endpoint, self._options.certfile)}"
                continue
            wait = max(wait, retry_after(response))
            if response.status < 500:
                raise EtcdRejected(f"etcd at {endpoint}: {text}", wait)
            errors[endpoint] = text
        raise GatewayError("; ".join(f"etcd at {endpoint}: {errors[endpoint]}" for endpoint in sorted(errors)), wait)

    def _connected(self) -> urllib3.PoolManager:
        pool = self._pool  # another thread may drop it
        if pool is None:
            secure = any(endpoint.startswith("https:") for endpoint in self._endpoints)
            pool = self._pool = pool_of(_tls(self._options) if secure else None, ANSWER_SECONDS)
        return pool


def _url(endpoint: str) -> str:
    return (endpoint if "://" in endpoint else f"http://{endpoint}").rstrip("/")


def _tls(options: EtcdOptions) -> ssl.SSLContext:
    """Raises GatewayError."""
    files = [file for file in (options.cafile, options.certfile, options.keyfile) if file]
    try:
        identity = "\n".join([_read(file) for file in (options.certfile, options.keyfile) if file])
        return context_of(_read(options.cafile) if options.cafile else "", identity)
    except (OSError, ValueError) as error:
        file = getattr(error, "filename", None) or ", ".join(files)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise GatewayError(f"TLS files of etcd ({file}): {reason}") from None


def _read(file: str) -> str:
    return smallfile.read(file).decode("utf-8", "replace")


@contextmanager
def understood(path: str) -> Iterator[None]:
    """Raises GatewayError for an answer that does not have the shape of etcd's answers."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        raise GatewayError(f"etcd {path}: {NONSENSE}") from None


def _result_of(line: bytes) -> Json:
    with understood("watch"):
        message = parsed(line)
        if "result" in message:
            return dict(message["result"])
        reason = message_of(message)
    raise GatewayError(f"etcd watch ended: {reason}")
