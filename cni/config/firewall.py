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
    """The plugin's settings.

    `policy`: OPEN accepts every new connection to the container; SAME_BRIDGE isolates bridges with this policy from
    each other, ISOLATED also the containers of one bridge. `backend`: FIREWALLD always uses the zone `zone`, empty
    uses it if firewalld runs. `admin_chain`: a chain that is evaluated first, if it exists.
    """

    policy: str
    backend: str
    zone: str
    admin_chain: str


def parse_firewall(fields: Fields) -> Firewall:
    policy = fields.text("ingressPolicy") or OPEN
    if policy not in POLICIES:
        fields.error("ingressPolicy", f"{policy!r} is not one of {', '.join(POLICIES)}")
    backend = fields.text("backend")
    if backend not in BACKENDS:
        fields.error("backend", f"{backend!r} is not one of firewalld, iptables, nftables")
    return Firewall(
        policy=policy if policy in POLICIES else OPEN,
        backend=backend,
        zone=fields.text("firewalldZone") or "trusted",
        admin_chain=fields.text("iptablesAdminChainName") or "CNI-ADMIN",
    )


def families_of(config: PluginConfig) -> tuple[int, ...]:
    """Returns the families of host-local's ranges; IPv4 if the configuration has none."""
    ipam = config.fields(ConfigErrors()).object("ipam")
    ranges = [part for range_set in ipam.items("ranges") if isinstance(range_set, list) for part in range_set]
    subnets = [part.get("subnet") for part in ranges if isinstance(part, dict)]
    texts = [text for text in (ipam.raw("subnet"), *subnets) if isinstance(text, str) and text]
    return tuple(sorted({6 if ":" in text else 4 for text in texts})) or (4,)
