from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from cni.protocol.address import IP, Net, parse_ip, parse_net
from ipam.allocate import assign, next_free
from ipam.ranges import Range, RangeSet, make_range
from tests.unit.ipam_pool import error_of, ips

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def span(subnet: str, start: str = "", end: str = "", gateway: str = "") -> Range:
    parts = [parse_ip(text) if text else None for text in (start, end, gateway)]
    result = make_range(parse_net(subnet), parts[0], parts[1], parts[2], lambda key, text: pytest.fail(key + text))
    assert result
    return result


def free_except(leased: set[int]) -> Callable[[int, int, int], int | None]:
    return lambda _, low, high: next((value for value in range(low, high + 1) if value not in leased), None)


def turns(range_set: RangeSet, last: str, count: int) -> list[str]:
    """Returns the addresses of `count` containers in their order; none is released."""
    leased: set[int] = set()
    before = parse_ip(last) if last else None
    got = []
    for _ in range(count):
        config = next_free(range_set, before, free_except(leased))
        got.append(config.address.ip.text if config else "")
        if config:
            before = config.address.ip
            leased.add(before.value)
    return got


def test_the_first_address_is_the_one_after_the_gateway() -> None:
    assert turns(RangeSet("", (span("10.1.2.0/29"),)), "", 6) == [f"10.1.2.{n}" for n in (2, 3, 4, 5, 6)] + [""]


def test_the_round_goes_on_after_the_last_address_and_ends_with_it() -> None:
    range_set = RangeSet("", (span("10.1.2.0/29"), span("10.1.3.0/30")))
    assert turns(range_set, "10.1.2.5", 7) == [
        "10.1.2.6",
        "10.1.3.2",
        "10.1.2.2",
        "10.1.2.3",
        "10.1.2.4",
        "10.1.2.5",
        "",
    ]
    assert turns(range_set, "10.1.3.2", 2) == ["10.1.2.2", "10.1.2.3"]


def test_a_last_address_of_other_ranges_restarts_the_round() -> None:
    assert turns(RangeSet("", (span("10.1.2.0/29"),)), "10.9.9.9", 1) == ["10.1.2.2"]


def test_a_set_of_nothing_but_its_gateway_is_exhausted() -> None:
    range_set = RangeSet("", (span("10.1.2.0/29", "10.1.2.3", "10.1.2.3", "10.1.2.3"),))
    assert turns(range_set, "", 1) == [""]
    assert turns(range_set, "10.1.2.3", 1) == [""]


def test_an_address_comes_with_its_own_range_s_prefix_and_gateway() -> None:
    range_set = RangeSet("", (span("10.1.2.0/29"), span("10.1.3.0/24", gateway="10.1.3.9")))
    config = next_free(range_set, parse_ip("10.1.2.6"), free_except(set()))
    assert config
    assert (config.address, config.gateway) == (parse_net("10.1.3.1/24"), parse_ip("10.1.3.9"))
    assert config.interface is None


def reference_turns(range_set: RangeSet, last: IP | None) -> Iterator[tuple[IP, Net]]:
    """Yields addresses as host-local's RangeIter.Next."""
    index = next((index for index, part in enumerate(range_set.ranges) if last and part.contains(last)), None)
    current = last if index is not None else None
    index = index or 0
    start: IP | None = None
    while True:
        part = range_set.ranges[index]
        if current is None:
            current = part.start
        elif current == part.end:
            index = (index + 1) % len(range_set.ranges)
            part = range_set.ranges[index]
            current = part.start
        else:
            current = IP(current.family, current.value + 1)
        if current == start:
            return
        start = start or current
        if current != part.gateway:
            yield current, part.subnet


@pytest.mark.parametrize("seed", range(20))
def test_any_set_is_used_in_the_reference_s_order(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(50):
        parts = []
        for number in range(dice.randint(1, 3)):
            base = parse_net(dice.choice([f"10.1.{number}.0/29", f"10.1.{number}.0/28"]))
            low, high = sorted(dice.sample(range(1, 7), 2))
            gateway = IP(4, base.ip.value + dice.randint(0, 8))
            parts.append(Range(base, IP(4, base.ip.value + low), IP(4, base.ip.value + high), gateway))
        range_set = RangeSet("", tuple(parts))
        everything = [IP(4, part.subnet.ip.value + offset) for part in parts for offset in range(8)]
        leased = {ip.value for ip in everything if dice.random() < dice.choice([0.2, 0.8, 1])}
        last = dice.choice([None, *everything])
        expected = next((entry for entry in reference_turns(range_set, last) if entry[0].value not in leased), None)
        config = next_free(range_set, last, free_except(leased))
        assert (config and (config.address.ip, config.address.network)) == expected


TWO_SETS = (RangeSet("ipam.ranges[0]", (span("10.1.2.0/29"),)), RangeSet("ipam.ranges[1]", (span("fd00::/64"),)))


def test_each_request_goes_to_the_first_set_that_holds_it() -> None:
    wanted = assign(TWO_SETS, ips("fd00::9", "10.1.2.4"))
    assert [config and config.address.text for config in wanted] == ["10.1.2.4/29", "fd00::9/64"]
    assert assign(TWO_SETS, ips("fd00::9"))[0] is None
    assert assign(TWO_SETS, ()) == (None, None)


def test_a_request_made_twice_is_one() -> None:
    wanted = assign(TWO_SETS, ips("10.1.2.4", "10.1.2.4"))
    assert [config and config.address.text for config in wanted] == ["10.1.2.4/29", None]


@pytest.mark.parametrize(
    ("requested", "text"),
    [
        (("10.1.2.1",), "failed to allocate for range 0: requested ip 10.1.2.1 is subnet's gateway"),
        (("fd00::1",), "failed to allocate for range 1: requested ip fd00::1 is subnet's gateway"),
        (("10.1.2.7",), "failed to allocate all requested IPs: 10.1.2.7"),
        (("10.1.2.2", "10.1.2.3", "10.9.9.9"), "failed to allocate all requested IPs: 10.1.2.3 10.9.9.9"),
    ],
)
def test_a_request_that_no_set_can_serve_is_a_fault_of_the_configuration(requested: tuple[str, ...], text: str) -> None:
    error = error_of(lambda: assign(TWO_SETS, ips(*requested)))
    assert (error.code, error.message) == (7, text)
