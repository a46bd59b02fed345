"""A Kubernetes store that runs inside a machine, what it tells, and a way to the API server that can be cut."""

from __future__ import annotations

import json
import os
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

from cni.agent.model.events import Changed, Configured, Failed, Held, Listed
from cni.agent.model.lease import Lease, Node, NodeAddress
from cni.agent.stores.kube.options import KubeOptions
from cni.agent.stores.kube.store import KubeStore
from cni.protocol.address import parse_ip, parse_net
from tests.machine import until
from tests.system.kube_server import FOLDER, PORT, PREFIX, Server, binary, kubeconfig, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cni.agent.model.events import StoreEvent
    from tests.machine import Machine

NETWORK: dict[str, Any] = {"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}
ONE = "10.244.1.0/24"


def _undated(lease: Lease | str) -> Lease | str:
    """When a node was made is the server's to say."""
    return lease._replace(created=0) if isinstance(lease, Lease) else lease


class Told:
    """All that a store has told, and what follows from it."""

    def __init__(self, store: KubeStore, node: Node | None) -> None:
        self.store, self._node = store, node
        self.news: list[StoreEvent] = []
        self.leases: dict[str, Lease | str] = {}
        self.held: Held | None = None
        self.configured: Configured | None = None
        self.error = ""
        self._lock = threading.RLock()

    def tell(self, news: StoreEvent) -> None:
        with self._lock:
            self.news.append(news)
            self.error = news.why if isinstance(news, Failed) else ""
            if isinstance(news, Configured):
                self.configured = news
                if self._node is not None:
                    self.store.present(self._node)
                    self._node = None
            elif isinstance(news, Held):
                self.held = news
            elif isinstance(news, Listed):
                self.leases = {name: _undated(lease) for name, lease in news.leases.items()}
            elif isinstance(news, Changed):
                self.leases.pop(news.key, None)
                if news.lease is not None:
                    self.leases[news.key] = _undated(news.lease)

    def of(self, *kinds: type[StoreEvent]) -> list[StoreEvent]:
        return [one for one in self.news if isinstance(one, kinds)]

    @property
    def errors(self) -> list[str]:
        return [one.why for one in self.news if isinstance(one, Failed)]

    def wait_held(self, *subnets: str) -> Lease:
        """The lease that is held, once it is that of these subnets and others were listed."""
        wanted = tuple([parse_net(one) for one in subnets])
        until(lambda: self.held is not None and wanted in ((), self.held.lease.subnets), f"{subnets or 'it'} is held")
        until(lambda: self.of(Listed), "the others are listed")
        assert self.held is not None
        return self.held.lease

    def wait_fault(self, *words: str) -> str:
        return until(lambda: next((one for one in self.errors if all(word in one for word in words)), ""), f"{words}")

    def wait_leases(self, *names: str) -> None:
        until(lambda: self.leases.keys() == {*names}, f"the others are {names}")


@contextmanager
def store_of(node: Node | None, network: object = NETWORK, **changed: Any) -> Iterator[Told]:
    """A store that runs on the node `one`; what it has to say is presented as soon as the network is known."""
    options = KubeOptions("one", ("", ""), "", "", "", PREFIX, f"{FOLDER}/net-conf.json", set_network_condition=True)
    if "kubeconfig" not in changed and "service" not in changed:
        changed["kubeconfig"] = kubeconfig()
    if network is not None:
        write("net-conf.json", json.dumps(network))
    store = KubeStore(options._replace(**changed))
    told = Told(store, node)
    store.start(told.tell)
    try:
        yield told
    finally:
        store.close()


def against_kubernetes(scenario: Callable[[Server], None]) -> Callable[[Machine], None]:
    """A test of what happens inside that machine, from where there is no node."""

    def test(kubernetes: Machine) -> None:
        in_kubernetes(kubernetes, scenario)

    test.__doc__ = scenario.__doc__
    return test


def in_kubernetes(machine: Machine, scenario: Callable[[Server], None]) -> None:
    machine.call(_beside_kubernetes, scenario)


def _beside_kubernetes(scenario: Callable[[Server], None]) -> None:
    server = Server(binary())
    server.clear()
    with suppress(FileNotFoundError):
        os.unlink(f"{FOLDER}/net-conf.json")
    scenario(server)


def node_of(number: int, *families: int, kind: str = "vxlan", mac: int = 0) -> Node:
    """The node 192.0.2.NUMBER, and 2001:db8:2::NUMBER."""
    ips = {4: f"192.0.2.{number}", 6: f"2001:db8:2::{number:x}"}
    hardware = bytes([2, 0, 0, 0, 0, mac or number]) if kind == "vxlan" else None
    ends = [NodeAddress(parse_ip(ips[family]), hardware) for family in families or (4,)]
    return Node(kind, 1 if kind == "vxlan" else 0, tuple(ends))


def lease_of(number: int, *, mac: int = 0, ip: int = 0) -> Lease:
    """Returns the lease of the node that Server.peer makes of a number."""
    return node_of(ip or number, mac=mac or number).lease([parse_net(f"10.244.{number}.0/24")])


class Endpoint:
    """A way to the API server that can be cut, and opened again; use it with `with`."""

    def __init__(self) -> None:
        self.taken = 0  # how often
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._door: socket.socket | None = None
        self._port = 0

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    def open(self) -> None:
        self._door = door = socket.create_server(("127.0.0.1", self._port))
        self._port = door.getsockname()[1]
        threading.Thread(target=self._serve, args=(door,), daemon=True).start()

    def cut(self) -> None:
        if self._door is not None:
            with suppress(OSError):
                self._door.shutdown(socket.SHUT_RDWR)
            self._door.close()
        self._door = None
        with self._lock:
            for one in self._open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def _serve(self, door: socket.socket) -> None:
        with suppress(OSError):
            while True:
                caller, _ = door.accept()
                server = socket.create_connection(("127.0.0.1", PORT))
                with self._lock:
                    self.taken += 1
                    self._open += [caller, server]
                for one, other in ((caller, server), (server, caller)):
                    threading.Thread(target=_carry, args=(one, other), daemon=True).start()


def _carry(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while data := one.recv(1 << 16):
            other.sendall(data)
    for end in (one, other):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
