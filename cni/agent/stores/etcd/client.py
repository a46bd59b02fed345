"""A client of etcd's JSON gateway (etcd 3.4 and newer, under /v3): what the store needs, and nothing else.

Endpoints are tried in turn, from the one that answered last. A request may so be made twice: only those are made for
which that does no harm.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from urllib3.exceptions import HTTPError

from cni.agent.stores.etcd.errors import (
    ANSWER_SECONDS,
    NONSENSE,
    EtcdRejected,
    GatewayError,
    error_of,
    hint,
    reason,
    said,
)
from cni.agent.stores.etcd.messages import Json, KeyValue, key_value, prefix_range, revision_of, text64
from cni.agent.stores.http import Lines, parsed, pool_of, wait_of, whole
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

PAGE = 2000  # keys in one answer
MOST_KEYS, MOST_BYTES = 200_000, 64 << 20  # of one list: ten times what the largest networks have
STALE_TOKEN = ("invalid auth token", "user name is empty", "revision of auth store is old", "revision in header is old")


class EtcdLease(Record):
    """A lease of etcd's that keys are bound to; `expires` in seconds since the epoch, None for never."""

    lease: int
    expires: float | None


class Stream(Lines):
    """What a watch tells, message by message."""

    def __iter__(self) -> Iterator[Json]:
        """Ends with GatewayError alone."""
        try:
            yield from map(_streamed, self.lines())
        except (HTTPError, OSError) as error:
            raise GatewayError(f"the watch ended: {reason(error)}") from None
        raise GatewayError("the watch ended: etcd closed the connection")


class Gateway:
    def __init__(self, options: EtcdOptions) -> None:
        self._options = options
        self._endpoints = tuple([_url(endpoint) for endpoint in options.endpoints])
        self._turn = 0
        self._token = ""
        self._pool: urllib3.PoolManager | None = None

    def get(self, key: bytes) -> tuple[int, KeyValue | None]:
        """The revision of the store, and the key if it is there."""
        answer = self.call("kv/range", {"key": text64(key)})
        with understood("kv/range"):
            return revision_of(answer), next(map(key_value, answer.get("kvs", ())), None)

    def listed(self, folder: bytes) -> tuple[int, list[KeyValue]]:
        """All keys in it as they were at one revision."""
        request = {**prefix_range(folder), "limit": str(PAGE)}
        answer = self.call("kv/range", request)
        with understood("kv/range"):
            revision, found = revision_of(answer), [key_value(one) for one in answer.get("kvs", ())]
        while answer.get("more"):
            if not found or len(found) > MOST_KEYS or sum(len(one.value) for one in found) > MOST_BYTES:
                raise GatewayError(f"etcd lists more than {MOST_KEYS} keys, or {MOST_BYTES >> 20} MB, or no key at all")
            last = found[-1].key
            answer = self.call("kv/range", {**request, "key": text64(last + b"\0"), "revision": str(revision)})
            with understood("kv/range"):
                found += [key_value(one) for one in answer.get("kvs", ())]
            if found[-1].key <= last:
                raise GatewayError("etcd lists the same keys again and again")
        return revision, found

    def txn(self, compare: list[Json], success: list[Json], failure: list[Json]) -> Json:
        """The answer has `succeeded` where every comparison held."""
        return self.call("kv/txn", {"compare": compare, "success": success, "failure": failure})

    def grant(self, seconds: int) -> EtcdLease:
        now = time.time()
        answer = self.call("lease/grant", {"TTL": str(seconds)})
        with understood("lease/grant"):
            return EtcdLease(int(answer["ID"]), now + int(answer["TTL"]))

    def revoke(self, grant: EtcdLease) -> None:
        self.call("lease/revoke", {"ID": str(grant.lease)})

    def time_to_live(self, lease: int) -> EtcdLease:
        """A lease of etcd's as it is now; one that is gone has expired."""
        now = time.time()
        answer = self.call("lease/timetolive", {"ID": str(lease)})
        with understood("lease/timetolive"):
            return EtcdLease(lease, now + int(answer.get("TTL", 0)))

    def watch(self, creates: list[Json]) -> Stream:
        """Several watches in one stream. A member of the cluster that has lost the leader ends it."""
        body = b"\n".join([json.dumps({"create_request": create}).encode() for create in creates])
        headers = {**self._authorization(), "Grpc-Metadata-hasleader": "true"}
        return Stream(self._post("watch", body, headers, lambda response: response))

    def call(self, path: str, request: Json) -> Json:
        body = json.dumps(request).encode()
        try:
            return self._asked(path, body, self._authorization())
        except EtcdRejected as error:
            if not (self._options.username and any(text in str(error) for text in STALE_TOKEN)):
                raise
        self.forget_token()
        return self._asked(path, body, self._authorization())

    def forget_token(self) -> None:
        self._token = ""

    def reset_connections(self) -> None:
        """What is open is left to those that use it; certificates are read again."""
        self._pool = None

    def rotate_endpoint(self) -> None:
        """Next time another endpoint is tried first."""
        self._turn += 1

    def _authorization(self) -> dict[str, str]:
        if not self._options.username:
            return {}
        if not self._token:
            names = {"name": self._options.username, "password": self._options.password}
            try:
                answer = self._asked("auth/authenticate", json.dumps(names).encode(), {})
            except EtcdRejected as error:
                if "authentication is not enabled" in str(error):
                    return {}
                raise EtcdRejected(f"user {self._options.username!r}: {error}") from None
            with understood("auth/authenticate"):
                self._token = str(answer["token"])
        return {"Authorization": self._token}

    def _asked(self, path: str, body: bytes, headers: dict[str, str]) -> Json:
        data = self._post(path, body, headers, whole)
        with understood(path):
            answer = parsed(data)
            revision_of(answer)  # every answer has one, if only 0
        return dict(answer)

    def _post(self, path: str, body: bytes, headers: dict[str, str], take: Callable[[BaseHTTPResponse], T]) -> T:
        """Returns what `take` makes of the answer of the first endpoint that has one."""
        errors: dict[str, str] = {}
        wait = 0.0
        for turn in range(self._turn, self._turn + len(self._endpoints)):
            endpoint = self._endpoints[turn % len(self._endpoints)]
            try:
                response = self._connected().request(
                    "POST", f"{endpoint}/v3/{path}", body=body, headers=headers, preload_content=False, redirect=False
                )
                if response.status == 200:
                    taken = take(response)
                    self._turn = turn
                    return taken
                text = error_of(response.status, whole(response))
            except (HTTPError, OSError) as error:
                self.reset_connections()
                errors[endpoint] = f"{reason(error)}{hint(error, endpoint, self._options.certfile)}"
                continue
            wait = max(wait, wait_of(response))
            if response.status < 500:
                raise EtcdRejected(f"etcd at {endpoint}: {text}", wait)
            errors[endpoint] = text
        raise GatewayError("; ".join(f"etcd at {endpoint}: {errors[endpoint]}" for endpoint in sorted(errors)), wait)

    def _connected(self) -> urllib3.PoolManager:
        pool = self._pool  # another thread may take it away
        if pool is None:
            secure = any(one.startswith("https:") for one in self._endpoints)
            pool = self._pool = pool_of(_tls(self._options) if secure else None, ANSWER_SECONDS)
        return pool


def _url(endpoint: str) -> str:
    return (endpoint if "://" in endpoint else f"http://{endpoint}").rstrip("/")


def _tls(options: EtcdOptions) -> ssl.SSLContext:
    """Raises GatewayError."""
    files = [file for file in (options.cafile, options.certfile, options.keyfile) if file]
    try:
        identity = "\n".join([_text(file) for file in (options.certfile, options.keyfile) if file])
        return context_of(_text(options.cafile) if options.cafile else "", identity)
    except (OSError, ValueError) as error:
        file = getattr(error, "filename", None) or ", ".join(files)
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise GatewayError(f"the files for TLS ({file}): {why}") from None


def _text(file: str) -> str:
    return smallfile.read(file).decode("utf-8", "replace")


@contextmanager
def understood(path: str) -> Iterator[None]:
    """Raises GatewayError for an answer that does not have the shape of etcd's."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        raise GatewayError(f"{path} of etcd: {NONSENSE}") from None


def _streamed(line: bytes) -> Json:
    with understood("the watch"):
        message = parsed(line)
        if "result" in message:
            return dict(message["result"])
        ended = said(message)
    raise GatewayError(f"the watch ended: {ended}")
