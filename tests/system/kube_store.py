"""A Kubernetes store that runs inside a machine, what it tells, and a way to the API server that can be cut."""

from __future__ import annotations

import json
import os
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

from cni.agent.model.lease import Lease, Node, NodeAddress
from cni.agent.stores.kube.options import KubeOptions
from cni.agent.stores.kube.store import KubeStore
from cni.protocol.address import parse_ip, parse_net
from tests.recorder import StoreRecorder
from tests.system.kube_server import FOLDER, PORT, PREFIX, Server, binary, kubeconfig, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.machine import Machine

NETWORK: dict[str, Any] = {"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}
ONE = "10.244.1.0/24"


@contextmanager
def store_of(node: Node | None, network: object = NETWORK, **changed: Any) -> Iterator[StoreRecorder]:
    """A store that runs on the node `one`; what it has to say is presented as soon as the network is known."""
    options = KubeOptions("one", ("", ""), "", "", "", PREFIX, f"{FOLDER}/net-conf.json", set_network_condition=True)
    if "kubeconfig" not in changed and "service" not in changed:
        changed["kubeconfig"] = kubeconfig()
    if network is not None:
        write("net-conf.json", json.dumps(network))
    store = KubeStore(options._replace(**changed))
    recorder = StoreRecorder(store, node)
    store.start(recorder.record)
    try:
        yield recorder
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


def lease_of(number: int, *, mac: int = 0, ip: int = 0, name: str = "") -> Lease:
    """Returns the lease of the node that Server.peer makes of a number; the own one has no name."""
    lease = node_of(ip or number, mac=mac or number).lease([parse_net(f"10.244.{number}.0/24")])
    return lease._replace(name=name)


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
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def _serve(self, door: socket.socket) -> None:
        with suppress(OSError):
            while True:
                caller, _ = door.accept()
                server = socket.create_connection(("127.0.0.1", PORT))
                with self._lock:
                    self.taken += 1
                    self._open += [caller, server]
                for source, target in ((caller, server), (server, caller)):
                    threading.Thread(target=_carry, args=(source, target), daemon=True).start()


def _carry(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
