"""A real etcd inside a machine, and what a store tells of it. All of it runs in the machine's own processes."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Self

import pytest
import urllib3

from cni.agent.model.lease import Lease, Node, NodeAddress, lease_value
from cni.agent.stores.etcd.messages import key_value, prefix_range, put, text64
from cni.agent.stores.etcd.options import EtcdOptions
from cni.agent.stores.etcd.store import EtcdStore
from cni.protocol.address import Net, parse_ip, parse_net
from tests.machine import Machine, missing, until
from tests.recorder import StoreRecorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cni.agent.stores.etcd.lease import Times

URL, ELSEWHERE = "http://127.0.0.1:2379", "http://127.0.0.1:2399"
PREFIX = "/coreos.com/network"
NETWORK = {"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}
DUAL = {**NETWORK, "EnableIPv6": True, "IPv6Network": "fd00:5::/56"}
IPV6_ALONE = {"EnableIPv4": False, "EnableIPv6": True, "IPv6Network": "fd00:5::/56", "Backend": {"Type": "vxlan"}}


class Etcd:
    """One member; use it with `with`. Started again it has the port and the data of before."""

    def __init__(self, folder: str) -> None:
        self.url, self.folder = URL, folder
        self.http = urllib3.PoolManager(retries=False, timeout=60)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, url: str = "", *options: str) -> None:
        """Perhaps elsewhere: there the store does not find it."""
        self.url = url or URL
        urls = ["--listen-client-urls", self.url, "--advertise-client-urls", self.url]
        peers = ["--listen-peer-urls", "http://127.0.0.1:0"]
        command = ["etcd", "--data-dir", self.folder, *urls, *peers, "--log-level", "error", *options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._healthy, "etcd serves")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _healthy(self) -> bool:
        with suppress(urllib3.exceptions.HTTPError):
            return b"true" in self.http.request("GET", f"{self.url}/health").data
        return False

    def call(self, path: str, request: dict[str, Any], **headers: str) -> dict[str, Any]:
        response = self.http.request("POST", f"{self.url}/v3/{path}", body=json.dumps(request), headers=headers)
        answer: dict[str, Any] = json.loads(response.data)
        assert response.status == 200, answer
        return answer

    def put(self, key: str, value: str | bytes, lease: int = 0) -> int:
        data = value if isinstance(value, bytes) else value.encode()
        answer = self.call("kv/put", put(f"{PREFIX}/{key}".encode(), data, lease)["request_put"])
        return int(answer["header"]["revision"])

    def configure(self, network: object) -> int:
        return self.put("config", json.dumps(network))

    def compact(self) -> None:
        self.call("kv/compaction", {"revision": str(self.revision), "physical": True})

    def delete(self, key: str) -> None:
        self.call("kv/deleterange", {"key": text64(f"{PREFIX}/{key}".encode())})

    def grant(self, seconds: int) -> int:
        return int(self.call("lease/grant", {"TTL": str(seconds)})["ID"])

    @property
    def revision(self) -> int:
        return int(self.call("kv/range", {"key": text64(b"none")})["header"]["revision"])

    def leases(self) -> dict[str, bytes]:
        """Values by the part of the key behind `subnets/`."""
        return {name: entry.value for name, entry in self.entries().items()}

    def entries(self) -> dict[str, Any]:
        answer = self.call("kv/range", prefix_range(f"{PREFIX}/subnets/".encode()))
        entries = [key_value(message) for message in answer.get("kvs", ())]
        return {entry.key.decode().rpartition("/subnets/")[2]: entry for entry in entries}

    def etcd_leases(self) -> int:
        """Returns the number of etcd's own leases, with keys or without."""
        return len(self.call("lease/leases", {}).get("leases", ()))


class EtcdRecorder(StoreRecorder):
    """A recorder of a store whose own lease is listed too."""

    def wait_held(self, *subnets: str) -> Lease:
        lease = super().wait_held(*subnets)
        until(lambda: lease.key in self.leases, "the own lease is listed")
        return lease


@contextmanager
def store_of(
    node: Node | None, *previous: str, times: Times | None = None, url: str = URL, **options: str
) -> Iterator[EtcdRecorder]:
    """A store that runs; the node is presented as soon as the network is known."""
    settings: Any = {"endpoints": tuple(url.split(",")), **options}
    store = EtcdStore(EtcdOptions(**settings), tuple([parse_net(subnet) for subnet in previous]), times)
    recorder = EtcdRecorder(store, node)
    store.start(recorder.record)
    try:
        yield recorder
    finally:
        store.close()


def against_etcd(scenario: Callable[[Etcd], None]) -> Callable[[], None]:
    """A test of what happens inside a machine of its own, where an etcd serves."""

    def test() -> None:
        reason = missing() or ("" if shutil.which("etcd") else "absent: etcd (hack/peers brings it)")
        if reason:
            pytest.skip(reason)
        with Machine() as machine:
            machine.call(_beside_etcd, scenario)

    test.__doc__ = scenario.__doc__
    return test


def _beside_etcd(scenario: Callable[[Etcd], None]) -> None:
    with Etcd("/run/etcd") as server:
        scenario(server)


def node_of(number: int, *, dual: bool = False, mac: int = 0) -> Node:
    """The node 192.0.2.NUMBER, and 2001:db8::NUMBER in hex."""
    hardware = bytes([2, 0, 0, 0, 0, mac or number])
    ends = [NodeAddress(parse_ip(f"192.0.2.{number}"), hardware)]
    if dual:
        ends.append(NodeAddress(parse_ip(f"2001:db8::{number:x}"), hardware))
    return Node("vxlan", 1, tuple(ends))


def node_of_ipv6(number: int) -> Node:
    """Returns the node 2001:db8::NUMBER of a network without IPv4."""
    dual = node_of(number, dual=True)
    return dual._replace(addresses=dual.addresses[1:])


def lease_of(number: int, *subnets: str) -> Lease:
    """Returns the lease that the node with that number would hold."""
    return node_of(number, dual=len(subnets) == 2).lease([parse_net(subnet) for subnet in subnets])


def rival(server: Etcd, number: int, *subnets: str, lease: int = 0) -> str:
    """Writes another node's lease, as flannel does; its key."""
    written = lease_of(number, *subnets)
    server.put(f"subnets/{written.key}", lease_value(written), lease)
    return written.key


def nets(leases: dict[str, bytes]) -> list[Net]:
    return [parse_net("/".join(part.rsplit("-", 1))) for key in leases for part in key.split("&")]
