"""What goes wrong between a store and etcd, in words for people."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ProtocolError, ReadTimeoutError, SSLError

from cni.agent.stores.http import CONNECT_SECONDS, parsed

if TYPE_CHECKING:
    from cni.agent.stores.etcd.messages import Json

ANSWER_SECONDS = 10.0  # of silence: etcd itself gives up after 7 where it has no leader
LONGEST_TEXT = 300
NONSENSE = "what it answers is not etcd's"
NO_GATEWAY = "it has no JSON gateway under /v3, which needs etcd 3.4 or newer without --enable-grpc-gateway=false"


class GatewayError(Exception):
    """etcd cannot be asked, or refuses; the text is for people. `wait`: for so long it wants to be left alone, in
    seconds.
    """

    def __init__(self, text: str, wait: float = 0.0) -> None:
        super().__init__(text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}...")
        self.wait = wait


class EtcdRejected(GatewayError):
    """etcd has answered that it does not do it; any other error leaves that open."""


def error_of(status: int, body: bytes) -> str:
    """What an answer that is no success says."""
    text = body.decode("utf-8", "replace").strip()
    try:
        return said(parsed(body))
    except (ValueError, LookupError, AttributeError, TypeError):
        return NO_GATEWAY if status == 404 else f"HTTP {status}: {text[:LONGEST_TEXT]}"


def said(message: Json) -> str:
    """Of a refusal, and within a stream that of an object."""
    error = message.get("error")
    text = error["message"] if isinstance(error, dict) else message.get("message") or message["error"]
    return str(text).removeprefix("etcdserver: ")


def reason(error: Exception, silence: float = ANSWER_SECONDS) -> str:
    """The cause alone; urllib3 wraps it in names of its classes. `silence`: after how many seconds one is a fault."""
    if isinstance(error, ConnectTimeoutError) and not isinstance(error, NewConnectionError):
        return f"no connection within {CONNECT_SECONDS:g} s"
    if isinstance(error, ReadTimeoutError):
        return f"no answer within {silence:g} s"
    causes = [one for one in (*error.args, error.__cause__, error) if isinstance(one, Exception)]
    cause = next((one for one in causes if isinstance(one, OSError)), causes[0])
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS fails: {cause.reason or cause}"
    return (cause.strerror or str(cause)) if isinstance(cause, OSError) else str(cause)


def hint(error: Exception, endpoint: str, certfile: str) -> str:
    """What may be meant where etcd just hangs up."""
    if isinstance(error, ProtocolError) and endpoint.startswith("http:"):
        return " (does it want https?)"
    asks = isinstance(error, SSLError) and not isinstance(error.args[0], ssl.SSLCertVerificationError)
    return " (does it want a client's certificate?)" if asks and not certfile else ""
