"""Accepting and isolating: what is configured, what is planned, how messages are built, how firewalls are judged."""

from __future__ import annotations

import struct
from errno import ENOENT
from typing import TYPE_CHECKING, Any

import pytest

from cni.config.firewall import ISOLATED, OPEN, SAME_BRIDGE, families_of, parse_firewall
from cni.config.netconf import parse_netconf
from cni.effects import forward_rules
from cni.effects.forward_audit import GONE, understand
from cni.kernel import nft, nft_rules
from cni.kernel.netlink import NetlinkError, attribute, frame, messages, text
from cni.kernel.nft import Chain
from cni.kernel.rtnl_socket import RtnlSocket
from cni.plan import adminchain, firewalld, forward_accept, forward_audit, isolation
from cni.plan.adminchain import AdminChain
from cni.plan.attachment import Attachment, Facts, names_of
from cni.plan.firewalld import ZoneSource
from cni.plan.forward_accept import Accept, dropped
from cni.plan.forward_audit import ACCEPT, BARS, RETURN, Rule, judge, read_iptables
from cni.plan.isolation import IsolatedPort, Isolation
from cni.plan.plan import plan_attachment
from cni.protocol.address import parse_net
from cni.protocol.fields import ConfigErrors
from cni.protocol.owner import Owner, label_keys
from cni.protocol.plugin_config import PluginConfig
from cni.protocol.result import IPConfig, Result

if TYPE_CHECKING:
    from cni.config.firewall import Firewall
    from cni.protocol.jsontext import JsonValue

FORWARD = Chain(2, "filter", "FORWARD")
INET = Chain(1, "filter", "forward")
NET4, NET6 = parse_net("10.1.2.0/24"), parse_net("2001:db8:1::/64")


def parsed(**members: JsonValue) -> tuple[Firewall, list[str]]:
    errors = ConfigErrors()
    conf = parse_firewall(PluginConfig("net", "1.1.0", members, b"").fields(errors))
    return conf, errors.messages


# --- Configuration


@pytest.mark.parametrize(
    ("members", "policy"),
    [
        ({}, OPEN),
        ({"ingressPolicy": None}, OPEN),
        ({"ingressPolicy": ""}, OPEN),
        ({"IngressPolicy": "open"}, OPEN),
        ({"ingressPolicy": "same-bridge"}, SAME_BRIDGE),
        ({"ingressPolicy": "isolated", "backend": "iptables"}, ISOLATED),
    ],
)
def test_the_policies_of_the_reference(members: dict[str, JsonValue], policy: str) -> None:
    conf, errors = parsed(**members)
    assert (conf.policy, errors) == (policy, [])


def test_every_fault_has_its_path() -> None:
    _, errors = parsed(ingressPolicy="Open", backend="ipchains")
    assert errors == [
        "ingressPolicy: 'Open' is not one of open, same-bridge, isolated",
        "backend: 'ipchains' is not one of firewalld, iptables, nftables",
    ]
    assert parsed(ingressPolicy=1, backend=[])[1] == ["ingressPolicy: expected a text", "backend: expected a text"]


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, ("", "trusted", "CNI-ADMIN")),
        ({"backend": "firewalld", "firewalldZone": "public"}, ("firewalld", "public", "CNI-ADMIN")),
        ({"iptablesAdminChainName": "NOMAD-ADMIN"}, ("", "trusted", "NOMAD-ADMIN")),
    ],
)
def test_zone_and_chain_are_the_references(members: dict[str, JsonValue], expected: tuple[str, str, str]) -> None:
    conf, errors = parsed(**members)
    assert ((conf.backend, conf.zone, conf.admin_chain), errors) == (expected, [])


def test_the_administrators_chain_is_looked_for_once_a_family() -> None:
    (operations,) = adminchain.operations(
        "CNI-ADMIN", [*map(parse_net, ("2001:db8::3/64", "10.1.2.3/24", "10.1.2.4/24"))]
    )
    assert operations == AdminChain("CNI-ADMIN", (4, 6))
    assert operations.describe() == "where there is a chain CNI-ADMIN: iptables -I FORWARD -j CNI-ADMIN"
    assert adminchain.operations("CNI-ADMIN", []) == ()


def test_a_chain_of_what_is_forwarded_drops_nothing_by_itself() -> None:
    _, _, payload = nft_rules.add_forward_chain(FORWARD)
    assert (nft.parse_chain(payload), nft.filters_forwarded(payload)) == (FORWARD, True)


def test_a_containers_addresses_alone_are_sources_of_the_zone() -> None:
    operations = firewalld.operations("trusted", [parse_net("10.1.2.3/24"), parse_net("2001:db8::3/64")])
    assert operations == tuple([ZoneSource("trusted", parse_net(text)) for text in ("10.1.2.3/32", "2001:db8::3/128")])
    assert operations[0].describe() == "firewall-cmd --zone=trusted --add-source=10.1.2.3/32"


@pytest.mark.parametrize(
    ("ipam", "families"),
    [
        ({}, (4,)),
        ({"type": "dhcp"}, (4,)),
        ({"subnet": "10.1.0.0/16"}, (4,)),
        ({"subnet": "fd00::/64"}, (6,)),
        ({"ranges": [[{"subnet": "fd00::/64"}], [{"subnet": "10.1.0.0/16"}]]}, (4, 6)),
        ({"ranges": [[{"Subnet": "x"}, {}, 1], 2, None]}, (4,)),
        ({"ranges": [[{"subnet": 7}]]}, (4,)),
    ],
)
def test_the_families_of_a_network(ipam: dict[str, JsonValue], families: tuple[int, ...]) -> None:
    assert families_of(PluginConfig("net", "1.1.0", {"ipam": ipam}, b"")) == families


# --- Plan


def planned(program: str, *addresses: str) -> list[Accept]:
    conf = parse_netconf(PluginConfig("net", "1.1.0", {}, b""), {}, ConfigErrors(), program)
    lease = Result(ips=tuple([IPConfig(parse_net(address)) for address in addresses]))
    owner = Owner("net", "c1", "eth0")
    attachment = Attachment(owner, "", conf, Facts("node", None, ipv6=True), names_of(owner, None, lease), lease)
    return [op for op in plan_attachment(attachment).operations if isinstance(op, Accept)]


def test_podwire_accepts_by_subnet_and_bridge_as_its_reference_does_not() -> None:
    assert planned("podwire", "10.1.2.3/24", "2001:db8:1::3/64", "10.1.2.4/24") == [Accept((NET4, NET6), inbound=True)]
    assert planned("podwire") == planned("bridge", "10.1.2.3/24") == planned("ptp", "10.1.2.3/24") == []


def test_what_a_person_would_do() -> None:
    (accept,) = forward_accept.operations([NET4, NET6], inbound=True)
    assert "10.1.2.0/24, 2001:db8:1::/64" in accept.describe()
    assert "answers" not in accept.describe()
    (other,) = forward_accept.operations([NET4], inbound=False)
    assert "answers" in other.describe()
    assert Isolation("br0", within=False).describe() == "nft add element inet podwire isolating { br0 }"
    assert Isolation("br0", within=True).describe().endswith("{ br0 }, isolated { br0 . br0 }")
    assert IsolatedPort("veth1").describe() == "bridge link set dev veth1 isolated on"


def test_a_chain_is_named_as_nft_does() -> None:
    assert dropped("forward", "inet myfw") == (
        "chain forward of table inet myfw drops what is forwarded (policy drop):"
        " accept traffic of the containers there, or set its policy to accept"
    )
    assert [Chain(family, "t", "c").table_text for family in (1, 2, 10)] == ["inet t", "ip t", "ip6 t"]


def test_the_rules_of_isolation() -> None:
    (chain,) = isolation.ruleset().content().chains
    assert [rule.text for rule in chain.rules] == [
        "iifname . oifname @isolated drop",
        "iifname . oifname @same_bridge return",
        "iifname @isolating oifname @isolating drop",
    ]


def test_elements_of_bridges_are_nobodys() -> None:
    from cni.effects.isolation import LABEL

    assert label_keys(LABEL) is None


# --- Messages


def answered(expressions: bytes, comment: str = "", chain: str = "c") -> nft_rules.Rule:
    """A rule as the kernel would tell of it."""
    _, _, payload = nft_rules.append_rule(Chain(2, "t", chain), expressions, comment)
    return nft_rules.parse_rule(payload + attribute(nft_rules.NFTA_RULE_HANDLE, struct.pack(">Q", 9)))


def test_a_rule_reads_back_as_it_was_built() -> None:
    rule = answered(nft_rules.from_subnet(FORWARD, NET4) + nft_rules.accept(), "podwire: from 10.1.2.0/24")
    assert (rule.chain, rule.comment, rule.target) == ("c", "podwire: from 10.1.2.0/24", "")
    assert rule.handle == struct.pack(">Q", 9)
    assert [name for name, _ in rule.expressions] == ["payload", "cmp", "counter", "immediate"]
    assert answered(nft_rules.jump("PODWIRE-FORWARD")).target == "PODWIRE-FORWARD"


def test_the_comment_of_a_restored_rule_is_found() -> None:
    """iptables-restore writes it as an expression of 256 bytes."""
    expression = nft_rules._match("comment", 0, b"podwire: to 10.1.2.0/24".ljust(256, b"\0"))
    assert answered(expression + nft_rules.accept()).comment == "podwire: to 10.1.2.0/24"
    assert answered(nft_rules._match("mark", 0, b"x") + nft_rules.accept()).comment == ""


@pytest.mark.parametrize(
    ("chain", "subnet", "names"),
    [
        (FORWARD, "10.0.0.0/8", ["payload", "cmp"]),
        (FORWARD, "10.1.2.0/23", ["payload", "bitwise", "cmp"]),
        (FORWARD, "10.1.2.3/32", ["payload", "cmp"]),
        (INET, "10.1.2.0/24", ["meta", "cmp", "payload", "cmp"]),
        (INET, "2001:db8::/63", ["meta", "cmp", "payload", "bitwise", "cmp"]),
    ],
)
def test_a_subnet_is_matched_as_nft_does(chain: Chain, subnet: str, names: list[str]) -> None:
    built = nft_rules.to_subnet(chain, parse_net(subnet))
    assert [name for name, _ in answered(built).expressions] == names


def comments(chain: Chain, op: Accept) -> list[str]:
    return [rule.comment for rule in forward_rules._wanted(chain, op)]


def test_each_table_gets_the_rules_of_its_family() -> None:
    both = Accept((NET4, NET6), inbound=True)
    four = ["podwire: from 10.1.2.0/24", "podwire: to 10.1.2.0/24"]
    six = ["podwire: from 2001:db8:1::/64", "podwire: to 2001:db8:1::/64"]
    assert comments(FORWARD, both) == four
    assert comments(FORWARD._replace(family=10), both) == six
    assert comments(INET, both) == four + six


def test_answers_alone_are_accepted_in_the_language_of_the_table() -> None:
    """With `ct state` in it, iptables gives up a table; of several conditions nftables needs a rule for each."""
    closed = Accept((NET4,), inbound=False)
    assert comments(FORWARD, closed) == ["podwire: from 10.1.2.0/24", "podwire: answers to 10.1.2.0/24"]
    assert comments(INET, closed)[1:] == ["podwire: answers to 10.1.2.0/24", "podwire: host ports of 10.1.2.0/24"]
    names = {name for part in nft_rules.answers(FORWARD).values() for name, _ in answered(part).expressions}
    assert names == {"match"}
    assert len(nft_rules.CONNTRACK.pack(1, 0, 1, 0)) == 168  # XT_ALIGN(sizeof(struct xt_conntrack_mtinfo3))


class Script:
    """A socket that answers as it was told."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.sent: list[bytes] = []

    def send(self, data: bytes) -> int:
        self.sent.append(data)
        return len(data)

    def recvmsg(self, *arguments: int) -> tuple[bytes, list[object], int, tuple[int, int]]:
        del arguments
        return self.answers.pop(0), [], 0, (0, 0)


def scripted(*answers: bytes) -> tuple[RtnlSocket, Script]:
    netlink, script = RtnlSocket.__new__(RtnlSocket), Script(*answers)
    members: Any = netlink
    members._socket, members._sequence = script, 0
    return netlink, script


def refusal(number: int, errno: int) -> bytes:
    return frame(2, 0, number, struct.pack("=i", -errno) + bytes(16))


def test_questions_go_in_one_datagram_and_find_their_answers() -> None:
    netlink, script = scripted(
        frame(99, 0, 0, b"an older call's"), refusal(2, ENOENT), frame(5, 0, 3, b"last") + frame(5, 0, 1, b"once")
    )
    first, second, third = netlink.ask_each([(4, 0, b"a"), (4, 0, b"b"), (4, 0, b"c")])
    assert (first, third) == (b"once", b"last")
    assert isinstance(second, NetlinkError)
    assert second.errno == ENOENT
    assert len(script.sent) == 1


def test_changes_go_in_one_datagram_and_the_last_alone_asks_for_an_answer() -> None:
    netlink, script = scripted(refusal(0, ENOENT), refusal(1, ENOENT), refusal(3, 0), refusal(4, ENOENT))
    errors = netlink.change_each([(24, 0x400, b"aaaa"), (24, 0, b"bbbb"), (25, 0, b"cccc")])
    assert {position: error.errno for position, error in errors.items()} == {0: ENOENT}
    [datagram] = script.sent
    sent = [(kind, flags, payload) for kind, flags, _, payload in messages(datagram)]
    assert sent == [(24, 0x401, b"aaaa"), (24, 0x1, b"bbbb"), (25, 0x5, b"cccc")]


# --- Other people's firewalls


DOCKER = """\
-P INPUT ACCEPT
-P FORWARD DROP
-P OUTPUT ACCEPT
-N DOCKER
-N DOCKER-ISOLATION-STAGE-1
-N DOCKER-ISOLATION-STAGE-2
-N DOCKER-USER
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
"""


@pytest.mark.parametrize(
    ("added", "passes"),
    [
        ("", False),
        ("-A DOCKER-USER -i cni0 -j ACCEPT", True),
        ("-A DOCKER-USER -i cni+ -j ACCEPT", True),
        ("-A DOCKER-USER -i eth+ -j ACCEPT", False),
        ("-A DOCKER-USER -j RETURN\n-A DOCKER-USER -i cni0 -j ACCEPT", False),
        ("-A DOCKER-USER ! -i eth0 -j ACCEPT", True),
        ("-A FORWARD -s 10.0.0.0/8 -j ACCEPT", True),
        ("-A FORWARD -d 10.0.0.0/8 -j ACCEPT", False),
        ("-A FORWARD -i cni0 -d 10.0.0.0/8 -j ACCEPT", True),
        ("-A FORWARD ! -d 10.0.0.0/8 -j ACCEPT", True),
        ("-A FORWARD -m state --state ESTABLISHED -j ACCEPT", False),
        ("-A FORWARD -m state --state NEW,ESTABLISHED -j ACCEPT", True),
        ("-A FORWARD -m conntrack ! --ctstate INVALID -j ACCEPT", True),
        ("-A FORWARD -j NFQUEUE --queue-num 1", True),
        ("-A FORWARD -j REJECT --reject-with icmp-port-unreachable", False),
        ("-A FORWARD -j LOG", False),
        ("-N PODS\n-A FORWARD -i cni0 -g PODS\n-A PODS -d 10.0.0.0/8 -j ACCEPT", True),
        ("-N PODS\n-A FORWARD -g PODS\n-A PODS -d 10.0.0.0/8 -j ACCEPT", False),
    ],
)
def test_iptables_rules_are_judged(added: str, passes: bool) -> None:
    listed = f"{DOCKER}{added}\n"
    assert forward_audit.drops(listed, "FORWARD")
    assert judge(read_iptables(listed), "FORWARD", "cni0").may_pass is passes


def test_a_policy_is_read_whole() -> None:
    assert not forward_audit.drops("-P FORWARD ACCEPT\n-N FORWARD2\n-A FORWARD2 -j DROP", "FORWARD")
    assert not forward_audit.drops("-P FORWARD2 DROP", "FORWARD")
    assert not forward_audit.drops("", "FORWARD")


@pytest.mark.parametrize(
    ("asked", "interface", "same"),
    [
        ("cni0", "cni0", True),
        ("cni0", "cni01", False),
        ("cni*", "cni0", True),
        ("veth12", "veth*", True),
        ("veth*", "veth1*", True),
        ("veth1*", "veth*", True),
        ("eth*", "veth*", False),
        ("eth0", "*", True),
        ("", "cni0", True),
    ],
)
def test_names_of_interfaces_are_compared(asked: str, interface: str, same: bool) -> None:
    assert judge({"c": [Rule(ACCEPT, incoming=asked)]}, "c", interface).may_pass is same


IIFNAME = nft_rules.load("meta", 6)
NAMED = nft_rules.compare(0, b"eth0".ljust(16, b"\0"))
STATE = nft_rules.load("ct", 0)
MAPPED = nft_rules.expression("lookup", text(1, "__map0"), attribute(2, b"\0\0\0\1"), attribute(3, bytes(4)))
LISTED = nft_rules.expression("lookup", text(1, "__set0"), attribute(2, b"\0\0\0\1"), attribute(5, bytes(4)))
UNLISTED = nft_rules.expression("lookup", text(1, "__set0"), attribute(2, b"\0\0\0\1"), attribute(5, b"\0\0\0\1"))
DESTINATION4 = nft_rules.to_subnet(FORWARD, NET4)


@pytest.mark.parametrize(
    ("expressions", "rule"),
    [
        (nft_rules.accept(), Rule(ACCEPT, always=True)),
        (nft_rules.jump("other"), Rule("other", always=True)),
        (nft_rules.verdict(attribute(1, struct.pack(">i", -5))), Rule(RETURN, always=True)),
        (
            nft_rules.verdict(attribute(1, struct.pack(">i", -4)) + text(2, "other")),
            Rule("other", always=True, leaves=True),
        ),
        (nft_rules.verdict(attribute(1, struct.pack(">i", 0))), Rule(BARS, always=True)),
        (nft_rules.counter() + nft_rules.expression("reject"), Rule(BARS, always=True)),
        (nft_rules.counter() + nft_rules.expression("target", text(1, "REJECT")), Rule(BARS, always=True)),
        (nft_rules._match("comment", 0, bytes(256)) + nft_rules.expression("reject"), Rule(BARS, always=True)),
        (nft_rules.load("meta", 7) + nft_rules.expression("reject"), Rule(BARS)),
        (nft_rules.load("ct", 2) + nft_rules.compare(1, bytes(4)) + nft_rules.accept(), Rule(ACCEPT, answers=True)),
        (nft_rules.expression("queue"), Rule(ACCEPT, always=True)),
        (IIFNAME + NAMED + nft_rules.accept(), Rule(ACCEPT, incoming="eth0")),
        (IIFNAME + nft_rules.compare(0, b"veth") + nft_rules.accept(), Rule(ACCEPT, incoming="veth*")),
        (IIFNAME + nft_rules.compare(1, b"eth0".ljust(16, b"\0")) + nft_rules.accept(), Rule(ACCEPT)),
        (nft_rules.load("meta", 7) + NAMED + nft_rules.accept(), Rule(ACCEPT)),
        (
            nft_rules.load("meta", 4) + nft_rules.compare(0, struct.pack("=I", 3)) + nft_rules.accept(),
            Rule(ACCEPT, "eth3"),
        ),
        (
            nft_rules.load("meta", 4) + nft_rules.compare(0, struct.pack("=I", 4)) + nft_rules.accept(),
            Rule(ACCEPT, GONE),
        ),
        (nft_rules.from_subnet(INET, NET4) + nft_rules.accept(), Rule(ACCEPT)),
        (nft_rules.from_subnet(INET, NET6) + nft_rules.accept(), Rule(ACCEPT)),
        (DESTINATION4 + nft_rules.accept(), Rule(ACCEPT, bound=True)),
        (nft_rules.to_subnet(INET, NET6) + nft_rules.accept(), Rule(ACCEPT, bound=True)),
        (nft_rules.answers(INET)["answers to"] + nft_rules.accept(), Rule(ACCEPT, answers=True)),
        (STATE + nft_rules.compare(1, struct.pack("=I", 8)) + nft_rules.accept(), Rule(ACCEPT, answers=True)),
        (STATE + nft_rules.compare(0, struct.pack("=I", 8)) + nft_rules.accept(), Rule(ACCEPT)),
        (STATE + nft_rules.compare(0, struct.pack("=I", 2)) + nft_rules.accept(), Rule(ACCEPT, answers=True)),
        (
            STATE + nft_rules.masked(struct.pack("=I", 10)) + nft_rules.compare(1, bytes(4)) + nft_rules.accept(),
            Rule(ACCEPT),
        ),
        (STATE + LISTED + nft_rules.accept(), Rule(ACCEPT, answers=True)),
        (STATE + UNLISTED + nft_rules.accept(), Rule(ACCEPT)),
        (STATE + MAPPED, Rule(ACCEPT)),
        (IIFNAME + LISTED + nft_rules.accept(), Rule(ACCEPT)),
        (IIFNAME + MAPPED, Rule(ACCEPT)),
        (nft_rules.load("payload", 1, 16, 4) + LISTED + nft_rules.accept(), Rule(ACCEPT, bound=True)),
        (nft_rules.load("payload", 1, 16, 4) + UNLISTED + nft_rules.accept(), Rule(ACCEPT)),
        (nft_rules.load("payload", 2, 16, 4) + LISTED + nft_rules.accept(), Rule(ACCEPT)),
        (nft_rules._match("conntrack", 3, bytes(168)) + nft_rules.accept(), Rule(ACCEPT)),
    ],
)
def test_rules_of_nftables_are_understood(expressions: bytes, rule: Rule) -> None:
    sets = {"__set0": [struct.pack("=I", 2), struct.pack("=I", 4)], "__map0": [struct.pack("=I", 8)]}
    assert understand(answered(expressions), {3: "eth3"}, lambda name: sets[name]) == rule


UFW = """
-P FORWARD DROP
-N ufw-before-forward
-N ufw-reject-forward
-N ufw-user-forward
-N PODWIRE-FORWARD
-A FORWARD -j ufw-before-forward
-A FORWARD -j ufw-reject-forward
-A FORWARD -m comment --comment "podwire containers" -j PODWIRE-FORWARD
-A PODWIRE-FORWARD -s 10.1.2.0/24 -j ACCEPT
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
"""


@pytest.mark.parametrize(
    ("added", "barred_by"),
    [
        ("-A ufw-reject-forward -j REJECT --reject-with icmp-port-unreachable", "ufw-reject-forward"),
        ("-A ufw-reject-forward -g DROPPED\n-A DROPPED -j DROP", "DROPPED"),
        ("-A ufw-reject-forward -p tcp -j REJECT", ""),
        ("-A ufw-reject-forward -g OTHER\n-N OTHER\n-A ufw-reject-forward -j REJECT", ""),
        ("-A ufw-reject-forward -i cni0 -g OTHER\n-N OTHER\n-A ufw-reject-forward -j REJECT", ""),
        ("-A ufw-reject-forward -d 192.0.2.0/24 -j RETURN\n-A ufw-reject-forward -j REJECT", ""),
        ("-A ufw-reject-forward -j RETURN\n-A ufw-reject-forward -j REJECT", ""),
        ("-A ufw-reject-forward -m conntrack --ctstate ESTABLISHED -j RETURN\n-A ufw-reject-forward -j DROP",
         "ufw-reject-forward"),
        ("-A ufw-reject-forward -j REJECT\n-A ufw-user-forward -s 10.1.2.0/24 -j ACCEPT", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_what_certainly_rejects_is_found_in_the_chains_that_are_led_to(added: str, barred_by: str) -> None:
    """A rule that accepts behind it, as podwire's, has no effect."""
    judgement = judge(read_iptables(UFW + added), "FORWARD", "cni0")
    assert judgement.barred_by == barred_by
    assert judgement.may_pass is not bool(barred_by)


def test_a_chain_rejects_by_its_last_rule() -> None:
    listed = "-P FORWARD ACCEPT\n-N EMPTY\n-A FORWARD -i eth1 -j ACCEPT\n-A FORWARD -j DROP\n-A OPEN -j ACCEPT"
    rules = read_iptables(listed)
    assert judge(rules, "FORWARD", "cni0").barred_by == "FORWARD"
    assert not any(judge(rules, chain, "cni0").barred_by for chain in ("EMPTY", "OPEN", "ABSENT"))


def test_a_chain_that_rejects_is_named_with_the_remedy() -> None:
    assert "chain FORWARD of table inet filter" in forward_accept.rejected("FORWARD", "inet filter", "FORWARD")
    assert forward_accept.FIREWALLD_REMEDY in forward_accept.rejected("filter_FORWARD", "inet firewalld", "")
    message = forward_accept.rejected("FORWARD", "ip filter", "ufw-reject-forward")
    assert message == (
        "chain FORWARD of table ip filter rejects what is forwarded (by chain ufw-reject-forward):"
        f" {forward_accept.UFW_REMEDY}"
    )


def test_accepted_subnets_are_each_once_and_described() -> None:
    (accept,) = forward_accept.operations([parse_net("10.1.2.3/24"), parse_net("10.1.2.4/24")], inbound=False)
    assert isinstance(accept, forward_accept.Accept)
    assert (accept.families, accept.inbound) == ((4,), False)
    assert accept.describe().endswith("accept 10.1.2.0/24 and answers to it")
    assert accept._replace(inbound=True).describe().endswith("accept 10.1.2.0/24")
    assert forward_accept.operations([], inbound=True) == ()
