"""Names that are derived from the owner: constant, unique and short enough."""

from __future__ import annotations

import hashlib
import importlib.util
import sys

import pytest

from cni.protocol import owner
from cni.protocol.address import mac_text, parse_mac
from cni.protocol.owner import Owner, digest, label_keys, mac_of, network_key, same_container, stale_labels
from cni.protocol.request import ifname_error

ONE = Owner("net", "c1", "eth0")
OTHERS = [
    Owner("net", "c1", "eth1"),
    Owner("net", "c2", "eth0"),
    Owner("ten", "c1", "eth0"),
    Owner("ne", "tc1", "eth0"),
    Owner("net", "c1e", "th0"),
]


def test_the_names_of_an_owner_never_change() -> None:
    """Later releases of podwire search for these names: a change here orphans existing attachments."""
    assert ONE.key == "888cf680c74624a3"
    assert ONE.host_interface == "veth888cf680c74"
    assert mac_text(ONE.host_mac) == "1a:76:fd:21:f9:f3"
    assert mac_text(ONE.container_mac) == "f6:31:a3:5e:3f:c5"
    assert network_key("net") == "31f29bca7c7e2ca8"
    assert ONE.label == "podwire 31f29bca7c7e2ca8 888cf680c74624a3 net/c1/eth0"


@pytest.mark.parametrize("other", OTHERS)
def test_owners_that_differ_anywhere_share_no_name(other: Owner) -> None:
    assert other.key != ONE.key
    assert other.host_interface != ONE.host_interface
    assert {other.host_mac, other.container_mac}.isdisjoint({ONE.host_mac, ONE.container_mac})


def test_the_ends_of_a_pair_have_different_addresses() -> None:
    assert ONE.host_mac != ONE.container_mac


def test_the_host_interface_has_a_name_that_the_kernel_takes() -> None:
    assert len(ONE.host_interface) == 15
    assert ONE.host_interface.startswith("veth")
    assert ifname_error(ONE.host_interface) == ""


def test_every_derived_mac_is_local_and_of_one_station() -> None:
    for number in range(500):
        mac = mac_of("test", str(number))
        assert mac[0] & 0b11 == 0b10
        assert parse_mac(mac_text(mac)) == mac


def test_parts_of_a_digest_cannot_be_shifted() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert len(digest("a", size=6)) == 6


def test_a_label_leads_back_to_network_and_attachment() -> None:
    assert label_keys(ONE.label) == (network_key("net"), ONE.key)


def test_a_long_label_keeps_its_keys() -> None:
    long = Owner("n" * 200, "c" * 200, "eth0")
    assert len(long.label) == 127
    assert label_keys(long.label) == (network_key(long.network), long.key)


def test_a_label_needs_no_quoting_in_nft() -> None:
    label = Owner("net", "c1", 'a"b;\\é\n').label
    assert label.endswith(" net/c1/a?b????")


@pytest.mark.parametrize("text", ["", "podwire", "podwire a b", "other a b c", "podwires a b c", " podwire a b c"])
def test_a_text_of_others_is_no_label(text: str) -> None:
    assert label_keys(text) is None


def test_an_interface_name_of_any_bytes_has_an_owner() -> None:
    assert len(Owner("net", "c1", "\udcff").key) == 16


def test_without_the_private_module_the_public_one_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "_blake2", None)
    spec = importlib.util.spec_from_file_location("owner_without_private_modules", owner.__file__)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.blake2b is hashlib.blake2b
    assert module.digest("a") == digest("a")


@pytest.mark.parametrize(
    ("first", "other", "same"),
    [
        (("front", "web", "eth0"), ("back", "web", "eth1"), True),
        (("front", "web", "eth0"), ("front", "web2", "eth0"), False),
        (("front", "a", "eth0"), ("a", "front", "eth0"), False),
        (("n" * 60, "c" * 64, "eth0"), ("back", "c" * 64, "eth1"), True),
        (("n" * 60, "c" * 64, "eth0"), ("back", "d" * 64, "eth1"), False),
        (("n" * 83, "c" * 64, "eth0"), ("m" * 83, "d" * 64, "eth1"), False),
    ],
    ids=["two networks", "two containers", "names in other places", "cut", "cut, another", "nothing of it is left"],
)
def test_labels_tell_whether_the_container_is_the_same(
    first: tuple[str, str, str], other: tuple[str, str, str], same: bool
) -> None:
    assert same_container(Owner(*first).label, Owner(*other).label) is same


def test_an_owner_knows_its_own_label() -> None:
    assert ONE.owns(ONE.label)
    assert not any(ONE.owns(other.label) for other in OTHERS)
    assert not ONE.owns("a comment of an administrator")


def test_a_label_is_stale_if_no_valid_attachment_of_its_network_has_it() -> None:
    is_stale = stale_labels("net", {("c1", "eth0"), ("c9", "eth0")})
    assert not is_stale(ONE.label)
    assert [is_stale(other.label) for other in OTHERS] == [True, True, False, False, True]
    assert not is_stale("a comment of an administrator")
