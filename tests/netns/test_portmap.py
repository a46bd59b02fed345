"""Ports of the host that lead to containers: from everywhere they should, and for nobody else's traffic."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.machine import MachineError
from tests.netns.runtime import DUAL, IPV4, AnsweredError, Attachment, attachment, host_local, network
from tests.netns.state import difference, elements, held_by, shown, whole

if TYPE_CHECKING:
    from tests.machine import Machine, Pod
    from tests.netns.runtime import Json, Node

NODE4, NODE6 = "192.0.2.1", "2001:db8:2::1"
OUTSIDE4, OUTSIDE6 = "192.0.2.2", "2001:db8:2::2"
GATEWAY4, GATEWAY6 = "10.1.2.1", "2001:db8:1::1"


def mapping(host: int, container: int, protocol: str = "tcp", ip: str = "") -> Json:
    return {"hostPort": host, "containerPort": container, "protocol": protocol, "hostIP": ip}


def mapped(*mappings: Json, name: str = "net", **settings: object) -> Json:
    """Returns a network that masquerades, and these ports."""
    config = {"capabilities": {"portMappings": True}, "ipMasq": True, "isDefaultGateway": True, "ipam": DUAL}
    return network(name, **{**config, "runtimeConfig": {"portMappings": list(mappings)}, **settings})


class World(NamedTuple):
    """A host behind a wire, a pod that serves behind host port 8080, and a neighbour of it."""

    machine: Machine
    node: Node
    outside: Pod
    server: Pod
    neighbour: Pod


MAPPED = mapped(mapping(8080, 80))


@pytest.fixture
def world(machine: Machine, node: Node) -> World:
    outside = machine.outside()
    server, neighbour = machine.pod("server"), machine.pod("neighbour")
    for pod in (server, neighbour):
        pod.run("ip", "link", "set", "lo", "up")
    server.serve(80)
    return World(machine, node, outside, server, neighbour)


def attached(world: World, config: Json) -> World:
    world.node.add(config, attachment(world.server))
    world.node.add(
        mapped(name=config["name"], **{key: config[key] for key in ("mode",) if key in config}),
        attachment(world.neighbour),
    )
    return world


@pytest.mark.parametrize("mode", ["bridged", "routed"])
def test_a_port_leads_to_the_container_from_everywhere(world: World, mode: str) -> None:
    attached(world, {**MAPPED, "mode": mode})
    assert world.outside.ask(NODE4, 8080) == OUTSIDE4
    assert world.outside.ask(NODE6, 8080) == OUTSIDE6
    assert world.machine.ask(NODE4, 8080) == NODE4
    assert world.machine.ask(NODE6, 8080) == NODE6
    assert world.machine.ask("127.0.0.1", 8080) == GATEWAY4
    assert world.neighbour.ask(NODE4, 8080) == GATEWAY4
    assert world.neighbour.ask(NODE6, 8080) == GATEWAY6
    assert world.server.ask(NODE4, 8080) == GATEWAY4
    assert world.server.ask(NODE6, 8080) == GATEWAY6


@pytest.mark.parametrize("mode", ["bridged", "routed"])
def test_the_host_may_ask_for_its_neighbours_at_once(world: World, mode: str) -> None:
    """It needs an address of the link for that; while the kernel looks for a duplicate of it, nothing gets through."""
    world.node.add({**MAPPED, "mode": mode}, attachment(world.server))
    links = shown(world.machine, "ip", "-j", "-6", "address", "show", "scope", "link")
    addresses = [address for link in links if link["ifname"] != "uplink" for address in link["addr_info"]]
    assert addresses
    assert not [address for address in addresses if "tentative" in address]


def test_pods_of_another_subnet_keep_their_address(world: World) -> None:
    attached(world, MAPPED)
    stranger = world.machine.pod("stranger")
    other = network("other", bridge="cni1", isDefaultGateway=True, ipam=host_local([{"subnet": "10.5.0.0/24"}]))
    world.node.add(other, attachment(stranger))
    assert stranger.ask(NODE4, 8080) == "10.5.0.2"


@pytest.mark.parametrize(("protocol", "number"), [("tcp", 6), ("udp", 17), ("sctp", 132)])
def test_protocols_are_distinguished(world: World, protocol: str, number: int) -> None:
    world.node.add(mapped(mapping(9000, 9001, protocol)), attachment(world.server))
    assert [key for key in elements(world.machine) if key.startswith("hostports4")] == [f"hostports4 {number} 9000"]
    if protocol == "sctp":
        return  # not every kernel has sockets for it
    world.server.serve(9001, protocol)
    assert world.outside.ask(NODE4, 9000, protocol) == OUTSIDE4
    other = "udp" if protocol == "tcp" else "tcp"
    with pytest.raises(MachineError):
        world.outside.ask(NODE4, 9000, other, seconds=0.3)


def test_a_port_of_one_address_is_no_port_of_another(world: World) -> None:
    world.machine.run("ip", "address", "add", "192.0.2.7/24", "dev", "uplink")
    world.node.add(mapped(mapping(8080, 80, ip="192.0.2.7"), mapping(8081, 80, ip=NODE6)), attachment(world.server))
    assert world.outside.ask("192.0.2.7", 8080) == OUTSIDE4
    assert world.outside.ask(NODE6, 8081) == OUTSIDE6
    for host, port in ((NODE4, 8080), (NODE6, 8080), (NODE4, 8081)):
        with pytest.raises(MachineError):
            world.outside.ask(host, port, seconds=0.3)


def test_an_address_of_zeros_is_every_address_of_its_family(world: World) -> None:
    world.node.add(mapped(mapping(8080, 80, ip="0.0.0.0"), mapping(8081, 80, ip="::")), attachment(world.server))
    assert world.outside.ask(NODE4, 8080) == OUTSIDE4
    assert world.outside.ask(NODE6, 8081) == OUTSIDE6
    with pytest.raises(MachineError):
        world.outside.ask(NODE6, 8080, seconds=0.3)
    with pytest.raises(MachineError):
        world.outside.ask(NODE4, 8081, seconds=0.3)


def test_a_port_of_127_0_0_1_is_for_the_host_alone(world: World) -> None:
    attached(world, mapped(mapping(8080, 80, ip="127.0.0.1")))
    assert world.machine.ask("127.0.0.1", 8080) == GATEWAY4
    with pytest.raises(MachineError):
        world.outside.ask(NODE4, 8080, seconds=0.3)


def test_traffic_that_is_only_routed_is_left_alone(world: World) -> None:
    """The port 8080 of somebody outside is not the host's port 8080."""
    world.outside.serve(8080)
    attached(world, MAPPED)
    assert world.neighbour.ask(OUTSIDE4, 8080) == NODE4
    assert world.server.ask(OUTSIDE6, 8080) == NODE6


def loopback_services_are_closed(world: World) -> bool:
    """True if packets to 127.0.0.1 from another host are dropped."""
    world.machine.start(
        "python3", "-I", "-S", "-c",
        "import socket; s = socket.socket(); s.bind(('127.0.0.1', 7000)); s.listen(); s.accept()",
    )  # fmt: skip
    pod = world.neighbour
    pod.run("ip", "route", "add", "127.0.0.1/32", "via", GATEWAY4, "dev", "eth0", check=False)
    pod.run("ip", "address", "flush", "dev", "lo")
    pod.run("ip", "route", "flush", "table", "local", "127.0.0.0/8", check=False)
    pod.run("ip", "route", "replace", "127.0.0.1/32", "via", GATEWAY4, "dev", "eth0")
    pod.run("sysctl", "-w", "net.ipv4.conf.eth0.route_localnet=1")
    try:
        pod.ask("127.0.0.1", 7000, seconds=0.5)
    except MachineError:
        return True
    return False


def test_services_of_127_0_0_1_stay_closed_to_pods(world: World) -> None:
    attached(world, MAPPED)
    assert world.machine.run("cat", "/proc/sys/net/ipv4/conf/cni0/route_localnet").stdout.strip() == "1"
    assert loopback_services_are_closed(world)


@pytest.mark.parametrize(
    "config", [mapped(mapping(8080, 80), snat=False), mapped(mapping(8080, 80, ip=NODE4)), mapped()]
)
def test_the_way_from_127_0_0_1_is_opened_only_where_it_is_needed(world: World, config: Json) -> None:
    attached(world, config)
    assert world.machine.run("cat", "/proc/sys/net/ipv4/conf/cni0/route_localnet").stdout.strip() == "0"


def test_without_snat_nobody_is_masqueraded(world: World) -> None:
    world.node.add(mapped(mapping(8080, 80), snat=False), attachment(world.server))
    assert world.outside.ask(NODE4, 8080) == OUTSIDE4
    with pytest.raises(MachineError):
        world.machine.ask("127.0.0.1", 8080, seconds=0.3)


def test_masq_all_masquerades_everybody(world: World) -> None:
    attached(world, mapped(mapping(8080, 80), masqAll=True))
    assert world.outside.ask(NODE4, 8080) == GATEWAY4
    assert world.outside.ask(NODE6, 8080) == GATEWAY6
    assert world.machine.ask("127.0.0.1", 8080) == GATEWAY4
    assert world.neighbour.ask(NODE4, 8080) == GATEWAY4


def test_another_mark_bit_serves_as_well(world: World) -> None:
    attached(world, mapped(mapping(8080, 80), markMasqBit=5))
    assert world.outside.ask(NODE4, 8080) == OUTSIDE4
    assert world.neighbour.ask(NODE4, 8080) == GATEWAY4
    assert world.machine.ask("127.0.0.1", 8080) == GATEWAY4


def test_conditions_keep_others_out(world: World) -> None:
    conditions: Json = {"conditionsV4": ["ip", "saddr", "192.0.2.0/24"], "conditionsV6": ["tcp", "dport", "1"]}
    attached(world, mapped(mapping(8080, 80), **conditions))
    assert world.outside.ask(NODE4, 8080) == OUTSIDE4
    for pod, host in ((world.outside, NODE6), (world.neighbour, NODE4)):
        with pytest.raises(MachineError):
            pod.ask(host, 8080, seconds=0.3)


def test_two_pods_have_their_own_ports(world: World) -> None:
    attached(world, MAPPED)
    third = world.machine.pod("third")
    third.serve(80)
    world.node.add(mapped(mapping(8081, 80)), attachment(third))
    world.node.delete(MAPPED, attachment(world.server))
    assert world.outside.ask(NODE4, 8081) == OUTSIDE4
    with pytest.raises(MachineError):
        world.outside.ask(NODE4, 8080, seconds=0.3)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (mapping(8080, 80), mapping(8080, 81)),
        (mapping(8080, 80, ip=NODE4), mapping(8080, 80, ip=NODE4)),
        (mapping(8080, 80), mapping(8080, 80, ip=NODE4)),
        (mapping(8080, 80, ip=NODE4), mapping(8080, 80)),
    ],
    ids=["the same port", "the same port of one address", "a part of it", "more than it"],
)
def test_a_port_that_is_taken_is_an_error_naming_the_holder(world: World, first: Json, second: Json) -> None:
    world.node.add(mapped(first), attachment(world.server))
    before = whole(world.machine)
    with pytest.raises(AnsweredError) as refused:
        world.node.add(mapped(mapping(9999, 1), second), attachment(world.neighbour))
    assert "8080 is taken by net/server/eth0" in refused.value.message
    assert difference(before, whole(world.machine)) == []
    assert world.outside.ask(NODE4, 8080) == OUTSIDE4


def test_a_port_whose_holder_died_without_a_delete_is_free(world: World) -> None:
    world.node.add(MAPPED, attachment(world.neighbour))
    world.machine.run("ip", "link", "delete", "cni0")
    world.neighbour.run("ip", "link", "delete", "eth0")
    world.node.add(MAPPED, attachment(world.server))
    assert world.outside.ask(NODE4, 8080) == OUTSIDE4
    world.node.delete(MAPPED, attachment(world.neighbour))
    assert world.outside.ask(NODE4, 8080) == OUTSIDE4


@pytest.mark.parametrize("link", ["there", "gone"])
@pytest.mark.parametrize("known", ["everything", "nothing"])
@pytest.mark.parametrize("special", [{}, {"markMasqBit": 7}, {"conditionsV4": ["tcp", "sport", "!=", "1"]}])
def test_a_delete_frees_the_ports_whatever_it_is_told(world: World, link: str, known: str, special: Json) -> None:
    many = [
        mapping(8000 + number, 80, "udp" if number % 2 else "tcp", NODE4 if number % 3 else "") for number in range(12)
    ]
    who = attachment(world.server)
    world.node.add(mapped(*many, **special), who)
    assert len(held_by(world.machine, "server/eth0")) > len(many)
    if link == "gone":
        world.server.run("ip", "link", "delete", "eth0")
    if known == "nothing":
        config = mapped(**special)
        config.pop("runtimeConfig")
        world.node.call("DEL", config, who).succeeded()
    else:
        world.node.delete(mapped(*many, **special), who)
    assert held_by(world.machine, "server/eth0") == []


def test_a_collection_frees_what_is_not_valid(world: World) -> None:
    attached(world, MAPPED)
    world.node.call("GC", {**mapped(), "cni.dev/valid-attachments": []}).succeeded()
    assert [key for key in elements(world.machine) if "hostports" in key or "hairpin" in key] == []


def test_a_check_notices_a_lost_port(world: World) -> None:
    attached(world, MAPPED)
    who = attachment(world.server)
    assert world.node.check(MAPPED, who).code == 0
    world.machine.run("nft", "delete", "element", "inet", "podwire", "hostports4", "{ tcp . 8080 }")
    assert "host port 8080:80/tcp is gone" in world.node.check(MAPPED, who).message


@pytest.mark.parametrize("flush", ["flush ruleset", "flush table inet podwire", "delete table inet podwire"])
def test_ports_that_others_flushed_come_back_with_the_next_pod(world: World, flush: str) -> None:
    attached(world, MAPPED)
    world.machine.run("nft", *flush.split())
    third = world.machine.pod("third")
    world.node.add(mapped(mapping(8081, 80)), attachment(third))
    assert world.outside.ask(NODE4, 8080) == OUTSIDE4
    assert world.neighbour.ask(NODE4, 8080) == GATEWAY4


ECHO = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 53))
print("ready", flush=True)
while True:
    _, address = server.recvfrom(64)
    server.sendto(b"%s", address)
"""
FLOW = """
import socket, sys
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.bind(("", 5353))
client.settimeout(0.2)
client.connect((sys.argv[1], int(sys.argv[2])))
for line in sys.stdin:
    answer = "nobody"
    try:
        client.send(b"?")
        answer = client.recv(64).decode()
    except OSError:
        pass
    print(answer, flush=True)
"""


class Flow:
    """A UDP flow that ends no sooner than its machine: always the same two sockets."""

    def __init__(self, pod: Pod, host: str, port: int) -> None:
        command = ["nsenter", f"--net={pod.path}", "--", "python3", "-I", "-c", FLOW, host, str(port)]
        self._process = pod.machine.start(*command, stdin=subprocess.PIPE)

    def ask(self) -> str:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("?\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        self._process.communicate()


def answering(pod: Pod) -> None:
    server = pod.machine.start("nsenter", f"--net={pod.path}", "--", "python3", "-I", "-S", "-c", ECHO % pod.name)
    assert server.stdout
    assert server.stdout.readline() == "ready\n"


def test_a_udp_flow_follows_the_port_to_the_next_container(world: World) -> None:
    dns = mapped(mapping(53, 53, "udp"))
    for pod in (world.server, world.neighbour):
        answering(pod)
    flow = Flow(world.outside, NODE4, 53)
    seen = [flow.ask()]
    world.node.add(dns, attachment(world.server))
    seen.append(flow.ask())
    world.node.delete(dns, attachment(world.server))
    seen.append(flow.ask())
    world.node.add(dns, attachment(world.neighbour))
    seen.append(flow.ask())
    flow.end()
    assert seen == ["nobody", "server", "nobody", "neighbour"]


def connections(machine: Machine) -> list[str]:
    shown_lines = machine.run("conntrack", "-L", "-p", "udp").stdout.splitlines()
    return [line for line in shown_lines if "dport=53 " in line]


@pytest.mark.skipif(shutil.which("conntrack") is None, reason="not installed: conntrack")
def test_flows_of_others_to_the_same_port_are_not_forgotten(world: World) -> None:
    """Flows that the host forwards to another host's port 53 are not the mapping's."""
    answering(world.outside)
    attached(world, mapped())
    flow = Flow(world.neighbour, OUTSIDE4, 53)
    assert flow.ask() == "outside"
    before = connections(world.machine)
    assert len(before) == 1
    third = world.machine.pod("third")
    dns = mapped(mapping(53, 53, "udp"))
    world.node.add(dns, attachment(third))
    assert len(connections(world.machine)) == 1
    world.node.delete(dns, attachment(third))
    assert len(connections(world.machine)) == 1
    assert flow.ask() == "outside"
    flow.end()


def test_the_cost_of_a_port_is_one_element_of_a_map(world: World) -> None:
    attached(world, MAPPED)
    rules = len(shown(world.machine, "nft", "-j", "list", "ruleset")["nftables"])
    for number in range(5):
        pod = world.machine.pod(f"more{number}")
        world.node.add(mapped(mapping(9000 + number, 80)), attachment(pod))
    assert len(shown(world.machine, "nft", "-j", "list", "ruleset")["nftables"]) == rules


def test_the_chained_plugin_maps_ports_of_what_another_attached(world: World) -> None:
    bridge = network(isDefaultGateway=True, ipMasq=True, ipam=host_local(IPV4), type="bridge")
    who = attachment(world.server)
    result = world.node.add(bridge, who, program="bridge")
    before = whole(world.machine)
    portmap = {**MAPPED, "type": "portmap", "prevResult": result}
    for key in ("ipMasq", "isDefaultGateway", "ipam"):
        portmap.pop(key)
    answer = world.node.call("ADD", portmap, who, program="portmap").succeeded().content
    assert answer == result
    world.node.add(bridge, attachment(world.neighbour), program="bridge")
    assert world.outside.ask(NODE4, 8080) == OUTSIDE4
    assert world.neighbour.ask(NODE4, 8080) == GATEWAY4
    assert world.machine.ask("127.0.0.1", 8080) == GATEWAY4
    assert world.node.call("CHECK", portmap, who, program="portmap").code == 0
    world.node.delete(bridge, attachment(world.neighbour), program="bridge")
    portmap.pop("prevResult")
    portmap.pop("runtimeConfig")
    world.node.call("DEL", portmap, Attachment("server", ""), program="portmap").succeeded()
    world.node.call("DEL", portmap, Attachment("server", ""), program="portmap").succeeded()
    left = [line for line in difference(before, whole(world.machine)) if "element" in line]
    assert left == []
