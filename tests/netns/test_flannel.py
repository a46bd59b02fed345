"""`type: flannel`: what the node agent wrote becomes a pod's network, and goes again whatever became of the files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.netns.runtime import AnsweredError, Attachment, attachment
from tests.netns.state import difference, held_by, leases, link, whole

if TYPE_CHECKING:
    from tests.machine import Machine
    from tests.netns.runtime import Json, Node

SUBNET_ENV = "/run/flannel/subnet.env"
STATE = "/var/lib/cni/flannel"
WRITTEN = """FLANNEL_NETWORK=10.244.0.0/16
FLANNEL_SUBNET=10.244.1.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
"""
FLANNEL = {"cniVersion": "1.1.0", "name": "cbr0", "type": "flannel", "delegate": {"hairpinMode": True}}


@pytest.fixture
def agent(machine: Machine) -> None:
    """The agent has done its work."""
    write(machine, WRITTEN)


def write(machine: Machine, text: str) -> None:
    machine.run("sh", "-c", f"mkdir -p /run/flannel && cat > {SUBNET_ENV}", stdin=text)


def flannel(node: Node, verb: str, who: Attachment, **settings: object) -> Json:
    answer = node.call(verb, {**FLANNEL, **settings}, who, program="flannel").succeeded()
    return answer.content


def saved(machine: Machine, container: str) -> Json:
    written: Json = json.loads(machine.run("cat", f"{STATE}/{container}").stdout)
    return written


@pytest.mark.usefixtures("agent")
def test_a_pod_gets_the_nodes_subnet_and_the_clusters_route(machine: Machine, node: Node) -> None:
    pod = machine.pod("pod")
    result = flannel(node, "ADD", attachment(pod))
    assert result["ips"][0]["address"] == "10.244.1.2/24"
    assert result["routes"] == [{"dst": "10.244.0.0/16"}]
    assert link(pod, "eth0")["mtu"] == 1450
    assert "10.244.1.1/24" in machine.run("ip", "address", "show", "dev", "cni0").stdout
    assert machine.run("nft", "list", "tables").stdout == ""  # the agent masquerades
    assert node.call("CHECK", {**FLANNEL, "prevResult": result}, attachment(pod), program="flannel").code == 0


@pytest.mark.usefixtures("agent")
def test_what_was_handed_on_is_kept_as_the_reference_keeps_it(machine: Machine, node: Node) -> None:
    flannel(node, "ADD", attachment(machine.pod("pod")), ipam={"routes": [{"dst": "192.0.2.0/24"}]})
    assert saved(machine, "pod") == {
        "type": "bridge",
        "name": "cbr0",
        "cniVersion": "1.1.0",
        "hairpinMode": True,
        "ipMasq": False,
        "isGateway": True,
        "mtu": 1450,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": "10.244.1.0/24"}]],
            "routes": [{"dst": "192.0.2.0/24"}, {"dst": "10.244.0.0/16"}],
        },
    }
    assert machine.run("stat", "-c", "%a", STATE, f"{STATE}/pod").stdout.split() == ["700", "600"]


def test_where_the_agent_does_not_masquerade_the_plugin_does(machine: Machine, node: Node) -> None:
    write(machine, WRITTEN.replace("IPMASQ=true", "IPMASQ=false"))
    flannel(node, "ADD", attachment(machine.pod("pod")))
    assert "masquerade4 10.244.1.2" in held_by(machine, "pod/eth0")


def test_both_families(machine: Machine, node: Node) -> None:
    write(machine, f"{WRITTEN}FLANNEL_IPV6_NETWORK=fd00:244::/48\nFLANNEL_IPV6_SUBNET=fd00:244:0:1::1/64\n")
    result = flannel(node, "ADD", attachment(machine.pod("pod")))
    assert [ip["address"] for ip in result["ips"]] == ["10.244.1.2/24", "fd00:244:0:1::2/64"]
    assert [route["dst"] for route in result["routes"]] == ["10.244.0.0/16", "fd00:244::/48"]


@pytest.mark.parametrize("missing", ["FLANNEL_NETWORK", "FLANNEL_SUBNET", "FLANNEL_MTU", "FLANNEL_IPMASQ"])
def test_a_subnet_file_that_is_not_whole_is_an_error_naming_what_is_missing(
    machine: Machine, node: Node, missing: str
) -> None:
    write(machine, "".join(line for line in WRITTEN.splitlines(True) if missing not in line))
    with pytest.raises(AnsweredError, match=f"{SUBNET_ENV} is missing {missing}"):
        flannel(node, "ADD", attachment(machine.pod("pod")))


def test_without_the_agents_file_the_runtime_is_told_to_try_again(machine: Machine, node: Node) -> None:
    pod = machine.pod("pod")
    before = whole(machine)
    for verb, code in (("ADD", 11), ("STATUS", 50)):
        answer = node.call(verb, FLANNEL, attachment(pod), program="flannel")
        assert (answer.code, SUBNET_ENV in answer.message) == (code, True)
    assert difference(before, whole(machine)) == []


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"delegate": {"name": "x"}}, "delegate.name"),
        ({"delegate": {"ipam": {}}}, "delegate.ipam"),
        ({"delegate": {"type": 5}}, "delegate.type"),
        ({"delegate": []}, "delegate"),
        ({"ipam": "x"}, "ipam"),
    ],
)
@pytest.mark.usefixtures("agent")
def test_a_delegate_may_not_say_what_flannel_says(machine: Machine, node: Node, settings: Json, path: str) -> None:
    with pytest.raises(AnsweredError, match=f"{path}: ") as refused:
        flannel(node, "ADD", attachment(machine.pod("pod")), **settings)
    assert refused.value.code == 7


@pytest.mark.parametrize("lost", ["nothing", "the saved file", "its text", "its end", "the agent's file", "both"])
@pytest.mark.usefixtures("agent")
def test_a_delete_leaves_nothing_whichever_files_are_lost(machine: Machine, node: Node, lost: str) -> None:
    pod = machine.pod("pod")
    flannel(node, "ADD", attachment(machine.pod("other")))
    before = whole(machine)
    flannel(node, "ADD", attachment(pod))
    spoil = {
        "the saved file": f"rm {STATE}/pod",
        "its text": f": > {STATE}/pod",
        "its end": f"truncate -s -9 {STATE}/pod",
        "the agent's file": f"rm {SUBNET_ENV}",
        "both": f"rm {STATE}/pod {SUBNET_ENV}",
    }
    machine.run("sh", "-c", spoil.get(lost, ":"))
    for _ in range(2):
        flannel(node, "DEL", attachment(pod))
    assert difference(before, whole(machine)) == []
    assert [line for line in machine.files(STATE) if "/pod " in line] == []


@pytest.mark.usefixtures("agent")
def test_a_failed_add_leaves_nothing(machine: Machine, node: Node) -> None:
    machine.run("ip", "link", "add", "cni0", "type", "veth", "peer", "name", "other0")
    before = whole(machine)
    with pytest.raises(AnsweredError, match="is not a bridge"):
        flannel(node, "ADD", attachment(machine.pod("pod")))
    assert [line for line in difference(before, whole(machine)) if "pod:" not in line] == []
    assert machine.run("ls", "-A", STATE).stdout == ""


@pytest.mark.usefixtures("agent")
def test_two_networks_of_one_container_are_distinguished(machine: Machine, node: Node) -> None:
    """The file's name holds the container alone, so the second ADD writes over the first."""
    pod = machine.pod("pod")
    first, second = attachment(pod), attachment(pod, "eth1")
    flannel(node, "ADD", first)
    flannel(node, "ADD", second, name="second", delegate={"bridge": "cni1", "type": "podwire"}, subnetFile=SUBNET_ENV)
    flannel(node, "DEL", first)
    assert held_by(machine, "pod/eth0") == []
    assert held_by(machine, "pod/eth1") != []
    flannel(node, "DEL", second, name="second", delegate={"bridge": "cni1", "type": "podwire"})
    assert held_by(machine, "pod/eth1") == []
    assert machine.run("ls", "-A", STATE).stdout == ""


@pytest.mark.usefixtures("agent")
def test_ports_reach_a_delegate_that_knows_them(machine: Machine, node: Node) -> None:
    ports = {"portMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp"}]}
    config = {"delegate": {"type": "podwire"}, "capabilities": {"portMappings": True}, "runtimeConfig": ports}
    pod = machine.pod("pod")
    flannel(node, "ADD", attachment(pod), **config)
    assert "hostports4 6 8080" in held_by(machine, "pod/eth0")
    flannel(node, "DEL", attachment(pod), **config)
    assert held_by(machine, "pod/eth0") == []


@pytest.mark.usefixtures("agent")
def test_a_collection_takes_leases_and_files_of_containers_that_are_not_valid(machine: Machine, node: Node) -> None:
    for name in ("stays", "goes"):
        flannel(node, "ADD", attachment(machine.pod(name)))
    valid = [{"containerID": "stays", "ifname": "eth0"}]
    node.call("GC", {**FLANNEL, "cni.dev/valid-attachments": valid}, program="flannel").succeeded()
    assert set(leases(machine).values()) == {"stays/eth0"}
    assert machine.run("ls", "-A", STATE).stdout.split() == ["stays"]


DELEGATE = """#!/bin/sh
cat > /run/delegated.$CNI_COMMAND
echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.244.1.9/24"}]}'
"""


@pytest.mark.usefixtures("agent")
def test_any_other_plugin_is_executed(machine: Machine, node: Node) -> None:
    machine.run(
        "sh", "-c", "mkdir -p /opt/cni/bin && cat > /opt/cni/bin/other && chmod +x /opt/cni/bin/other", stdin=DELEGATE
    )
    pod = machine.pod("pod")
    result = flannel(node, "ADD", attachment(pod), delegate={"type": "other", "vlan": 5})
    assert result["ips"] == [{"address": "10.244.1.9/24"}]
    flannel(node, "DEL", attachment(pod), delegate={"type": "other"})
    delegated = json.loads(machine.run("cat", "/run/delegated.DEL").stdout)
    assert (delegated["type"], delegated["vlan"], delegated["name"]) == ("other", 5, "cbr0")


@pytest.mark.usefixtures("agent")
def test_a_repeated_add_is_refused_and_keeps_what_the_first_has_saved(machine: Machine, node: Node) -> None:
    who = attachment(machine.pod("pod"))
    flannel(node, "ADD", who)
    before = saved(machine, "pod")
    with pytest.raises(AnsweredError, match="already exists"):
        flannel(node, "ADD", who, delegate={"mtu": 1300})
    assert saved(machine, "pod") == before


FAILING = """#!/bin/sh
cat > /dev/null
echo $CNI_COMMAND >> /run/called
test $CNI_COMMAND = DEL && exit
echo '{"code": 123, "msg": "not today"}'
exit 1
"""


@pytest.mark.usefixtures("agent")
def test_an_executed_plugin_whose_add_failed_gets_a_delete(machine: Machine, node: Node) -> None:
    """SPEC, section 4."""
    place = "mkdir -p /opt/cni/bin && cat > /opt/cni/bin/other && chmod +x /opt/cni/bin/other"
    machine.run("sh", "-c", place, stdin=FAILING)
    with pytest.raises(AnsweredError, match="not today") as refused:
        flannel(node, "ADD", attachment(machine.pod("pod")), delegate={"type": "other"})
    assert refused.value.code == 123
    assert machine.run("cat", "/run/called").stdout.split() == ["ADD", "DEL"]
    assert machine.run("ls", "-A", STATE).stdout == ""
