"""The reference host-local and podwire's share one data folder: each accepts the files of the other."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_interface
from typing import TYPE_CHECKING

import pytest

from tests.system.plugins import Attachment, Json, RefusedError, address_of, call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from tests.machine import Machine

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
IPV4 = [{"subnet": "10.1.2.0/29"}]
IPV6 = [{"subnet": "2001:db8:1::/125"}]
TWO_RANGES = [{"subnet": "10.1.2.0/29", "rangeStart": "10.1.2.3"}, {"subnet": "10.1.3.0/30"}]
SETS = {"IPv4": [IPV4], "IPv6": [IPV6], "dual": [IPV4, IPV6], "two ranges": [TWO_RANGES]}
PODS = {"IPv4": 5, "IPv6": 6, "dual": 5, "two ranges": 5}  # that these sets have addresses for
MANY = 20


@pytest.fixture
def machine(usual_machine: Machine) -> Machine:
    return usual_machine


@pytest.fixture(params=["reference first", "podwire first"])
def turns(request: pytest.FixtureRequest, peers: Path, plugins: Path) -> tuple[Path, Path]:
    """Returns the two programs, in both orders."""
    both = (peers / "host-local", plugins / "host-local")
    return both if request.param == "reference first" else (both[1], both[0])


def network(*sets: list[Json], version: str = "1.1.0", **ipam: object) -> Json:
    return {"cniVersion": version, "name": "shared", "ipam": {"type": "host-local", "ranges": [*sets], **ipam}}


def pod(number: int, arguments: str = "") -> Attachment:
    return Attachment(container=f"pod-{number}", arguments=arguments)


def leases(machine: Machine) -> list[str]:
    """Returns the data folder's files with their text, without the lock, whose text says nothing."""
    return [line for line in machine.files("/var/lib/cni/networks") if "/lock " not in line]


def in_turn(turns: tuple[Path, Path], numbers: Iterable[int]) -> list[tuple[Path, int]]:
    return [(turns[number % 2], number) for number in numbers]


@pytest.mark.parametrize("sets", SETS.values(), ids=SETS)
def test_each_goes_on_where_the_other_stopped(
    machine: Machine, turns: tuple[Path, Path], sets: list[list[Json]]
) -> None:
    """Both in turn write the same files as one of them alone."""
    config = network(*sets)
    results = [call(machine, program, "ADD", config, pod(number)) for program, number in in_turn(turns, range(3))]
    written = leases(machine)
    machine.run("rm", "-r", "/var/lib/cni/networks")
    alone = [call(machine, turns[0], "ADD", config, pod(number)) for number in range(3)]
    assert results == alone
    assert written == leases(machine)


@pytest.mark.parametrize("sets", SETS.values(), ids=SETS)
def test_what_one_gave_the_other_takes_back(machine: Machine, turns: tuple[Path, Path], sets: list[list[Json]]) -> None:
    config = network(*sets)
    call(machine, turns[0], "ADD", config, pod(1))
    before = leases(machine)
    call(machine, turns[0], "ADD", config, pod(2))
    call(machine, turns[1], "DEL", config, pod(2))
    assert [line for line in leases(machine) if "last_reserved" not in line] == [
        line for line in before if "last_reserved" not in line
    ]


def test_what_one_gave_the_other_finds_in_check(machine: Machine, turns: tuple[Path, Path]) -> None:
    config = network(IPV4, IPV6)
    result = call(machine, turns[0], "ADD", config, pod(1))
    call(machine, turns[1], "CHECK", {**config, "prevResult": result}, pod(1))
    with pytest.raises(RefusedError):
        call(machine, turns[1], "CHECK", {**config, "prevResult": result}, pod(2))


def test_an_interface_that_has_an_address_from_one_gets_none_from_the_other(
    machine: Machine, turns: tuple[Path, Path]
) -> None:
    config = network(IPV4)
    call(machine, turns[0], "ADD", config, pod(1))
    before = leases(machine)
    for program in turns:
        with pytest.raises(RefusedError, match="duplicate allocation is not allowed"):
            call(machine, program, "ADD", config, pod(1))
    assert leases(machine) == before


@pytest.mark.parametrize(("sets", "address"), [(IPV4, "10.1.2.5"), (IPV6, "2001:db8:1::5")], ids=["IPv4", "IPv6"])
def test_a_requested_address_that_one_gave_is_refused_by_the_other(
    machine: Machine, turns: tuple[Path, Path], sets: list[Json], address: str
) -> None:
    config = network(sets)
    result = call(machine, turns[0], "ADD", config, pod(1, f"IP={address}"))
    assert address_of(result) == address
    before = leases(machine)
    with pytest.raises(RefusedError, match=f"{address}.* not available"):
        call(machine, turns[1], "ADD", config, pod(2, f"IP={address}"))
    assert leases(machine) == before


@pytest.mark.parametrize("name", SETS)
def test_both_find_the_range_full_at_the_same_pod(machine: Machine, turns: tuple[Path, Path], name: str) -> None:
    config = network(*SETS[name])
    given = []
    for program, number in in_turn(turns, range(PODS[name])):
        result = call(machine, program, "ADD", config, pod(number))
        given += [address["address"] for address in result["ips"]]
    assert len(set(given)) == len(given)
    before = leases(machine)
    for program in turns:
        with pytest.raises(RefusedError, match="no IP addresses available"):
            call(machine, program, "ADD", config, pod(MANY))
    assert leases(machine) == before


def test_a_freed_address_is_given_again_last(machine: Machine, turns: tuple[Path, Path]) -> None:
    """The turn goes round the range: 10.1.2.2 was freed by one and comes after .6 for the other."""
    config = network(IPV4)
    call(machine, turns[0], "ADD", config, pod(2))
    call(machine, turns[1], "DEL", config, pod(2))
    order = [call(machine, turns[1], "ADD", config, pod(number)) for number in range(3, 8)]
    assert [address_of(result) for result in order] == [f"10.1.2.{last}" for last in (3, 4, 5, 6, 2)]


def test_a_file_of_an_old_host_local_without_interface_is_released(machine: Machine, turns: tuple[Path, Path]) -> None:
    machine.run("install", "-D", "/dev/stdin", "/var/lib/cni/networks/shared/10.1.2.2", stdin="pod-1\n")
    for program in turns:
        call(machine, program, "CHECK", {**network(IPV4), "prevResult": {"cniVersion": "1.1.0"}}, pod(1))
    call(machine, turns[0], "DEL", network(IPV4), pod(1))
    assert not any("pod-1" in line for line in leases(machine))


def test_both_at_once_never_give_an_address_twice(each_machine: Machine, turns: tuple[Path, Path]) -> None:
    config = network([{"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8:1::/64"}])

    def add(turn: tuple[Path, int]) -> list[str]:
        program, number = turn
        result = call(each_machine, program, "ADD", config, pod(number))
        return [str(ip_interface(address["address"]).ip) for address in result["ips"]]

    with ThreadPoolExecutor(MANY) as pool:
        given = list(pool.map(add, in_turn(turns, range(MANY))))
    addresses = {address for pair in given for address in pair}
    assert len(addresses) == 2 * MANY
    files = set(each_machine.run("ls", "/var/lib/cni/networks/shared").stdout.split())
    assert files == addresses | {"lock", "last_reserved_ip.0", "last_reserved_ip.1"}


@pytest.mark.parametrize("version", VERSIONS)
def test_both_answer_alike(machine: Machine, peers: Path, plugins: Path, version: str) -> None:
    """The answers are compared as text that JSON writers may format, but in which no key differs."""
    machine.run(
        "cp",
        "/dev/stdin",
        "/run/resolv.conf",
        stdin="nameserver 192.0.2.53\nsearch a.example b.example\noptions ndots:2\n",
    )
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "192.0.2.0/24", "gw": "10.1.2.6"}, {"dst": "::/0"}]
    answers = answers_of(
        machine,
        (peers / "host-local", plugins / "host-local"),
        lambda folder: network(
            IPV4, IPV6, version=version, routes=routes, dataDir=folder, resolvConf="/run/resolv.conf"
        ),
    )
    assert answers[0] == answers[1]


def answers_of(machine: Machine, programs: tuple[Path, ...], config: Callable[[str], Json]) -> list[str]:
    """Returns each program's answer to ADD, each with a data folder of its own."""
    folders = [f"/run/data-{number}" for number in range(len(programs))]
    answers = [
        call(machine, program, "ADD", config(folder), pod(1)) for program, folder in zip(programs, folders, strict=True)
    ]
    return [json.dumps(answer, sort_keys=True, indent=1) for answer in answers]
