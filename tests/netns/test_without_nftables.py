"""Kernels without nf_tables or nfnetlink, and machines without nft: all verbs serve what does not need them."""

from __future__ import annotations

import json
from errno import EINVAL, ENOENT
from typing import TYPE_CHECKING, Any

import pytest

from cni.kernel import netlink
from cni.kernel.nft import NFNL_SUBSYS_NFTABLES
from cni.kernel.nft_rules import NFTA_EXPR_NAME
from tests.netns.faults import without_nfnetlink
from tests.netns.runtime import MASQUERADED, PLAIN, attachment, network
from tests.netns.state import difference, links, whole
from tests.netns.test_portmap import mapped, mapping

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.machine import Machine
    from tests.netns.runtime import Answer, Attachment, Json, Node


def without_nf_tables() -> None:
    """Nfnetlink answers EINVAL for a subsystem that it does not have, to each message and to a batch as a whole."""
    base = netlink.Netlink
    answer, dump, batch, ask_each = base._answer, base.parts, base.batch, base.ask_each

    def is_foreign(kind: int) -> bool:
        return kind >> 8 == NFNL_SUBSYS_NFTABLES

    def request(self: netlink.Netlink, kind: int, flags: int, payload: bytes) -> bytes:
        if is_foreign(kind):
            raise netlink.NetlinkError(EINVAL, "")
        return answer(self, kind, flags, payload)

    def all_of(self: netlink.Netlink, kind: int, payload: bytes) -> Iterator[tuple[int, bytes]]:
        if is_foreign(kind):
            raise netlink.NetlinkError(EINVAL, "")
        return dump(self, kind, payload)

    def together(self: netlink.Netlink, messages: Any) -> netlink.NetlinkError | None:
        kept = list(messages)
        if any(is_foreign(kind) for kind, _, _ in kept):
            return netlink.NetlinkError(EINVAL, "")
        return batch(self, kept)

    def each(self: netlink.Netlink, questions: Any) -> list[bytes | netlink.NetlinkError]:
        kept = list(questions)
        if any(is_foreign(kind) for kind, _, _ in kept):
            return [netlink.NetlinkError(EINVAL, "") for _ in kept]
        return ask_each(self, kept)

    vars(netlink)["Netlink"]._answer, vars(netlink)["Netlink"].parts = request, all_of
    vars(netlink)["Netlink"].batch, vars(netlink)["Netlink"].ask_each = together, each


LACKING = pytest.mark.parametrize("lacking", [without_nfnetlink, without_nf_tables])
FULL = mapped(mapping(8080, 80), mapping(53, 53, "udp"), macspoofchk=True)
OTHER_PORT = {"runtimeConfig": {"portMappings": [mapping(9090, 80)]}}


@LACKING
def test_all_verbs_serve_a_network_that_needs_none(machine: Machine, node: Node, lacking: Callable[[], None]) -> None:
    before = whole(machine)
    who = attachment(machine.pod())
    node.call("STATUS", PLAIN, prepare=lacking).succeeded()
    node.add(PLAIN, who, prepare=lacking)
    node.check(PLAIN, who, prepare=lacking).succeeded()
    valid = [{"containerID": who.container, "ifname": who.interface}]
    node.call("GC", {**PLAIN, "cni.dev/valid-attachments": valid}, prepare=lacking).succeeded()
    assert "eth0" in links(machine.pods[who.container])
    node.delete(PLAIN, who, prepare=lacking)
    node.call("GC", {**PLAIN, "cni.dev/valid-attachments": []}, prepare=lacking).succeeded()
    assert [line for line in difference(before, whole(machine)) if "veth" in line] == []


@LACKING
@pytest.mark.parametrize("config", [MASQUERADED, FULL], ids=["masquerade", "ports and a guard"])
def test_what_needs_them_is_refused_and_released(
    machine: Machine, node: Node, config: Json, lacking: Callable[[], None]
) -> None:
    who = attachment(machine.pod())
    status = node.call("STATUS", config, prepare=lacking)
    assert (status.code, "not supported by the kernel (load the module nf_tables)" in status.message) == (50, True)
    answer = node.call("ADD", config, who, prepare=lacking)
    assert answer.code == 100, answer
    assert "Error" not in answer.message.partition("nft")[0]
    assert [name for name in links(machine) if name.startswith("veth")] == []
    node.call("DEL", config, who, prepare=lacking).succeeded()
    node.call("GC", {**config, "cni.dev/valid-attachments": []}, prepare=lacking).succeeded()


def chained(
    node: Node, verb: str, program: str, result: Json, who: Attachment, lacking: Any, **members: object
) -> Answer:
    config = network(type=program, prevResult=result) | members | {"cni.dev/valid-attachments": []}
    return node.call(verb, config, who if verb not in ("GC", "STATUS") else None, program=program, prepare=lacking)


@LACKING
@pytest.mark.parametrize("program", ["portmap", "bandwidth", "firewall", "tuning"])
def test_chained_plugins_serve_what_needs_none(
    machine: Machine, node: Node, program: str, lacking: Callable[[], None]
) -> None:
    who = attachment(machine.pod())
    result = node.add(PLAIN, who, prepare=lacking)
    verbs = ("ADD", "CHECK", "DEL", "GC") if program == "portmap" else ("STATUS", "ADD", "CHECK", "DEL", "GC")
    for verb in verbs:
        assert chained(node, verb, program, result, who, lacking).message == "", verb


@LACKING
def test_a_chained_release_of_ports_finds_nothing(machine: Machine, node: Node, lacking: Callable[[], None]) -> None:
    who = attachment(machine.pod())
    result = node.add(PLAIN, who, prepare=lacking)
    members: Json = {"runtimeConfig": {"portMappings": [mapping(8080, 80), mapping(53, 53, "udp")]}}
    assert chained(node, "STATUS", "portmap", result, who, lacking, **members).code == 50
    assert chained(node, "ADD", "portmap", result, who, lacking, **members).code == 100
    for verb in ("DEL", "GC"):
        assert chained(node, verb, "portmap", result, who, lacking, **members).message == "", verb
    assert chained(node, "STATUS", "firewall", result, who, lacking, ingressPolicy="isolated").code == 50


def traced(lacking: Callable[[], None], name: str) -> Any:
    """Returns status and answer of `podwire trace --send` of a container to its gateway, in such a kernel."""
    from cni.diag.entry import run

    lacking()
    ended = run(["trace", "--send", "--json", name, "10.1.2.1"], {}, is_terminal=False)
    return ended.status, json.loads(ended.stdout)


@LACKING
def test_a_probe_is_sent_and_its_path_read_without_a_trace(
    machine: Machine, node: Node, lacking: Callable[[], None]
) -> None:
    who = attachment(machine.pod())
    node.add(PLAIN, who, prepare=lacking)
    status, answer = machine.call(traced, lacking, who.netns)
    assert (status, answer["end"]) == (0, "the connection passes: echo reply")
    assert [hop["state"] for hop in answer["hops"]] == ["passes"] * len(answer["hops"])
    assert answer["probe"]["untraced"] == "nftables: not supported by the kernel"
    assert answer["probe"]["packets"] == []


def without_nft_ct() -> None:
    """The kernel answers ENOENT to a rule with an expression that no module has (net/netfilter/nf_tables_api.c)."""
    base = vars(netlink)["Netlink"]
    batch = base.batch

    def together(self: netlink.Netlink, messages: Any) -> netlink.NetlinkError | None:
        kept = list(messages)
        if any(netlink.text(NFTA_EXPR_NAME, "ct") in payload for _, _, payload in kept):
            return netlink.NetlinkError(ENOENT, "")
        refusal: netlink.NetlinkError | None = batch(self, kept)
        return refusal

    base.batch = together


def test_a_probe_is_traced_without_nft_ct(machine: Machine, node: Node) -> None:
    who = attachment(machine.pod())
    node.add(PLAIN, who)
    _, answer = machine.call(traced, without_nft_ct, who.netns)
    assert answer["probe"]["untraced"] == ""
    assert [packet["direction"] for packet in answer["probe"]["packets"]] == ["request"]
    assert machine.run("nft", "list", "tables").stdout == ""


def without_the_program() -> None:
    from cni import proc

    vars(proc)["find_system"] = lambda name, _environment: None if name == "nft" else f"/usr/sbin/{name}"


@pytest.mark.parametrize("config", [MASQUERADED, FULL], ids=["masquerade", "ports and a guard"])
def test_a_machine_without_the_program_serves_all_that_needs_rules(machine: Machine, node: Node, config: Json) -> None:
    who = attachment(machine.pod())
    node.call("STATUS", config, prepare=without_the_program).succeeded()
    node.add(config, who, prepare=without_the_program)
    node.check(config, who, prepare=without_the_program).succeeded()
    machine.run("nft", "flush", "ruleset")
    another = {**config, **OTHER_PORT} if config is FULL else config
    node.add(another, attachment(machine.pod("pod2")), prepare=without_the_program)
    node.check(config, who, prepare=without_the_program).succeeded()
    node.call("GC", {**config, "cni.dev/valid-attachments": []}, prepare=without_the_program).succeeded()


def test_conditions_of_ports_need_the_program_and_say_so(machine: Machine, node: Node) -> None:
    who, config = attachment(machine.pod()), {**mapped(mapping(8080, 80)), "conditionsV4": ["ip", "saddr", "192.0.2.1"]}
    before = whole(machine)
    for answer, code in (
        (node.call("STATUS", config, prepare=without_the_program), 0),
        (node.call("ADD", config, who, prepare=without_the_program), 100),
    ):
        assert (answer.code, "conditionsV4 and conditionsV6 need it (install nftables)" in answer.message) == (
            code or 50,
            True,
        )
    assert [line for line in difference(before, whole(machine)) if "podwire" in line] == []
    node.call("DEL", config, who, prepare=without_the_program).succeeded()
