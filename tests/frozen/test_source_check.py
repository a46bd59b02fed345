"""ipSpoofCheck by the bundle, under each name of an interface plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.frozen.test_without_nft import NETWORK, called
from tests.machine import Machine, missing
from tests.netns import frames
from tests.netns.frames import arp, ethernet, icmpv6, ipv4, ipv6, passing
from tests.netns.test_source_check import sources_heard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.frozen.test_without_nft import Json

OWN = {"IPv4": ethernet(frames.IPV4, ipv4("10.1.2.2")), "IPv6": ethernet(frames.IPV6, ipv6("2001:db8::2"))}
FALSE = {
    "IPv4 of a neighbour": ethernet(frames.IPV4, ipv4("10.1.2.3")),
    "IPv6 of a neighbour": ethernet(frames.IPV6, ipv6("2001:db8::3")),
    "ARP answer for the gateway": ethernet(frames.ARP, arp(frames.REPLY, "10.1.2.1", "10.1.2.3")),
    "NA for the gateway": ethernet(frames.IPV6, icmpv6("2001:db8::2", frames.NEIGHBOR_ADVERT, "2001:db8::1")),
}


@pytest.fixture
def machine() -> Iterator[Machine]:
    if reason := missing():
        pytest.skip(reason)
    with Machine() as machine:
        yield machine


@pytest.mark.parametrize("program", ["podwire", "bridge"])
def test_a_container_on_a_bridge_sends_as_itself_alone(machine: Machine, bundle: Path, program: str) -> None:
    config: Json = {**NETWORK, "type": program, "ipSpoofCheck": True}
    first, second = machine.pod("pod1"), machine.pod("pod2")
    results = {pod: called(machine, bundle, "ADD", config, pod, program) for pod in (first, second)}
    assert passing(first, OWN | FALSE, second) == set(OWN)
    second.serve(8080)
    assert first.ask("10.1.2.3", 8080) == "10.1.2.2"
    assert first.ask("2001:db8::3", 8080) == "2001:db8::2"
    for pod, result in results.items():
        called(machine, bundle, "CHECK", {**config, "prevResult": result}, pod, program)
        called(machine, bundle, "DEL", {**config, "prevResult": result}, pod, program)
    assert "veth" not in machine.run("nft", "list", "ruleset").stdout


@pytest.mark.parametrize(("program", "members"), [("podwire", {"mode": "routed", "macspoofchk": False}), ("ptp", {})])
def test_a_routed_container_sends_as_itself_alone(machine: Machine, bundle: Path, program: str, members: Json) -> None:
    config: Json = {**NETWORK, "type": program, "ipSpoofCheck": True, **members}
    first, second = machine.pod("pod1"), machine.pod("pod2")
    results = {pod: called(machine, bundle, "ADD", config, pod, program) for pod in (first, second)}
    machine.serve(8080)
    second.serve(8080)
    assert first.ask("10.1.2.3", 8080) == "10.1.2.2"
    assert first.ask("2001:db8::1", 8080) == "2001:db8::2"
    assert sources_heard(first, "10.1.2.1", ["10.1.2.3"], last="10.1.2.2") == ["10.1.2.2"]
    assert sources_heard(first, "2001:db8::1", ["2001:db8::3"], last="2001:db8::2") == ["2001:db8::2"]
    for pod, result in results.items():
        called(machine, bundle, "CHECK", {**config, "prevResult": result}, pod, program)
        called(machine, bundle, "DEL", {**config, "prevResult": result}, pod, program)
    assert "veth" not in machine.run("nft", "list", "ruleset").stdout
