"""Traffic control messages: read by pyroute2 as they were meant, and by the kernel as tc(8) would have meant them."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import pytest

from cni.config.bandwidth import Rate
from cni.kernel import tc
from cni.kernel.netlink import frame
from cni.kernel.rtnl_socket import RtnlSocket
from cni.plan.bandwidth import MirredRedirect, TokenBucket
from tests.unit.oracle import WHY, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.kernel.rtnl import Message
    from tests.machine import Machine

tcmsg: Any = pytest.importorskip("pyroute2.netlink.rtnl.tcmsg", reason=WHY).tcmsg
tbf: Any = pytest.importorskip("pyroute2.netlink.rtnl.tcmsg.sched_tbf", reason=WHY)
CREATE = 0x400 | 0x200  # NLM_F_CREATE | NLM_F_EXCL
Attributes = list[tuple[str, Any]]


@pytest.fixture(autouse=True)
def _with_all_words_of_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds the attributes that pyroute2 does not know (kernel include/uapi/linux/pkt_sched.h, enum TCA_TBF_*)."""
    later = (("TCA_TBF_RATE64", "uint64"), ("TCA_TBF_PRATE64", "uint64"), ("TCA_TBF_BURST", "uint32"))
    monkeypatch.setattr(tbf, "options", type("options", (tbf.options,), {"nla_map": (*tbf.options.nla_map, *later)}))


def read(message: Message) -> tuple[tuple[int, int], dict[str, int], Any]:
    """Returns the message as pyroute2 reads it: type and flags, the fixed part, the attributes."""
    kind, flags, payload = message
    decoded = tcmsg(frame(kind, flags, 1, payload))
    decoded.decode()
    fields = {name: decoded[name] for name in ("family", "index", "handle", "parent", "info")}
    return (decoded["header"]["type"], decoded["header"]["flags"]), fields, plain(decoded.getvalue()["attrs"])


def fixed(index: int, handle: int, parent: int, info: int = 0) -> dict[str, int]:
    return {"family": 0, "index": index, "handle": handle, "parent": parent, "info": info}


BUCKETS = {
    "slow": (1, 1, 1),
    "fast": (1_000_000, 2000, 27_000),
    "as fast as 32 bits tell": ((1 << 32) - 1, (1 << 32) - 2, (1 << 32) - 1),
    "faster": (1 << 32, 536_870_911, (1 << 32) - 1),
    "fastest": ((1 << 61) - 1, 1, (1 << 32) - 1),
}


@pytest.mark.parametrize(("rate", "burst", "limit"), BUCKETS.values(), ids=BUCKETS)
def test_a_token_bucket_is_understood_as_it_is_meant(rate: int, burst: int, limit: int) -> None:
    header, fields, attrs = read(tc.new_token_bucket(7, rate, burst, limit))
    assert header == (36, CREATE)
    assert fields == fixed(7, 0x10000, 0xFFFFFFFF)
    (kind, (name, options)) = attrs
    assert (kind, name) == (("TCA_KIND", "tbf"), "TCA_OPTIONS")
    attributes = dict(options["attrs"])
    set_to = {key: value for key, value in attributes.pop("TCA_TBF_PARMS").items() if value}
    assert set_to == {"rate": min(rate, (1 << 32) - 1), "limit": limit}
    assert attributes == {"TCA_TBF_BURST": burst} | ({"TCA_TBF_RATE64": rate} if rate >= 1 << 32 else {})
    assert (struct.pack("=HHQ", 12, 4, rate) in tc.new_token_bucket(7, rate, burst, limit)[2]) is (rate >= 1 << 32)


def test_an_ingress_is_understood_as_it_is_meant() -> None:
    assert read(tc.new_ingress(7)) == ((36, CREATE), fixed(7, 0xFFFF0000, 0xFFFFFFF1), [("TCA_KIND", "ingress")])


def test_a_redirect_is_understood_as_it_is_meant() -> None:
    """A redirect is of all protocols, behind the guard of 127.0.0.1; it matches all and takes packets away."""
    header, fields, attrs = read(tc.new_redirect(7, 9))
    assert header == (44, CREATE)
    assert fields == fixed(7, 0, 0xFFFF0000, 2 << 16 | 0x0300)
    (kind, (name, options)) = attrs
    assert (kind, name) == (("TCA_KIND", "u32"), "TCA_OPTIONS")
    attributes = dict(options["attrs"])
    assert attributes.pop("TCA_U32_CLASSID") == 0x10001
    selector = attributes.pop("TCA_U32_SEL")
    assert {key: value for key, value in selector.items() if value and key != "keys"} == {"flags": 1, "nkeys": 1}
    assert selector["keys"] == [{"key_mask": 0, "key_val": 0, "key_off": 0, "key_offmask": 0}]
    ((priority, action),) = attributes.pop("TCA_U32_ACT")["attrs"]
    ((_, mirred), (_, parameters)) = action["attrs"]
    assert (priority, mirred) == ("TCA_ACT_PRIO_1", "mirred")
    assert [name for name, _ in action["attrs"]] == ["TCA_ACT_KIND", "TCA_ACT_OPTIONS"]
    ((name, values),) = parameters["attrs"]
    assert name == "TCA_MIRRED_PARMS"
    assert {key: value for key, value in values.items() if value} == {"action": 4, "eaction": 1, "ifindex": 9}
    assert attributes == {}


def test_questions_are_understood_as_they_are_meant() -> None:
    kind, payload = tc.all_qdiscs(7)
    assert read((kind, 0, payload)) == ((38, 0), fixed(7, 0, 0), [])
    kind, payload = tc.ingress_filters(7)
    assert read((kind, 0, payload)) == ((46, 0), fixed(7, 0, 0xFFFFFFF2), [])


def answer(index: int, attrs: Attributes) -> bytes:
    """The content of what the kernel would answer, as pyroute2 writes it."""
    message = tcmsg()
    message["index"] = index
    message["attrs"] = attrs
    message.encode()
    return bytes(message.data)[16:]


def qdisc(kind: str, *options: tuple[str, Any]) -> Attributes:
    return [("TCA_KIND", kind), ("TCA_OPTIONS", {"attrs": list(options)})]


PARAMETERS = ("TCA_TBF_PARMS", {"rate": 1000, "limit": 2025, "buffer": 5, "mtu": 2000})
LONG = ("TCA_TBF_PARMS", {"rate": (1 << 32) - 1, "limit": 2025})


@pytest.mark.parametrize(
    ("index", "attrs", "expected"),
    [
        (7, qdisc("tbf", PARAMETERS), tc.Bucket(1000, 2025)),
        (7, qdisc("tbf", LONG, ("TCA_TBF_RATE64", 1 << 40)), tc.Bucket(1 << 40, 2025)),
        (8, qdisc("tbf", PARAMETERS), None),
        (7, [("TCA_KIND", "noqueue")], None),
        (7, [("TCA_KIND", "tbfx")], None),
        (7, [], None),
    ],
)
def test_a_token_bucket_is_read_as_pyroute2_writes_it(
    index: int, attrs: Attributes, expected: tc.Bucket | None
) -> None:
    assert tc.parse_token_bucket(answer(index, attrs), 7) == expected


def action(kind: str, *options: tuple[str, Any]) -> tuple[str, Any]:
    attributes = {"attrs": [("TCA_ACT_KIND", kind), ("TCA_ACT_OPTIONS", {"attrs": list(options)})]}
    return ("TCA_U32_ACT", {"attrs": [("TCA_ACT_PRIO_1", attributes)]})


@pytest.mark.parametrize(
    ("attrs", "to"),
    [
        (qdisc("u32", action("mirred", ("TCA_MIRRED_PARMS", {"action": 4, "eaction": 1, "ifindex": 9}))), 9),
        (qdisc("u32", ("TCA_U32_DIVISOR", 1)), 0),
        (qdisc("u32"), 0),
        ([("TCA_KIND", "u32")], 0),
        ([], 0),
    ],
)
def test_a_redirect_is_read_as_pyroute2_writes_it(attrs: Attributes, to: int) -> None:
    assert tc.redirects_to(answer(7, attrs)) == to


def test_an_action_that_is_cut_leads_nowhere() -> None:
    short = struct.pack("=HH", 4 + 8, 2) + bytes(8)
    for kind in (2, 1, 7, 2):  # mirred's options, the action, the list of actions, the filter's options
        short = struct.pack("=HH", 4 + len(short), kind) + short
    assert tc.redirects_to(bytes(20) + short) == 0


@pytest.fixture
def machine(kernel: Machine) -> Iterator[Machine]:
    """A host with two pairs: one for tc, one for podwire; and two links to redirect to."""
    for name in ("typed", "sent"):
        kernel.run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}-peer")
        kernel.run("ip", "link", "add", f"ifb-{name}", "type", "ifb")
    yield kernel
    for name in ("typed", "sent", "ifb-typed", "ifb-sent"):
        kernel.run("ip", "link", "delete", name)


def send(name: str, *messages: Message) -> int:
    """To be called inside the machine: gives the link's index."""
    route = RtnlSocket()
    try:
        for message in messages:
            route.request(*message)
        return route.ifindex(name)
    finally:
        route.close()


def shown(machine: Machine, *command: str) -> Any:
    """Returns tc's output without the link's name, counters and values that tc sets without a meaning."""
    output = machine.run("tc", "-j", "-d", *command).stdout
    ours = ("index", "pref", "linklayer", "flowid")  # only ATM is a link layer, only classes have flows

    def still(members: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in members.items() if key not in ours}

    return json.loads(output.replace("typed", "sent"), object_hook=still)


@pytest.mark.parametrize(
    "rate", [Rate(1000, 2000), Rate(1_000_000, 536_870_911), Rate((1 << 32) - 1, 4000), Rate(1 << 33, 1 << 20)]
)
def test_a_token_bucket_is_to_the_kernel_what_its_description_is(machine: Machine, rate: Rate) -> None:
    typed, sent = (TokenBucket(name, *rate) for name in ("typed", "sent"))
    machine.run("sh", "-ec", typed.describe())
    index = machine.call(send, "sent")
    machine.call(send, "sent", tc.new_token_bucket(index, sent.rate, sent.burst, sent.limit))
    assert shown(machine, "qdisc", "show", "dev", "sent") == shown(machine, "qdisc", "show", "dev", "typed")
    assert shown(machine, "qdisc", "show", "dev", "sent")[0]["kind"] == "tbf"


def test_a_redirect_is_to_the_kernel_what_its_description_is(machine: Machine) -> None:
    machine.run("sh", "-ec", MirredRedirect("typed", "ifb-typed").describe())
    index, to = machine.call(send, "sent"), machine.call(send, "ifb-sent")
    machine.call(send, "sent", tc.new_ingress(index), tc.new_redirect(index, to))
    assert shown(machine, "qdisc", "show", "dev", "sent") == shown(machine, "qdisc", "show", "dev", "typed")
    filters = [shown(machine, "filter", "show", "dev", name, "parent", "ffff:") for name in ("typed", "sent")]
    assert filters[0] == filters[1]
    assert filters[0][-1]["options"]["actions"][0]["to_dev"] == "ifb-sent"


GUARD = "7,32 0 0 4293918736,84 0 0 4278190080,21 0 3 2130706432,32 0 0 4294963220,69 1 0 8192,6 0 0 2,6 0 0 4294967295"


def test_the_guard_of_loopback_is_to_the_kernel_what_tc_makes_of_its_bytecode(machine: Machine) -> None:
    index = machine.call(send, "sent")
    machine.run("tc", "qdisc", "add", "dev", "typed", "clsact")
    filter_ = ("protocol", "ip", "pref", "1", "handle", "0x706f6477", "bpf", "da", "bytecode", GUARD)
    machine.run("tc", "filter", "add", "dev", "typed", "ingress", *filter_)
    machine.call(send, "sent", tc.new_ingress(index), tc.new_loopback_guard(index, 1 << 13))
    filters = [machine.run("tc", "filter", "show", "dev", name, "ingress").stdout for name in ("typed", "sent")]
    assert filters[0] == filters[1]
    assert "direct-action" in filters[1]
    machine.call(send, "sent", tc.delete_loopback_guard(index))
    assert machine.run("tc", "filter", "show", "dev", "sent", "ingress").stdout == ""


def questions(name: str) -> tuple[list[tuple[int, int]], list[int]]:
    """To be called inside the machine: what is read of a link's buckets and redirects."""
    route = RtnlSocket()
    try:
        index = route.ifindex(name)
        buckets = [tc.parse_token_bucket(answer, index) for answer in route.dump(*tc.all_qdiscs(index))]
        return (
            [(bucket.rate, bucket.limit) for bucket in buckets if bucket is not None],
            [to for to in map(tc.redirects_to, route.dump(*tc.ingress_filters(index))) if to],
        )
    finally:
        route.close()


@pytest.mark.parametrize("rate", [Rate(1000, 2000), Rate(1 << 33, 1 << 20)])
def test_what_a_description_makes_is_read_back(machine: Machine, rate: Rate) -> None:
    bucket = TokenBucket("typed", *rate)
    machine.run("sh", "-ec", f"{bucket.describe()}; {MirredRedirect('typed', 'ifb-typed').describe()}")
    machine.run("sh", "-ec", TokenBucket("sent", 1, 1).describe())
    assert machine.call(questions, "typed") == ([(bucket.rate, bucket.limit)], [machine.call(send, "ifb-typed")])
    assert machine.call(questions, "ifb-typed") == ([], [])
