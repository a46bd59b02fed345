"""podwired's rules: what they say, and that the kernel has them as nft would write them."""

from __future__ import annotations

import os
from errno import EMFILE, EPROTONOSUPPORT
from typing import TYPE_CHECKING

import pytest

from cni.agent.dataplane.tunnel_filter import SETS, Tunnel
from cni.agent.node.masquerade import Rules, ensure, table_of
from cni.effects.host import Host
from cni.kernel import nft, nft_ruleset
from cni.plan import nftrule
from cni.plan.nftrule import Hook
from cni.protocol.address import parse_net
from cni.protocol.errors import OperationFailed
from tests.unit.test_nft_ruleset import dumped, send

if TYPE_CHECKING:
    from cni.kernel.netlink import Netlink
    from tests.machine import Machine

SPACE4 = parse_net("10.5.0.0/16"), parse_net("10.5.1.0/24")
SPACE6 = parse_net("fd00:5::/56"), parse_net("fd00:5:0:1::/64")
RULES = Rules("podwired", (SPACE4, SPACE6), masquerades=True, fully_random=True, forwards=True)
CONDITIONS = [
    "meta nfproto ipv4 meta mark & 0x4000 == 0x4000 return",
    "ip saddr 10.5.1.0/24 ip daddr 10.5.0.0/16 return",
    "ip saddr 10.5.0.0/16 ip daddr 10.5.1.0/24 return",
    "ip saddr != 10.5.0.0/16 ip daddr 10.5.1.0/24 return",
    "ip saddr 10.5.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random",
    "ip saddr != 10.5.0.0/16 ip daddr 10.5.0.0/16 masquerade fully-random",
    "meta nfproto ipv6 meta mark & 0x4000 == 0x4000 return",
    "ip6 saddr fd00:5:0:1::/64 ip6 daddr fd00:5::/56 return",
    "ip6 saddr fd00:5::/56 ip6 daddr fd00:5:0:1::/64 return",
    "ip6 saddr != fd00:5::/56 ip6 daddr fd00:5:0:1::/64 return",
    "ip6 saddr fd00:5::/56 ip6 daddr != ff00::/8 masquerade fully-random",
    "ip6 saddr != fd00:5::/56 ip6 daddr fd00:5::/56 masquerade fully-random",
]


def text_of(rules: Rules) -> str:
    return "\n".join(nftrule.commands(table_of(rules)[0]))


def comments_of(rules: Rules) -> list[str]:
    return table_of(rules)[1]


def test_the_rules_are_flannels_in_its_order() -> None:
    (chain,) = table_of(RULES)[0].chains
    assert [rule._replace(comment="").text for rule in chain.rules] == CONDITIONS
    assert [rule.comment for rule in chain.rules] == comments_of(RULES)
    assert len({*comments_of(RULES)}) == len(CONDITIONS)
    assert chain.hook == Hook("nat", "postrouting", 100)


@pytest.mark.parametrize("tunnel", [None, Tunnel(1, ("flannel.1",)), Tunnel(16_777_215, ("flannel.1", "v6"))])
@pytest.mark.parametrize("fully_random", [True, False])
def test_the_table_is_what_nft_makes_of_its_text_and_is_replaced_as_a_whole(
    machine: Machine, tunnel: Tunnel | None, fully_random: bool
) -> None:
    table, _ = table_of(RULES._replace(tunnel=tunnel, fully_random=fully_random))
    machine.run("nft", "-f", "-", stdin="\n".join([*nftrule.commands(table), ""]))
    by_nft, shown = machine.call(dumped), machine.run("nft", "list", "ruleset").stdout
    machine.run("nft", "add chain inet podwired another; add element inet podwired peers4 { 192.0.2.1 }", check=False)
    assert machine.call(send, nft_ruleset.replace(table)) is None
    assert machine.call(dumped) == by_nft
    assert machine.run("nft", "list", "ruleset").stdout == shown


def test_where_nothing_is_masqueraded_the_table_goes(machine: Machine) -> None:
    for rules in (RULES._replace(masquerades=False), RULES._replace(spaces=())):
        assert table_of(rules) == (nftrule.Table("inet", "podwired"), [])
        machine.run("nft", "add table inet podwired")
        for _ in range(2):
            assert machine.call(send, nft_ruleset.replace(table_of(rules)[0])) is None
            assert machine.run("nft", "list", "ruleset").stdout == ""


def test_a_family_that_is_not_used_has_no_rule() -> None:
    assert "ip6" not in text_of(RULES._replace(spaces=(SPACE4,)))
    assert "ip saddr" not in text_of(RULES._replace(spaces=(SPACE6,)))


def test_ports_are_chosen_as_the_kernel_likes_where_that_is_asked_for() -> None:
    assert "fully-random" not in text_of(RULES._replace(fully_random=False))


def test_the_tunnels_filter_is_in_the_same_table_with_its_sets() -> None:
    tunnel = Tunnel(1, ("flannel.1",))
    for masquerades in (True, False):
        rules = RULES._replace(masquerades=masquerades, tunnel=tunnel)
        comments = comments_of(rules)
        assert text_of(rules).count(" comment ") == len(comments) == len({*comments})
        assert all(f"add set inet podwired {name} {{ type {kind} ; }}" in text_of(rules) for name, kind in SETS.items())
        assert ("add chain inet podwired postrouting" in text_of(rules)) is masquerades
    assert " set " not in text_of(RULES)
    assert comments_of(RULES._replace(tunnel=tunnel)) != comments_of(RULES._replace(tunnel=tunnel._replace(vni=2)))


def test_comments_tell_rules_apart_and_are_the_same_again() -> None:
    others = [
        RULES,
        RULES._replace(fully_random=False),
        RULES._replace(spaces=(SPACE4,)),
        RULES._replace(spaces=(SPACE6, SPACE4)),
        RULES._replace(spaces=((SPACE4[0], parse_net("10.5.2.0/24")), SPACE6)),
    ]
    assert len({comments_of(rules)[0] for rules in others}) == len(others)
    assert table_of(RULES) == table_of(RULES._replace(forwards=False))


def test_a_comment_fits_nftables_limit() -> None:
    assert all(len(comment) < 128 for comment in comments_of(RULES))


class WithoutNetfilter:
    """A host whose kernel has no nfnetlink: the socket cannot be opened."""

    def __init__(self, errno: int) -> None:
        self._errno = errno

    @property
    def netfilter(self) -> Netlink:
        raise OSError(self._errno, os.strerror(self._errno))


def test_a_kernel_without_nfnetlink_is_named_with_the_module() -> None:
    with pytest.raises(OperationFailed, match=r"not supported by the kernel \(load the module nf_tables\)"):
        ensure(WithoutNetfilter(EPROTONOSUPPORT), RULES)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="open files"):
        ensure(WithoutNetfilter(EMFILE), RULES)  # type: ignore[arg-type]


def without_nf_tables() -> str:
    """Returns the error of a kernel that rejects the batch, as nfnetlink does for a subsystem that it does not have."""
    host = Host(os.environ, print)
    vars(nft)["NFNL_SUBSYS_NFTABLES"] = 0x3F  # of no subsystem
    try:
        ensure(host, RULES)
    except OperationFailed as error:
        return str(error)
    finally:
        host.close()
    return ""


def test_a_kernel_without_nf_tables_is_named_with_the_module(machine: Machine) -> None:
    assert machine.call(without_nf_tables) == "nftables: not supported by the kernel (load the module nf_tables)"
