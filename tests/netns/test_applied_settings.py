"""Tests that the kernel has afterwards what a configuration asks for, and that all else is untouched."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.machine import until
from tests.netns.runtime import (
    DUAL,
    IPV6,
    PLAIN,
    PLUGINS,
    AnsweredError,
    Attachment,
    attachment,
    host_local,
    network,
)
from tests.netns.state import difference, elements, filters_vlans, leases, link, links, owners, routes, shown, whole

if TYPE_CHECKING:
    from tests.machine import Machine, Pod
    from tests.netns.runtime import Json, Node

GATEWAY = network(isGateway=True, ipam=DUAL)
CHOSEN = "02:00:00:00:00:44"


def port_of(machine: Machine) -> dict[str, Any]:
    """Returns the bridge's view of the only container's port."""
    (name,) = owners(machine)
    port: dict[str, Any] = link(machine, name)["linkinfo"]["info_slave_data"]
    return port


def setting(where: Machine | Pod, key: str) -> str:
    return where.run("cat", f"/proc/sys/net/{key}").stdout.strip()


def test_mtu_is_that_of_all_three_interfaces(machine: Machine, node: Node) -> None:
    pod = machine.pod()
    node.add({**GATEWAY, "mtu": 1400}, attachment(pod))
    (port,) = owners(machine)
    assert [link(pod, "eth0")["mtu"], link(machine, port)["mtu"], link(machine, "cni0")["mtu"]] == [1400] * 3


@pytest.mark.parametrize(
    ("settings", "hairpin", "isolated"),
    [({}, False, False), ({"hairpinMode": True}, True, False), ({"portIsolation": True}, False, True)],
)
def test_the_port_is_as_asked(machine: Machine, node: Node, settings: Json, *, hairpin: bool, isolated: bool) -> None:
    node.add({**GATEWAY, **settings}, attachment(machine.pod()))
    port = port_of(machine)
    assert (port["hairpin"], port["isolated"]) == (hairpin, isolated)


def test_isolated_ports_reach_the_gateway_and_not_each_other(machine: Machine, node: Node) -> None:
    isolated = {**GATEWAY, "portIsolation": True}
    first, second, third = machine.pod(), machine.pod(), machine.pod()
    node.add(isolated, attachment(first))
    node.add(isolated, attachment(second))
    node.add(GATEWAY, attachment(third))
    second.serve(8080)
    third.serve(8080)
    machine.serve(8080)
    assert first.ask("10.1.2.1", 8080) == "10.1.2.2"
    assert first.ask("10.1.2.4", 8080) == "10.1.2.2"
    assert first.run("ping", "-c1", "-W1", "10.1.2.3", check=False).returncode == 1


def test_the_bridge_is_promiscuous_where_asked(machine: Machine, node: Node) -> None:
    node.add({**GATEWAY, "promiscMode": True}, attachment(machine.pod()))
    assert "PROMISC" in link(machine, "cni0")["flags"]


SPOOF = """
import socket, sys
ours, theirs = bytes.fromhex(sys.argv[1]), bytes.fromhex(sys.argv[2])
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
raw.bind(("eth0", 0))
raw.send(theirs + ours + bytes.fromhex("88b5") + b"are you there?".ljust(50))
"""
LISTEN = """
import socket, sys
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5))
raw.bind(("eth0", 0x88B5))
raw.settimeout(float(sys.argv[1]))
print("ready", flush=True)
try:
    print(raw.recv(100)[6:12].hex(":"))
except OSError:
    print("nothing")
"""


PYTHON = ("python3", "-I", "-S", "-c")
BROADCAST = "ff:ff:ff:ff:ff:ff"


def heard(sender: Pod, source: str, receiver: Pod, destination: str, seconds: float) -> str:
    """Sends a frame; returns the source address that it arrives with, or "nothing" after so long."""
    enter = ("nsenter", f"--net={receiver.path}", "--")
    listener = receiver.machine.start(*enter, *PYTHON, LISTEN, str(seconds))
    assert listener.stdout
    assert listener.stdout.readline() == "ready\n"
    sender.run(*PYTHON, SPOOF, source.replace(":", ""), destination.replace(":", ""))
    return listener.stdout.readline().strip()


@pytest.mark.parametrize("hairpin", [True, False])
def test_a_port_gets_its_own_frames_back_in_hairpin_mode_alone(machine: Machine, node: Node, *, hairpin: bool) -> None:
    pod = machine.pod()
    mac = node.add({**GATEWAY, "hairpinMode": hairpin}, attachment(pod))["interfaces"][2]["mac"]
    assert heard(pod, mac, pod, BROADCAST, 5 if hairpin else 0.3) == (mac if hairpin else "nothing")


@pytest.mark.parametrize(
    ("guarded", "spoofed", "arrives"),
    [(True, True, False), (True, False, True), (False, True, True)],
    ids=["spoofed", "honest", "unguarded"],
)
def test_a_guarded_port_sends_from_its_own_address_alone(
    machine: Machine, node: Node, *, guarded: bool, spoofed: bool, arrives: bool
) -> None:
    sender, receiver = machine.pod(), machine.pod()
    result = node.add({**GATEWAY, "macspoofchk": guarded}, attachment(sender))
    other = node.add(GATEWAY, attachment(receiver))
    mine, theirs = result["interfaces"][2]["mac"], other["interfaces"][2]["mac"]
    source = "02:00:00:00:00:99" if spoofed else mine
    assert heard(sender, source, receiver, theirs, 5 if arrives else 0.3) == (source if arrives else "nothing")


@pytest.mark.parametrize(
    ("arguments", "settings", "mac"),
    [
        (f"IgnoreUnknown=1;MAC={CHOSEN}", {}, CHOSEN),
        ("", {"args": {"cni": {"mac": CHOSEN}}}, CHOSEN),
        ("", {"runtimeConfig": {"mac": CHOSEN}}, CHOSEN),
        ("IgnoreUnknown=1;MAC=02:00:00:00:00:55", {"args": {"cni": {"mac": CHOSEN}}}, CHOSEN),
        (
            "IgnoreUnknown=1;MAC=02:00:00:00:00:55",
            {"args": {"cni": {"mac": "02:00:00:00:00:66"}}, "runtimeConfig": {"mac": CHOSEN.upper()}},
            CHOSEN,
        ),
    ],
)
def test_the_chosen_mac_address_is_the_containers(
    machine: Machine, node: Node, arguments: str, settings: Json, mac: str
) -> None:
    pod = machine.pod()
    config = {**GATEWAY, "macspoofchk": True, **settings}
    who = attachment(pod, arguments=arguments)
    result = node.add(config, who)
    assert link(pod, "eth0")["address"] == result["interfaces"][2]["mac"] == mac
    (port,) = owners(machine)
    assert f"allowed {port} {mac}" in elements(machine)
    node.delete(config, who._replace(arguments=""))
    assert elements(machine) == {}


@pytest.mark.parametrize(
    ("route", "family", "shows"),
    [
        ({"dst": "192.0.2.0/24"}, 4, {"gateway": "10.1.2.1"}),
        ({"dst": "192.0.2.0/24", "gw": "10.1.2.9"}, 4, {"gateway": "10.1.2.9"}),
        ({"dst": "192.0.2.7/24"}, 4, {"dst": "192.0.2.0/24"}),
        ({"dst": "192.0.2.0/24", "mtu": 1300}, 4, {"metrics": [{"mtu": 1300}]}),
        ({"dst": "192.0.2.0/24", "mtu": 1300, "advmss": 1200}, 4, {"metrics": [{"mtu": 1300, "advmss": 1200}]}),
        ({"dst": "192.0.2.0/24", "priority": 77}, 4, {"metric": 77}),
        ({"dst": "192.0.2.0/24", "table": 99}, 4, {"table": "99"}),
        ({"dst": "192.0.2.0/24", "table": 70000}, 4, {"table": "70000"}),
        ({"dst": "192.0.2.0/24", "scope": 253}, 4, {"scope": "link"}),
        ({"dst": "192.0.2.0/24", "scope": 0}, 4, {"scope": "global", "gateway": "10.1.2.1"}),
        ({"dst": "2001:db8:9::/48"}, 6, {"gateway": "2001:db8:1::1"}),
        ({"dst": "2001:db8:9::/48", "priority": 5, "mtu": 1300}, 6, {"metric": 5, "metrics": [{"mtu": 1300}]}),
        ({"dst": "2001:db8:9::/48", "table": 99}, 6, {"table": "99"}),
    ],
    ids=json.dumps,
)
def test_a_route_is_as_asked(machine: Machine, node: Node, route: Json, family: int, shows: Json) -> None:
    pod = machine.pod()
    config = network(isGateway=True, ipam={**DUAL, "routes": [route]})
    node.add(config, attachment(pod))
    (present,) = routes(pod, family)
    assert {key: present.get(key) for key in shows} == shows
    assert node.check(config, attachment(pod)).status == 0


@pytest.mark.parametrize(
    "asked",
    [
        [{"dst": "0.0.0.0/0"}],
        [{"dst": "0.0.0.0/0", "gw": "10.1.2.1"}],
        [{"dst": "0.0.0.0/0"}, {"dst": "0.0.0.0/0", "gw": "10.1.2.1"}, {"dst": "::/0"}],
    ],
)
def test_a_default_route_that_is_asked_for_twice_is_there_once(machine: Machine, node: Node, asked: list[Json]) -> None:
    pod = machine.pod()
    config = network(isDefaultGateway=True, ipam={**DUAL, "routes": asked})
    node.add(config, attachment(pod))
    assert [route["gateway"] for route in routes(pod)] == ["10.1.2.1"]
    assert [route["gateway"] for route in routes(pod, 6)] == ["2001:db8:1::1"]
    assert node.check(config, attachment(pod)).status == 0


def test_no_default_route_without_being_asked(machine: Machine, node: Node) -> None:
    pod = machine.pod()
    node.add(GATEWAY, attachment(pod))
    assert routes(pod) + routes(pod, 6) == []
    assert setting(machine, "ipv4/ip_forward") == "1"


def test_without_a_gateway_the_host_neither_forwards_nor_has_an_address(machine: Machine, node: Node) -> None:
    node.add(network(ipam=DUAL), attachment(machine.pod()))
    assert setting(machine, "ipv4/ip_forward") == "0"
    assert setting(machine, "ipv6/conf/all/forwarding") == "0"
    assert not any(line.startswith("cni0 ") for line in machine.snapshot(())["addresses"])


NEW_SUBNET = network(isGateway=True, ipam=host_local([{"subnet": "10.9.0.0/24"}]))


def host_addresses(machine: Machine) -> list[str]:
    return [line.split()[1] for line in machine.snapshot(())["addresses"] if line.startswith("cni0 ")]


def test_another_gateway_address_in_its_place_is_an_error_that_names_both(machine: Machine, node: Node) -> None:
    node.add(PLAIN, attachment(machine.pod()))
    who = attachment(machine.pod())
    before = whole(machine)
    refused = node.call("ADD", NEW_SUBNET, who)
    assert refused.code == 100
    assert '"cni0" already has an IP address different from 10.9.0.1/24: 10.1.2.1/24' in refused.message
    assert "forceAddress" in refused.message
    assert difference(before, whole(machine)) == []


def test_force_address_replaces_the_gateways_address(machine: Machine, node: Node) -> None:
    node.add(PLAIN, attachment(machine.pod()))
    node.add({**NEW_SUBNET, "forceAddress": True}, attachment(machine.pod()))
    assert host_addresses(machine) == ["10.9.0.1/24"]


def test_a_second_ipv6_subnet_stands_beside_the_first(machine: Machine, node: Node) -> None:
    node.add(network(isGateway=True, ipam=host_local(IPV6)), attachment(machine.pod()))
    node.add(network(isGateway=True, ipam=host_local([{"subnet": "2001:db8:2::/64"}])), attachment(machine.pod()))
    assert sorted(host_addresses(machine)) == ["2001:db8:1::1/64", "2001:db8:2::1/64"]
    overlapping = network(isGateway=True, ipam=host_local([{"subnet": "2001:db8:1::/48"}]))
    assert "already has an IP address different" in node.call("ADD", overlapping, attachment(machine.pod())).message


def test_an_interface_of_the_bridges_name_that_is_none_stays_untouched(machine: Machine, node: Node) -> None:
    machine.run("ip", "link", "add", "cni0", "type", "veth", "peer", "name", "other")
    who = attachment(machine.pod())
    before = whole(machine)
    refused = node.call("ADD", PLAIN, who)
    assert refused.code == 100
    assert '"cni0" already exists but is not a bridge' in refused.message
    assert difference(before, whole(machine)) == []


@pytest.mark.parametrize("down", [False, True])
def test_a_network_without_addresses_is_a_link(machine: Machine, node: Node, *, down: bool) -> None:
    pod = machine.pod()
    result = node.add(network(disableContainerInterface=down), attachment(pod))
    assert "ips" not in result
    assert [interface["name"] for interface in result["interfaces"]] == ["cni0", *owners(machine), "eth0"]
    assert ("UP" in link(pod, "eth0")["flags"]) is not down
    assert pod.addresses() == []
    assert link(machine, next(iter(owners(machine))))["master"] == "cni0"


def test_the_answer_says_what_the_kernel_has(machine: Machine, node: Node) -> None:
    pod = machine.pod()
    result = node.add(GATEWAY, attachment(pod))
    (port,) = owners(machine)
    has = [("cni0", link(machine, "cni0")), (port, link(machine, port)), ("eth0", link(pod, "eth0"))]
    assert [(interface["name"], interface["mac"]) for interface in result["interfaces"]] == [
        (name, of["address"]) for name, of in has
    ]
    assert [interface.get("sandbox") for interface in result["interfaces"]] == [None, None, pod.path]
    assert [ip["address"] for ip in result["ips"]] == pod.addresses()
    assert {ip["interface"] for ip in result["ips"]} == {2}


def test_the_hosts_end_has_no_address_of_its_own(machine: Machine, node: Node) -> None:
    node.add(GATEWAY, attachment(machine.pod()))
    (port,) = owners(machine)
    assert shown(machine, "ip", "-j", "address", "show", "dev", port)[0]["addr_info"] == []


def test_router_advertisements_do_not_configure_the_host(machine: Machine, node: Node) -> None:
    machine.run("sysctl", "-qw", "net.ipv6.conf.default.accept_ra=1")
    node.add(GATEWAY, attachment(machine.pod()))
    assert setting(machine, "ipv6/conf/cni0/accept_ra") == "0"


@pytest.mark.parametrize("detect", [False, True])
def test_the_containers_settings_are_those_of_the_reference(machine: Machine, node: Node, *, detect: bool) -> None:
    pod = machine.pod()
    pod.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
    node.add({**GATEWAY, "enabledad": detect}, attachment(pod))
    keys = {
        "ipv4/conf/eth0/arp_notify": "1",
        "ipv6/conf/lo/disable_ipv6": "0",
        "ipv6/conf/eth0/disable_ipv6": "0",
        "ipv6/conf/eth0/keep_addr_on_down": "1",
        "ipv6/conf/eth0/accept_dad": "1" if detect else "0",
    }
    assert {key: setting(pod, key) for key in keys} == keys
    addresses = shown(pod, "ip", "-j", "-6", "address", "show", "dev", "eth0")[0]["addr_info"]
    assert not any(address.get("tentative") for address in addresses if address["scope"] == "global")


def test_a_duplicate_address_is_refused_where_asked_and_undone(machine: Machine, node: Node) -> None:
    """Another container has taken the address by hand."""
    config = {**network(isGateway=True, enabledad=True, ipam=DUAL)}
    thief = machine.pod("thief")
    node.add(config, attachment(thief))
    thief.run("ip", "address", "add", "2001:db8:1::3/64", "dev", "eth0", "nodad")
    who = attachment(machine.pod())
    before = whole(machine)
    refused = node.call("ADD", config, who)
    assert refused.code == 100
    assert "another host on the network has the address 2001:db8:1::3/64 already" in refused.message
    assert difference(before, whole(machine)) == []


def test_ipv6_alone(machine: Machine, node: Node) -> None:
    first, second = machine.pod(), machine.pod()
    config = network(isDefaultGateway=True, ipam=host_local(IPV6))
    node.add(config, attachment(first))
    node.add(config, attachment(second))
    assert first.addresses() == ["2001:db8:1::2/64"]
    second.serve(8080)
    assert first.ask("2001:db8:1::3", 8080) == "2001:db8:1::2"
    assert setting(machine, "ipv4/ip_forward") == "0"
    assert setting(machine, "ipv6/conf/all/forwarding") == "1"


FAKE = """#!/bin/sh
cat > "/tmp-ipam/$CNI_COMMAND.stdin"
env > "/tmp-ipam/$CNI_COMMAND.env"
echo "$CNI_COMMAND" >> /tmp-ipam/calls
[ -e "/tmp-ipam/$CNI_COMMAND.answer" ] || exit 0
cat "/tmp-ipam/$CNI_COMMAND.answer"
[ ! -e "/tmp-ipam/$CNI_COMMAND.fails" ]
"""
GIVEN = {"ips": [{"address": "10.1.2.77/24"}], "routes": [{"dst": "0.0.0.0/0"}], "dns": {"domain": "example"}}


@pytest.fixture
def fake(machine: Machine) -> Machine:
    """Returns a machine with another allocator, fake-ipam: its answers lie in a folder, where it keeps its requests."""
    write(machine, f"{PLUGINS}/fake-ipam", FAKE.replace("/tmp-ipam", "/run/ipam"))
    machine.run("chmod", "+x", f"{PLUGINS}/fake-ipam")
    machine.run("mkdir", "/run/ipam")
    return machine


def write(machine: Machine, path: str, text: str) -> None:
    machine.run("sh", "-c", f'mkdir -p "$(dirname {path})" && cat > {path}', stdin=text)


def calls(machine: Machine) -> list[str]:
    return machine.run("cat", "/run/ipam/calls").stdout.split()


DELEGATING = network(isGateway=True, ipMasq=True, ipam={"type": "fake-ipam", "knob": 7})


def test_another_allocator_is_executed_with_the_complete_configuration(fake: Machine, node: Node) -> None:
    write(fake, "/run/ipam/ADD.answer", json.dumps({"cniVersion": "1.1.0", **GIVEN}))
    pod = fake.pod()
    who = attachment(pod, arguments="IgnoreUnknown=1;K8S_POD_NAME=x")
    result = node.add(DELEGATING, who)
    assert result["ips"] == [{"interface": 2, "address": "10.1.2.77/24", "gateway": "10.1.2.1"}]
    assert result["dns"] == {"domain": "example"}
    assert pod.addresses() == ["10.1.2.77/24"]
    assert json.loads(fake.run("cat", "/run/ipam/ADD.stdin").stdout) == DELEGATING
    environment = dict(
        line.split("=", 1) for line in fake.run("cat", "/run/ipam/ADD.env").stdout.splitlines() if "=" in line
    )
    assert who.environment("ADD").items() <= environment.items()
    assert node.check(DELEGATING, who).status == 0
    node.delete(DELEGATING, who)
    assert elements(fake) == {}
    assert calls(fake) == ["ADD", "CHECK", "DEL"]
    assert leases(fake) == {}


@pytest.mark.parametrize(
    ("answer", "fails", "code", "error"),
    [
        ('{"code": 11, "msg": "come back later", "details": "full"}', True, 11, "come back later"),
        ("not JSON", True, 100, "ended with status 1"),
        ("not JSON", False, 6, "fake-ipam"),
        ('{"cniVersion": "1.1.0"}', False, 100, "returned no address"),
        ('{"cniVersion": "1.1.0", "ips": [{"address": "ten"}]}', False, 6, "ten"),
    ],
)
def test_what_another_allocator_gets_wrong_is_undone(
    fake: Machine, node: Node, answer: str, code: int, error: str, *, fails: bool
) -> None:
    write(fake, "/run/ipam/ADD.answer", answer)
    if fails:
        write(fake, "/run/ipam/ADD.fails", "")
    who = attachment(fake.pod())
    before = whole(fake)
    refused = node.call("ADD", DELEGATING, who)
    assert refused.code == code
    assert error in refused.message
    assert difference(before, whole(fake)) == []
    assert calls(fake) == ["ADD", "DEL"]


def test_an_allocator_that_is_not_installed_is_named_before_anything_is_done(machine: Machine, node: Node) -> None:
    who = attachment(machine.pod())
    before = whole(machine)
    refused = node.call("ADD", DELEGATING, who)
    assert "fake-ipam" in refused.message
    assert PLUGINS in refused.message
    assert difference(before, whole(machine)) == []


@pytest.mark.parametrize("ports", [0, 2])
def test_a_bridge_of_somebody_elses_keeps_its_address(machine: Machine, node: Node, ports: int) -> None:
    """The kernel gives a bridge the lowest address of its ports, until one is chosen."""
    machine.run("ip", "link", "add", "cni0", "type", "bridge")
    for number in range(ports):
        name = f"port{number}"
        machine.run("ip", "link", "add", name, "address", f"ee:00:00:00:00:0{number}", "type", "veth")
        machine.run("ip", "link", "set", name, "master", "cni0")
    mac = link(machine, "cni0")["address"]
    for number in range(3):
        config = {**GATEWAY, "runtimeConfig": {"mac": f"02:00:00:00:00:1{number}"}}
        result = node.add(config, attachment(machine.pod()))
        assert result["interfaces"][0]["mac"] == mac
        assert link(machine, "cni0")["address"] == mac


def test_a_bridge_has_one_address_through_all_comings_and_goings(machine: Machine, node: Node) -> None:
    seen = set()
    pods = [machine.pod() for _ in range(3)]
    for _ in range(2):
        for pod in pods:
            node.add(GATEWAY, attachment(pod))
            seen.add(link(machine, "cni0")["address"])
        for pod in pods:
            node.delete(GATEWAY, attachment(pod))
            seen.add(link(machine, "cni0")["address"])
    assert len(seen) == 1


def test_a_bridge_comes_back_with_its_address(machine: Machine, node: Node) -> None:
    """After a reboot neighbours still know the gateway's address."""
    pod = machine.pod()
    first = node.add(GATEWAY, attachment(pod))
    node.delete(GATEWAY, attachment(pod))
    machine.run("ip", "link", "delete", "cni0")
    assert node.add(GATEWAY, attachment(pod))["interfaces"][0] == first["interfaces"][0]


def test_an_interface_that_is_there_already_is_named_and_stays(machine: Machine, node: Node) -> None:
    pod = machine.pod()
    pod.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other")
    before = whole(machine)
    refused = node.call("ADD", GATEWAY, attachment(pod))
    assert refused.code == 100
    assert "'eth0' already exists in the container" in refused.message
    assert difference(before, whole(machine)) == []


def test_a_second_add_of_the_same_attachment_leaves_the_first_alone(machine: Machine, node: Node) -> None:
    pod = machine.pod()
    node.add(GATEWAY, attachment(pod))
    before = whole(machine)
    refused = node.call("ADD", GATEWAY, attachment(pod))
    assert refused.code == 100
    assert "already exists in the container" in refused.message
    assert difference(before, whole(machine)) == []
    link_only = network("other", bridge="cni0")
    node.add(link_only, attachment(pod, "eth1"))
    before = whole(machine)
    assert "already exists" in node.call("ADD", link_only, attachment(pod, "eth1")).message
    assert difference(before, whole(machine)) == []


def test_the_hosts_namespace_is_no_containers(machine: Machine, node: Node) -> None:
    before = whole(machine)
    for path in ("/proc/self/ns/net", "/proc/1/ns/net", "/run", "/run/netns/gone"):
        assert node.call("ADD", GATEWAY, Attachment("container", path)).code == 8
    assert difference(before, whole(machine)) == []


def test_vlans_are_those_of_the_port(machine: Machine, node: Node) -> None:
    if not filters_vlans(machine):
        pytest.skip("the kernel has no CONFIG_BRIDGE_VLAN_FILTERING")
    config = network(vlan=100, vlanTrunk=[{"id": 7}, {"minID": 10, "maxID": 12}], isGateway=True, ipam=DUAL)
    pod = machine.pod()
    result = node.add(config, attachment(pod))
    (port,) = owners(machine)
    (vlans,) = shown(machine, "bridge", "-j", "vlan", "show", "dev", port)
    members = {entry["vlan"]: entry.get("flags", []) for entry in vlans["vlans"]}
    assert members == {100: ["PVID", "Egress Untagged"], 7: [], 10: [], 11: [], 12: []}
    assert result["interfaces"][3]["name"] == "cni0.100"
    machine.serve(8080)
    assert pod.ask("10.1.2.1", 8080) == "10.1.2.2"
    node.delete(config, attachment(pod))
    assert port not in links(machine)


def test_a_kernel_without_a_feature_is_named(machine: Machine, node: Node) -> None:
    if filters_vlans(machine):
        pytest.skip("the kernel has CONFIG_BRIDGE_VLAN_FILTERING")
    who = attachment(machine.pod())
    before = whole(machine)
    with pytest.raises(AnsweredError, match="vlan_filtering 1: Operation not supported"):
        node.add(network(vlan=100), who)
    assert difference(before, whole(machine)) == []


def test_the_pod_and_its_neighbour_talk_at_once(machine: Machine, node: Node) -> None:
    """When ADD has answered, the port forwards and no address is tentative."""
    peer = machine.pod()
    node.add(GATEWAY, attachment(peer))
    peer.serve(8080)
    for address in ("10.1.2.2", "2001:db8:1::2"):
        pod = machine.pod()
        node.add(GATEWAY, attachment(pod))
        assert pod.ask(address, 8080, seconds=0.9)
    until(lambda: link(peer, "eth0")["operstate"] == "UP", "the peer is up")
