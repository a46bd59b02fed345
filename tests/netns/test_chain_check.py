"""CHECK of a chain: what a later plugin has changed is what the earlier one finds, and the answer tells the MTU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.runtime import IPV4, Attachment, attachment, host_local, network, serve
from tests.netns.state import link

if TYPE_CHECKING:
    from tests.machine import Machine
    from tests.netns.runtime import Json, Node

MAC = "02:00:00:00:00:44"
LIMITS = {"ingressRate": 8_000_000, "ingressBurst": 8_000_000, "egressRate": 8_000_000, "egressBurst": 8_000_000}
FIRST: dict[str, tuple[str, Json]] = {
    "bridge": ("bridge", {"mtu": 1450, "isGateway": True}),
    "ptp": ("ptp", {"mtu": 1450}),
    "podwire": ("podwire", {"mtu": 1450}),
    "routed": ("podwire", {"mtu": 1450, "mode": "routed"}),
    "guarded": ("bridge", {"mtu": 1450, "macspoofchk": True, "promiscMode": True}),
}
LATER: dict[str, list[tuple[str, Json]]] = {
    "mtu": [("tuning", {"mtu": 1400})],
    "mac": [("tuning", {"mac": MAC})],
    "everything": [("tuning", {"mtu": 1400, "mac": MAC, "promisc": True, "allmulti": True, "txQLen": 500})],
    "twice": [("tuning", {"mtu": 1400, "mac": "02:00:00:00:00:55"}), ("tuning", {"mtu": 1300, "mac": MAC})],
    "limits": [("tuning", {"mtu": 1400}), ("bandwidth", LIMITS)],
}


class Chain:
    """The plugins of a list, called as a runtime does."""

    def __init__(self, node: Node, who: Attachment, version: str, plugins: list[tuple[str, Json]]) -> None:
        self.node, self.who = node, who
        self.plugins = [
            (program, {**network(), "type": program, "cniVersion": version, **settings})
            for program, settings in plugins
        ]
        self.result: Json = {}

    def add(self) -> Json:
        for program, config in self.plugins:
            request = {**config, "prevResult": self.result} if self.result else config
            self.result = self.node.call("ADD", request, self.who, program=program).succeeded().content
        return self.result

    def check(self) -> list[str]:
        """Returns what each plugin has to say."""
        return [
            self.node.call("CHECK", {**config, "prevResult": self.result}, self.who, program=program).message
            for program, config in self.plugins
        ]


def chain(machine: Machine, node: Node, version: str, *plugins: tuple[str, Json]) -> Chain:
    (program, first), *later = plugins
    return Chain(node, attachment(machine.pod()), version, [(program, {**first, "ipam": host_local(IPV4)}), *later])


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
@pytest.mark.parametrize("later", LATER.values(), ids=LATER)
def test_what_a_later_plugin_changes_is_no_fault_of_an_earlier_ones(
    machine: Machine, node: Node, version: str, later: list[tuple[str, Json]]
) -> None:
    if version != "1.1.0" and len([plugin for plugin in later if plugin[0] == "tuning"]) > 1:
        later = [
            ("tuning", {**settings, "mtu": 0}) for _, settings in later
        ]  # that the first is no longer so, nothing tells
    attached = chain(machine, node, version, FIRST["bridge"], *later)
    attached.add()
    assert attached.check() == [""] * len(attached.plugins)


@pytest.mark.parametrize(("program", "first"), FIRST.values(), ids=FIRST)
def test_so_it_is_for_every_plugin_that_attaches(machine: Machine, node: Node, program: str, first: Json) -> None:
    attached = chain(machine, node, "1.1.0", (program, first), *LATER["everything"])
    attached.add()
    assert attached.check() == ["", ""]
    machine.run("ip", "-n", attached.who.container, "link", "set", "eth0", "mtu", "1300")
    assert all("1300" in messages for messages in attached.check())


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0"])
def test_without_the_mtu_in_the_answer_the_last_that_set_it_finds_a_change(
    machine: Machine, node: Node, version: str
) -> None:
    attached = chain(machine, node, version, FIRST["bridge"], *LATER["mtu"])
    attached.add()
    machine.run("ip", "-n", attached.who.container, "link", "set", "eth0", "mtu", "1300")
    assert ["1300" in messages for messages in attached.check()] == [False, True]


def mtus(answer: Json) -> dict[str, Any]:
    return {interface["name"]: interface.get("mtu") for interface in answer["interfaces"]}


@pytest.mark.parametrize(("program", "first"), FIRST.values(), ids=FIRST)
@pytest.mark.parametrize("mtu", [0, 1450, 9000])
def test_the_answer_tells_the_mtu_of_each_interface(
    machine: Machine, node: Node, program: str, first: Json, mtu: int
) -> None:
    attached = chain(machine, node, "1.1.0", (program, {**first, "mtu": mtu}))
    answered = mtus(attached.add())
    pod = machine.pods[attached.who.container]
    assert answered == {name: link(pod if name == "eth0" else machine, name)["mtu"] for name in answered}
    assert answered["eth0"] == (mtu or 1500)


def test_that_of_a_bridge_is_its_own(machine: Machine, node: Node) -> None:
    machine.run("ip", "link", "add", "br9", "mtu", "1300", "type", "bridge")
    machine.run("ip", "link", "set", "br9", "mtu", "1350")
    answered = mtus(chain(machine, node, "1.1.0", ("bridge", {"bridge": "br9"})).add())
    assert answered["br9"] == link(machine, "br9")["mtu"]
    assert answered["eth0"] == 1500


def test_chained_plugins_hand_it_on_and_bring_it_up_to_date(machine: Machine, node: Node) -> None:
    attached = chain(machine, node, "1.1.0", FIRST["bridge"], *LATER["limits"], ("portmap", {}))
    answered = mtus(attached.add())
    assert answered.pop("cni0") == answered.pop("eth0") + 50 == 1450
    assert set(answered.values()) == {1450}


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0"])
def test_older_versions_do_not_know_it(machine: Machine, node: Node, version: str) -> None:
    attached = chain(machine, node, version, FIRST["bridge"], *LATER["limits"])
    assert set(mtus(attached.add()).values()) == {None}


def test_loopback_tells_it_as_well(machine: Machine) -> None:
    who = Attachment("c1", machine.pod().path, "lo")
    for version, expected in (("1.1.0", 65536), ("1.0.0", None)):
        answer = machine.call(serve, who.environment("ADD"), {**network(), "cniVersion": version}, "loopback")
        assert mtus(answer.succeeded().content) == {"lo": expected}
