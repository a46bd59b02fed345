"""DEL gives back everything that is there, whatever is missing or wrong elsewhere, and nothing that is another's."""

from __future__ import annotations

from errno import EPERM
from typing import TYPE_CHECKING, Any

import pytest

from cni.kernel import rtnl
from cni.kernel.netlink import Netlink, NetlinkError
from tests.machine import Machine
from tests.netns.runtime import (
    GONE,
    IPV4,
    IPV6,
    MASQUERADED,
    PLAIN,
    RICH,
    AnsweredError,
    Attachment,
    Node,
    attachment,
    host_local,
    network,
)
from tests.netns.state import elements, held_by, leases, link, links, owners, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.machine import Pod
    from tests.netns.runtime import Json

    Disturb = Callable[[Pod], object]

ETH0, OTHER = "pod1/eth0", "other/eth0"
TABLES = "delete table inet podwire; delete table bridge podwire"


def nothing(pod: Pod) -> None:
    del pod


def unmount(pod: Pod) -> None:
    """After a reboot the path is a plain file."""
    pod.machine.run("umount", pod.path)
    assert pod.machine.run("test", "-f", pod.path, check=False).returncode == 0


def remove_link(pod: Pod) -> None:
    pod.run("ip", "link", "delete", "eth0")


def remove_link_and_leases(pod: Pod) -> None:
    remove_link(pod)
    remove_leases(pod)


def remove_leases(pod: Pod) -> None:
    held = [address for address, owner in leases(pod.machine).items() if owner == f"{pod.name}/eth0"]
    assert held
    pod.machine.run("rm", *[f"/var/lib/cni/networks/net/{address}" for address in held])


def remove_all_state(pod: Pod) -> None:
    pod.machine.run("rm", "-r", "/var/lib/cni/networks", "/run/podwire")


def remove_tables(pod: Pod) -> None:
    pod.machine.run("nft", TABLES)


def remove_bridge(pod: Pod) -> None:
    pod.machine.run("ip", "link", "delete", "cni0")


# What happened to the machine, what the configuration says now, what the environment says now.
CASES: dict[str, tuple[Disturb, Json, dict[str, str]]] = {
    "nothing wrong": (nothing, {}, {}),
    "the namespace is gone": (lambda pod: pod.remove(), {}, {}),
    "the namespace's path is a plain file": (unmount, {}, {}),
    "the namespace's path does not exist": (nothing, {}, {"netns": GONE}),
    "the namespace's path is a folder": (nothing, {}, {"netns": "/run"}),
    "no namespace is named": (nothing, {}, {"netns": ""}),
    "no namespace is named, nor is there one": (lambda pod: pod.remove(), {}, {"netns": ""}),
    "the namespace is the host's": (nothing, {}, {"netns": "/proc/self/ns/net"}),
    "prevResult is null": (nothing, {"prevResult": None}, {}),
    "prevResult is no result": (nothing, {"prevResult": {"ips": 7, "interfaces": "none"}}, {}),
    "prevResult is a text": (nothing, {"prevResult": "garbage"}, {}),
    "prevResult is of another version": (nothing, {"prevResult": {"cniVersion": "0.2.0", "ip4": {}}}, {}),
    "prevResult is another pod's": (nothing, {"prevResult": {"ips": [{"address": "10.1.2.2/24"}]}}, {}),
    "the leases are gone": (remove_leases, {}, {}),
    "all leases and the allocator's memory are gone": (remove_all_state, {}, {}),
    "the interface is gone": (remove_link, {}, {}),
    "the interface is gone, and no namespace is named": (remove_link, {}, {"netns": ""}),
    "the interface and the leases are gone": (remove_link_and_leases, {"prevResult": None}, {"netns": ""}),
    "the bridge is gone": (remove_bridge, {}, {}),
    "podwire's tables are gone": (remove_tables, {}, {}),
    "CNI_ARGS is garbage": (nothing, {}, {"arguments": "=;nonsense;=x=;;"}),
    "ipMasq is off now": (nothing, {"ipMasq": False}, {}),
    "macspoofchk is off now": (nothing, {"macspoofchk": False}, {}),
    "ipMasq and macspoofchk are off now": (nothing, {"ipMasq": False, "macspoofchk": False}, {}),
}


# What the configuration says at DEL, of which nothing concerns what is there to release.
FAULTS: dict[str, Json] = {
    "mtu is at fault": {"mtu": -1},
    "mtu is of the wrong type": {"mtu": "1400"},
    "ipMasqBackend is at fault": {"ipMasqBackend": "magic"},
    "the bridge's name is at fault": {"bridge": "much-too-long-a-name"},
    "the ranges are broken": {"ipam": {"type": "host-local", "ranges": [[{"subnet": "ten"}]]}},
    "the ranges are missing": {"ipam": {"type": "host-local"}},
    "the ranges are others now": {"ipam": host_local([{"subnet": "10.9.0.0/24"}])},
    "dns and args are of the wrong type": {"dns": 5, "args": "none", "runtimeConfig": []},
    "hairpin and promiscuous mode are both on": {"promiscMode": True},
}


@pytest.mark.parametrize(("disturb", "config", "environment"), CASES.values(), ids=CASES)
def test_everything_is_released(
    machine: Machine, node: Node, disturb: Disturb, config: Json, environment: dict[str, Any]
) -> None:
    other, who = attachment(machine.pod("other")), attachment(machine.pod("pod1"))
    node.add(RICH, other)
    result = node.add(RICH, who)
    disturb(machine.pods["pod1"])
    others = held_by(machine, OTHER)
    for _ in range(2):
        node.call("DEL", {**RICH, "prevResult": result, **config}, who._replace(**environment)).succeeded()
    assert held_by(machine, ETH0) == []
    assert held_by(machine, OTHER) == others
    if disturb is nothing:  # the pair went from the container as well, whatever namespace was named
        assert links(machine.pods["pod1"]) == {"lo"}


@pytest.fixture(scope="module")
def crowded() -> Iterator[Node]:
    """Yields a host with another pod, which the tests leave as they found it."""
    with Machine() as machine:
        node = Node(machine)
        node.add(RICH, attachment(machine.pod("other")))
        machine.pod("pod1")
        yield node


@pytest.mark.parametrize("config", FAULTS.values(), ids=FAULTS)
def test_a_fault_of_the_configuration_does_not_keep_anything_from_release(crowded: Node, config: Json) -> None:
    machine, who = crowded.machine, attachment(crowded.machine.pods["pod1"])
    others = held_by(machine, OTHER)
    result = crowded.add(RICH, who)
    crowded.call("DEL", {**RICH, "prevResult": result, **config}, who).succeeded()
    assert held_by(machine, ETH0) == []
    assert held_by(machine, OTHER) == others


@pytest.mark.parametrize("override", [{}, {"CNI_NETNS_OVERRIDE": "true"}], ids=["", "overridden"])
@pytest.mark.parametrize("path", ["/proc/self/ns/net", "/proc/1/ns/net", "/proc/thread-self/ns/net"])
def test_the_hosts_own_interface_is_never_taken(
    machine: Machine, node: Node, path: str, override: dict[str, str]
) -> None:
    """A runtime that names the host's namespace at DEL must not cost the host its uplink, which is eth0 as well."""
    machine.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "wire")
    who = attachment(machine.pod("pod1"))
    node.add(RICH, who)
    node.delete(RICH, who._replace(netns=path), extra=override)
    assert "eth0" in links(machine)
    assert held_by(machine, ETH0) == []


def test_what_never_was_is_released_without_a_word(machine: Machine, node: Node) -> None:
    before = machine.snapshot()
    answer = node.delete(RICH, attachment(machine.pod()))
    assert (answer.stdout, answer.stderr) == ("", "")
    assert machine.snapshot()["files"] == before["files"]


def test_a_delete_after_another_pod_got_the_address_leaves_it_alone(machine: Machine, node: Node) -> None:
    """The lease was lost, the address given to another: a late DEL of the first must not take it away."""
    first, second = attachment(machine.pod("first")), attachment(machine.pod("second"))
    node.add(MASQUERADED, first)
    remove_all_state(machine.pods["first"])
    machine.pods["first"].run("ip", "link", "delete", "eth0")
    node.add(MASQUERADED, second)
    held = held_by(machine, "second/eth0")
    assert "10.1.2.2" in held
    node.delete(MASQUERADED, first)
    assert held_by(machine, "second/eth0") == held


def test_one_interface_of_a_container_goes_and_the_other_works_on(machine: Machine, node: Node) -> None:
    pod, peer = machine.pod("pod1"), machine.pod("peer")
    first, second = attachment(pod), attachment(pod, "eth1")
    node.add(RICH, attachment(peer))
    node.add(RICH, first)
    held = held_by(machine, ETH0)
    node.add(RICH, second)
    assert held_by(machine, ETH0) == held
    assert len(held_by(machine, "pod1/eth1")) == len(held)
    peer.serve(8080)
    node.delete(RICH, second)
    assert held_by(machine, ETH0) == held
    assert held_by(machine, "pod1/eth1") == []
    assert links(pod) == {"lo", "eth0"}
    assert pod.ask("10.1.2.2", 8080) == "10.1.2.3"
    assert pod.ask("2001:db8:1::2", 8080) == "2001:db8:1::3"
    assert node.check(RICH, first).status == 0


SHARED_SUBNET = (
    network("first", isGateway=True, ipMasq=True, ipam=host_local([{**IPV4[0], "rangeEnd": "10.1.2.99"}])),
    network("second", isGateway=True, ipMasq=True, ipam=host_local([{**IPV4[0], "rangeStart": "10.1.2.100"}])),
)
SHARED_BRIDGE = (
    network("first", isGateway=True, ipMasq=True, ipam=host_local(IPV4)),
    network("second", isGateway=True, ipMasq=True, ipam=host_local(IPV6)),
)


@pytest.mark.parametrize("networks", [SHARED_SUBNET, SHARED_BRIDGE], ids=["a subnet", "a bridge"])
def test_two_networks_share_and_neither_takes_from_the_other(
    machine: Machine, node: Node, networks: tuple[Json, Json]
) -> None:
    pod = machine.pod("pod1")
    first, second = attachment(pod), attachment(pod, "eth1")
    node.add(networks[0], first)
    node.add(networks[1], second)
    held = held_by(machine, "pod1/eth1")
    assert node.check(networks[0], first).status == 0
    node.delete(networks[0], first)
    assert held_by(machine, ETH0) == []
    assert held_by(machine, "pod1/eth1") == held
    assert node.check(networks[1], second).status == 0


def test_the_same_interface_name_on_two_networks_is_two_attachments(machine: Machine, node: Node) -> None:
    """Only the namespaces differ: a container ID may come back in another network."""
    networks = network("one", bridge="br1", isGateway=True, ipMasq=True, ipam=host_local(IPV4)), PLAIN
    first, second = machine.pod("here"), machine.pod("there")
    node.add(networks[0], Attachment("same", first.path))
    with pytest.raises(AnsweredError, match="already exists on the host"):
        node.add(networks[0], Attachment("same", second.path))
    node.add(
        {**PLAIN, "bridge": "br2", "ipam": host_local([{"subnet": "10.7.0.0/24"}])}, Attachment("same", second.path)
    )
    node.delete(networks[0], Attachment("same", first.path))
    assert sorted(held_by(machine, "same/eth0")) == sorted(["10.7.0.2", *owners(machine)])
    assert len(owners(machine)) == 1


def test_what_pods_share_stays(machine: Machine, node: Node) -> None:
    who = attachment(machine.pod("pod1"))
    node.add(RICH, who)
    node.delete(RICH, who)
    assert link(machine, "cni0")["operstate"] in ("UP", "DOWN")
    assert elements(machine) == {}
    assert [item for item in shown(machine, "nft", "-j", "list", "tables")["nftables"] if "table" in item]


def refuse_link_deletion() -> None:
    """The kernel lets no link go, for the rest of this process."""
    request = Netlink.request

    def refusing(socket: Netlink, kind: int, flags: int, payload: bytes) -> None:
        if kind == rtnl.RTM_DELLINK:
            raise NetlinkError(EPERM, "as the test asks")
        request(socket, kind, flags, payload)

    setattr(Netlink, "request", refusing)  # noqa: B010 - a method of its own would be another type


def test_the_lease_stays_with_an_interface_that_stays(machine: Machine, node: Node) -> None:
    """Else the address would be given to the next container while this one still has it."""
    who = attachment(machine.pod("pod"))
    node.add(PLAIN, who)
    answer = node.call("DEL", PLAIN, who, prepare=refuse_link_deletion)
    assert answer.code == 100
    assert "stay leased" in answer.message
    assert leases(machine) == {"10.1.2.2": "pod/eth0"}
    node.delete(PLAIN, who)
    assert leases(machine) == {}
