"""Tests packets to addresses of this node's subnet that no pod has (--ip-blackhole-route)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.agent.dataplane import routes
from cni.kernel.rtnl_socket import RtnlSocket
from cni.protocol.address import parse_net

if TYPE_CHECKING:
    from tests.machine import Machine

NETWORKS = parse_net("10.5.0.0/16"), parse_net("fd00:5::/56")


@pytest.mark.parametrize(("family", "subnet"), [(4, "10.5.1.0/24"), (6, "fd00:5:0:1::/64")])
def test_it_is_dropped_behind_every_better_route(machine: Machine, family: int, subnet: str) -> None:
    """Twice the same changes nothing, another subnet takes the first one's place, and all of it goes with the rest."""

    def keep(*subnets: str) -> None:
        route = RtnlSocket()
        routes.ensure_blackhole_routes(route, family, tuple(map(parse_net, subnets)), NETWORKS)
        route.close()

    def clear() -> list[str]:
        route = RtnlSocket()
        refused = routes.clear(route, family, NETWORKS)
        route.close()
        return refused

    def dropped() -> list[str]:
        lines = machine.run("ip", f"-{family}", "route", "show", "type", "blackhole").stdout.splitlines()
        return [line.split(" dev ")[0].split(" proto ")[0] for line in lines]

    other = subnet.replace("1.0/24", "2.0/24").replace(":1::", ":2::")
    machine.call(keep, subnet)
    machine.call(keep, subnet)
    assert dropped() == [f"blackhole {subnet}"]
    machine.call(keep, other)
    assert dropped() == [f"blackhole {other}"]
    machine.run("ip", f"-{family}", "route", "add", other, "dev", "lo")
    assert "dev lo" in machine.run("ip", f"-{family}", "route", "get", other.replace("/", "7/").split("/")[0]).stdout
    assert machine.call(clear) == []
    assert dropped() == []
