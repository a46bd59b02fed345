from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.protocol.address import parse_ip
from ipam.lease import Lease, parse_lease
from ipam.resolv import parse_resolv_conf, read_resolv_conf
from tests.unit.ipam_pool import error_of

if TYPE_CHECKING:
    from pathlib import Path

ADDRESS = parse_ip("10.1.2.3")


@pytest.mark.parametrize("ifname", ["eth0", "net-1", "é", "\udcff"])
def test_a_lease_reads_back_as_written(ifname: str) -> None:
    lease = Lease(ADDRESS, "0123abc", ifname)
    assert parse_lease(ADDRESS, lease.content) == lease


def test_a_lease_is_written_as_the_reference_does() -> None:
    assert Lease(ADDRESS, "pod", "eth0").content == b"pod\r\neth0"


@pytest.mark.parametrize("content", [b"pod", b"pod\n", b" pod\r\n"])
def test_a_lease_of_old_names_only_its_container(content: bytes) -> None:
    assert parse_lease(ADDRESS, content) == Lease(ADDRESS, "pod", "")


@pytest.mark.parametrize("content", [b"", b"\n", bytes(70), b"pod\r\n\0\0\0", b"a b", b"pod\neth0", b"-x"])
def test_what_a_crash_leaves_is_no_lease(content: bytes) -> None:
    assert parse_lease(ADDRESS, content) is None


def test_a_resolv_conf_is_read_as_the_resolver_would() -> None:
    text = """
    # comment
    ; comment
    nameserver 10.0.0.1
    \tnameserver\t10.0.0.2 ignored
    domain one
    domain two
    search a b
    search c
    options ndots:5 edns0
    nameserver
    sortlist 10.0.0.0
    """
    dns = parse_resolv_conf(text)
    assert dns.nameservers == ("10.0.0.1", "10.0.0.2")
    assert dns.domain == "two"
    assert dns.search == ("a", "b", "c")
    assert dns.options == ("ndots:5", "edns0")


def test_a_resolv_conf_that_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    error = error_of(lambda: read_resolv_conf(str(path)))
    assert (error.code, error.message) == (5, f"ipam.resolvConf: cannot read {path}: No such file or directory")
    path.write_bytes(b"nameserver 10.0.0.1\r\n# \xff\n")
    assert read_resolv_conf(str(path)).nameservers == ("10.0.0.1",)
