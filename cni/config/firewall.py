"""The configuration of `type: firewall`: the reference plugin's keys."""

from __future__ import annotations

from cni.spec.fields import Faults
from cni.spec.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.spec.fields import Fields
    from cni.spec.network import Network

OPEN, SAME_BRIDGE, ISOLATED = "open", "same-bridge", "isolated"
POLICIES = (OPEN, SAME_BRIDGE, ISOLATED)
FIREWALLD = "firewalld"
BACKENDS = ("", "iptables", "nftables", FIREWALLD)


class Firewall(Record):
    """`policy`: OPEN accepts every new connection to the container; SAME_BRIDGE keeps bridges with this policy apart
    from each other, ISOLATED also the containers of one bridge.
    """

    policy: str
    notices: tuple[str, ...]


def parse_firewall(fields: Fields) -> Firewall:
    policy = fields.text("ingressPolicy") or OPEN
    if policy not in POLICIES:
        fields.fault("ingressPolicy", f"{policy!r} is none of {', '.join(POLICIES)}")
    backend = fields.text("backend")
    if backend not in BACKENDS:
        fields.fault("backend", f"{backend!r} is neither iptables nor firewalld")
    notices = []
    if backend == FIREWALLD or fields.text("firewalldZone"):
        notices.append(
            "firewalld is not asked, podwire accepts traffic in nftables: where a zone rejects what is forwarded,"
            " add the containers' subnet to another (firewall-cmd --zone=trusted --add-source=SUBNET)"
        )
    if chain := fields.text("iptablesAdminChainName"):
        notices.append(
            f"iptablesAdminChainName: nothing leads to the chain {chain}; what is dropped in the chain FORWARD itself"
            " is dropped before podwire accepts"
        )
    return Firewall(policy if policy in POLICIES else OPEN, tuple(notices))


def families_of(network: Network) -> tuple[int, ...]:
    """Of the addresses that the network's containers get, as far as host-local's ranges tell; else IPv4 is assumed."""
    ipam = network.fields(Faults()).object("ipam")
    ranges = [one for some in ipam.items("ranges") if isinstance(some, list) for one in some]
    subnets = [one.get("subnet") for one in ranges if isinstance(one, dict)]
    texts = [text for text in (ipam.raw("subnet"), *subnets) if isinstance(text, str) and text]
    return tuple(sorted({6 if ":" in text else 4 for text in texts})) or (4,)
