"""The tunnel filter's rules, and the messages that keep its sets."""

from __future__ import annotations

from errno import ENOENT
from typing import TYPE_CHECKING, Any, cast

import pytest

from cni.agent.dataplane.tunnel_filter import Tunnel, TunnelFilter, chains
from cni.agent.model.lease import Endpoint, Lease
from cni.kernel import nft, nft_keys
from cni.kernel.netlink import NetlinkError, attributes
from cni.protocol.address import parse_ip, parse_net

if TYPE_CHECKING:
    from cni.effects.host import Host
    from cni.kernel.rtnl import Message
    from cni.plan.nftrule import Chain

SPACES = (parse_net("10.5.0.0/16"), parse_net("10.5.1.0/24")), (parse_net("fd00:5::/56"), parse_net("fd00:5:0:1::/64"))
TUNNEL = Tunnel(7, ("flannel.7", "flannel-v6.7"))


class Kernel:
    """Sets in the place of the kernel's; `asked` counts the times that all keys of one were."""

    def __init__(self, *names: str) -> None:
        self.sets: dict[str, set[bytes]] = {name: set() for name in names}
        self.sent: list[tuple[str, str, set[bytes]]] = []
        self.asked = 0
        self.netfilter = self

    def dump(self, _: int, payload: bytes) -> list[bytes]:
        self.asked += 1
        name = set_of(payload)
        if name not in self.sets:
            raise NetlinkError(ENOENT, "")
        return [nft_keys.add_keys(nft.SetRef(1, "podwired", name), self.sets[name])[2]]

    def batch(self, messages: list[Message]) -> NetlinkError | None:
        for kind, _, payload in messages[1:-1]:
            name, keys = set_of(payload), set(nft_keys.parse_keys(payload))
            adding = kind & 0xFF == nft.NFT_MSG_NEWSETELEM
            self.sent.append((name, "add" if adding else "delete", keys))
            if not adding and keys - self.sets[name]:
                return NetlinkError(ENOENT, "")
            self.sets[name] = self.sets[name] | keys if adding else self.sets[name] - keys
        return None


def set_of(payload: bytes) -> str:
    attrs = attributes(payload, nft.NFGENMSG.size)
    return nft.name_of(attrs[nft.NFTA_LIST_SET])


def lease(number: int, *addresses: str) -> Lease:
    nets = {4: f"10.5.{number}.0/24", 6: f"fd00:5:0:{number}::/64"}
    ips = [parse_ip(text) for text in addresses]
    return Lease(tuple([Endpoint(parse_net(nets[ip.family]), ip) for ip in ips]), "vxlan", 7)


def packed(*addresses: str) -> set[bytes]:
    return {parse_ip(text).packed for text in addresses}


@pytest.fixture
def kernel() -> Kernel:
    return Kernel("peers4", "peers6", "pods", "ports")


@pytest.fixture
def kept(kernel: Kernel) -> TunnelFilter:
    return TunnelFilter(cast("Host", cast("Any", kernel)), "podwired")


def test_the_port_comes_last_for_without_it_nothing_is_dropped(kernel: Kernel, kept: TunnelFilter) -> None:
    kept.ports = {8472}
    kept.admit_all([lease(2, "192.0.2.2", "2001:db8::2"), lease(3, "192.0.2.3")])
    assert [name for name, _, _ in kernel.sent] == ["peers4", "peers6"]
    assert kept.confine(["cni0"]) != []
    assert kernel.sent[-1] == ("ports", "add", {b"\x21\x18"})
    assert kernel.sets == {
        "peers4": packed("192.0.2.2", "192.0.2.3"),
        "peers6": packed("2001:db8::2"),
        "pods": {b"cni0".ljust(16, b"\0")},
        "ports": {b"\x21\x18"},
    }


def test_what_is_as_it_should_be_is_left_alone(kernel: Kernel, kept: TunnelFilter) -> None:
    kept.ports = {8472}
    for _ in range(2):
        kernel.sent.clear()
        kept.admit_all([lease(2, "192.0.2.2")])
        done = kept.confine(["cni0"])
    assert (done, kernel.sent) == ([], [])


def test_surplus_keys_are_removed_by_confine_alone(kernel: Kernel, kept: TunnelFilter) -> None:
    kernel.sets["peers4"] = packed("192.0.2.9")
    kept.admit_all([lease(2, "192.0.2.2")])
    assert kernel.sets["peers4"] == packed("192.0.2.9", "192.0.2.2")
    assert kept.confine([]) == ["1 entries of the tunnel's filter differed"]
    assert kernel.sets["peers4"] == packed("192.0.2.2")


def test_an_earlier_agent_s_keys_stay_until_the_peers_are_known(kernel: Kernel, kept: TunnelFilter) -> None:
    kernel.sets["peers4"] = packed("192.0.2.9")
    assert kept.confine([]) == []
    assert kernel.sent == []


def test_an_address_of_two_leases_stays_until_both_are_gone(kernel: Kernel, kept: TunnelFilter) -> None:
    first, second = lease(2, "192.0.2.2"), lease(3, "192.0.2.2")
    kept.admit_all([first])
    kept.admit([second])
    kept.dismiss([first])
    assert kernel.sets["peers4"] == packed("192.0.2.2")
    kept.dismiss([second])
    assert kernel.sets["peers4"] == set()


def test_a_lease_that_changes_but_for_its_address_changes_nothing(kernel: Kernel, kept: TunnelFilter) -> None:
    kept.admit_all([lease(2, "192.0.2.2")])
    kernel.sent.clear()
    kept.admit([lease(3, "192.0.2.2")])
    kept.dismiss([lease(2, "192.0.2.2")])
    assert kernel.sent == []


def test_one_change_asks_for_nothing_and_takes_one_transaction(kernel: Kernel, kept: TunnelFilter) -> None:
    kept.admit_all([lease(2, "192.0.2.2")])
    kernel.sent.clear()
    kernel.asked = 0
    kept.admit([lease(3, "192.0.2.3")])
    assert (kernel.sent, kernel.asked) == ([("peers4", "add", packed("192.0.2.3"))], 0)


def test_further_addresses_of_a_node_are_let_in_as_well(kernel: Kernel, kept: TunnelFilter) -> None:
    peer = lease(2, "203.0.113.2")._replace(sources=(parse_ip("192.0.2.2"), parse_ip("2001:db8::2")))
    kept.admit_all([peer])
    assert kernel.sets["peers4"] == packed("203.0.113.2", "192.0.2.2")
    assert kernel.sets["peers6"] == packed("2001:db8::2")
    kept.dismiss([peer])
    assert kernel.sets["peers4"] == kernel.sets["peers6"] == set()


def test_thousands_go_in_few_messages(kernel: Kernel, kept: TunnelFilter) -> None:
    kept.admit_all([lease(2, f"192.0.{number >> 8}.{number & 255}") for number in range(5000)])
    assert [len(keys) for _, _, keys in kernel.sent] == [nft_keys.AT_A_TIME] * (5000 // nft_keys.AT_A_TIME)


def test_without_the_rules_nothing_is_sent(kept: TunnelFilter, kernel: Kernel) -> None:
    kernel.sets.clear()
    kept.admit_all([lease(2, "192.0.2.2")])
    kept.admit([lease(3, "192.0.2.3")])
    kept.dismiss([lease(2, "192.0.2.2")])
    assert (kept.confine(["cni0"]), kernel.sent) == ([], [])


def test_after_a_refusal_the_kernel_is_asked_again(kernel: Kernel, kept: TunnelFilter) -> None:
    kept.admit_all([lease(2, "192.0.2.2"), lease(3, "192.0.2.3")])
    kernel.sets["peers4"].clear()
    with pytest.raises(NetlinkError):
        kept.dismiss([lease(2, "192.0.2.2")])
    kept.confine([])
    assert kernel.sets["peers4"] == packed("192.0.2.3")


def rules_of(ruleset: list[Chain], name: str) -> list[str]:
    return [rule.text for chain in ruleset if chain.name == name for rule in chain.rules]


def test_rules_judge_pods_and_the_tunnel_itself_before_the_vni_and_peers_before_all_else() -> None:
    assert rules_of(chains(TUNNEL, SPACES), "tunnel") == [
        "iifname @pods counter drop",
        'iifname { "flannel.7", "flannel-v6.7" } counter drop',
        "@th,96,24 != 7 return",
        "ip saddr @peers4 return",
        "ip6 saddr @peers6 return",
        "counter drop",
    ]


def test_pods_may_reach_pods_but_no_peer_and_nobody_outside() -> None:
    rules = chains(TUNNEL, SPACES[:1])
    assert rules_of(rules, "forward") == [
        "udp dport @ports iifname @pods goto away",
        "udp dport @ports ip saddr 10.5.1.0/24 goto away",
    ]
    assert rules_of(rules, "away") == ["ip daddr @peers4 counter drop", "ip daddr 10.5.0.0/16 return", "counter drop"]
