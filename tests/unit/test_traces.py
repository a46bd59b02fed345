"""The evidence of an attachment that DEL takes from ADD's answer."""

from __future__ import annotations

from cni.plan.traces import traces_of
from cni.protocol.address import parse_net
from cni.protocol.owner import Owner
from cni.protocol.result import Interface, Result

OWNER = Owner("net", "c1", "eth0")
ADDRESSES = (parse_net("10.1.2.3/24"),)


def test_the_evidence_is_the_containers_mac_and_the_hosts_interfaces_but_the_bridge() -> None:
    previous = Result(
        (
            Interface("cni0", "0a:00:00:00:00:01"),
            Interface("veth1", "0a:00:00:00:00:02"),
            Interface("eth1", "0a:00:00:00:00:03", "/run/netns/x"),
            Interface("eth0", "0A:00:00:00:00:04", "/run/netns/x"),
        )
    )
    traces = traces_of(OWNER, previous, ADDRESSES, "cni0", knows_leases=True)
    assert (traces.key, traces.mac, traces.hosts) == (OWNER.key, "0a:00:00:00:00:04", ("veth1",))
    assert (traces.addresses, traces.bridge, traces.knows_leases) == (ADDRESSES, "cni0", True)


def test_without_an_answer_there_is_neither_mac_nor_interface() -> None:
    traces = traces_of(OWNER, Result(), (), "", knows_leases=False)
    assert (traces.mac, traces.hosts) == ("", ())
