"""Bandwidth limits: the rate of what really passes, in both directions, and nothing left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.netns.runtime import IPV4, AnsweredError, Attachment, attachment, host_local, network
from tests.netns.state import difference, held_by, link, links, shown, whole
from tests.traffic import rate

if TYPE_CHECKING:
    from tests.machine import Machine
    from tests.netns.runtime import Json, Node

MEGABIT = 1_000_000
RATE, BURST = 40 * MEGABIT, 400_000
BOTH = {"ingressRate": RATE, "ingressBurst": BURST, "egressRate": RATE, "egressBurst": BURST}


def limited(**bandwidth: int) -> Json:
    """Returns a network whose containers are limited by the runtime."""
    return network(
        isDefaultGateway=True,
        ipam=host_local(IPV4),
        capabilities={"bandwidth": True},
        runtimeConfig={"bandwidth": bandwidth},
    )


LIMITED = limited(**BOTH)


def test_what_passes_is_what_was_asked_for(machine: Machine, node: Node) -> None:
    pod = machine.pod("pod")
    node.add(LIMITED, attachment(pod))
    least, most = RATE * 0.85, RATE * 1.15
    assert least < rate(machine, pod, "10.1.2.2", least) < most
    assert least < rate(pod, machine, "10.1.2.1", least) < most


def test_a_limit_of_one_direction_leaves_the_other_free(machine: Machine, node: Node) -> None:
    pod = machine.pod("pod")
    node.add(limited(ingressRate=RATE, ingressBurst=BURST), attachment(pod))
    assert rate(machine, pod, "10.1.2.2") < RATE * 1.15
    assert rate(pod, machine, "10.1.2.1") > RATE * 2


def test_two_interfaces_of_a_container_are_limited_independently(machine: Machine, node: Node) -> None:
    pod = machine.pod("pod")
    first, second = attachment(pod), attachment(pod, "eth1")
    node.add(LIMITED, first)
    node.add(limited(egressRate=RATE // 2, egressBurst=BURST), second)
    assert len([name for name in links(machine) if name.startswith("ifb")]) == 2
    node.delete(LIMITED, first)
    assert len([name for name in links(machine) if name.startswith("ifb")]) == 1
    assert node.check(limited(egressRate=RATE // 2, egressBurst=BURST), second).code == 0


def test_the_huge_burst_that_containerd_sends_is_accepted(machine: Machine, node: Node) -> None:
    pod = machine.pod("pod")
    huge = (1 << 32) - 1
    config = limited(ingressRate=MEGABIT, ingressBurst=huge, egressRate=MEGABIT, egressBurst=huge)
    node.add(config, attachment(pod))
    assert node.check(config, attachment(pod)).code == 0


def test_the_answer_names_the_ifb_last(machine: Machine, node: Node) -> None:
    pod = machine.pod("pod")
    result = node.add(LIMITED, attachment(pod))
    last = result["interfaces"][-1]
    assert link(machine, last["name"])["address"] == last["mac"]
    assert [ip["interface"] for ip in result["ips"]] == [2]


@pytest.mark.parametrize(
    "wrong", [{"ingressRate": RATE}, {"egressBurst": BURST}, {"egressRate": RATE, "egressBurst": 1 << 36}]
)
def test_half_a_limit_is_refused(machine: Machine, node: Node, wrong: dict[str, int]) -> None:
    with pytest.raises(AnsweredError) as refused:
        node.add(limited(**wrong), attachment(machine.pod("pod")))
    assert refused.value.code == 7
    assert "runtimeConfig.bandwidth." in refused.value.message


@pytest.mark.parametrize("gone", ["nothing", "the interface", "the namespace", "the ifb"])
@pytest.mark.parametrize("removed", ["everything", "nothing"])
def test_a_delete_leaves_nothing_whatever_was_gone(machine: Machine, node: Node, gone: str, removed: str) -> None:
    pod = machine.pod("pod")
    node.add(LIMITED, attachment(machine.pod("other")))
    before = whole(machine)
    result = node.add(LIMITED, attachment(pod))
    netns = pod.path
    if gone == "the interface":
        pod.run("ip", "link", "delete", "eth0")
    elif gone == "the ifb":
        machine.run("ip", "link", "delete", result["interfaces"][-1]["name"])
    elif gone == "the namespace":
        pod.remove()
        others = [name for name in links(machine) if name != result["interfaces"][1]["name"]]
        machine.wait_for_links(*others)
        netns = ""
    config = node.with_result(LIMITED, attachment(pod)) if removed == "everything" else {**LIMITED}
    if removed == "nothing":
        config.pop("runtimeConfig")
    for _ in range(2):
        node.call("DEL", config, Attachment("pod", netns)).succeeded()
    assert held_by(machine, "pod/eth0") == []
    if gone != "the namespace":
        assert difference(before, whole(machine)) == []


def test_a_collection_takes_ifbs_whose_containers_are_gone(machine: Machine, node: Node) -> None:
    pod = machine.pod("pod")
    node.add(LIMITED, attachment(pod))
    pod.run("ip", "link", "delete", "eth0")
    node.call("GC", {**LIMITED, "cni.dev/valid-attachments": []}).succeeded()
    assert [name for name in links(machine) if name.startswith("ifb")] == []


@pytest.mark.parametrize(
    ("spoil", "difference"),
    [
        ("tc qdisc delete dev {host} root", "does not limit the bandwidth"),
        ("tc qdisc delete dev {host} ingress", "does not pass"),
        (
            "tc qdisc replace dev {ifb} root handle 1: tbf rate 1mbit burst 10k limit 10k",
            "does not limit the bandwidth",
        ),
        ("ip link delete {ifb}", "is gone"),
        ("ip link set {ifb} down", "is down"),
    ],
)
def test_a_check_notices_what_is_no_longer_limited(machine: Machine, node: Node, spoil: str, difference: str) -> None:
    pod = machine.pod("pod")
    who = attachment(pod)
    result = node.add(LIMITED, who)
    assert node.check(LIMITED, who).code == 0
    machine.run(*spoil.format(host=result["interfaces"][1]["name"], ifb=result["interfaces"][-1]["name"]).split())
    assert difference in node.check(LIMITED, who).message


def test_the_chained_plugin_limits_what_another_attached(machine: Machine, node: Node) -> None:
    pod = machine.pod("pod")
    who = attachment(pod)
    bridge = network(isDefaultGateway=True, ipam=host_local(IPV4), type="bridge")
    result = node.add(bridge, who, program="bridge")
    before = whole(machine)
    chained = {**LIMITED, "type": "bandwidth", "prevResult": result}
    chained.pop("ipam")
    answer = node.call("ADD", chained, who, program="bandwidth").succeeded().content
    assert answer["interfaces"][:-1] == result["interfaces"]
    assert rate(machine, pod, "10.1.2.2") < RATE * 1.15
    assert rate(pod, machine, "10.1.2.1") < RATE * 1.15
    assert node.call("CHECK", {**chained, "prevResult": answer}, who, program="bandwidth").code == 0
    chained.pop("prevResult")
    chained.pop("runtimeConfig")
    for _ in range(2):
        node.call("DEL", chained, who, program="bandwidth").succeeded()
    # The interface's own queues go with it.
    assert [line for line in difference(before, whole(machine)) if "ifb" in line and "ingress" not in line] == []
    node.delete(bridge, who, program="bridge")
    assert shown(machine, "tc", "-j", "qdisc", "show", "dev", "cni0")[0]["kind"] == "noqueue"
