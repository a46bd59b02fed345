"""Tests that nodes in a network that this node is connected to need no tunnel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.agent.dataplane import routes
from cni.kernel.rtnl_socket import RtnlSocket

if TYPE_CHECKING:
    from tests.machine import Machine


def near(machine: Machine, interface: str = "uplink") -> list[str]:
    """The networks without a gateway, each with its interface."""

    def inside() -> list[str]:
        route = RtnlSocket()
        names = {link.ifindex: link.name for link in route.links()}
        routes_by_prefix = routes.host_routes(route, route.ifindex(interface), 0, 4)
        route.close()
        return [f"{net.text} {names[index]}" for net, index in routes_by_prefix if index]

    networks: list[str] = machine.call(inside)
    return networks


def test_only_what_needs_no_gateway_is_near(machine: Machine) -> None:
    """Routes of several next hops, and through a gateway of the other family, have no gateway where others do."""
    machine.outside()
    machine.run(
        "sh",
        "-ec",
        """
        ip address add 192.0.2.100/24 dev uplink
        ip route add 198.51.100.0/24 dev uplink
        ip route add 203.0.113.0/24 via 192.0.2.7
        ip route add 10.7.0.0/16 nexthop via 192.0.2.7 dev uplink nexthop via 192.0.2.8 dev uplink
        ip route add 10.8.0.0/16 via inet6 fe80::1 dev uplink
        ip route add 10.9.0.0/16 dev uplink table 100
        """,
    )
    assert near(machine) == ["192.0.2.0/24 uplink", "198.51.100.0/24 uplink"]


@pytest.mark.parametrize("metrics", [("0", "0"), ("100", "200"), ("200", "100")])
def test_of_several_interfaces_in_one_network_the_chosen_one_is_used(
    machine: Machine, metrics: tuple[str, ...]
) -> None:
    machine.outside()
    machine.run(
        "sh",
        "-ec",
        """
        ip link add second type bridge
        ip link set second up
        for one in uplink:5:$1 second:6:$2; do
            IFS=: read name number metric <<END
$one
END
            ip address add 10.6.0.$number/16 dev $name metric $metric
        done
        """,
        "sh",
        *metrics,
    )
    assert "10.6.0.0/16 uplink" in near(machine, "uplink")
    assert "10.6.0.0/16 second" in near(machine, "second")
    machine.run("ip", "route", "add", "10.6.7.0/24", "via", "10.6.0.9")
    assert "10.6.7.0/24" not in " ".join(near(machine))


def test_of_interfaces_that_are_not_the_chosen_one_the_route_that_wins_decides(machine: Machine) -> None:
    machine.outside()
    machine.run(
        "sh",
        "-ec",
        """
        ip link add second type bridge
        ip link set second up
        ip address add 10.6.0.5/16 dev second metric 100
        ip address add 10.7.0.5/16 dev second metric 100
        ip route add 10.7.0.0/16 via 192.0.2.7 metric 50
        """,
    )
    assert [line for line in near(machine) if "second" in line] == ["10.6.0.0/16 second"]
