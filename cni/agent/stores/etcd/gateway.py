"""A client of etcd's JSON gateway (etcd 3.4 and newer, under /v3): what the store needs, and nothing else.

Endpoints are tried in turn, from the one that answered last. A request may so be made twice: only those are made for
which that does no harm.
"""

from __future__ import annotations

import json
import ssl
import time
from typing import TYPE_CHECKING

import urllib3
from urllib3.exceptions import HTTPError

from cni.agent.stores.etcd.errors import (
    ANSWER_SECONDS,
    CONNECT_SECONDS,
    GatewayError,
    Refused,
    fault_of,
    hint,
    reason,
    said,
)
from cni.agent.stores.etcd.messages import Json, KeyValue, below, key_value, revision_of, text64
from cni.agent.stores.streams import KEEPALIVE, Lines
from cni.spec.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from urllib3 import BaseHTTPResponse

    from cni.agent.stores.etcd.access import EtcdOptions

PAGE = 2000  # keys in one answer
STALE_TOKEN = ("invalid auth token", "user name is empty", "revision of auth store is old", "revision in header is old")


class Grant(Record):
    """A lease of etcd's that keys are bound to; `expires` in seconds since the epoch, None for never."""

    lease: int
    expires: float | None


class Stream(Lines):
    """What a watch tells, message by message."""

    def __iter__(self) -> Iterator[Json]:
        """Ends with GatewayError alone."""
        try:
            yield from map(_streamed, self.lines())
        except (HTTPError, OSError, ValueError) as error:
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
        return revision_of(answer), next(map(key_value, answer.get("kvs", ())), None)

    def listed(self, folder: bytes) -> tuple[int, list[KeyValue]]:
        """All keys in it as they were at one revision."""
        request = {**below(folder), "limit": str(PAGE)}
        answer = self.call("kv/range", request)
        revision, found = revision_of(answer), [key_value(one) for one in answer.get("kvs", ())]
        while answer.get("more"):
            answer = self.call("kv/range", {**request, "key": text64(found[-1].key + b"\0"), "revision": str(revision)})
            found += [key_value(one) for one in answer.get("kvs", ())]
        return revision, found

    def transact(self, compare: list[Json], success: list[Json], failure: list[Json]) -> Json:
        """The answer has `succeeded` where every comparison held."""
        return self.call("kv/txn", {"compare": compare, "success": success, "failure": failure})

    def grant(self, seconds: int) -> Grant:
        now = time.time()
        answer = self.call("lease/grant", {"TTL": str(seconds)})
        return Grant(int(answer["ID"]), now + int(answer["TTL"]))

    def revoke(self, grant: Grant) -> None:
        self.call("lease/revoke", {"ID": str(grant.lease)})

    def granted(self, lease: int) -> Grant:
        """A lease of etcd's as it is now; one that is gone has expired."""
        now = time.time()
        return Grant(lease, now + int(self.call("lease/timetolive", {"ID": str(lease)}).get("TTL", 0)))

    def watch(self, creates: list[Json]) -> Stream:
        """Several watches in one stream. A member of the cluster that has lost the leader ends it."""
        body = b"\n".join([json.dumps({"create_request": create}).encode() for create in creates])
        headers = {**self._authorization(), "Grpc-Metadata-hasleader": "true"}
        return Stream(self._post("watch", body, headers, whole=False))

    def call(self, path: str, request: Json) -> Json:
        body = json.dumps(request).encode()
        try:
            return _decoded(self._post(path, body, self._authorization()))
        except Refused as error:
            if not (self._options.username and any(text in str(error) for text in STALE_TOKEN)):
                raise
        self.forget_token()
        return _decoded(self._post(path, body, self._authorization()))

    def forget_token(self) -> None:
        self._token = ""

    def connect_anew(self) -> None:
        """What is open is left to those that use it; certificates are read again."""
        self._pool = None

    def turn_away(self) -> None:
        """Next time another endpoint is tried first."""
        self._turn += 1

    def _authorization(self) -> dict[str, str]:
        if not self._options.username:
            return {}
        if not self._token:
            names = {"name": self._options.username, "password": self._options.password}
            try:
                answer = _decoded(self._post("auth/authenticate", json.dumps(names).encode(), {}))
            except Refused as error:
                if "authentication is not enabled" in str(error):
                    return {}
                raise Refused(f"user {self._options.username!r}: {error}") from None
            self._token = answer["token"]
        return {"Authorization": self._token}

    def _post(self, path: str, body: bytes, headers: dict[str, str], *, whole: bool = True) -> BaseHTTPResponse:
        faults: dict[str, str] = {}
        for turn in range(self._turn, self._turn + len(self._endpoints)):
            endpoint = self._endpoints[turn % len(self._endpoints)]
            try:
                response = self._connected().request(
                    "POST", f"{endpoint}/v3/{path}", body=body, headers=headers, preload_content=whole, redirect=False
                )
            except (HTTPError, OSError) as error:
                self.connect_anew()
                faults[endpoint] = f"{reason(error)}{hint(error, endpoint, self._options.certfile)}"
                continue
            if response.status == 200:
                self._turn = turn
                return response
            fault = fault_of(response.status, response.data)
            if response.status < 500:
                raise Refused(f"etcd at {endpoint}: {fault}")
            faults[endpoint] = fault
        raise GatewayError("; ".join(f"etcd at {endpoint}: {faults[endpoint]}" for endpoint in sorted(faults)))

    def _connected(self) -> urllib3.PoolManager:
        pool = self._pool  # another thread may take it away
        if pool is None:
            pool = self._pool = urllib3.PoolManager(
                retries=False,
                maxsize=2,
                ssl_context=_tls(self._options) if any(one.startswith("https:") for one in self._endpoints) else None,
                socket_options=KEEPALIVE,
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=ANSWER_SECONDS),
            )
        return pool


def _url(endpoint: str) -> str:
    return (endpoint if "://" in endpoint else f"http://{endpoint}").rstrip("/")


def _tls(options: EtcdOptions) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.cafile or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # as Go: certificates without key identifiers are common
        if options.certfile:
            context.load_cert_chain(options.certfile, options.keyfile or None, password="")  # never asks the terminal
    except OSError as error:
        files = ", ".join(file for file in (options.cafile, options.certfile, options.keyfile) if file)
        raise GatewayError(f"the files for TLS ({files}): {error}") from None
    return context


def _decoded(response: BaseHTTPResponse) -> Json:
    try:
        answer = json.loads(response.data)
    except ValueError:
        answer = None
    if not (isinstance(answer, dict) and isinstance(answer.get("header"), dict)):
        raise GatewayError(f"{response.url} answers in other words than etcd's")
    return answer


def _streamed(line: bytes) -> Json:
    message = json.loads(line)
    if "result" not in message:
        raise GatewayError(f"the watch ended: {said(message)}")
    result: Json = message["result"]
    return result
