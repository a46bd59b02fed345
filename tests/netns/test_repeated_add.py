"""A second ADD of what is attached, and configurations at the kernel's edges."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.netns.runtime import IPV4, MASQUERADED, attachment, host_local, network
from tests.netns.state import shown

if TYPE_CHECKING:
    from tests.machine import Machine
    from tests.netns.runtime import Json, Node

PLAIN = network(isDefaultGateway=True, ipam=host_local(IPV4))


@pytest.mark.parametrize(
    "again",
    [
        PLAIN,
        {**PLAIN, "runtimeConfig": {"ips": ["10.1.2.77"]}},
        {**PLAIN, "ipam": host_local([{"subnet": "10.9.0.0/24"}])},
    ],
    ids=["the same", "another address", "another subnet"],
)
def test_a_second_add_is_refused_and_takes_nothing_from_the_container(
    machine: Machine, node: Node, again: Json
) -> None:
    pod = attachment(machine.pod())
    node.add(PLAIN, pod)
    before = machine.snapshot()
    answer = node.call("ADD", again, pod)
    assert (answer.status, answer.code) == (1, 100)
    assert machine.snapshot() == before
    node.check(PLAIN, pod).succeeded()


@pytest.mark.parametrize("mtu", [68, 1000, 1279, 1280, 9000])
def test_every_mtu_of_the_kernel_is_served(machine: Machine, node: Node, mtu: int) -> None:
    """Below 1280 bytes a link has no IPv6 (RFC 8200, section 5)."""
    config = {**MASQUERADED, "mtu": mtu, "ipam": host_local(IPV4)}
    pod = machine.pod()
    node.add(config, attachment(pod))
    (link,) = shown(pod, "ip", "-j", "link", "show", "eth0")
    assert link["mtu"] == mtu
    node.check(config, attachment(pod)).succeeded()
    node.delete(config, attachment(pod))


@pytest.mark.parametrize(
    "changed", ["mtu 1400 advmss 1200 metric 5", "mtu 1300 advmss 1000 metric 5", "mtu 1300 advmss 1200 metric 7"]
)
def test_check_knows_the_attributes_of_a_route(machine: Machine, node: Node, changed: str) -> None:
    route = {"dst": "192.0.2.0/24", "mtu": 1300, "advmss": 1200, "priority": 5}
    config = {**PLAIN, "ipam": {**host_local(IPV4), "routes": [route]}}
    pod = machine.pod()
    node.add(config, attachment(pod))
    node.check(config, attachment(pod)).succeeded()
    pod.run("ip", "route", "del", "192.0.2.0/24")
    pod.run("ip", "route", "add", "192.0.2.0/24", "via", "10.1.2.1", "dev", "eth0", *changed.split())
    assert node.check(config, attachment(pod)).code == 101


def test_check_names_the_lease_beside_what_the_kernel_lacks(machine: Machine, node: Node) -> None:
    pod = machine.pod()
    node.add(PLAIN, attachment(pod))
    pod.run("ip", "route", "del", "default")
    machine.run("sh", "-c", "rm /var/lib/cni/networks/*/10.1.2.2")
    answer = node.check(PLAIN, attachment(pod))
    assert "lost the route" in answer.message
    assert "host-local" in answer.message


@pytest.mark.parametrize("name", ["br%d", "%s", "a\0b"])
def test_a_name_that_the_kernel_would_read_as_a_pattern_is_refused(machine: Machine, node: Node, name: str) -> None:
    before = machine.snapshot()
    assert node.call("ADD", {**PLAIN, "bridge": name}, attachment(machine.pod("pod9"))).code == 7
    after = machine.snapshot()
    assert after["links"] == sorted([*before["links"], *[link for link in after["links"] if link.startswith("pod9")]])
