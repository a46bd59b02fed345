"""DEL where the path of the namespace leads to another container by now, or a link of the host merely has our name.

What bears the interface's name is released only if its peer, ADD's answer or its addresses say that it is the
attachment's; what other plugins have attached still is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.protocol.owner import Owner
from tests.netns.runtime import IPV4, Attachment, attachment, host_local, network
from tests.netns.state import leases, link, links, owners

if TYPE_CHECKING:
    from tests.machine import Machine, Pod
    from tests.netns.runtime import Json, Node

ROUTED = network(mode="routed", ipam=host_local(IPV4))
NETWORKS: dict[str, tuple[str, Json]] = {
    "podwire": ("podwire", network(isGateway=True, ipam=host_local(IPV4))),
    "masquerading": ("podwire", network(isGateway=True, ipMasq=True, ipam=host_local(IPV4))),
    "routed": ("podwire", ROUTED),
    "bridge": ("bridge", network(ipam=host_local(IPV4))),
    "ptp": ("ptp", network(ipam=host_local(IPV4))),
    "no addresses": ("bridge", network()),
}


def rename_host_end(machine: Machine, holder: str) -> str:
    """Leaves the attachment as another plugin would have made it: a name of its choice, and no alias."""
    (port,) = [name for name, owner in owners(machine).items() if owner == holder]
    machine.run("ip", "link", "set", port, "down")
    machine.run("ip", "link", "set", port, "name", f"x{port[4:]}", "alias", "")
    machine.run("ip", "link", "set", f"x{port[4:]}", "up")
    return f"x{port[4:]}"


def delete(node: Node, config: Json, who: Attachment, program: str, *, with_result: bool) -> None:
    """Releases; `with_result`: with what ADD answered."""
    config = node.with_result(config, who) if with_result else config
    node.call("DEL", config, who, program=program).succeeded()


def two(machine: Machine, node: Node, program: str, config: Json) -> tuple[Pod, Pod]:
    pods = machine.pod(), machine.pod()
    for pod in pods:
        node.add(config, attachment(pod), program=program)
    return pods


@pytest.mark.parametrize("with_result", [True, False])
@pytest.mark.parametrize(("program", "config"), NETWORKS.values(), ids=NETWORKS)
def test_the_container_that_has_the_path_now_keeps_its_interface(
    machine: Machine, node: Node, program: str, config: Json, with_result: bool
) -> None:
    gone, living = two(machine, node, program, config)
    gone.remove()
    recycled = attachment(gone)._replace(netns=living.path)
    for _ in range(2):
        delete(node, config, recycled, program, with_result=with_result)
        assert "eth0" in links(living)
        assert set(leases(machine).values()) <= {f"{living.name}/eth0"}
        assert node.check(config, attachment(living), program=program).status == 0


@pytest.mark.parametrize("with_result", [True, False])
@pytest.mark.parametrize(("program", "config"), list(NETWORKS.values())[1:5], ids=list(NETWORKS)[1:5])
def test_so_does_one_that_another_plugin_has_attached(
    machine: Machine, node: Node, program: str, config: Json, with_result: bool
) -> None:
    gone, living = two(machine, node, program, config)
    gone.remove()
    rename_host_end(machine, f"{living.name}/eth0")
    for _ in range(2):
        delete(node, config, attachment(gone)._replace(netns=living.path), program, with_result=with_result)
        assert "eth0" in links(living)


@pytest.mark.parametrize("with_result", [True, False])
@pytest.mark.parametrize(("program", "config"), NETWORKS.values(), ids=NETWORKS)
def test_what_another_plugin_has_attached_is_released(
    machine: Machine, node: Node, program: str, config: Json, with_result: bool
) -> None:
    pod = machine.pod()
    node.add(config, attachment(pod), program=program)
    port = rename_host_end(machine, f"{pod.name}/eth0")
    for _ in range(2):
        delete(node, config, attachment(pod), program, with_result=with_result)
        assert "eth0" not in links(pod)
        assert port not in links(machine)
        assert leases(machine) == {}


def test_a_host_end_that_somebody_renamed_is_still_known_by_its_alias(machine: Machine, node: Node) -> None:
    pod, config = machine.pod(), network()
    node.add(config, attachment(pod))
    (port,) = owners(machine)
    machine.run("ip", "link", "set", port, "name", "mine")
    delete(node, config, attachment(pod), "podwire", with_result=False)
    assert "eth0" not in links(pod)
    assert "mine" not in links(machine)


@pytest.mark.parametrize("kind", ["veth", "bridge"])
def test_a_link_of_the_host_that_merely_has_our_name_stays(machine: Machine, node: Node, kind: str) -> None:
    pod, config = machine.pod(), network(ipam=host_local(IPV4))
    name = Owner("net", pod.name, "eth0").host_interface
    machine.run("ip", "link", "add", name, "type", kind)
    delete(node, config, attachment(pod), "podwire", with_result=False)
    assert link(machine, name)


def test_an_add_that_was_killed_before_it_wrote_the_alias_is_released(machine: Machine, node: Node) -> None:
    pod, config = machine.pod(), network(ipam=host_local(IPV4))
    node.add(config, attachment(pod))
    (port,) = owners(machine)
    machine.run("ip", "link", "set", port, "alias", "")
    pod.remove()
    delete(node, config, attachment(pod), "podwire", with_result=False)
    assert port not in links(machine)


@pytest.mark.parametrize("interface", ["bridge", "address alone"])
def test_an_interface_of_another_kind_is_nobodys(machine: Machine, node: Node, interface: str) -> None:
    pod, config = machine.pod(), network(ipam=host_local(IPV4))
    node.add(config, attachment(pod))
    (port,) = owners(machine)
    machine.run("ip", "link", "delete", port)
    kind = ("bridge",) if interface == "bridge" else ("veth", "peer", "name", "inner")
    pod.run("ip", "link", "add", "eth0", "type", *kind)
    delete(node, config, attachment(pod), "podwire", with_result=True)
    assert "eth0" in links(pod)
