"""The audit of all firewall tables of the host for containers' traffic: expensive, and for STATUS alone."""

from __future__ import annotations

from cni.effects import iptables_legacy
from cni.effects.forward_accept import well_known
from cni.kernel import nft, nft_rules
from cni.kernel.netlink import U32, NetlinkError
from cni.kernel.nft import BE32, NFPROTO_INET, PROTOCOLS, SetRef
from cni.plan.forward_accept import dropped, rejected
from cni.plan.forward_audit import ACCEPT, BARRING, BARS, RETURN, Rule, judge
from cni.protocol.errors import PluginNotAvailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cni.effects.host import Host
    from cni.kernel.nft import Chain

KEY_OR_BASE, NFTA_PAYLOAD_OFFSET = 2, 3  # NFTA_META_KEY, NFTA_CT_KEY, NFTA_PAYLOAD_BASE
NFTA_LOOKUP_SET, NFTA_LOOKUP_DREG, NFTA_LOOKUP_FLAGS = 1, 3, 5
NFT_META_IIF, NFT_META_IIFNAME = 4, 6
EQUAL, NOT_INVERTED = BE32.pack(nft_rules.NFT_CMP_EQ), BE32.pack(0)
ALL_BITS = (1 << 32) - 1
INDEX, NAME, STATE, STATUS, DESTINATION = "iif", "iifname", "ct state", "ct status", "daddr"
HARMLESS = ("counter", "log")
VERDICTS = {nft_rules.NF_ACCEPT: ACCEPT, nft.NF_DROP: BARS, nft.NFT_RETURN: RETURN}
LOADED = {
    ("meta", BE32.pack(NFT_META_IIF)): INDEX,
    ("meta", BE32.pack(NFT_META_IIFNAME)): NAME,
    ("ct", BE32.pack(nft_rules.NFT_CT_STATE)): STATE,
    ("ct", BE32.pack(nft_rules.NFT_CT_STATUS)): STATUS,
}
GONE = "(no interface)"


def refuse_drops(host: Host, families: Iterable[int], interface: str, mended: str = "") -> None:
    """Raises PluginNotAvailable where a firewall drops or rejects what containers send to the host by `interface`
    (NAME* stands for a prefix), and an ADD would not mend it. In the table `mended` it would.
    """
    families = tuple(families)
    known = [chain._replace(drops_forwarded=True) for chain in well_known(families)]
    for chain in _forwarding(host, families):
        if chain.table == mended:
            continue
        judgement = judge(_rules(host, chain), chain.name, interface)
        if judgement.barred_by:
            raise PluginNotAvailable(rejected(chain.name, chain.table_text, judgement.barred_by))
        if chain.drops_forwarded and chain not in known and not judgement.may_pass:
            raise PluginNotAvailable(dropped(chain.name, chain.table_text))
    iptables_legacy.refuse_drops(host, families, interface)


def _forwarding(host: Host, families: tuple[int, ...]) -> list[Chain]:
    """Returns the chains of hook forward."""
    try:
        answers = host.netfilter.dump(*nft.all_chains())
    except (NetlinkError, OSError) as error:
        if error.errno in nft.NOT_FOUND_OR_EINVAL:
            return []
        raise
    concerned = (NFPROTO_INET, *[PROTOCOLS[family] for family in families])
    chains = [nft.parse_chain(answer) for answer in answers if nft.filters_forwarded(answer)]
    return [chain for chain in chains if chain.family in concerned]


def _rules(host: Host, chain: Chain) -> dict[str, list[Rule]]:
    """Returns the rules of the chain's table, by chain."""
    names = {link.ifindex: link.name for link in host.rtnl.links()}

    def keys(name: str) -> list[bytes]:
        return [element.key for element in host.nft.elements(SetRef(chain.family, chain.table, name))]

    rules: dict[str, list[Rule]] = {}
    for answer in host.netfilter.dump(*nft.rules_of(chain.family, chain.table)):
        kernel_rule = nft_rules.parse_rule(answer)
        rules.setdefault(kernel_rule.chain, []).append(understand(kernel_rule, names, keys))
    return rules


def understand(kernel_rule: nft_rules.Rule, names: dict[int, str], keys: Callable[[str], list[bytes]]) -> Rule:
    """Returns a rule for cni.plan.forward_audit. `names`: interfaces by index; `keys`: of a set, by its name.

    An expression is taken to match the value that the one before it has loaded; other registers are ignored.
    """
    rule, loaded, mask = Rule(""), "", ALL_BITS
    for name, data in kernel_rule.expressions:
        if name == "bitwise":
            mask = _number(nft_rules.value_of(data, nft_rules.NFTA_BITWISE_MASK))
        elif name == "cmp":
            value = nft_rules.value_of(data, nft_rules.NFTA_CMP_DATA)
            equal = data.get(nft_rules.NFTA_CMP_OP) == EQUAL
            if loaded in (STATE, STATUS):  # no status is that of a connection that is new and goes where it is sent
                new = loaded == STATE and (nft_rules.NEW & mask == _number(value)) == equal
                rule = rule._replace(answers=rule.answers or not new)
            elif equal:
                rule = _asked(rule, loaded, value, names)
        elif name == "lookup":
            rule = _looked_up(rule, loaded, data, keys)
        elif name == "immediate":
            code, chain = nft_rules.verdict_of(data)
            rule = rule._replace(target=VERDICTS.get(code, chain), leaves=code == nft.NFT_GOTO)
        elif name == "reject" or (name == "target" and nft.name_of(data.get(nft_rules.NFTA_MATCH_NAME)) in BARRING):
            rule = rule._replace(target=BARS)
        elif name == "queue":  # who reads it may accept
            rule = rule._replace(target=ACCEPT)
        else:
            loaded, mask = _loads(name, data), ALL_BITS
    return rule._replace(always=bool(rule.target) and _matches_all(kernel_rule))


def _matches_all(rule: nft_rules.Rule) -> bool:
    """Returns True if nothing before the verdict matches: the rule may count, log or have a comment."""
    return all(
        name in HARMLESS or nft.name_of(data.get(nft_rules.NFTA_MATCH_NAME)) == "comment"
        for name, data in rule.expressions[:-1]
    )


def _loads(name: str, data: dict[int, bytes]) -> str:
    """Returns the value that an expression loads; empty for one that does not matter here."""
    key = data.get(KEY_OR_BASE, b"")
    if name == "payload" and key == BE32.pack(nft_rules.NFT_PAYLOAD_NETWORK_HEADER):
        offset = data.get(NFTA_PAYLOAD_OFFSET, b"")
        return DESTINATION if offset in map(BE32.pack, nft_rules.DESTINATION.values()) else ""
    return LOADED.get((name, key), "")


def _asked(rule: Rule, loaded: str, value: bytes, names: dict[int, str]) -> Rule:
    if loaded == INDEX:
        return rule._replace(incoming=names.get(_number(value), GONE))
    if loaded == NAME:
        whole = value.endswith(b"\0")  # else all names that begin so
        return rule._replace(incoming=value.rstrip(b"\0").decode("utf-8", "replace") + ("" if whole else "*"))
    return rule._replace(bound=rule.bound or loaded == DESTINATION)


def _looked_up(rule: Rule, loaded: str, data: dict[int, bytes], keys: Callable[[str], list[bytes]]) -> Rule:
    """Returns the rule with a lookup in a set, or in a map of verdicts, which may accept."""
    if NFTA_LOOKUP_DREG in data:
        rule = rule._replace(target=ACCEPT)
    if data.get(NFTA_LOOKUP_FLAGS, NOT_INVERTED) != NOT_INVERTED:
        return rule
    if loaded == STATE:
        states = keys(nft.name_of(data.get(NFTA_LOOKUP_SET)))
        return rule._replace(answers=rule.answers or not any(_number(state) & nft_rules.NEW for state in states))
    return rule._replace(bound=rule.bound or loaded == DESTINATION)


def _number(value: bytes) -> int:
    """Returns a number in the host's byte order; of a longer value, its first part."""
    (number,) = U32.unpack_from(value.ljust(U32.size, b"\0"))
    return int(number)
