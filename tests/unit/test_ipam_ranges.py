from __future__ import annotations

import pytest

from cni.protocol.address import parse_ip, parse_net
from ipam.ranges import Range, RangeSet, check_set, check_sets, make_range


def described(subnet: str, start: str = "", end: str = "", gateway: str = "") -> tuple[Range | None, list[str]]:
    errors: list[str] = []
    parts = [parse_ip(text) if text else None for text in (start, end, gateway)]
    valid_range = make_range(
        parse_net(subnet), parts[0], parts[1], parts[2], lambda key, text: errors.append(f"{key}: {text}")
    )
    return valid_range, errors


def valid_range(subnet: str, start: str = "", end: str = "", gateway: str = "") -> Range:
    part, errors = described(subnet, start, end, gateway)
    assert part is not None
    assert not errors
    return part


@pytest.mark.parametrize(
    ("arguments", "text", "gateway"),
    [
        (("10.1.2.0/24",), "10.1.2.1-10.1.2.254", "10.1.2.1"),
        (("10.1.2.0/30",), "10.1.2.1-10.1.2.2", "10.1.2.1"),
        (("fd00::/64",), "fd00::1-fd00::ffff:ffff:ffff:ffff", "fd00::1"),
        (("fd00::/126",), "fd00::1-fd00::3", "fd00::1"),
        (("10.1.2.0/24", "10.1.2.9", "10.1.2.10", "10.1.2.250"), "10.1.2.9-10.1.2.10", "10.1.2.250"),
        (("10.1.2.0/24", "10.1.2.0", "10.1.2.255"), "10.1.2.0-10.1.2.255", "10.1.2.1"),
        (("10.1.2.0/24", "", "", "192.168.0.1"), "10.1.2.1-10.1.2.254", "192.168.0.1"),
    ],
)
def test_a_range_fills_in_the_reference_defaults(arguments: tuple[str, ...], text: str, gateway: str) -> None:
    part = valid_range(*arguments)
    assert (part.text, part.gateway.text) == (text, gateway)


@pytest.mark.parametrize(
    ("arguments", "errors"),
    [
        (("10.1.2.0/31",), ["subnet: Network 10.1.2.0/31 too small to allocate from"]),
        (("fd00::/127",), ["subnet: Network fd00::/127 too small to allocate from"]),
        (
            ("10.1.2.3/24",),
            ["subnet: Network has host bits set. For a subnet mask of length 24 the network address is 10.1.2.0"],
        ),
        (("10.1.2.0/24", "10.1.3.1"), ["rangeStart: RangeStart 10.1.3.1 not in network 10.1.2.0/24"]),
        (("10.1.2.0/24", "", "10.1.1.255"), ["rangeEnd: RangeEnd 10.1.1.255 not in network 10.1.2.0/24"]),
        (
            ("10.1.2.0/24", "fd00::1", "fd00::2", "fd00::3"),
            [
                "rangeStart: RangeStart fd00::1 not in network 10.1.2.0/24",
                "rangeEnd: RangeEnd fd00::2 not in network 10.1.2.0/24",
                "gateway: fd00::3 is not of the family of 10.1.2.0/24",
            ],
        ),
        (
            ("10.1.2.0/24", "10.1.2.9", "10.1.2.8"),
            ["rangeStart: range start 10.1.2.9 is after range end 10.1.2.8"],
        ),
        # The reference leases on past the subnet's end here: no address ever equals the end.
        (("10.1.2.0/24", "10.1.2.255"), ["rangeStart: range start 10.1.2.255 is after range end 10.1.2.254"]),
        (("10.1.2.0/24", "", "10.1.2.0"), ["rangeEnd: range start 10.1.2.1 is after range end 10.1.2.0"]),
    ],
)
def test_every_fault_of_a_range_is_named_with_its_key(arguments: tuple[str, ...], errors: list[str]) -> None:
    assert described(*arguments) == (None, errors)


def test_a_range_contains_its_ends_and_nothing_of_another_family() -> None:
    part = valid_range("10.1.2.0/24", "10.1.2.5", "10.1.2.7")
    inside = [
        text for text in ("10.1.2.4", "10.1.2.5", "10.1.2.7", "10.1.2.8", "::10.1.2.6") if part.contains(parse_ip(text))
    ]
    assert inside == ["10.1.2.5", "10.1.2.7"]


def test_a_set_finds_the_range_of_an_address() -> None:
    low, high = valid_range("10.1.2.0/29"), valid_range("10.1.3.0/29")
    both = RangeSet("ipam", (low, high))
    assert both.range_of(parse_ip("10.1.3.3")) == high
    assert both.range_of(parse_ip("10.1.4.1")) is None
    assert both.text == "10.1.2.1-10.1.2.6,10.1.3.1-10.1.3.6"


def test_a_set_has_one_family_and_no_address_twice() -> None:
    errors: list[tuple[str, str]] = []
    two = valid_range("10.1.2.0/24", "10.1.2.1", "10.1.2.10"), valid_range("10.1.2.0/24", "10.1.2.10", "10.1.2.20")
    check_set(
        RangeSet("ipam.ranges[0]", (*two, valid_range("fd00::/64"))), lambda where, text: errors.append((where, text))
    )
    assert errors == [
        ("ipam.ranges[0]", "mixed address families"),
        ("ipam.ranges[0]", "subnets 10.1.2.1-10.1.2.10 and 10.1.2.10-10.1.2.20 overlap"),
    ]


def test_sets_that_share_addresses_are_named_with_their_paths() -> None:
    errors: list[tuple[str, str]] = []
    sets = [
        RangeSet("runtimeConfig.ipRanges[0]", (valid_range("10.1.0.0/24"),)),
        RangeSet("ipam", (valid_range("10.2.0.0/24"),)),
        RangeSet("ipam.ranges[0]", (valid_range("10.3.0.0/24"), valid_range("10.0.0.0/8", "10.1.0.200", "10.1.0.201"))),
    ]
    check_sets(sets, lambda where, text: errors.append((where, text)))
    assert errors == [("ipam.ranges[0]", "range set 0 overlaps with 2 (runtimeConfig.ipRanges[0])")]
