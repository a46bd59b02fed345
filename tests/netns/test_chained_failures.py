"""Tests that a failure behind another plugin takes nothing from containers that podwire knows by their rules alone."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.netns.runtime import Attachment, Closed, attachment, host_local, network
from tests.netns.state import difference, elements, whole
from tests.netns.test_bandwidth import BOTH

if TYPE_CHECKING:
    from tests.machine import Machine, Pod
    from tests.netns.runtime import Answer, Json, Node

FOREIGN = "veth-another"


class Chain:
    """Containers of another maker's bridge, with podwire's plugins behind it."""

    def __init__(self, machine: Machine, node: Node) -> None:
        self.machine = machine
        self.node = node
        self.results: dict[str, Json] = {}

    def attach(self, name: str, subnet: str) -> Pod:
        """Attaches as another plugin does: neither the interface's name nor its alias are podwire's."""
        pod = self.machine.pod(name)
        config = network(name, bridge=f"br-{name}", isGateway=True, ipam=host_local([{"subnet": subnet}]))
        result = self.node.add(config, attachment(pod), program="bridge")
        ours = result["interfaces"][1]["name"]
        foreign = f"{FOREIGN[:11]}{name}"
        self.machine.run("ip", "link", "set", ours, "down")
        self.machine.run("ip", "link", "set", ours, "name", foreign, "alias", "another's")
        self.machine.run("ip", "link", "set", foreign, "up")
        result["interfaces"][1]["name"] = foreign
        self.results[name] = result
        return pod

    def call(self, verb: str, name: str, program: str, *, stdout: Any = None, **settings: object) -> Answer:
        request = {**network(name, type=program), "prevResult": self.results[name], **settings}
        who = Attachment(name, self.machine.pods[name].path)
        return self.node.call(verb, request, who, program=program, stdout=stdout)


@pytest.fixture
def chain(machine: Machine, node: Node) -> Chain:
    return Chain(machine, node)


def ports(*mappings: tuple[int, str], **settings: object) -> Json:
    port_mappings = [{"hostPort": port, "containerPort": 80, "protocol": "tcp", "hostIP": ip} for port, ip in mappings]
    return {"runtimeConfig": {"portMappings": port_mappings}, **settings}


@pytest.mark.parametrize("special", [{}, {"markMasqBit": 9}, {"conditionsV4": ["tcp", "sport", "!=", "1"]}])
@pytest.mark.parametrize("of_holder", [{}, {"conditionsV4": ["ip", "saddr", "192.0.2.0/24"]}])
def test_a_refused_port_takes_nothing_from_its_holder(chain: Chain, special: Json, of_holder: Json) -> None:
    chain.attach("a", "10.1.0.0/24")
    chain.attach("b", "10.2.0.0/24")
    chain.call("ADD", "a", "portmap", **ports((8080, ""), **of_holder)).succeeded()
    before = elements(chain.machine)
    refused = chain.call("ADD", "b", "portmap", **ports((9090, ""), (8080, ""), **special))
    assert "8080 is taken by a/a/eth0" in refused.message
    assert elements(chain.machine) == before
    assert chain.call("CHECK", "a", "portmap", **ports((8080, ""), **of_holder)).code == 0


def test_a_port_of_one_address_goes_with_its_dead_holder(chain: Chain) -> None:
    """It would be found before the port of all addresses that came after it."""
    pod = chain.attach("a", "10.1.0.0/24")
    chain.attach("b", "10.2.0.0/24")
    chain.call("ADD", "a", "portmap", **ports((8080, "192.0.2.1"))).succeeded()
    pod.run("ip", "link", "delete", "eth0")
    chain.call("ADD", "b", "portmap", **ports((8080, ""))).succeeded()
    assert [key for key in elements(chain.machine) if "hostports" in key] == ["hostports4 6 8080"]


def test_bandwidth_that_failed_can_be_asked_for_again(chain: Chain) -> None:
    chain.attach("a", "10.1.0.0/24")
    before = whole(chain.machine)
    limits = {"runtimeConfig": {"bandwidth": BOTH}}
    assert chain.call("ADD", "a", "bandwidth", stdout=Closed(), **limits).status == 1
    assert difference(before, whole(chain.machine)) == []
    chain.call("ADD", "a", "bandwidth", **limits).succeeded()


def test_checks_of_an_interface_that_is_gone_say_so(chain: Chain) -> None:
    pod = chain.attach("a", "10.1.0.0/24")
    limits = {"runtimeConfig": {"bandwidth": BOTH}}
    chain.call("ADD", "a", "bandwidth", **limits).succeeded()
    pod.run("ip", "link", "delete", "eth0")
    assert chain.call("CHECK", "a", "bandwidth", **limits).code == 101


@pytest.mark.skipif(shutil.which("iptables-nft") is None, reason="not installed: iptables")
def test_rules_of_a_single_address_go_with_its_container(chain: Chain) -> None:
    """No other container can need them, so they would only be collected."""
    chain.attach("a", "10.1.0.0/24")
    chain.results["a"]["ips"][0]["address"] = "10.1.0.2/32"
    chain.machine.run("iptables-nft", "-P", "FORWARD", "DROP")
    chain.call("ADD", "a", "firewall").succeeded()
    assert "10.1.0.2/32" in chain.machine.run("iptables-nft", "-S").stdout
    for _ in range(2):
        chain.call("DEL", "a", "firewall").succeeded()
    assert "10.1.0.2/32" not in chain.machine.run("iptables-nft", "-S").stdout
