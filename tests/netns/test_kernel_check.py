"""CHECK holds after every ADD, and names the one thing that no longer is as ADD made it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.netns.runtime import (
    DUAL,
    IPV6,
    MASQUERADED,
    PLAIN,
    RICH,
    attachment,
    host_local,
    network,
)
from tests.netns.state import filters_vlans, owners

if TYPE_CHECKING:
    from tests.machine import Machine
    from tests.netns.runtime import Json, Node

CONFIGS: dict[str, Json] = {
    "all of it": RICH,
    "IPv4": PLAIN,
    "both families, masqueraded": MASQUERADED,
    "IPv6": network(isDefaultGateway=True, ipMasq=True, ipam=host_local(IPV6)),
    "no gateway": network(ipam=DUAL),
    "no addresses": network(),
    "interface left down": network(disableContainerInterface=True),
    "promiscuous": network(promiscMode=True, isGateway=True, ipam=DUAL),
    "isolated": network(portIsolation=True, isGateway=True, ipam=DUAL),
    "duplicates detected": network(enabledad=True, isDefaultGateway=True, ipam=DUAL),
    "a VLAN with a gateway": network(vlan=100, isGateway=True, ipam=DUAL),
    "a trunk": network(vlanTrunk=[{"id": 7}, {"minID": 10, "maxID": 19}], ipam=DUAL),
    "routes": network(
        isGateway=True,
        ipam={
            **DUAL,
            "routes": [
                {"dst": "192.0.2.0/24", "gw": "10.1.2.9", "table": 99, "priority": 5},
                {"dst": "198.51.100.0/24", "scope": 253, "mtu": 1400},
                {"dst": "2001:db8:9::/48", "advmss": 1200},
            ],
        },
    ),
    "two addresses of a family": network(
        isGateway=True, forceAddress=True, ipam=host_local(IPV6, [{"subnet": "2001:db8:2::/64"}])
    ),
    "a MAC address of one's own": network(isGateway=True, ipam=DUAL, runtimeConfig={"mac": "02:00:00:00:00:44"}),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_what_was_just_attached_is_as_it_should_be(machine: Machine, node: Node, config: Json) -> None:
    if {"vlan", "vlanTrunk"} & config.keys() and not filters_vlans(machine):
        pytest.skip("the kernel has no CONFIG_BRIDGE_VLAN_FILTERING")
    who = attachment(machine.pod())
    node.add(config, who)
    answer = node.check(config, who).succeeded()
    assert (answer.stdout, answer.stderr) == ("", "")


EVERYTHING = {**RICH, "portIsolation": True, "ipam": {**RICH["ipam"], "routes": [{"dst": "192.0.2.0/24"}]}}
WITHOUT_RULES = {**EVERYTHING, "ipMasq": False, "macspoofchk": False}
POD, HOST = "pod", "host"
ELEMENT = "element inet podwire masquerade4"
# Where a person intervenes, how (PORT is the host's end of the pair), and what CHECK says of it.
INTERVENTIONS: dict[str, tuple[str, str, str]] = {
    "IPv4 address deleted": (POD, "ip address delete 10.1.2.2/24 dev eth0", "10.1.2.2/24"),
    "IPv6 address deleted": (POD, "ip address delete 2001:db8:1::2/64 dev eth0", "2001:db8:1::2/64"),
    "address with another prefix": (
        POD,
        "ip address delete 10.1.2.2/24 dev eth0; ip address add 10.1.2.2/25 dev eth0",
        "10.1.2.2/24",
    ),
    "route deleted": (POD, "ip route delete 192.0.2.0/24", "192.0.2.0/24"),
    "IPv4 default route deleted": (POD, "ip route delete default", "0.0.0.0/0"),
    "IPv6 default route deleted": (POD, "ip -6 route delete default", "::/0"),
    "default route through another gateway": (POD, "ip route replace default via 10.1.2.77", "0.0.0.0/0"),
    "container's end down": (POD, "ip link set eth0 down", "eth0 is not up"),
    "container's end gone": (POD, "ip link delete eth0", "eth0 is gone"),
    "container's end renamed": (POD, "ip link set eth0 down; ip link set eth0 name eth7", "eth0 is gone"),
    "container's end replaced": (
        POD,
        "ip link delete eth0; ip link add eth0 type veth peer name other",
        "is gone from the host",
    ),
    "container's MAC address changed": (POD, "ip link set eth0 address 02:00:00:00:00:99", "02:00:00:00:00:99"),
    "container's MTU changed": (POD, "ip link set eth0 mtu 1280", "1280"),
    "IPv6 switched off in the container": (POD, "sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1", "2001:db8:1::2/64"),
    "host's end down": (HOST, "ip link set PORT down", "is down"),
    "host's end no port any more": (HOST, "ip link set PORT nomaster", "not a port of cni0"),
    "host's end in another bridge": (
        HOST,
        "ip link add br9 type bridge; ip link set PORT master br9",
        "not a port of cni0",
    ),
    "hairpin off": (HOST, "bridge link set dev PORT hairpin off", "hairpin"),
    "isolation off": (HOST, "bridge link set dev PORT isolated off", "isolated"),
    "bridge gone": (HOST, "ip link delete cni0", "cni0 is gone"),
    "bridge down": (HOST, "ip link set cni0 down", "cni0 is down"),
    "IPv4 gateway gone": (HOST, "ip address delete 10.1.2.1/24 dev cni0", "10.1.2.1/24"),
    "IPv6 gateway gone": (HOST, "ip address delete 2001:db8:1::1/64 dev cni0", "2001:db8:1::1/64"),
    "IPv4 forwarding off": (HOST, "sysctl -qw net.ipv4.ip_forward=0", "ip_forward"),
    "IPv6 forwarding off": (HOST, "sysctl -qw net.ipv6.conf.all.forwarding=0", "net/ipv6/conf/all/forwarding"),
    "IPv4 element gone": (HOST, "nft delete element inet podwire masquerade4 { 10.1.2.2 }", "masquerade of 10.1.2.2"),
    "IPv6 element gone": (HOST, "nft flush map inet podwire masquerade6", "masquerade of 2001:db8:1::2"),
    "element of another owner": (
        HOST,
        f"nft delete {ELEMENT} {{ 10.1.2.2 }}; nft add {ELEMENT} {{ 10.1.2.2 : jump masquerade-10.1.2.0/24 }}",
        "masquerade of 10.1.2.2",
    ),
    "base chain flushed": (HOST, "nft flush chain inet podwire postrouting", "lost its rules"),
    "subnet's chain flushed": (HOST, "nft flush chain inet podwire masquerade-10.1.2.0/24", "lost its rules"),
    "masquerade table gone": (HOST, "nft delete table inet podwire", "masquerade of 10.1.2.2"),
    "ruleset flushed": (HOST, "nft flush ruleset", "masquerade of 10.1.2.2"),
    "guard's element gone": (HOST, "nft flush set bridge podwire allowed", "guard against spoofing"),
    "guard's port gone": (HOST, "nft flush set bridge podwire guarded", "guard against spoofing"),
    "guard's chain flushed": (HOST, "nft flush chain bridge podwire prerouting", "lost its rules"),
    "guard's table gone": (HOST, "nft delete table bridge podwire", "guard against spoofing"),
    "IPv4 lease gone": (HOST, "rm /var/lib/cni/networks/net/10.1.2.2", "10.1.2.2"),
    "IPv6 lease gone": (HOST, "rm /var/lib/cni/networks/net/2001:db8:1::2", "2001:db8:1::2"),
    "all leases gone": (HOST, "rm -r /var/lib/cni/networks/net", "pod1"),
    "lease of another": (HOST, "printf 'x\\r\\neth0' > /var/lib/cni/networks/net/10.1.2.2", "10.1.2.2"),
}


@pytest.mark.parametrize(("place", "command", "named"), INTERVENTIONS.values(), ids=INTERVENTIONS)
def test_each_intervention_is_named(machine: Machine, node: Node, place: str, command: str, named: str) -> None:
    pod = machine.pod()
    who = attachment(pod)
    config = EVERYTHING if "nft" in command else WITHOUT_RULES  # loading rules is what takes time
    node.add(config, who)
    (port,) = owners(machine)
    where = pod if place == POD else machine
    where.run("sh", "-ec", command.replace("PORT", port).replace("{", "'{").replace("}", "}'"))
    answer = node.check(config, who)
    assert answer.code == 101
    assert named in answer.message


def test_all_differences_are_named_at_once(machine: Machine, node: Node) -> None:
    pod = machine.pod()
    who = attachment(pod)
    node.add(MASQUERADED, who)
    pod.run("ip", "address", "flush", "dev", "eth0")
    machine.run("nft", "flush", "ruleset")
    machine.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    message = node.check(MASQUERADED, who).message
    for named in ("10.1.2.2/24", "2001:db8:1::2/64", "masquerade of", "ip_forward"):
        assert named in message


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("ip address add 10.9.9.9/32 dev eth0", "an address of the container's own"),
        ("ip route add 203.0.113.0/24 via 10.1.2.1", "a route of the container's own"),
        ("sysctl -qw net.ipv4.conf.eth0.arp_notify=0", "a setting of the container's own"),
    ],
)
def test_what_a_container_adds_is_its_own_affair(machine: Machine, node: Node, command: str, reason: str) -> None:
    pod = machine.pod()
    node.add(RICH, attachment(pod))
    pod.run("sh", "-ec", command)
    assert node.check(RICH, attachment(pod)).status == 0, reason


def test_a_check_without_an_earlier_result_or_a_namespace_is_refused(machine: Machine, node: Node) -> None:
    who = attachment(machine.pod())
    node.add(PLAIN, who)
    assert node.call("CHECK", PLAIN, who).code == 7
    assert node.check(PLAIN, who._replace(netns="")).code == 4
    assert node.check(PLAIN, who._replace(netns="/run/netns/gone")).code == 8
