"""Pods on one bridge without br_netfilter: the host forwards all packets between them, until the module is there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cni.agent.dataplane import bridge_filter
from cni.effects.host import Host
from cni.protocol.address import parse_ip
from tests.machine import MachineError
from tests.netns.runtime import DUAL, attachment, network
from tests.netns.state import link, owners, shown
from tests.netns.test_agent_policy import remove_bridge_filter
from tests.netns.test_policy_add import folder, make_folder

if TYPE_CHECKING:
    from tests.machine import Machine, Pod
    from tests.netns.runtime import Json, Node

CONFIG = network(isDefaultGateway=True, ipam=DUAL, policyWait=0, ipSpoofCheck=False)
ADDRESSES = ("10.1.2.2", "10.1.2.3", "2001:db8:1::2", "2001:db8:1::3")
SETTINGS = {
    "net.ipv4.conf.cni0.proxy_arp_pvlan": "1",
    "net.ipv4.neigh.cni0.proxy_delay": "0",
    "net.ipv6.conf.cni0.proxy_ndp": "1",
    "net.ipv6.neigh.cni0.proxy_delay": "0",
}
BLOCK = """
table inet between {
    chain forward { type filter hook forward priority filter; iifname cni0 oifname cni0 drop; }
}
"""


def ensure(*addresses: str) -> str:
    """Inside: as podwired does when pods have come or gone."""
    host = Host(os.environ, print)
    try:
        return bridge_filter.ensure(host, [parse_ip(address) for address in addresses])
    finally:
        host.close()


@pytest.fixture
def policed(machine: Machine) -> Machine:
    """Gives a host without br_netfilter on which policies are enforced."""
    remove_bridge_filter(machine)
    machine.call(make_folder)
    return machine


def settings(machine: Machine) -> dict[str, str]:
    return {name: machine.run("sysctl", "-n", name).stdout.strip() for name in SETTINGS}


def proxies(machine: Machine) -> set[str]:
    return {entry["dst"] for entry in shown(machine, "ip", "-j", "-6", "neighbour", "show", "proxy")}


def isolated(machine: Machine) -> dict[str, bool]:
    """Returns of each container's port whether it is isolated."""
    ports = {link["ifname"]: link["linkinfo"]["info_slave_data"]["isolated"] for link in
             shown(machine, "ip", "-j", "-d", "link", "show", "master", "cni0")}  # fmt: skip
    return {owner.partition("/")[0]: ports[port] for port, owner in owners(machine).items()}


def reaches(pod: Pod, address: str, seconds: float = 20.0) -> bool:
    try:
        return pod.ask(address, 8080, seconds=seconds) != ""
    except MachineError:
        return False


def test_the_host_forwards_between_pods_that_were_there_and_new_ones(policed: Machine, node: Node) -> None:
    first, second = policed.pod("first"), policed.pod("second")
    node.add(CONFIG, attachment(first))
    assert policed.call(ensure, ADDRESSES[0], ADDRESSES[2]) == ""
    node.add(CONFIG, attachment(second))
    assert isolated(policed) == {"first": True, "second": True}
    assert policed.call(ensure, *ADDRESSES) == ""
    assert settings(policed) == SETTINGS
    assert proxies(policed) == set(ADDRESSES[2:])
    second.serve(8080)
    for _ in range(4):  # also after the host would have told them of a shorter way
        assert [reaches(first, address) for address in (ADDRESSES[1], ADDRESSES[3])] == [True, True]
    policed.run("nft", "-f", "-", stdin=BLOCK)
    assert [reaches(first, address, 0.5) for address in (ADDRESSES[1], ADDRESSES[3])] == [False, False]
    for pod in (first, second):
        node.check(CONFIG, attachment(pod)).succeeded()
    node.delete(CONFIG, attachment(second))
    assert policed.call(ensure, ADDRESSES[0], ADDRESSES[2]) == ""
    assert proxies(policed) == {ADDRESSES[2]}


def test_once_the_module_is_there_all_is_as_before(policed: Machine, node: Node) -> None:
    """A port that the configuration isolates stays isolated."""
    pods = [policed.pod(name) for name in ("first", "second", "own")]
    own: Json = {**CONFIG, "portIsolation": True}
    node.add(CONFIG, attachment(pods[0]))
    node.add(own, attachment(pods[2]))
    aliases = {port: link(policed, port)["ifalias"] for port in owners(policed)}
    before = settings(policed)
    policed.run("ip", "neighbour", "add", "proxy", "2001:db8:1::99", "dev", "cni0")
    assert policed.call(ensure, *ADDRESSES) == ""
    node.add(CONFIG, attachment(pods[1]))
    assert isolated(policed) == {"first": True, "second": True, "own": True}
    policed.run("umount", "/proc/sys/net/bridge")
    assert policed.call(ensure, *ADDRESSES) == ""
    assert isolated(policed) == {"first": False, "second": False, "own": True}
    assert settings(policed) == before
    assert proxies(policed) == {"2001:db8:1::99"}
    assert {port: link(policed, port)["ifalias"] for port in aliases} == aliases
    assert "isolated" not in policed.run("ls", "-A", policed.call(folder)).stdout
    assert "redirects" not in policed.run("nft", "list", "ruleset").stdout
    for pod, config in zip(pods, (CONFIG, CONFIG, own), strict=True):
        node.check(config, attachment(pod)).succeeded()


def test_pods_of_other_plugins_are_isolated_and_ports_that_lead_elsewhere_are_named(
    policed: Machine, node: Node
) -> None:
    node.add(CONFIG, attachment(policed.pod("first")))
    foreign = policed.pod("foreign")
    policed.run("ip", "link", "add", "foreign0", "type", "veth", "peer", "name", "eth0", "netns", foreign.name)
    policed.run("ip", "link", "set", "foreign0", "master", "cni0", "up")
    assert policed.call(ensure, ADDRESSES[0]) == ""
    assert link(policed, "foreign0")["linkinfo"]["info_slave_data"]["isolated"]
    policed.run("ip", "link", "add", "inner", "type", "veth", "peer", "name", "other")
    policed.run("ip", "link", "set", "inner", "master", "cni0")
    reason = policed.call(ensure, ADDRESSES[0])
    assert "bridge cni0: NetworkPolicy cannot be enforced between pods and what is behind inner (" in reason
    policed.run("umount", "/proc/sys/net/bridge")
    policed.call(ensure, ADDRESSES[0])
    assert not link(policed, "foreign0")["linkinfo"]["info_slave_data"]["isolated"]
    assert "ifalias" not in link(policed, "foreign0")


@pytest.mark.parametrize(
    "members", [{"isDefaultGateway": False}, {"mode": "routed"}], ids=["the host is no gateway", "no bridge"]
)
def test_no_port_is_isolated_where_the_host_does_not_forward(policed: Machine, node: Node, members: Json) -> None:
    assert policed.call(ensure) == ""
    pod = policed.pod("first")
    node.add({**CONFIG, **members}, attachment(pod))
    (port,) = owners(policed)
    assert "isolated" not in link(policed, port)["ifalias"]
    assert not link(policed, port)["linkinfo"].get("info_slave_data", {}).get("isolated")


def test_where_sysctls_cannot_be_written_nothing_is_isolated(policed: Machine, node: Node) -> None:
    node.add(CONFIG, attachment(policed.pod("first")))
    policed.run("mount", "-o", "rbind", "/proc/sys", "/proc/sys")
    policed.run("mount", "-o", "remount,bind,ro", "/proc/sys")
    reason = policed.call(ensure, *ADDRESSES)
    assert "(load the module br_netfilter), and /proc/sys is read-only" in reason
    assert isolated(policed) == {"first": False}
    assert not policed.call(os.path.exists, f"{policed.call(folder)}/isolated")
