"""The source check (ipSpoofCheck): what a container sends with another address than its own is dropped.

On a bridge that includes the addresses that it claims by ARP and neighbour discovery. A routed container has its
interface of the host to itself: there an address is its own if the route back to it leads there.
"""

from __future__ import annotations

from cni.plan.link import link_local
from cni.plan.nftables import BRIDGE, BRIDGED, CHECKED, INET, ROUTED, SOURCES, TABLE, TARGETS, RulesetFragment
from cni.protocol.address import IP
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.plan.attachment import Attachment
    from cni.plan.nftrule import Rule, Table

CHAIN = "sources"
DHCP = "dhcp"  # the IPAM plugin whose daemon renews leases from inside the container
ANY4, ANY6 = IP(4, 0), IP(6, 0)  # of who has no address yet


class SourceGuard(Record):
    """The source check of a container. `sources`: its addresses on a bridge; unused if it is routed."""

    host_interface: str
    sources: tuple[IP, ...]
    routed: bool
    label: str

    def describe(self) -> str:
        if self.routed:
            return f"nft add element inet podwire {ROUTED} {{ {self.host_interface} }}"
        keys: dict[str, list[str]] = {}
        for ip in self.sources:
            keys.setdefault(SOURCES[ip.family], []).append(f"{self.host_interface} . {ip.text}")
        keys[CHECKED] = [self.host_interface]
        added = [f"add element bridge podwire {name} {{ {', '.join(elements)} }}" for name, elements in keys.items()]
        return f"nft {'; '.join(added)}"


def operation(attachment: Attachment) -> SourceGuard:
    names, conf = attachment.names, attachment.conf
    own = tuple([address.ip for address in attachment.addresses])
    sources = () if conf.routed else tuple(dict.fromkeys(own + further_sources(attachment)))
    return SourceGuard(names.host_interface, sources, conf.routed, attachment.owner.label)


def further_sources(attachment: Attachment) -> tuple[IP, ...]:
    """Returns the addresses of a container on a bridge beside those of the lease: the one that its kernel derives from
    the MAC address, and that of DHCP's questions. For CHECK and DEL, ADD's.
    """
    if attachment.conf.routed:
        return ()
    if attachment.names.further_sources is not None:
        return attachment.names.further_sources
    asking = (ANY4,) if attachment.conf.ipam_type == DHCP else ()
    return (*asking, link_local(attachment.names.container_mac).ip)


def rulesets(*, routed: bool) -> tuple[RulesetFragment, ...]:
    """Returns what is loaded for containers of the mode."""
    if routed:
        return (RulesetFragment(INET, (ROUTED,), _routed),)
    return RulesetFragment(BRIDGE, (CHAIN,), _bridge), RulesetFragment(INET, (BRIDGED,), _bridged)


def _bridge() -> Table:
    """Returns the sets of checked ports and of their addresses, and the rules that drop all but these.

    No rule may read the type from the link's header: it is another one for frames with a VLAN tag of priority 0, which
    hosts take like those without. Frames with two tags are dropped, of which hosts unpack both.
    """
    from cni.plan.nftrule import BRIDGE_DSTNAT, Chain, Hook, NamedSet, Table

    sets = (
        NamedSet(CHECKED, "ifname"),
        NamedSet(SOURCES[4], "ifname . ipv4_addr"),
        NamedSet(SOURCES[6], "ifname . ipv6_addr"),
        NamedSet(TARGETS, f"iifname . {ND_TARGET}", by_fields=True),
    )
    return Table("bridge", TABLE, sets, (Chain(CHAIN, _rules(), Hook("filter", "prerouting", BRIDGE_DSTNAT)),))


ND_TARGET = "@th,64,128"  # nft has no word for it before 1.0.9
ASKED_WITHOUT_ADDRESS = ("nd-router-solicit", "mld-listener-report", "mld2-listener-report")
WITH_ADDRESSES = ("ip", "ip6", "arp", "8021q", "8021ad")


def _rules() -> tuple[Rule, ...]:
    from cni.plan.nftrule import ACCEPT, DROP, AnonymousSet, Counter, Lookup, Match, Rule

    any4, any6 = Match("arp saddr ip", ANY4), Match("ip6 saddr", ANY6)
    is_own_target = Lookup(f"iifname . {ND_TARGET}", TARGETS)
    return (
        Rule((Lookup("iifname", CHECKED, negated=True), ACCEPT)),
        Rule((Lookup("iifname . ip saddr", SOURCES[4]), ACCEPT)),
        Rule((Lookup("iifname . arp saddr ip", SOURCES[4]), ACCEPT)),
        # Before an address is used, its duplicates are searched for: by ARP (RFC 5227), by neighbour discovery below.
        Rule((any4, Lookup("iifname . arp daddr ip", SOURCES[4]), ACCEPT)),
        Rule(
            (
                any6._replace(negated=True),
                Match("icmpv6 type", "nd-neighbor-advert"),
                is_own_target._replace(negated=True),
                Counter(),
                DROP,
            )
        ),
        Rule((Lookup("iifname . ip6 saddr", SOURCES[6]), ACCEPT)),
        Rule((any6, Match("icmpv6 type", "nd-neighbor-solicit"), is_own_target, ACCEPT)),
        Rule((any6, Match("icmpv6 type", AnonymousSet(ASKED_WITHOUT_ADDRESS)), ACCEPT)),
        Rule((Match("meta protocol", AnonymousSet(WITH_ADDRESSES)), Counter(), DROP)),
    )


def _bridged() -> Table:
    """Returns the rule that drops packets of checked ports that did not pass the bridge: it hands frames for a few
    multicast addresses (01:80:c2:00:00:0e) to the host as the port's own, past all hooks of the bridge family.
    """
    from cni.plan.nftrule import DROP, Counter, Lookup, Rule

    return _prerouting(BRIDGED, Rule((Lookup("iifname", BRIDGED), Counter(), DROP)))


def _routed() -> Table:
    from cni.plan.nftrule import DROP, Counter, Lookup, Match, Rule

    back = Match("fib saddr . iif oif", "missing")
    return _prerouting(ROUTED, Rule((Lookup("iifname", ROUTED), back, Counter(), DROP)))


def _prerouting(name: str, rule: Rule) -> Table:
    """Returns a set of interfaces and a chain of the same name, before connections are tracked."""
    from cni.plan.nftrule import RAW, Chain, Hook, NamedSet, Table

    chain = Chain(name, (rule,), Hook("filter", "prerouting", RAW))
    return Table("inet", TABLE, (NamedSet(name, "ifname"),), (chain,))
