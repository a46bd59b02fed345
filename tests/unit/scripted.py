"""Servers on loopback that answer as a test wants them to, in any bytes and at any pace."""

from __future__ import annotations

import json
import socketserver
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Iterator

REASONS = {200: "OK", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 410: "Gone", 429: "Too Many Requests"}


class Request(NamedTuple):
    """A request; `headers` by their name in small letters."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """A server, used with `with`. `answer` returns the pieces of an answer with its head, after which the connection is
    closed. With a context it speaks TLS.
    """

    def __init__(self, answer: Callable[[Request], Iterable[bytes]], context: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.over = threading.Event()
        server = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with suppress(OSError):
                    self._serve()

            def _serve(self) -> None:
                line = self.rfile.readline().split()
                if len(line) != 3:
                    return
                headers: dict[str, str] = {}
                while (text := self.rfile.readline().decode().strip()) != "":
                    name, _, value = text.partition(":")
                    headers[name.lower()] = value.strip()
                body = self.rfile.read(int(headers.get("content-length", 0)))
                request = Request(line[0].decode(), line[1].decode(), headers, body)
                server.requests.append(request)
                for piece in answer(request):
                    self.wfile.write(piece)
                    self.wfile.flush()
                    if server.over.is_set():
                        return

        class Listener(socketserver.ThreadingTCPServer):
            def get_request(self) -> Any:
                connection, address = super().get_request()
                if context is not None:  # shaken hands on in the handler's thread, where it is read from first
                    connection = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
                return connection, address

        self._server = Listener(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()


class ScriptedApi(ABC):
    """An API with errors that a test writes into `script`: by kind of request those of the next, each the pieces of an
    answer.
    """

    def __init__(self) -> None:
        self.script: dict[str, list[Iterable[bytes]]] = {}
        self.watching = 0
        self.server = Server(self.answer)

    def fail(self, kind: str, *answers: Iterable[bytes]) -> None:
        self.script.setdefault(kind, []).extend(answers)

    def kinds(self) -> list[str]:
        return [self.kind_of(request) for request in self.server.requests]

    def answer(self, request: Request) -> Iterable[bytes]:
        kind = self.kind_of(request)
        return self.script[kind].pop(0) if self.script.get(kind) else self.respond(kind, request)

    @abstractmethod
    def kind_of(self, request: Request) -> str:
        """Returns the kind of a request."""

    @abstractmethod
    def respond(self, kind: str, request: Request) -> Iterable[bytes]:
        """Returns the pieces of the answer."""

    def is_over(self) -> bool:
        """Returns True once answers have to end; a test may put another server in the place of the first."""
        return self.server.over.is_set()

    def endless(self, *pieces: bytes, pause: float = 0.0) -> Iterator[bytes]:
        """Yields the pieces, and the last of them for ever."""
        yield from pieces[:-1]
        while not self.server.over.is_set():
            yield pieces[-1]
            self.server.over.wait(pause)


def head(status: int = 200, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Other')}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def answer(body: object, status: int = 200, **headers: str) -> list[bytes]:
    """Returns a complete answer: JSON, or bytes as they are."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return [head(status, Content_Length=str(len(data)), **headers), data]


def chunk(data: bytes) -> bytes:
    """Returns a chunk of an answer with `Transfer-Encoding: chunked`."""
    return b"%x\r\n%s\r\n" % (len(data), data)
