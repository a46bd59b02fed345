"""An etcd full of peers, as flannel writes them."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from hack.bench_agent.mirror import Key

PORT = 2379
LOG = Path("/run/etcd.log")
LIMIT_SECONDS = 30
LEASE_SECONDS = 86_400  # flannel's
PREFIX = "/coreos.com/network"
CONFIG = {"Network": "10.0.0.0/8", "SubnetLen": 24, "EnableNFTables": True, "Backend": {"Type": "vxlan"}}
TXN = 100  # changes; etcd's limit is 128


class Peer(NamedTuple):
    """Another node. One that moved has a new address and a new MAC address, as a node that was reinstalled."""

    number: int
    moved: bool = False

    @property
    def subnet(self) -> str:
        return f"10.{1 + (self.number >> 8)}.{self.number & 255}.0"

    @property
    def ip(self) -> str:
        return f"172.{24 if self.moved else 16}.{self.number >> 8}.{self.number & 255}"

    @property
    def mac(self) -> str:
        return f"{'0e' if self.moved else '0a'}:00:00:00:{self.number >> 8:02x}:{self.number & 255:02x}"

    def put(self) -> dict[str, str]:
        """Returns the key's value as flannel writes it, byte for byte."""
        data = {"VNI": 1, "VtepMAC": self.mac}
        value = {"PublicIP": self.ip, "PublicIPv6": None, "BackendType": "vxlan", "BackendData": data}
        text = json.dumps(value, separators=(",", ":"))
        return {"key": self.key, "value": base64_of(text), "lease": self.lease}

    @property
    def lease(self) -> str:
        return str(self.number + 1)

    @property
    def key(self) -> str:
        return base64_of(f"{PREFIX}/subnets/{self.subnet}-24")

    def facts(self) -> dict[Key, bytes]:
        """Returns the route, the neighbour and the FDB entry that lead to the peer."""
        subnet, ip, mac = (
            socket.inet_aton(self.subnet),
            socket.inet_aton(self.ip),
            bytes.fromhex(self.mac.replace(":", "")),
        )
        return {("route", subnet): subnet, ("neighbour", subnet): mac, ("fdb", mac): ip}


class Etcd:
    """An etcd process on a tmpfs and the loopback interface."""

    def __init__(self) -> None:
        clients, peers = f"http://127.0.0.1:{PORT}", f"http://127.0.0.1:{PORT + 1}"
        command = ["etcd", "--data-dir", "/run/etcd", "--listen-client-urls", clients]
        command += ["--advertise-client-urls", clients, "--listen-peer-urls", peers]
        with LOG.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        limit = time.monotonic() + LIMIT_SECONDS
        while not is_healthy(PORT, "/health"):
            if time.monotonic() > limit:
                raise SystemExit(f"etcd does not answer; the end of its log:\n{log_tail(LOG)}")
            time.sleep(0.05)
        self._connection = http.client.HTTPConnection("127.0.0.1", PORT)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, path: str, body: object) -> None:
        self._connection.request("POST", f"/v3/{path}", json.dumps(body))

    def answer(self) -> None:
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise SystemExit(f"etcd: {text.decode()}")

    def ask(self, path: str, body: object) -> None:
        self.send(path, body)
        self.answer()

    def put_all(self, peers: list[Peer]) -> None:
        self._txn([{"requestPut": peer.put()} for peer in peers])

    def delete_all(self, peers: list[Peer]) -> None:
        self._txn([{"requestDeleteRange": {"key": peer.key}} for peer in peers])

    def _txn(self, operations: list[dict[str, dict[str, str]]]) -> None:
        for start in range(0, len(operations), TXN):
            self.ask("kv/txn", {"success": operations[start : start + TXN]})

    def grant(self, peers: list[Peer]) -> None:
        for peer in peers:
            self.ask("lease/grant", {"ID": peer.lease, "TTL": str(LEASE_SECONDS)})

    def fill(self, peers: list[Peer]) -> None:
        """Writes all keys, each with its own etcd lease, as their nodes would."""
        self.ask("kv/put", {"key": base64_of(f"{PREFIX}/config"), "value": base64_of(json.dumps(CONFIG))})
        self.grant(peers)
        self.put_all(peers)


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def is_healthy(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def log_tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-10:])
