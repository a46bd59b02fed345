"""Work that grows with what a user may write by the thousand: counted, and no more than in proportion."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest

from cni.config import portmap as config_ports
from cni.config.portmap import parse_ports
from cni.effects import container, portmap
from cni.kernel.nft import Element
from cni.kernel.rtnl_socket import RtnlSocket
from cni.plan.operations import ContainerAddress, ContainerRoute
from cni.plan.portmap import HostPort, PortOverlap, operations
from cni.protocol.address import IP, Net, parse_net
from cni.protocol.fields import ConfigErrors, Fields
from cni.protocol.result import Route
from ipam import ranges
from ipam.allocate import assign
from ipam.ranges import Range, RangeSet, SetIndex, check_set, check_sets

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.effects.host import Host

FEW, MANY = 100, 1000
POD = parse_net("10.1.2.3/24")


def calls_of(monkeypatch: pytest.MonkeyPatch, holder: Any, name: str, work: Callable[[], object]) -> int:
    """Returns the number of calls of a function in the course of some work."""
    function, calls = getattr(holder, name), []

    def counted(*arguments: Any) -> Any:
        calls.append(name)
        return function(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(holder, name, counted)
        work()
    return len(calls)


def grows_no_faster(few: int, many: int) -> bool:
    """At most in proportion, with the logarithm of sorting and searching."""
    return many <= few * (MANY // FEW) * 2


def part(number: int) -> Range:
    first = IP(4, (10 << 24) + number * 16)
    network = Net(first, 28)
    return Range(network, IP(4, first.value + 1), IP(4, first.value + 14), IP(4, first.value + 1))


def shuffled(number: int) -> list[Range]:
    parts = [part(index) for index in range(number)]
    random.Random(number).shuffle(parts)
    return parts


def no_fault(where: str, error: str) -> None:
    raise AssertionError((where, error))


# --- Ranges and sets


@pytest.mark.parametrize("layout", ["one set", "many sets"])
def test_ranges_are_compared_in_proportion(monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    def check(number: int) -> None:
        if layout == "one set":
            check_set(RangeSet("ranges[0]", tuple(shuffled(number))), no_fault)
        else:
            check_sets([RangeSet("ranges", (part,)) for part in shuffled(number)], no_fault)

    few, many = [calls_of(monkeypatch, ranges.Range, "overlaps", partial(check, n)) for n in (FEW, MANY)]
    assert grows_no_faster(few, many), (few, many)


@pytest.mark.parametrize("seed", range(20))
def test_an_overlap_is_found_wherever_it_is(seed: int) -> None:
    """Held to the comparison of all with all."""
    dice = random.Random(seed)
    parts = [part(dice.randrange(30)) for _ in range(12)] if seed % 2 else shuffled(12)
    expected = any(first.overlaps(second) for index, first in enumerate(parts) for second in parts[index + 1 :])
    errors: list[str] = []
    check_set(RangeSet("ranges[0]", tuple(parts)), lambda _, text: errors.append(text))
    assert bool(errors) == expected
    errors.clear()
    check_sets([RangeSet("ranges", (part,)) for part in parts], lambda _, text: errors.append(text))
    assert bool(errors) == expected


def test_an_address_finds_its_set_as_in_a_naive_search() -> None:
    sets = [RangeSet("ranges", (part,)) for part in shuffled(50)] + [
        RangeSet("ranges", (Range(parse_net("fd00::/64"), IP(6, 0xFD << 120), IP(6, (0xFD << 120) + 9), IP(6, 1)),))
    ]
    holders, dice = SetIndex(sets), random.Random(1)
    for _ in range(2000):
        ip = (
            IP(4, (10 << 24) + dice.randrange(-5, 900))
            if dice.random() < 0.9
            else IP(6, (0xFD << 120) + dice.randrange(20))
        )
        naive = next(
            ((index, range_set.ranges[0]) for index, range_set in enumerate(sets) if range_set.range_of(ip)), None
        )
        assert holders.find(ip) == naive


def test_requests_are_held_against_sets_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(number: int) -> None:
        sets = [RangeSet("ranges", (part,)) for part in shuffled(number)]
        assert len(assign(sets, [IP(4, range_set.ranges[0].start.value + 3) for range_set in sets])) == number

    few, many = [calls_of(monkeypatch, ranges.Range, "contains", partial(work, n)) for n in (FEW, MANY)]
    assert grows_no_faster(few, many), (few, many)


# --- Ports


def mappings(number: int) -> Fields:
    mappings = [{"hostPort": 1000 + index, "containerPort": 80, "protocol": "tcp"} for index in range(number)]
    return Fields({"runtimeConfig": {"portMappings": cast("Any", mappings)}}, "", ConfigErrors())


def test_ports_are_compared_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    read = [partial(parse_ports, mappings(number)) for number in (FEW, MANY)]
    few, many = [calls_of(monkeypatch, config_ports, "_conflict", work) for work in read]
    assert grows_no_faster(few, many), (few, many)


def test_ports_of_single_addresses_are_listed_once() -> None:
    class FakeHost:
        """It has ports of single addresses, none of them ours."""

        def __init__(self) -> None:
            self.nft, self.lists = self, 0

        def elements(self, place: object) -> list[Element]:
            del place
            self.lists += 1
            return [
                Element(IP(4, 1).packed + bytes([6, 0, 0, 0, 0, port % 256, 0, 0]), "", "x") for port in range(MANY)
            ]

    ports = [op for op in operations(parse_ports(mappings(MANY)), (POD,), "label") if isinstance(op, HostPort)]
    overlaps = [op for op in operations(parse_ports(mappings(MANY)), (POD,), "l") if isinstance(op, PortOverlap)]
    assert [len(overlap.ports) for overlap in overlaps] == [len(ports)] == [MANY]
    host = FakeHost()
    portmap.apply_overlap(cast("Host", host), overlaps[0], cast("Any", None))
    assert host.lists == 1


# --- CHECK


class Listing(RtnlSocket):
    """A socket that counts what it is asked to list."""

    def __init__(self) -> None:
        self._indexes, self._kept = {"eth0": 7}, None
        self.lists = 0

    def find(self, name: str) -> Any:
        class Link:
            ifindex = 7

        del name
        return Link()

    def dump(self, kind: int, payload: bytes) -> list[bytes]:
        del kind, payload
        self.lists += 1
        return []


@pytest.mark.parametrize("kind", ["routes", "addresses"])
def test_a_check_lists_once(kind: str) -> None:
    class FakeHost:
        container_rtnl = Listing()

    host = FakeHost()
    host.container_rtnl.remember()
    for number in range(FEW):
        net = Net(IP(4, number << 8), 24)
        if kind == "routes":
            differences = container.route_differs(cast("Host", host), ContainerRoute("eth0", Route(net)))
        else:
            differences = container.address_differs(cast("Host", host), ContainerAddress("eth0", net, False, True))
        assert differences
    assert host.container_rtnl.lists == 1
