"""The rules of mapped ports: maps, and the chains for destination NAT and source NAT.

The bit in a packet's mark means "through a host port"; it is cleared if no port is found.
"""

from __future__ import annotations

from cni.config.portmap import MARK_BIT
from cni.plan.nftables import ADDRESS_TYPE, PROTOCOL, TABLE, standby_map
from cni.plan.nftrule import (
    DROP,
    DSTNAT,
    RAW,
    RETURN,
    SRCNAT,
    AnonymousSet,
    Chain,
    Dnat,
    Hook,
    Masq,
    Match,
    NamedSet,
    Raw,
    Rule,
    SetMark,
    Table,
    Verdict,
    VerdictMap,
)
from cni.plan.portmap import OPEN_PORTS
from cni.protocol.address import IP, Net, parse_net

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.plan.nftrule import Statement
    from cni.plan.portmap import Condition, Hairpin

LOOPBACK4, LOOPBACK6 = parse_net("127.0.0.0/8"), IP(6, 1)
LOOPBACK: dict[int, Net | IP] = {4: LOOPBACK4, 6: LOOPBACK6}
AFTER_DSTNAT = DSTNAT + 1
PORT = "meta l4proto . th dport"


def table(hairpins: Sequence[Hairpin], conditions: Sequence[Condition]) -> Table:
    """Returns all that is needed for ports with these conditions, and for these hairpins."""
    chains: list[Chain] = []
    for bit in (MARK_BIT, *[condition.mark_bit for condition in conditions]):
        chains += _marking(bit)
    chains += [Chain(condition.chain, (_conditional(condition),)) for condition in conditions]
    chains += [Chain(hairpin.chain, (Rule((*_source(hairpin), Masq())),)) for hairpin in hairpins]
    chains += _entrances()
    return Table("inet", TABLE, tuple(_maps()), tuple({chain.name: chain for chain in chains}.values()))


def _conditional(condition: Condition) -> Rule:
    ports = Verdict("goto", f"hostports-{condition.mark_bit}")
    return Rule((Raw(condition.expression), ports) if condition.expression else (ports,))


def _source(hairpin: Hairpin) -> tuple[Statement, ...]:
    if hairpin.everybody:
        return ()
    family = hairpin.address.family
    own = AnonymousSet((hairpin.address.network, LOOPBACK[family]))
    return (Match(f"{PROTOCOL[family]} saddr", own),)


def _entrances() -> list[Chain]:
    """Returns the base chains for packets from outside and from the host itself, and those that drop packets for
    127.0.0.0/8 from outside, as the kernel does without route_localnet. Replies are marked for the interfaces' own
    filters (cni.effects.route_localnet).
    """
    conditional = []
    for family, protocol in PROTOCOL.items():
        at_address = VerdictMap(f"{protocol} daddr . {PORT}", f"condition_hostip_hostports{family}")
        anywhere = VerdictMap(PORT, f"condition_hostports{family}")
        conditional += [Rule((at_address,)), Rule((Match("meta nfproto", f"ipv{family}"), anywhere))]
    # IPv6 has no route_localnet: answers to ::1 would get lost, and who asks for localhost would wait for them.
    stays = Rule((Match("ip6 daddr", LOOPBACK6), RETURN))
    local = Rule((Match("fib daddr type", "local"), Verdict("jump", "hostports")))
    foreign = Match("iifname", "lo", negated=True), Match("ip daddr", LOOPBACK4)
    answer = Rule((*foreign, Match("ct direction", "reply"), SetMark(1 << MARK_BIT)))
    return [
        Chain("hostports", (*conditional, Rule((Verdict("goto", OPEN_PORTS),)))),
        Chain("prerouting", (local,), Hook("nat", "prerouting", DSTNAT)),
        Chain("output", (stays, local), Hook("nat", "output", DSTNAT)),
        Chain("loopback", (Rule((*foreign, DROP)),), Hook("filter", "prerouting", RAW)),
        Chain("loopback-answers", (answer,), Hook("filter", "prerouting", AFTER_DSTNAT)),
    ]


def _maps() -> list[NamedSet]:
    maps = []
    for family in (4, 6):
        ip = ADDRESS_TYPE[family]
        target = f"{ip} . inet_service"
        for name, front in (("hostports", ""), ("hostip_hostports", f"{ip} . ")):
            key = f"{front}inet_proto . inet_service"
            maps.append(NamedSet(f"{name}{family}", key, target))
            maps.append(NamedSet(f"condition_{name}{family}", key, "verdict"))
            maps.append(NamedSet(standby_map(f"{name}{family}"), f"{key} . {target}", "verdict"))
        maps.append(NamedSet(f"hairpin{family}", ip, "verdict"))
    return maps


def _marking(bit: int) -> list[Chain]:
    """Returns the chains of a mark bit: a destination that is found ends the chain with the bit set."""
    mark = 1 << bit
    rules, back = [Rule((SetMark(mark),))], []
    for family, protocol in PROTOCOL.items():
        at_address = Dnat(family, f"{protocol} daddr . {PORT}", f"hostip_hostports{family}")
        anywhere = Dnat(family, PORT, f"hostports{family}")
        rules += [Rule((at_address,)), Rule((Match("meta nfproto", f"ipv{family}"), anywhere))]
        marked = Match("meta mark", mark, mask=mark)
        back.append(Rule((marked, VerdictMap(f"{protocol} daddr", f"hairpin{family}"))))
    rules.append(Rule((SetMark(mark, on=False),)))
    return [
        Chain(f"hostports-{bit}", tuple(rules)),
        Chain(f"hairpin-bit{bit}", tuple(back), Hook("nat", "postrouting", SRCNAT)),
    ]
