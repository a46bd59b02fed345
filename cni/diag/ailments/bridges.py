"""Bridges of pods: their packets bypass kube-proxy's rules, or an address of theirs is in the gateway's way."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cni.diag.ailments.ailment import Ailment
from cni.diag.ailments.attachments import some
from cni.diag.ailments.overlay import subnetfile
from cni.diag.node.attachments import PRESENT
from cni.diag.node.chains import chains
from cni.diag.node.here import opened_host
from cni.diag.node.planned import occupying, planned_gateways
from cni.kernel import nft, sysctl
from cni.protocol.address import parse_net

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.diag.ailments.ailment import NodeView
    from cni.diag.node.conflists import Network
    from cni.plan.operations import GatewayAddress
    from cni.protocol.address import Net

FOLDER = "/sys/class/net"
SETTINGS = {4: "bridge-nf-call-iptables", 6: "bridge-nf-call-ip6tables"}
ATTRIBUTES = {4: "nf_call_iptables", 6: "nf_call_ip6tables"}  # of one bridge
SERVICES = ("KUBE-SERVICES", "services")  # kube-proxy's chains: by iptables and IPVS, by nftables
NFT_TABLE = "kube-proxy"
SERVICE = "a service does not reach pods on the client's own node: their replies bypass kube-proxy's rules"
POLICY = "NetworkPolicies do not hold between pods of this node"
ENOUGH = 2  # pods that can send to each other


def find(node: NodeView) -> Iterator[Ailment]:
    """Yields the bridges on which two pods reach each other past the hooks while something needs these, then those that
    have no place for the gateway's address.
    """
    yield from _unfiltered(node)
    yield from _occupied(node)


def _unfiltered(node: NodeView) -> Iterator[Ailment]:
    pods = _pods(node)
    served = _served_families() if pods else set()
    has_policies = bool((node.agent or {}).get("policies"))
    for (bridge, family), count in sorted(pods.items()):
        if count < ENOUGH or not (has_policies or family in served) or _filters(bridge, family):
            continue
        consequence = [SERVICE] if family in served else []
        consequence += [POLICY] if has_policies else []
        setting = f"net.bridge.{SETTINGS[family]}"
        value = sysctl.read(f"net/bridge/{SETTINGS[family]}")
        yield Ailment(
            "bridge-not-filtered",
            bridge,
            f"{setting}={value}" if value is not None else f"no sysctl {setting}: the module br_netfilter is missing",
            ", and ".join(consequence),
            f"sysctl -w {setting}=1" if value is not None else "modprobe br_netfilter",
            f"sysctl {setting}",
        )


def _pods(node: NodeView) -> dict[tuple[str, int], int]:
    """Returns the number of pods by bridge and IP version; ports that are isolated send by the host alone."""
    counts: dict[tuple[str, int], int] = {}
    for attached in node.attached:
        port = f"{FOLDER}/{attached.host_interface}"
        if attached.interface != PRESENT or not attached.host_interface or _text(f"{port}/brport/isolated") != "0":
            continue
        bridge = os.path.basename(os.path.realpath(f"{port}/master"))
        for family in {parse_net(address).family for address in attached.addresses}:
            counts[bridge, family] = counts.get((bridge, family), 0) + 1
    return counts


def _text(path: str) -> str:
    try:
        return sysctl.read_text(path) or ""
    except OSError:
        return ""


def _served_families() -> set[int]:
    """Returns the IP versions for which kube-proxy translates addresses of services. Raises NetlinkError, OSError."""
    families = {code: family for family, code in nft.PROTOCOLS.items()}
    services = [chain for chain in chains() if chain.name in SERVICES and chain.table in ("nat", NFT_TABLE)]
    return {families[chain.family] for chain in services if chain.family in families}


def _filters(bridge: str, family: int) -> bool:
    """Returns True if IP's hooks see the packets of the bridge, by the sysctl or by its own setting."""
    if sysctl.read(f"net/bridge/{SETTINGS[family]}") == "1":
        return True
    return _text(f"{FOLDER}/{bridge}/bridge/{ATTRIBUTES[family]}") == "1"


def _occupied(node: NodeView) -> Iterator[Ailment]:
    """Yields the bridges on which the next ADD would fail, as another address of the same IP version is there. Where
    the agent's file is the cause, that is an ailment of its own.
    """
    if any(subnetfile.find(node)):
        return
    seen = set()
    for network in node.networks:
        for config in network.configs:
            with opened_host() as host:
                for wanted in planned_gateways(config, host):
                    for other in occupying(host, wanted) if wanted.bridge not in seen else ():
                        seen.add(wanted.bridge)
                        yield _occupation(node, network, wanted, other)


def _occupation(node: NodeView, network: Network, wanted: GatewayAddress, other: Net) -> Ailment:
    """Returns the ailment of an address on a network's bridge, which may be that of running containers' gateway."""
    behind = [
        attached.name
        for attached in node.attached
        if attached.interface == PRESENT and any(_is_in(other, address) for address in attached.addresses)
    ]
    evidence = f"it has {other.text}, and network {network.name} wants {wanted.address.text} there"
    remedy = f"ip addr del {other.text} dev {wanted.bridge} (or forceAddress in the configuration)"
    if behind:
        evidence += f"; it is the gateway of {some(behind)}"
        remedy = f"correct the subnet in {network.path}, or delete these pods first"
    proof = f"ip addr show dev {wanted.bridge}"
    return Ailment("bridge-address", wanted.bridge, evidence, "ADD fails", remedy, proof)


def _is_in(gateway: Net, address: str) -> bool:
    ip = parse_net(address).ip
    return ip.family == gateway.family and gateway.network.contains(ip)
