"""A reused address is the new pod's at once: neighbours that knew the old owner are told, and need not ask."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from cni.effects.engine import EFFECTS
from cni.protocol.owner import Owner
from tests.machine import until
from tests.netns.runtime import DUAL, IPV4, attachment, host_local, network
from tests.netns.state import link, shown

if TYPE_CHECKING:
    from tests.machine import Machine, Pod
    from tests.netns.runtime import Json, Node

V4, V6 = "10.1.2.50", "2001:db8:1::50"
CHOSEN = "02:00:00:00:00:44"
SINGLE = network(isDefaultGateway=True, ipam=host_local(IPV4))
CHOOSING = {**SINGLE, "capabilities": {"mac": True}}
DOUBLE = network(isDefaultGateway=True, ipam=DUAL)


def asking(config: Json, *ips: str, mac: str = "") -> Json:
    """Returns the configuration with a runtime's wishes."""
    return {**config, "runtimeConfig": {"ips": list(ips), **({"mac": mac} if mac else {})}}


# The network as the old owner of an address met it, as the new one does, and the address.
SUCCESSIONS: dict[str, tuple[Json, Json, str]] = {
    "one address": (asking(SINGLE, V4), asking(SINGLE, V4), V4),
    "one address, the new owner has chosen a MAC": (asking(SINGLE, V4), asking(SINGLE, V4, mac=CHOSEN), V4),
    "one address, the old owner had chosen a MAC": (asking(CHOOSING, V4, mac=CHOSEN), asking(CHOOSING, V4), V4),
    "both addresses, IPv4": (asking(DOUBLE, V4, V6), asking(DOUBLE, V4, V6), V4),
    "both addresses, IPv6": (asking(DOUBLE, V4, V6), asking(DOUBLE, V4, V6), V6),
    "the IPv6 address beside another IPv4 address": (asking(DOUBLE, V4, V6), asking(DOUBLE, "10.1.2.60", V6), V6),
    "the IPv4 address beside another IPv6 address": (
        asking(DOUBLE, V4, V6, mac=CHOSEN),
        asking(DOUBLE, V4, "2001:db8:1::60"),
        V4,
    ),
}


def known(where: Machine | Pod, address: str, family: int) -> str:
    """Returns the MAC address that is remembered for an address."""
    entries = shown(where, "ip", "-j", f"-{family}", "neighbour", "show", address)
    return entries[0].get("lladdr", "") if entries else ""


def pinned(where: Machine | Pod, address: str, family: int, device: str) -> None:
    """Makes the kernel believe for long what it has learned, as if it had just spoken with the old owner."""
    learned = known(where, address, family)
    assert learned
    where.run("ip", "neighbour", "replace", address, "lladdr", learned, "dev", device, "nud", "reachable")
    for kind in ("base_reachable_time_ms", "delay_first_probe_time"):
        value = "600000" if kind.endswith("ms") else "600"
        where.run("sysctl", "-qw", f"net.ipv{family}.neigh.{device}.{kind}={value}")


def _late_port() -> None:
    """In this process, the bridge begins to forward only after the container's end came up: what that said is lost."""
    port = Owner(DOUBLE["name"], "second", "eth0").host_interface
    effect = EFFECTS["ContainerUp"]

    def apply(*arguments: Any) -> None:
        subprocess.run(["bridge", "link", "set", "dev", port, "state", "0"], check=True)
        effect.apply(*arguments)
        forward = ["bridge", "link", "set", "dev", port, "state", "3"]
        # NetlinkError as long as the kernel has not noticed the carrier.
        until(lambda: subprocess.run(forward, stderr=subprocess.DEVNULL, check=False).returncode == 0, "it forwards")

    EFFECTS["ContainerUp"] = effect._replace(apply=apply)


@pytest.mark.parametrize(("old", "new", "address"), SUCCESSIONS.values(), ids=SUCCESSIONS)
@pytest.mark.parametrize("neighbour", ["another pod", "the host"])
def test_a_neighbour_learns_of_the_new_owner_without_asking(
    machine: Machine, node: Node, old: Json, new: Json, address: str, neighbour: str
) -> None:
    first, second, peer = machine.pod("first"), machine.pod("second"), machine.pod("peer")
    family = 6 if ":" in address else 4
    node.add(DOUBLE, attachment(peer))
    node.add(old, attachment(first))
    where, device = (peer, "eth0") if neighbour == "another pod" else (machine, "cni0")
    where.run("ping", "-c1", "-W10", address)
    assert known(where, address, family) == link(first, "eth0")["address"]
    pinned(where, address, family, device)
    node.delete(old, attachment(first))
    node.add(new, attachment(second), prepare=_late_port)
    mac = link(second, "eth0")["address"]
    until(lambda: known(where, address, family) == mac, f"{neighbour} knows {mac}")
    where.run("ping", "-c1", "-W10", address)
