"""The configuration of `type: firewall`: the reference plugin's keys."""

from __future__ import annotations

from cni.protocol.fields import ConfigErrors
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.fields import Fields
    from cni.protocol.plugin_config import PluginConfig

OPEN, SAME_BRIDGE, ISOLATED = "open", "same-bridge", "isolated"
POLICIES = (OPEN, SAME_BRIDGE, ISOLATED)
FIREWALLD = "firewalld"
BACKENDS = ("", "iptables", "nftables", FIREWALLD)


class Firewall(Record):
    """`policy`: OPEN accepts every new connection to the container; SAME_BRIDGE keeps bridges with this policy apart
    from each other, ISOLATED also the containers of one bridge. `backend`: FIREWALLD where the zone `zone` is used in
    any case, empty where it is if firewalld runs. `admin_chain`: is asked before, where it exists.
    """

    policy: str
    backend: str
    zone: str
    admin_chain: str


def parse_firewall(fields: Fields) -> Firewall:
    policy = fields.text("ingressPolicy") or OPEN
    if policy not in POLICIES:
        fields.error("ingressPolicy", f"{policy!r} is none of {', '.join(POLICIES)}")
    backend = fields.text("backend")
    if backend not in BACKENDS:
        fields.error("backend", f"{backend!r} is none of firewalld, iptables, nftables")
    return Firewall(
        policy=policy if policy in POLICIES else OPEN,
        backend=backend,
        zone=fields.text("firewalldZone") or "trusted",
        admin_chain=fields.text("iptablesAdminChainName") or "CNI-ADMIN",
    )


def families_of(config: PluginConfig) -> tuple[int, ...]:
    """Of the addresses that the network's containers get, as far as host-local's ranges tell; else IPv4 is assumed."""
    ipam = config.fields(ConfigErrors()).object("ipam")
    ranges = [one for some in ipam.items("ranges") if isinstance(some, list) for one in some]
    subnets = [one.get("subnet") for one in ranges if isinstance(one, dict)]
    texts = [text for text in (ipam.raw("subnet"), *subnets) if isinstance(text, str) and text]
    return tuple(sorted({6 if ":" in text else 4 for text in texts})) or (4,)
