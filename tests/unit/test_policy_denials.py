"""Tests the lines about denied packets: both ends by name, and the policies that isolate the pod."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.agent.controllers.denials import Denials
from cni.agent.policy.basetable import PENDING, TableOptions, base_table
from cni.agent.policy.denials import DENIED, PacketDenied, denial_text
from cni.agent.policy.events import PolicyStoreRecovered
from cni.agent.policy.index import Index
from cni.plan.policy import IN, OUT
from cni.protocol.address import parse_ip
from tests.unit.policy_objects import cluster_policy_of, namespace_of, pod_of, policy_of

if TYPE_CHECKING:
    from cni.agent.policy.objects import NetworkPolicy

CLOSED = policy_of("ns2/default-deny", "{podSelector: {}, policyTypes: [Ingress, Egress]}")
DB = policy_of("ns2/db", "{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 80}]}]}")


def index(*policies: NetworkPolicy) -> Index:
    known = Index("n1")
    known.put_pod(pod_of("ns1/client", "10.244.1.7", "fd00::7"))
    known.put_pod(pod_of("ns2/db", "10.244.2.9", "fd00::9"))
    for policy in policies:
        known.put_policy(policy)
    return known


def packet(chain: str, source: str, destination: str, protocol: int = 6, port: int = 5432) -> PacketDenied:
    return PacketDenied(chain, parse_ip(source), parse_ip(destination), protocol, port)


def test_the_chains_are_those_of_the_table_which_logs_their_names() -> None:
    chains = {chain.name: chain for chain in base_table(TableOptions(log=True)).chains}
    for name in (*DENIED.values(), *PENDING.values()):
        assert f'log prefix "{name}" group 77' in " ".join([rule.text for rule in chains[name].rules])


@pytest.mark.parametrize(
    ("denied", "line"),
    [
        (
            packet(DENIED[IN], "10.244.1.7", "10.244.2.9"),
            "ingress src=ns1/client(10.244.1.7) dst=ns2/db(10.244.2.9) tcp/5432 isolated-by=ns2/db,ns2/default-deny",
        ),
        (
            packet(DENIED[OUT], "fd00::9", "2001:db8::1", 17, 53),
            "egress src=ns2/db(fd00::9) dst=2001:db8::1 udp/53 isolated-by=ns2/default-deny",
        ),
        (
            packet(DENIED[IN], "192.0.2.1", "10.244.2.9", 1, 0),
            "ingress src=192.0.2.1 dst=ns2/db(10.244.2.9) icmp isolated-by=ns2/db,ns2/default-deny",
        ),
        (
            packet(DENIED[IN], "192.0.2.1", "10.244.2.9", 47, 0),
            "ingress src=192.0.2.1 dst=ns2/db(10.244.2.9) protocol-47 isolated-by=ns2/db,ns2/default-deny",
        ),
        (
            packet(PENDING[OUT], "10.244.1.50", "10.244.2.9", 132, 7),
            "egress src=10.244.1.50 dst=ns2/db(10.244.2.9) sctp/7 pending",
        ),
        (packet(PENDING[IN], "10.244.2.9", "10.244.1.50", 58, 0),
         "ingress src=ns2/db(10.244.2.9) dst=10.244.1.50 icmpv6 pending"),
        (packet("theirs", "10.244.1.7", "10.244.2.9"), ""),
        (packet("", "10.244.1.7", "10.244.2.9"), ""),
    ],
)  # fmt: skip
def test_a_line_tells_direction_ends_traffic_and_policies(denied: PacketDenied, line: str) -> None:
    assert denial_text(index(DB, CLOSED), denied) == line


def test_what_a_policy_allows_meanwhile_is_told_so() -> None:
    denied = packet(DENIED[IN], "10.244.1.7", "10.244.2.9", port=80)
    assert denial_text(index(DB), denied).endswith(" tcp/80 allowed-by-now")
    assert denial_text(Index("n1"), denied) == "ingress src=10.244.1.7 dst=10.244.2.9 tcp/80 allowed-by-now"


def test_of_many_policies_some_are_named() -> None:
    many = [policy_of(f"ns2/p{number}", "{podSelector: {}}") for number in range(10)]
    line = denial_text(index(*many), packet(DENIED[IN], "10.244.1.7", "10.244.2.9"))
    assert line.endswith(f"isolated-by={','.join([f'ns2/p{number}' for number in range(8)])},... (10 in all)")


def test_a_cluster_network_policy_that_denies_is_named() -> None:
    known = index(DB)
    for name in ("ns1", "ns2"):
        known.put_namespace(namespace_of(name))
    spec = "{tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}"
    known.put_policy(cluster_policy_of("no-web", spec))
    line = denial_text(known, packet(DENIED[IN], "10.244.1.7", "10.244.2.9", port=80))
    assert line.endswith(" tcp/80 denied-by=ClusterNetworkPolicy/no-web")


def test_each_packet_is_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="podwired")
    denials = Denials(index(CLOSED))
    events: tuple[Any, ...] = (
        packet("theirs", "10.244.1.7", "10.244.2.9"),
        PolicyStoreRecovered(),
        packet(DENIED[IN], "10.244.1.7", "10.244.2.9"),
    )
    for event in events:
        denials.handle(event)
    assert caplog.messages == [
        "denied ingress src=ns1/client(10.244.1.7) dst=ns2/db(10.244.2.9) tcp/5432 isolated-by=ns2/default-deny"
    ]
    assert [record.name for record in caplog.records] == ["podwired.denials"]
    assert denials.sync()
