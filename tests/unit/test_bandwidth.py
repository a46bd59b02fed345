"""Bandwidth limits of runtimes and configurations, and their operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.config.bandwidth import Bandwidth, Rate, has_rates, parse_bandwidth
from cni.config.netconf import parse_netconf
from cni.plan import bandwidth
from cni.plan.attachment import Attachment, Facts, names_of
from cni.plan.bandwidth import Ifb, MirredRedirect, TokenBucket, ifb_mac, ifb_name
from cni.plan.plan import Plan, plan_attachment
from cni.protocol.address import mac_text, parse_mac, parse_net
from cni.protocol.fields import ConfigErrors, Fields
from cni.protocol.owner import Owner
from cni.protocol.plugin_config import PluginConfig
from cni.protocol.request import ifname_error
from cni.protocol.result import Interface, IPConfig, Result

if TYPE_CHECKING:
    from cni.plan.operations import Operation

OWNER = Owner("net", "c1", "eth0")
IN, OUT = Rate(1000, 2000), Rate(3000, 4000)
TOLD_IN = {"ingressRate": 8000, "ingressBurst": 16000}
TOLD_OUT = {"egressRate": 24000, "egressBurst": 32000}
NONE = {"ingressRate": 0, "ingressBurst": 0, "egressRate": 0, "egressBurst": 0}
FASTEST = (1 << 64) - 1
LARGEST = 8 * ((1 << 32) - 1) - 1


def parsed(members: dict[str, Any], runtime: Any = None) -> tuple[Bandwidth, list[str]]:
    errors = ConfigErrors()
    document = members | ({"runtimeConfig": {"bandwidth": runtime}} if runtime is not None else {})
    return parse_bandwidth(Fields(document, "", errors)), errors.messages


@pytest.mark.parametrize(
    ("document", "result"),
    [
        ({}, Bandwidth()),
        (NONE, Bandwidth()),
        (dict.fromkeys(NONE), Bandwidth()),
        (TOLD_IN, Bandwidth(IN)),
        (TOLD_OUT, Bandwidth(None, OUT)),
        (TOLD_IN | TOLD_OUT, Bandwidth(IN, OUT)),
        (NONE | TOLD_OUT, Bandwidth(None, OUT)),
        ({"ingressRate": 8, "ingressBurst": 15}, Bandwidth(Rate(1, 1))),
        ({"ingressRate": FASTEST, "ingressBurst": LARGEST}, Bandwidth(Rate(FASTEST // 8, (1 << 32) - 2))),
    ],
)
def test_limits_in_bits_are_read_as_bytes(document: dict[str, int], result: Bandwidth) -> None:
    assert parsed(document) == (result, [])
    assert parsed({}, document) == (result, [])


def test_containerd_spells_keys_in_pascal_case_and_sends_the_largest_burst_of_32_bits() -> None:
    sent = {"IngressRate": 8000, "IngressBurst": 4294967295, "EgressRate": 0, "EgressBurst": 0}
    assert parsed({}, sent) == (Bandwidth(Rate(1000, 536870911)), [])


@pytest.mark.parametrize(
    ("static", "result"),
    [
        (TOLD_IN, Bandwidth(IN)),
        ({"egressRate": 0}, Bandwidth()),
        ({"EGRESSBURST": 0}, Bandwidth()),
        (NONE, Bandwidth()),
        ({"egressRate": None}, Bandwidth(None, OUT)),
        ({"ingress": 1}, Bandwidth(None, OUT)),
    ],
)
def test_what_the_configuration_says_wins_entirely_over_the_runtime(static: dict[str, Any], result: Bandwidth) -> None:
    assert parsed(static, TOLD_OUT) == (result, [])


@pytest.mark.parametrize(
    ("members", "known"), [({}, False), ({"ingressRate": None}, False), ({"IngressRate": 0}, True)]
)
def test_a_configuration_that_names_a_limit_has_limits(members: dict[str, Any], known: bool) -> None:
    assert has_rates(Fields(members, "", ConfigErrors())) is known


@pytest.mark.parametrize(
    ("document", "errors"),
    [
        ({"ingressRate": 8000}, ["ingressBurst: if ingressRate is set, ingressBurst must also be set"]),
        ({"ingressBurst": 8000}, ["ingressRate: if ingressBurst is set, ingressRate must also be set"]),
        ({"egressRate": 8000, "egressBurst": 0}, ["egressBurst: if egressRate is set, egressBurst must also be set"]),
        ({"egressBurst": 8000}, ["egressRate: if egressBurst is set, egressRate must also be set"]),
        ({"ingressRate": 8000, "ingressBurst": LARGEST + 1}, ["ingressBurst: burst cannot be more than 4GB"]),
        ({"ingressRate": 7, "ingressBurst": 8000}, ["ingressRate: must be at least 8 bits"]),
        ({"egressRate": 8, "egressBurst": 7}, ["egressBurst: must be at least 8 bits"]),
        (TOLD_IN | {"ingressRate": "1M"}, None),
        (TOLD_IN | {"ingressRate": -1}, None),
        (TOLD_IN | {"ingressRate": True}, None),
        (TOLD_IN | {"ingressRate": 1e6}, None),
        (TOLD_IN | {"ingressRate": FASTEST + 1}, None),
        (
            {"ingressRate": 8000, "egressBurst": 8000},
            [
                "ingressBurst: if ingressRate is set, ingressBurst must also be set",
                "egressRate: if egressBurst is set, egressRate must also be set",
            ],
        ),
    ],
)
def test_a_limit_at_fault_is_left_out_with_each_faults_path(document: dict[str, Any], errors: list[str] | None) -> None:
    result, texts = parsed(document)
    assert result == Bandwidth()
    assert parsed({}, document) == (Bandwidth(), [f"runtimeConfig.bandwidth.{text}" for text in texts])
    if errors is not None:
        assert texts == errors
    else:
        assert texts[0].startswith(
            ("ingressRate: expected an integer", "ingressRate: -1", f"ingressRate: {FASTEST + 1}")
        )


def test_what_is_no_object_of_limits_is_a_fault() -> None:
    assert parsed({}, [TOLD_IN]) == (Bandwidth(), ["runtimeConfig.bandwidth: expected an object"])


@pytest.mark.parametrize(
    ("rate", "burst", "limit"),
    [
        (1000, 2000, 2025),
        (1, 1, 1),
        (39, 5, 5),
        (40, 5, 6),
        (1_000_000_000, 1, 25_000_001),
        (4000, (1 << 32) - 101, (1 << 32) - 1),
        (4000, (1 << 32) - 102, (1 << 32) - 2),
        (4000, (1 << 32) - 2, (1 << 32) - 1),
        (FASTEST // 8, 1, (1 << 32) - 1),
    ],
)
def test_the_burst_and_what_25_milliseconds_bring_may_wait(rate: int, burst: int, limit: int) -> None:
    """Bursts are whole bytes, and at most the kernel's maximum."""
    assert TokenBucket("eth0", rate, burst).limit == limit


def operations(conf: Bandwidth, *, paired: bool = True) -> tuple[Operation, ...]:
    return bandwidth.operations(conf, OWNER, "veth0", paired=paired)


def test_without_limits_nothing_is_done() -> None:
    assert operations(Bandwidth()) == ()
    assert bandwidth.interfaces(Bandwidth(), OWNER) == ()


def test_what_goes_into_the_container_is_limited_where_the_host_sends_it() -> None:
    assert operations(Bandwidth(IN)) == (TokenBucket("veth0", 1000, 2000),)
    assert bandwidth.interfaces(Bandwidth(IN), OWNER) == ()


@pytest.mark.parametrize("paired", [True, False])
def test_what_comes_out_of_the_container_takes_a_detour_that_is_limited_before_it_is_opened(paired: bool) -> None:
    name, mac = ifb_name(OWNER), ifb_mac(OWNER)
    assert operations(Bandwidth(None, OUT), paired=paired) == (
        Ifb(name, mac, "veth0", OWNER.label, paired),
        TokenBucket(name, 3000, 4000),
        MirredRedirect("veth0", name),
    )
    assert bandwidth.interfaces(Bandwidth(None, OUT), OWNER) == (Interface(name, mac_text(mac)),)


def test_both_ways_are_limited_apart() -> None:
    assert operations(Bandwidth(IN, OUT)) == operations(Bandwidth(IN)) + operations(Bandwidth(None, OUT))


def test_each_attachment_has_a_detour_of_its_own() -> None:
    owners = [OWNER, OWNER._replace(ifname="eth1"), OWNER._replace(network="other"), OWNER._replace(container_id="c2")]
    names = {ifb_name(owner) for owner in owners}
    assert len(names) == len({ifb_mac(owner) for owner in owners}) == len(owners)
    assert all(not ifname_error(name) and len(name) == 15 for name in names)
    assert all(parse_mac(mac_text(ifb_mac(owner))) == ifb_mac(owner) for owner in owners)
    assert {ifb_mac(owner) for owner in owners}.isdisjoint({OWNER.host_mac, OWNER.container_mac})


def test_the_names_of_a_detour_never_change() -> None:
    """Later releases of podwire search for this name."""
    assert (ifb_name(OWNER), mac_text(ifb_mac(OWNER))) == ("ifb888cf680c746", "26:ae:1a:90:95:46")


def attached(**members: Any) -> Plan:
    conf = parse_netconf(PluginConfig("net", "1.1.0", members, b""), {}, ConfigErrors())
    lease = Result(ips=(IPConfig(parse_net("10.1.2.3/24")),))
    names = names_of(OWNER, None, lease)
    return plan_attachment(Attachment(OWNER, "/run/netns/c1", conf, Facts("node", None, ipv6=True), names, lease))


@pytest.mark.parametrize("mode", ["bridged", "routed"])
def test_an_attachment_is_limited_before_the_first_packet_may_leave(mode: str) -> None:
    result = attached(mode=mode, isGateway=True, **TOLD_IN, **TOLD_OUT).operations
    limits = bandwidth.operations(Bandwidth(IN, OUT), OWNER, OWNER.host_interface, paired=True)
    order = [type(operation).__name__ for operation in result]
    start = result.index(limits[0])
    assert result[start : start + 4] == limits
    assert order.index("Veth") < start < start + 4 <= order.index("ContainerUp")


@pytest.mark.parametrize(("mode", "place"), [("bridged", 2), ("routed", 1)])
def test_the_answer_names_the_detour_last_and_the_container_where_it_was(mode: str, place: int) -> None:
    plain, limited = attached(mode=mode).result, attached(mode=mode, **TOLD_IN, **TOLD_OUT).result
    assert limited.interfaces == (*plain.interfaces, Interface(ifb_name(OWNER), mac_text(ifb_mac(OWNER))))
    assert limited.ips == plain.ips
    assert limited.interfaces[place].name == "eth0"
    assert attached(mode=mode, **TOLD_IN).result == plain
