"""The example network through cnitool: verbs and traffic."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.machine import Machine, MachineError, Pod
from tests.snapshot import added
from tests.system.plugins import CniTool, address_of
from tests.system.shared import CONFLIST, assert_only_shared, example, without_marks

if TYPE_CHECKING:
    from pathlib import Path


MANY = 8


@pytest.fixture
def cnitool(machine: Machine, peers: Path, plugins: Path, tmp_path: Path) -> CniTool:
    """Returns cnitool with conf/10-podwire.conflist as the only network."""
    shutil.copy(CONFLIST, tmp_path)
    return CniTool(machine, peers / "cnitool", plugins, tmp_path, example()["name"])


def test_add_answers_with_the_address_and_the_three_interfaces(cnitool: CniTool) -> None:
    pod = cnitool.machine.pod()
    answer = cnitool("add", pod)
    assert answer["cniVersion"] == "1.1.0"
    assert [interface.get("sandbox", "") for interface in answer["interfaces"]] == ["", "", pod.path]
    assert answer["interfaces"][0]["name"] == "cni0"
    assert answer["interfaces"][2]["name"] == "eth0"
    assert answer["ips"] == [{"interface": 2, "address": "10.88.0.2/16", "gateway": "10.88.0.1"}]
    assert {route["dst"] for route in answer["routes"]} == {"0.0.0.0/0"}
    assert pod.addresses() == ["10.88.0.2/16"]
    routes = pod.run("ip", "-4", "route").stdout.splitlines()
    assert [line.split()[:3] for line in routes if line.startswith("default")] == [["default", "via", "10.88.0.1"]]


def test_pods_see_each_other_under_their_own_addresses(cnitool: CniTool) -> None:
    first, second = cnitool.machine.pod(), cnitool.machine.pod()
    first_address, second_address = address_of(cnitool("add", first)), address_of(cnitool("add", second))
    for protocol in ("tcp", "udp"):
        first.serve(8080, protocol)
        second.serve(8080, protocol)
        assert second.ask(first_address, 8080, protocol) == second_address
        assert first.ask(second_address, 8080, protocol) == first_address


def test_a_pod_and_its_host_reach_each_other(cnitool: CniTool) -> None:
    pod = cnitool.machine.pod()
    address = address_of(cnitool("add", pod))
    cnitool.machine.serve(8080)
    pod.serve(8081)
    assert pod.ask("10.88.0.1", 8080) == address
    assert cnitool.machine.ask(address, 8081) == "10.88.0.1"


def test_a_host_outside_sees_the_node_and_not_the_pod(cnitool: CniTool) -> None:
    outside, pod = cnitool.machine.outside(), cnitool.machine.pod()
    cnitool("add", pod)
    for protocol in ("tcp", "udp"):
        outside.serve(8080, protocol)
        assert pod.ask("192.0.2.2", 8080, protocol) == "192.0.2.1"


def test_check_finds_the_pod_as_add_left_it(cnitool: CniTool) -> None:
    pod = cnitool.machine.pod()
    cnitool("add", pod)
    cnitool("check", pod)


@pytest.mark.parametrize(
    "damage",
    [
        "ip address flush dev eth0 scope global",
        "ip route del default",
        "ip link del eth0",
    ],
)
def test_check_finds_what_is_missing(cnitool: CniTool, damage: str) -> None:
    pod = cnitool.machine.pod()
    cnitool("add", pod)
    pod.run(*damage.split())
    with pytest.raises(MachineError):
        cnitool("check", pod)


def test_status_says_that_the_network_is_ready(cnitool: CniTool) -> None:
    assert cnitool("status", cnitool.machine.pod()) == {}


def test_del_leaves_what_pods_share_and_nothing_of_the_pod(cnitool: CniTool) -> None:
    pod = cnitool.machine.pod()
    before = cnitool.machine.snapshot()
    cnitool("add", pod)
    cnitool("del", pod)
    assert_only_shared(added(before, cnitool.machine.snapshot()))


def test_del_undoes_add_while_another_pod_lives(cnitool: CniTool) -> None:
    first, second = cnitool.machine.pod(), cnitool.machine.pod()
    cnitool("add", first)
    before = cnitool.machine.snapshot()
    cnitool("add", second)
    cnitool("del", second)
    assert without_marks(cnitool.machine.snapshot()) == without_marks(before)


def test_del_succeeds_again_and_for_a_pod_that_never_was(cnitool: CniTool) -> None:
    first, second = cnitool.machine.pod(), cnitool.machine.pod()
    cnitool("add", first)
    cnitool("del", first)
    before = cnitool.machine.snapshot()
    assert cnitool("del", first) == {}
    assert cnitool("del", second) == {}
    assert without_marks(cnitool.machine.snapshot()) == without_marks(before)


def test_del_after_the_end_of_the_namespace_leaves_nothing_of_the_pod(cnitool: CniTool) -> None:
    before = cnitool.machine.snapshot()
    pod = cnitool.machine.pod()
    cnitool("add", pod)
    pod.remove()
    cnitool("del", pod)
    cnitool.machine.wait_for_links("cni0", "lo")
    assert_only_shared(added(before, cnitool.machine.snapshot()))


def test_a_second_add_of_the_same_interface_fails_and_changes_nothing(cnitool: CniTool) -> None:
    pod = cnitool.machine.pod()
    cnitool("add", pod)
    before = cnitool.machine.snapshot()
    with pytest.raises(MachineError, match="eth0"):
        cnitool("add", pod)
    assert without_marks(cnitool.machine.snapshot()) == without_marks(before)


def test_gc_takes_away_what_nobody_claims(cnitool: CniTool) -> None:
    """The list of valid attachments is empty: libcni deletes all in its cache, then calls the plugin."""
    first, second = cnitool.machine.pod(), cnitool.machine.pod()
    before = cnitool.machine.snapshot()
    cnitool("add", first)
    cnitool("add", second)
    cnitool("gc", first)
    assert_only_shared(added(before, cnitool.machine.snapshot()))


def test_pods_added_at_once_have_addresses_of_their_own(cnitool: CniTool) -> None:
    pods = [cnitool.machine.pod() for _ in range(MANY)]
    before = cnitool.machine.snapshot()
    answers = [json.loads(printed) for printed in at_once(cnitool, "add", pods)]
    addresses = {address_of(answer) for answer in answers}
    assert len(addresses) == MANY
    for pod, answer in zip(pods, answers, strict=True):
        pod.serve(8080)
        assert cnitool.machine.ask(address_of(answer), 8080) == "10.88.0.1"
    at_once(cnitool, "del", pods)
    assert_only_shared(added(before, cnitool.machine.snapshot()))


def at_once(cnitool: CniTool, verb: str, pods: list[Pod]) -> list[str]:
    """Runs one verb for all pods in parallel, as runtimes do, and returns what each printed."""
    running = [cnitool.machine.start(*cnitool.command(verb, pod)) for pod in pods]
    printed = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0] * len(pods), printed
    return printed
