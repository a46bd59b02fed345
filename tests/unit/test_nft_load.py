"""Loading of missing rules: whatever message is refused leaves nothing, and errors name the object and the remedy."""

from __future__ import annotations

import os
import subprocess
from errno import EINVAL, EPERM
from functools import partial
from typing import TYPE_CHECKING

import pytest

from cni import proc
from cni.config.portmap import PortMapping
from cni.effects import nft_load
from cni.effects.host import Host
from cni.effects.journal import Journal
from cni.kernel import nft, nft_ruleset
from cni.kernel.netlink import Netlink, NetlinkError
from cni.kernel.nft_ruleset import Step
from cni.plan import isolation, masquerade, portmap, sourcecheck, spoofcheck
from cni.plan.portmap import Condition, Hairpin, HostPort
from cni.protocol.address import parse_net
from cni.protocol.errors import OperationFailed
from tests.unit.test_nft_ruleset import dumped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cni.kernel.rtnl import Message
    from cni.plan.nftables import RulesetFragment
    from tests.machine import Machine

NET = parse_net("10.1.2.3/24")
BATCH = Netlink.batch
UNKNOWN = nft.NFNL_SUBSYS_NFTABLES << 8 | 0x3F  # a message that the kernel does not have


def part_of(name: str) -> RulesetFragment:
    parts: dict[str, Callable[[], RulesetFragment]] = {
        "masquerade": lambda: masquerade.ruleset([NET, parse_net("2001:db8::3/64")]),
        "guard": spoofcheck.ruleset,
        "sources": lambda: sourcecheck.rulesets(routed=False)[0],
        "sources, routed": lambda: sourcecheck.rulesets(routed=True)[0],
        "isolation": isolation.ruleset,
        "ports": lambda: portmap.ruleset([Hairpin(NET, everybody=False, label="")], []),
    }
    return parts[name]()


PARTS = ["masquerade", "guard", "sources", "sources, routed", "isolation", "ports"]


def loaded(name: str, host: Host) -> Journal:
    """Loads a part, as all functions below inside a machine; returns the journal with its undo."""
    journal = Journal(host)
    nft_load.load(host, part_of(name), [], journal)
    return journal


def alter_batches(alter: Callable[[int, Message], Message]) -> None:
    """Changes the messages of all transactions from now on, by their positions."""

    def batch(self: Netlink, messages: Iterable[Message]) -> NetlinkError | None:
        return BATCH(self, [alter(number, message) for number, message in enumerate(messages)])

    setattr(Netlink, "batch", batch)  # noqa: B010 - a process of its own


def spoilt(position: int, number: int, message: Message) -> Message:
    return (UNKNOWN, *message[1:]) if number == position else message


def refusals(name: str) -> list[tuple[str, int]]:
    """Returns for each message that the kernel refuses the error, and how much the ruleset holds then."""
    refused = []
    host = Host(os.environ, print)
    for position in range(1, len(nft_ruleset.create(part_of(name).content())) + 1):
        alter_batches(partial(spoilt, position))
        try:
            loaded(name, host)
        except (NetlinkError, OperationFailed) as error:
            refused.append((str(error), len(dumped())))
    host.close()
    return refused


@pytest.mark.parametrize("name", PARTS)
def test_whatever_message_is_refused_nothing_is_left_and_the_object_is_named(machine: Machine, name: str) -> None:
    steps = nft_ruleset.create(part_of(name).content())
    answers = machine.call(refusals, name)
    assert [error for error, _ in answers] == [f"Invalid argument ({step.title})" for step in steps]
    assert {count for _, count in answers} == {0}


def lacking(name: str, word: bytes) -> str:
    """Returns the error of a kernel that does not know an expression or a type of chains."""
    other = b"?" * len(word) + b"\0"
    alter_batches(lambda _, message: (*message[:2], message[2].replace(word + b"\0", other)))
    host = Host(os.environ, print)
    try:
        loaded(name, host)
    except OperationFailed as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("name", "word", "named"),
    [
        ("masquerade", b"masq", "chain inet podwire masquerade-10.1.2.0/24: masquerade: ... nft_masq)"),
        ("masquerade", b"nat", "chain inet podwire postrouting: ... nft_chain_nat)"),
        ("ports", b"fib", "chain inet podwire prerouting: fib daddr type local jump hostports: ... nft_fib_inet)"),
    ],
)
def test_a_kernel_without_an_expression_is_reported_with_its_module(
    machine: Machine, name: str, word: bytes, named: str
) -> None:
    assert machine.call(lacking, name, word) == named.replace("...", "not supported by the kernel (load the module")
    assert machine.run("nft", "list", "ruleset").stdout == ""


class Refusing:
    """A socket whose transactions are refused as a whole, at their first message."""

    def __init__(self, errno: int) -> None:
        self._errno = errno

    def batch(self, _messages: object) -> NetlinkError:
        return NetlinkError(self._errno, "")


def test_a_kernel_that_refuses_a_transaction_as_a_whole_has_no_nftables() -> None:
    steps = [Step((0, 0, b""), "table inet t")]
    with pytest.raises(OperationFailed, match="load the module nf_tables"):
        nft_load.send(Refusing(EINVAL), steps)  # type: ignore[arg-type]
    with pytest.raises(NetlinkError) as refused:
        nft_load.send(Refusing(EPERM), steps)  # type: ignore[arg-type]
    assert refused.value.errno == EPERM


def undone(before: list[str], name: str, *commands: str) -> tuple[list[object], list[object]]:
    """Returns the ruleset before a part is loaded and after that is undone; `commands` of nft come before the load."""
    host = Host(os.environ, print)
    for part in before:
        loaded(part, host)
    for command in commands:
        subprocess.run(["nft", *command.split()], check=True)
    host.nft.forget_chains()
    first = dumped()
    journal = loaded(name, host)
    assert dumped() != first
    assert journal.roll_back() == []
    host.close()
    return first, dumped()


@pytest.mark.parametrize(
    ("before", "name"),
    [([], "masquerade"), ([], "guard"), (["masquerade"], "ports"), (["ports", "isolation"], "masquerade")],
)
def test_the_undo_leaves_what_was_there(machine: Machine, before: list[str], name: str) -> None:
    first, after = machine.call(undone, before, name)
    assert after == first


def test_a_chain_that_was_flushed_before_is_so_again(machine: Machine) -> None:
    first, after = machine.call(undone, ["guard"], "guard", "flush chain bridge podwire prerouting")
    assert after == first


def undone_after(command: str) -> list[str]:
    """Returns the errors of an undo before which somebody has run nft."""
    host = Host(os.environ, print)
    loaded("ports", host)
    journal = loaded("masquerade", host)
    subprocess.run(["nft", *command.split()], check=True)
    failed = journal.roll_back()
    host.close()
    return failed


@pytest.mark.parametrize(
    "command", ["flush ruleset", "delete chain inet podwire postrouting", "flush table inet podwire"]
)
def test_the_undo_goes_on_where_somebody_has_removed_a_part(machine: Machine, command: str) -> None:
    assert machine.call(undone_after, command) == []
    assert "map masquerade4" not in machine.run("nft", "list", "ruleset").stdout


def conditional() -> str:
    """Returns the error of a condition on a machine without nft."""
    host = Host({"PATH": "/nowhere"}, print)
    vars(proc)["SYSTEM_PATH"] = "/nowhere"
    port = HostPort(PortMapping("tcp", None, 0, 80, 8080), NET.ip, "")
    try:
        nft_load.load(host, portmap.ruleset([], [Condition(port, "ip saddr 192.0.2.1", 13)]), [], Journal(host))
    except OperationFailed as error:
        return str(error)
    return ""


def test_a_users_condition_needs_nft(machine: Machine) -> None:
    assert machine.call(conditional) == (
        "the program nft is missing: conditionsV4 and conditionsV6 need it (install nftables)"
    )
