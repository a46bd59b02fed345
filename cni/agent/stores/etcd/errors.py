"""Errors of etcd and of its JSON gateway, in words for people."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from urllib3.exceptions import ProtocolError, SSLError

from cni.agent.stores.errors import StoreError
from cni.agent.stores.http import parsed, status_text

if TYPE_CHECKING:
    from cni.agent.stores.etcd.messages import Json

LONGEST_BODY = 300  # characters that are shown of an answer that is not etcd's
NONSENSE = "unexpected response (not an etcd v3 gateway)"
NO_GATEWAY = "no JSON gateway under /v3, which needs etcd 3.4 or newer without --enable-grpc-gateway=false"


class GatewayError(StoreError):
    """etcd is unreachable, rejected a request, or answered with nonsense."""


class EtcdRejected(GatewayError):
    """etcd answered that it did not execute the request; any other error leaves that open."""


def error_of(status: int, body: bytes) -> str:
    """Returns the text of an answer that is not a success."""
    text = body.decode("utf-8", "replace").strip()
    try:
        return message_of(parsed(body))
    except (ValueError, LookupError, AttributeError, TypeError):
        return f"{status_text(status)}: {NO_GATEWAY if status == 404 else text[:LONGEST_BODY]}"


def message_of(answer: Json) -> str:
    """Returns the message of an error; within a stream the error is an object."""
    error = answer.get("error")
    text = error["message"] if isinstance(error, dict) else answer.get("message") or answer["error"]
    return str(text).removeprefix("etcdserver: ")


def hint(error: Exception, endpoint: str, certfile: str) -> str:
    """Returns the likely remedy where etcd closes the connection without a reason."""
    if isinstance(error, ProtocolError) and endpoint.startswith("http:"):
        return " (does it want https?)"
    rejected = isinstance(error, SSLError) and not isinstance(error.args[0], ssl.SSLCertVerificationError)
    return " (does it want a client's certificate? --etcd-certfile)" if rejected and not certfile else ""
