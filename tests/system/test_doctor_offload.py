"""`podwire doctor` names a network card that does not add the checksums that it offers to add, by what arrives."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.system.cards import broken_card
from tests.system.nodes import MASQUERADE
from tests.system.test_doctor_nodes import NO_FILTER, Doctor, lent

if TYPE_CHECKING:
    from pathlib import Path

    from tests.machine import Machine
    from tests.system.conftest import Pair
    from tests.system.nodes import Node

FILTER = "nft 'table inet admin { chain input { type filter hook input priority 0; %s drop; }; }'"


@pytest.fixture
def machine(usual_machine: Machine) -> Machine:
    return usual_machine


def test_a_card_that_adds_no_checksums_inside_of_tunnels_is_named_alone(
    usual_pair: Pair, plugins: Path, podwired: Path
) -> None:
    with lent(usual_pair, plugins) as (doctor, other):
        node = doctor.node
        with broken_card(node):
            assert not node.guest.source_at(other.guest.addresses[4], seconds=1)
            [finding] = doctor.findings()
            assert (finding["name"], finding["subject"]) == ("checksum-offload", "flannel.1")
            assert f"1 of 1 peers, {other.lease()[0]} ({other.address()})" in finding["evidence"]
            other.run("sh", "-ec", FILTER % "icmp type echo-request")
            assert doctor.names() == ["checksum-offload"]
            other.run("sh", "-ec", NO_FILTER)
            assert Doctor(other, plugins).names() == []  # whose own card adds them
            recreate_tunnel(node, other, podwired, "--tunnel-checksum-offload=false")
            doctor.finds()
        recreate_tunnel(node, other, podwired)


def test_the_command_of_the_remedy_mends_it(usual_pair: Pair, plugins: Path) -> None:
    if shutil.which("ethtool") is None:
        pytest.skip("absent: ethtool (hack/peers brings it)")
    with lent(usual_pair, plugins) as (doctor, other), broken_card(doctor.node):
        node = doctor.node
        [finding] = doctor.finds("checksum-offload")
        node.run("sh", "-ec", finding["remedy"].partition(" (")[0])
        assert node.guest.reaches(other.guest)
        assert doctor.names() == []
        node.run("ethtool", "-K", "flannel.1", "tx-checksum-ip-generic", "on")


def recreate_tunnel(node: Node, other: Node, podwired: Path, *flags: str) -> None:
    """Restarts the agent, and has it add its device again."""
    node.stop_agent()
    node.start_agent(podwired, MASQUERADE, *flags)
    node.run("ip", "link", "delete", "flannel.1")
    node.until(lambda: node.guest.reaches(other.guest), "the pods reach each other")


def test_a_peer_that_drops_the_connections_of_doctor_is_no_ailment(usual_pair: Pair, plugins: Path) -> None:
    with lent(usual_pair, plugins) as (doctor, other):
        other.run("sh", "-ec", FILTER % "tcp dport 9")
        assert doctor.names() == []
        other.run("sh", "-ec", NO_FILTER)
