from __future__ import annotations

import os
import posix
import random
from typing import TYPE_CHECKING, Any

import pytest

from cni.protocol.address import parse_net
from cni.protocol.errors import OperationFailed
from cni.protocol.result import IPConfig, Result
from ipam import main
from tests.unit.ipam_pool import Pool, alive, dead, ended, error_of, in_child, network, request

if TYPE_CHECKING:
    from pathlib import Path

    from ipam.lease import Lease


@pytest.fixture(autouse=True)
def _run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ipam.index.RUN", str(tmp_path / "run"))


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool(tmp_path)


@pytest.fixture
def dual(tmp_path: Path) -> Pool:
    return Pool(tmp_path, ranges=[[{"subnet": "10.1.2.0/29"}], [{"subnet": "fd00::/125"}]])


def test_add_answers_with_addresses_gateways_routes_and_dns(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 10.0.0.1\n")
    pool = Pool(tmp_path, subnet="10.1.2.0/24", routes=[{"dst": "0.0.0.0/0"}], resolvConf=str(tmp_path / "resolv.conf"))
    result = main.add(request("pod"), pool.network(), alive)
    assert [(ip.address.text, ip.gateway and ip.gateway.text, ip.interface) for ip in result.ips] == [
        ("10.1.2.2/24", "10.1.2.1", None)
    ]
    assert [route.dst.text for route in result.routes] == ["0.0.0.0/0"]
    assert result.dns.nameservers == ("10.0.0.1",)
    assert result.interfaces == ()
    assert pool.read("last_reserved_ip.0") == b"10.1.2.2"


def test_every_set_gives_one_address(dual: Pool) -> None:
    assert dual.add("pod") == ["10.1.2.2", "fd00::2"]
    assert dual.read("last_reserved_ip.1") == b"fd00::2"


def test_a_released_address_is_used_last(pool: Pool) -> None:
    for number in range(5):
        pool.add(f"pod{number}")
    for number in (1, 3):
        pool.delete(f"pod{number}")
    assert [pool.add("a"), pool.add("b")] == [["10.1.2.3"], ["10.1.2.5"]]


def test_an_exhausted_set_says_so_and_the_other_sets_keep_theirs(dual: Pool) -> None:
    for number in range(5):
        dual.add(f"pod{number}")
    dual.foreign_delete("10.1.2.4")
    dual.foreign_add("fd00::7", "foreign")
    error = error_of(lambda: dual.add("late"))
    assert error.code == 11
    assert error.message == "failed to allocate for range 1: no IP addresses available in range set: fd00::1-fd00::7"
    assert "10.1.2.4" not in dual.leases()


def test_an_attachment_gets_no_second_address_of_a_set(pool: Pool) -> None:
    pool.add("pod")
    error = error_of(lambda: pool.add("pod"))
    text = "failed to allocate for range 0: 10.1.2.2 has been allocated to pod, duplicate allocation is not allowed"
    assert (error.code, error.message) == (100, text)
    assert pool.add("pod", "net1") == ["10.1.2.3"]


def test_a_lease_of_old_belongs_to_all_interfaces_of_its_container(pool: Pool) -> None:
    pool.write("10.1.2.4", b"pod")
    assert "10.1.2.4 has been allocated to pod" in error_of(lambda: pool.add("pod")).message
    assert pool.leased("pod") == {"10.1.2.4"}
    main.check(request("pod"), pool.network(), None)
    pool.delete("pod", "net7")
    assert pool.leases() == {}


def test_a_lease_of_old_stays_while_the_attachment_has_a_newer_one(pool: Pool) -> None:
    pool.add("pod")
    pool.write("10.1.2.4", b"pod")
    pool.delete("pod")
    assert pool.leases() == {"10.1.2.4": b"pod"}


def test_requested_addresses_are_leased(dual: Pool) -> None:
    assert dual.add("a", args="IP=10.1.2.4/24") == ["10.1.2.4", "fd00::2"]
    assert dual.add("b", runtimeConfig={"ips": ["fd00::5", "10.1.2.5"]}) == ["10.1.2.5", "fd00::5"]
    assert dual.add("c") == ["10.1.2.6", "fd00::6"]


def test_a_requested_address_that_is_taken_costs_nothing_else(dual: Pool) -> None:
    dual.add("a")
    error = error_of(lambda: dual.add("b", args="IP=fd00::2"))
    assert error.code == 11
    text = "requested IP address fd00::2 is not available in range set fd00::1-fd00::7"
    assert error.message == f"failed to allocate for range 1: {text}"
    assert set(dual.leases()) == {"10.1.2.2", "fd00::2"}


def test_a_refused_request_touches_no_disk(dual: Pool) -> None:
    assert error_of(lambda: dual.add("a", args="IP=10.1.2.1")).code == 7
    assert error_of(lambda: dual.add("a", args="IP=10.9.9.9")).code == 7
    assert not os.path.exists(dual.folder)


def test_an_interruption_gives_back_what_was_leased(dual: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    dual.add("a")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ipam.main._raise_if_duplicate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            dual.add("b")
    assert set(dual.leases()) == {"10.1.2.2", "fd00::2"}


def test_a_last_address_that_cannot_be_noted_costs_the_lease(pool: Pool) -> None:
    os.makedirs(f"{pool.folder}/last_reserved_ip.0")
    assert error_of(lambda: pool.add("a")).code == 5
    assert pool.leases() == {}


def test_a_machine_that_cannot_be_asked_leaves_all_as_it_is(pool: Pool) -> None:
    """`alive` is asked about leases of earlier boots; what it raises reaches the caller."""
    pool.write("10.1.2.5", b"pod\r\neth0")
    os.utime(f"{pool.folder}/10.1.2.5", (0, 0))

    def refused(_: Lease) -> bool:
        raise OperationFailed("no netlink")

    for _ in range(2):
        assert error_of(lambda: pool.add("a", ask=refused)).code == 100
    assert set(pool.leases()) == {"10.1.2.5"}


def test_delete_takes_no_notice_of_what_release_does_not_need(pool: Pool) -> None:
    pool.add("pod")
    broken = network({"dataDir": pool.data, "ranges": "nonsense"}, runtimeConfig=5)
    assert [ip.text for ip in main.leased(request("pod"), broken)] == ["10.1.2.2"]
    main.delete(request("pod", args="IP=nonsense"), broken, alive)
    assert pool.leases() == {}


def test_delete_of_the_unknown_is_success_and_makes_no_folder(pool: Pool) -> None:
    pool.delete("pod")
    assert pool.leased("pod") == set()
    assert not os.path.exists(pool.data)
    pool.add("other")
    pool.delete("pod")
    assert set(pool.leases()) == {"10.1.2.2"}


def test_leased_knows_nothing_where_the_configuration_names_no_folder() -> None:
    unknown = network({"dataDir": 5})
    assert main.leased(request("pod"), unknown) == ()
    assert error_of(lambda: main.delete(request("pod"), unknown, alive)).code == 7


def result(*texts: str) -> Result:
    return Result(ips=tuple([IPConfig(parse_net(text)) for text in texts]))


def test_check_accepts_what_add_made(dual: Pool) -> None:
    dual.add("pod")
    for previous in (None, result("10.1.2.2/29", "fd00::2/125"), result("192.168.0.1/24")):
        main.check(request("pod"), dual.network(), previous)


def test_check_names_every_address_of_the_result_that_is_not_leased(dual: Pool) -> None:
    dual.add("pod")
    dual.add("other")
    previous = result("10.1.2.2/29", "10.1.2.3/29", "fd00::4/125", "192.168.0.1/24")
    error = error_of(lambda: main.check(request("pod"), dual.network(), previous))
    assert (error.code, error.message) == (101, "host-local: not leased to pod/eth0: 10.1.2.3, fd00::4")


def test_check_of_an_attachment_without_lease_is_refused(pool: Pool) -> None:
    for _ in range(2):
        error = error_of(lambda: main.check(request("pod"), pool.network(), None))
        assert error.code == 101
        assert error.message == "host-local: Failed to find address added by container pod"
        pool.add("other") if not os.path.exists(pool.folder) else None


def test_collect_keeps_the_valid_and_all_that_is_no_lease(pool: Pool) -> None:
    for container in ("kept", "stale"):
        pool.add(container)
    pool.write("10.1.2.4", b"kept")
    pool.write("10.1.2.5", b"stale")
    pool.write("notes.txt", b"stale\r\neth0")
    os.mkdir(f"{pool.folder}/10.1.2.6")
    main.collect(pool.network(), {("kept", "eth0"), ("stale", "net1")}, alive)
    assert sorted(os.listdir(pool.folder)) == [
        *("10.1.2.2", "10.1.2.4", "10.1.2.5", "10.1.2.6", "last_reserved_ip.0", "lock", "notes.txt")
    ]
    main.collect(pool.network(), set(), alive)
    assert sorted(os.listdir(pool.folder)) == ["10.1.2.6", "last_reserved_ip.0", "lock", "notes.txt"]


def test_collect_does_nothing_where_nobody_said_what_is_valid(pool: Pool) -> None:
    main.collect(pool.network(), set(), alive)
    pool.add("pod")
    main.collect(pool.network(), None, alive)
    assert set(pool.leases()) == {"10.1.2.2"}


def test_collect_goes_on_after_an_error_and_reports_all(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        pool.add(f"pod{number}")
    unlink = os.unlink

    def partly(name: str, **where: Any) -> None:
        if name in ("10.1.2.2", "10.1.2.4"):
            raise PermissionError(1, "Operation not permitted")
        unlink(name, **where)

    monkeypatch.setattr(posix, "unlink", partly)
    error = error_of(lambda: main.collect(pool.network(), set(), alive))
    assert error.code == 5
    for address in ("10.1.2.2", "10.1.2.4"):
        assert f"{address}: Operation not permitted" in error.message
    assert set(pool.leases()) == {"10.1.2.2", "10.1.2.4"}


def test_status_is_fine_while_every_set_has_an_address(dual: Pool) -> None:
    main.status(dual.network(), alive)
    assert not os.path.exists(dual.data)
    dual.add("pod")
    main.status(dual.network(), alive)


def test_status_names_the_exhausted_set_and_its_folder(dual: Pool) -> None:
    for number in range(5):
        dual.add(f"pod{number}")
    error = error_of(lambda: main.status(dual.network(), alive))
    assert (error.code, error.message) == (50, "no IP addresses available in range set: 10.1.2.1-10.1.2.6")
    assert dual.folder in error.details


def test_status_names_a_folder_that_cannot_be_written(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    error = error_of(lambda: main.status(pool.network(), alive))
    assert (error.code, error.message) == (50, f"host-local cannot write to {tmp_path}")


def test_status_finds_its_way_up_from_a_relative_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    main.status(network({"subnet": "10.1.2.0/29", "dataDir": "some/where"}), alive)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("verb", ["add", "check", "status"])
def test_faults_of_the_configuration_have_their_own_code(verb: str) -> None:
    broken = network({"subnet": "10.1.2.3/29"})
    calls = {
        "add": lambda: main.add(request("pod"), broken, alive),
        "check": lambda: main.check(request("pod"), broken, None),
        "status": lambda: main.status(broken, alive),
    }
    assert error_of(calls[verb]).code == 7


@pytest.mark.no_cover
def test_many_at_once_never_share_an_address(tmp_path: Path) -> None:
    pool = Pool(tmp_path, subnet="10.1.2.0/24")

    def worker(number: int) -> None:
        for step in range(20):
            pool.add(f"pod{number}-{step}")
            if step % 2:
                pool.delete(f"pod{number}-{step}")

    assert ended(*[in_child(lambda n=n: worker(n)) for n in range(8)]) == [0] * 8  # type: ignore[misc]
    owners = sorted(content.decode() for content in pool.leases().values())
    assert owners == sorted([f"pod{number}-{step}\r\neth0" for number in range(8) for step in range(0, 20, 2)])
    assert all(len(pool.leased(owner.partition("\r")[0])) == 1 for owner in owners)


def test_the_last_free_address_goes_to_exactly_one(pool: Pool) -> None:
    for number in range(4):
        pool.add(f"pod{number}")
    codes = ended(*[in_child(lambda n=n: pool.add(f"late{n}")) for n in range(6)])  # type: ignore[misc]
    assert sorted(codes) == [0, 1, 1, 1, 1, 1]


class Model:
    """The expected leases as a plain dictionary, which is searched from end to end."""

    def __init__(self) -> None:
        self.owners: dict[str, str] = {}
        self.order = [f"10.1.2.{number}" for number in range(2, 15)]
        self.last = "10.1.2.14"

    def add(self, owner: str) -> str | int:
        if owner in self.owners.values():
            return 100
        start = self.order.index(self.last) + 1
        free = [ip for ip in self.order[start:] + self.order[:start] if ip not in self.owners]
        return self.lease(free[0], owner) if free else 11

    def lease(self, address: str, owner: str) -> str | int:
        if address in self.owners:
            return 11
        self.owners[address] = owner
        self.last = address
        return address

    def delete(self, owner: str) -> None:
        self.owners = {ip: held for ip, held in self.owners.items() if held != owner}


def disturb(dice: random.Random, pool: Pool, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes the folder as another program, a crash or an administrator may do between two calls."""
    free = [ip for ip in model.order if ip not in model.owners]
    event = dice.choice(["foreign add", "foreign delete", "torn", "page", "run"])
    untorn = [ip for ip in free if not os.path.exists(f"{pool.folder}/{ip}")]  # the reference heals nothing
    if event == "foreign add" and untorn:
        address = dice.choice(untorn)
        pool.foreign_add(address, "foreign")
        model.lease(address, "foreign")
    elif event == "foreign delete" and model.owners:
        address = dice.choice(list(model.owners))
        pool.foreign_delete(address)
        del model.owners[address]
    elif event == "torn" and free:
        pool.write(dice.choice(free), dice.choice([b"", bytes(9)]))
    elif event == "page" and os.path.isdir(pool.folder) and os.path.isdir(pool.index):
        os.unlink(f"{pool.index}/{dice.choice(os.listdir(pool.index))}")
    elif event == "run":
        monkeypatch.setattr("ipam.index.RUN", f"{pool.data}-run{dice.randrange(3)}")


@pytest.mark.no_cover
@pytest.mark.parametrize("seed", range(12))
def test_any_history_ends_as_in_a_naive_model(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(seed)
    pool, model = Pool(tmp_path, subnet="10.1.2.0/28"), Model()
    for _ in range(250):
        owner = f"pod{dice.randrange(16)}"
        step = dice.choice(["add", "add", "delete", "request", "leased", "disturb"])
        if step == "add":
            expected = model.add(owner)
            got: str | int
            got = pool.add(owner, ask=dead)[0] if isinstance(expected, str) else error_of(lambda: pool.add(owner)).code  # noqa: B023
            assert got == expected
        elif step == "request":
            address = dice.choice(model.order)
            if isinstance(expected := model.lease(address, owner), str):
                assert pool.add(owner, args=f"IP={address}") == [address]
            else:
                assert error_of(lambda: pool.add(owner, args=f"IP={address}")).code == expected  # noqa: B023
        elif step == "delete":
            pool.delete(owner)
            model.delete(owner)
        elif step == "leased":
            assert pool.leased(owner) == {ip for ip, held in model.owners.items() if held == owner}
        else:
            disturb(dice, pool, model, monkeypatch)
    pool.delete("nobody")  # heals what is torn
    assert pool.leases() == {ip: f"{owner}\r\neth0".encode() for ip, owner in model.owners.items()}
