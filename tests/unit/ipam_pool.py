"""A lease folder for tests: calls of the allocator's verbs, and the changes of another program."""

from __future__ import annotations

import fcntl
import os
import posix
import sys
import traceback
from typing import TYPE_CHECKING, Any

from cni.protocol.address import IP, parse_ip
from cni.protocol.errors import CniError
from cni.protocol.jsontext import dump
from cni.protocol.plugin_config import PluginConfig, parse_plugin_config
from cni.protocol.request import Request, parse_request
from ipam import main
from ipam.index import index_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import pytest

    from ipam.lease import Lease


def request(container: str, ifname: str = "eth0", args: str = "") -> Request:
    return parse_request(
        {
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": container,
            "CNI_IFNAME": ifname,
            "CNI_NETNS": "/run/netns/x",
            "CNI_ARGS": args,
        }
    )


def network(ipam: object, version: str = "1.1.0", **members: Any) -> PluginConfig:
    document = {"cniVersion": version, "name": "net", "ipam": ipam, **members}
    return parse_plugin_config(dump(document).encode(), "ADD")


def dead(lease: Lease) -> bool:  # noqa: ARG001
    return False


def alive(lease: Lease) -> bool:  # noqa: ARG001
    return True


class Pool:
    """A network with its own dataDir and index folder."""

    def __init__(self, folder: Path, **ipam: Any) -> None:
        self.data = str(folder / "leases")
        self.folder = f"{self.data}/net"
        self.ipam: dict[str, Any] = ipam or {"subnet": "10.1.2.0/29"}

    @property
    def index(self) -> str:
        status = os.stat(self.folder)
        return index_folder(f"{status.st_dev} {status.st_ino}")

    def network(self, **members: Any) -> PluginConfig:
        return network({"type": "host-local", "dataDir": self.data, **self.ipam}, **members)

    def add(
        self,
        container: str,
        ifname: str = "eth0",
        args: str = "",
        *,
        ask: Callable[[Lease], bool] = alive,
        **members: Any,
    ) -> list[str]:
        result = main.add(request(container, ifname, args), self.network(**members), ask)
        return [ip.address.ip.text for ip in result.ips]

    def delete(self, container: str, ifname: str = "eth0") -> None:
        main.delete(request(container, ifname), self.network(), alive)

    def leased(self, container: str, ifname: str = "eth0") -> set[str]:
        return {ip.text for ip in main.leased(request(container, ifname), self.network())}

    def leases(self) -> dict[str, bytes]:
        """Returns the leases in the folder, by address."""
        return {name: self.read(name) for name in sorted(os.listdir(self.folder)) if _is_address(name)}

    def read(self, name: str) -> bytes:
        with open(f"{self.folder}/{name}", "rb") as file:
            return file.read()

    def write(self, name: str, content: bytes) -> None:
        os.makedirs(self.folder, exist_ok=True)
        with open(f"{self.folder}/{name}", "wb") as file:
            file.write(content)

    def foreign_add(self, address: str, container: str, ifname: str = "eth0") -> None:
        """Leases an address as the reference does: under the lock, O_EXCL, then last_reserved_ip."""
        os.makedirs(self.folder, exist_ok=True)
        with open(f"{self.folder}/lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with open(f"{self.folder}/{address}", "x", newline="") as file:
                file.write(f"{container}\r\n{ifname}")
            self.write("last_reserved_ip.0", address.encode())

    def foreign_delete(self, address: str) -> None:
        with open(f"{self.folder}/lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.unlink(f"{self.folder}/{address}")


def _is_address(name: str) -> bool:
    try:
        parse_ip(name)
    except ValueError:
        return False
    return True


def ips(*texts: str) -> list[IP]:
    return [parse_ip(text) for text in texts]


def error_of(call: Callable[[], object]) -> CniError:
    try:
        call()
    except CniError as error:
        return error
    raise AssertionError("no error")


def in_child(work: Callable[[], object]) -> int:
    """Starts `work` in a process and returns its id; its status is 0, or 1 after an exception."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except BaseException:  # noqa: BLE001
        traceback.print_exc(file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(*children: int) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


FILE_CALLS = ("open", "read", "write", "link", "unlink", "stat", "fstat", "utime", "ftruncate", "listdir", "makedirs")
CHANGES = ("open", "write", "link", "unlink", "utime", "ftruncate", "makedirs")


class Calls:
    """Counts calls of `os`; `act` replaces the calls of some numbers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...] = FILE_CALLS) -> None:
        self.names: list[str] = []
        self.act: dict[int, Callable[[], object]] = {}
        for name in names:
            module = os if name == "makedirs" else posix  # which has all that podwire calls but this
            monkeypatch.setattr(module, name, self._counted(name, getattr(module, name)))

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.names.append(name)
            if act := self.act.get(len(self.names)):
                act()
            return function(*arguments, **named)

        return call

    def during(self, work: Callable[[], object]) -> list[str]:
        self.names.clear()
        work()
        return list(self.names)


def names_in(low: str, count: int) -> Iterator[str]:
    first = parse_ip(low)
    for value in range(first.value, first.value + count):
        yield IP(first.family, value).text
