"""The text of podwired's rules."""

from __future__ import annotations

from cni.agent.dataplane.tunnel_filter import SETS, Tunnel
from cni.agent.node.masquerade import Rules, text_of
from cni.protocol.address import parse_net

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


def test_the_rules_are_flannels_in_its_order() -> None:
    text, comments = text_of(RULES)
    rules = [line.strip().partition(" comment ") for line in text.splitlines() if " comment " in line]
    assert [rule for rule, _, _ in rules] == CONDITIONS
    assert [comment.strip('"') for _, _, comment in rules] == comments
    assert len({*comments}) == len(comments)


def test_the_table_is_replaced_as_a_whole() -> None:
    lines = text_of(RULES)[0].splitlines()
    assert lines[:5] == [
        "add table inet podwired",
        "delete table inet podwired",
        "table inet podwired {",
        "  chain postrouting {",
        "    type nat hook postrouting priority srcnat; policy accept;",
    ]
    assert lines[-2:] == ["  }", "}"]


def test_where_nothing_is_masqueraded_the_table_goes() -> None:
    for rules in (RULES._replace(masquerades=False), RULES._replace(spaces=())):
        assert text_of(rules) == ("add table inet podwired\ndelete table inet podwired\n", [])


def test_a_family_that_is_not_used_has_no_rule() -> None:
    assert "ip6" not in text_of(RULES._replace(spaces=(SPACE4,)))[0]
    assert "ip saddr" not in text_of(RULES._replace(spaces=(SPACE6,)))[0]


def test_ports_are_chosen_as_the_kernel_likes_where_that_is_asked_for() -> None:
    assert "fully-random" not in text_of(RULES._replace(fully_random=False))[0]


def test_the_tunnels_filter_is_in_the_same_table_with_its_sets() -> None:
    tunnel = Tunnel(1, ("flannel.1",))
    for masquerades in (True, False):
        text, comments = text_of(RULES._replace(masquerades=masquerades, tunnel=tunnel))
        assert text.count(" comment ") == len(comments) == len({*comments})
        assert all(f"  set {name} {{ type {kind}; }}" in text for name, kind in SETS.items())
        assert ("chain postrouting" in text) is masquerades
    assert " set " not in text_of(RULES)[0]
    assert text_of(RULES._replace(tunnel=tunnel))[1] != text_of(RULES._replace(tunnel=tunnel._replace(vni=2)))[1]


def test_comments_tell_rules_apart_and_are_the_same_again() -> None:
    others = [
        RULES,
        RULES._replace(fully_random=False),
        RULES._replace(spaces=(SPACE4,)),
        RULES._replace(spaces=(SPACE6, SPACE4)),
        RULES._replace(spaces=((SPACE4[0], parse_net("10.5.2.0/24")), SPACE6)),
    ]
    assert len({text_of(rules)[1][0] for rules in others}) == len(others)
    assert text_of(RULES) == text_of(RULES._replace(forwards=False))


def test_a_comment_fits_nftables_limit() -> None:
    assert all(len(comment) < 128 for comment in text_of(RULES)[1])
