"""Which nodes need no tunnel: those on the wire itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent import overlay
from cni.kernel.route import Route

if TYPE_CHECKING:
    from tests.machine import Machine


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

    def near() -> list[str]:
        route = Route()
        found = overlay.ways_out(route, route.ifindex("uplink"), 0, 4)
        route.close()
        return [net.text for net, direct in found if direct]

    assert machine.call(near) == ["192.0.2.0/24", "198.51.100.0/24"]
