"""Packets between pods on one bridge, where the hooks of IP do not see what a bridge forwards (no br_netfilter).

The pods' ports are isolated: they exchange no frames, and the host answers for each pod's neighbours (proxy ARP, proxy
NDP). So all packets between pods are the host's to forward, and pass its hooks. It must not tell them of a shorter way:
redirects are dropped, which IPv6 has no setting for. What is done is undone by `end`: a file
in the folder of pods' records has the settings of before, and a word in a port's alias tells that it was isolated for
this. While the file is there, ADD isolates the ports of new pods.
"""

from __future__ import annotations

import contextlib
import os
from errno import EEXIST, ENOENT
from typing import TYPE_CHECKING

from cni.agent.dataplane.state import PROTOCOL
from cni.agent.logs import log
from cni.effects import nft_load
from cni.kernel import nft, nft_rules, nft_ruleset, rtnl, rtnl_proxy, sysctl
from cni.kernel.netlink import NetlinkError
from cni.kernel.rtnl_proxy import Proxy
from cni.plan.alias import parse_alias
from cni.plan.nftrule import DROP, FILTER, AnonymousSet, Chain, Hook, Match, Rule, Table
from cni.plan.policy import ISOLATED
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.effects.host import Host
    from cni.kernel.rtnl_parse import Link
    from cni.kernel.rtnl_socket import RtnlSocket
    from cni.protocol.address import IP, Net

SETTINGS = {
    4: (("net/ipv4/conf/{}/proxy_arp_pvlan", "1"), ("net/ipv4/neigh/{}/proxy_delay", "0")),
    6: (("net/ipv6/conf/{}/proxy_ndp", "1"), ("net/ipv6/neigh/{}/proxy_delay", "0")),
}
REDIRECTS, KINDS = "podwire-redirects", (("icmp type", "redirect"), ("icmpv6 type", "nd-redirect"))
ENDING = f".{ISOLATED}"  # the file while all is undone, so that ADD no longer finds it


class Segment(Record):
    """A network of pods on a bridge: `interface` is the host's address in it, on the bridge or on a VLAN of it."""

    interface: str
    ifindex: int
    bridge: str
    network: Net


def is_possible() -> bool:
    """Returns False where /proc/sys is read-only, as in a pod."""
    return sysctl.is_writable(SETTINGS[4][0][0].format("all"))


def begin(host: Host) -> None:
    """Makes ADD isolate the ports of new pods. Raises NetlinkError, OSError, CniError."""
    folder = host.pod_records
    if os.path.exists(os.path.join(folder, ENDING)):
        end(host)
    if not os.path.exists(os.path.join(folder, ISOLATED)):
        _write(folder, {})
        log.info("packets between pods on one bridge are forwarded by the host: there is no br_netfilter")


def apply(host: Host, segments: Iterable[Segment], pods: Iterable[IP]) -> str:
    """Makes the packets of these pods, and of all others on their bridges, the host's to forward.

    Returns the reason why not all are; else empty. Raises NetlinkError, OSError, CniError.
    """
    segments = list(segments)
    if segments:
        _drop_redirects(host, " ".join(sorted({segment.interface for segment in segments})))
    for segment in segments:
        _answer_for_neighbours(host.pod_records, segment)
    pods = list(pods)
    wanted = {
        Proxy(segment.ifindex, ip, PROTOCOL)
        for segment in segments
        for ip in pods
        if ip.family == 6 and segment.network.contains(ip)
    }
    _set_proxies(host.rtnl, wanted)
    bridges = sorted({segment.bridge for segment in segments})
    return "; ".join(filter(None, [_isolate(host.rtnl, bridge) for bridge in bridges]))


def _drop_redirects(host: Host, interfaces: str) -> None:
    """Creates the table if it is missing, or of other interfaces: its rules' comments have their names."""
    try:
        answers = host.netfilter.dump(*nft.rules_of(nft.NFPROTO_INET, REDIRECTS))
    except NetlinkError as error:
        if error.errno != ENOENT:
            raise
        answers = []
    if [nft_rules.parse_rule(answer).comment for answer in answers] == [interfaces] * len(KINDS):
        return
    leaving = Match("oifname", AnonymousSet(tuple(interfaces.split(" "))))
    rules = tuple([Rule((leaving, Match(field, kind), DROP), interfaces) for field, kind in KINDS])
    chain = Chain("output", rules, Hook("filter", "output", FILTER))
    nft_load.send(host.netfilter, nft_ruleset.create(Table("inet", REDIRECTS, (), (chain,))))


def _answer_for_neighbours(folder: str, segment: Segment) -> None:
    for key, value in SETTINGS[segment.network.ip.family]:
        setting = key.format(segment.interface)
        before = sysctl.read(setting)
        if before is not None and before != value:
            _write(folder, {setting: before, **_read(folder, ISOLATED)})  # first: it is to be restored
            sysctl.change(setting, before, value)


def _set_proxies(rtnl_socket: RtnlSocket, wanted: set[Proxy]) -> None:
    proxies = {rtnl_proxy.parse_proxy(answer) for answer in rtnl_socket.dump(*rtnl_proxy.all_proxies(6))}
    present = {(proxy.ifindex, proxy.ip) for proxy in proxies}  # also those of an administrator, which stay
    for proxy in [proxy for proxy in wanted if (proxy.ifindex, proxy.ip) not in present]:
        rtnl_socket.tolerate(EEXIST, rtnl_proxy.add_proxy(proxy))
    for proxy in {proxy for proxy in proxies if proxy.protocol == PROTOCOL} - wanted:
        rtnl_socket.tolerate(ENOENT, rtnl_proxy.delete_proxy(proxy))


def _isolate(rtnl_socket: RtnlSocket, bridge: str) -> str:
    """Isolates the ports of pods. Returns which other ports the bridge has, since their frames reach pods."""
    links = {link.ifindex: link for link in rtnl_socket.links()}
    index = rtnl_socket.ifindex(bridge)
    others = []
    for port in [link for link in links.values() if link.master == index]:
        if port.kind != "veth" or _is_inside(port, links):
            others.append(port.name)
        elif not port.isolated:
            rtnl_socket.request(*rtnl.set_alias(port.name, _with_word(port.alias)))  # first: it is to be undone
            rtnl_socket.request(*rtnl.set_bridge_port(port.name, port.hairpin, isolated=True))
    if not others:
        return ""
    return (
        f"bridge {bridge}: NetworkPolicy cannot be enforced between pods and what is behind {', '.join(others)}"
        " (load the module br_netfilter)"
    )


def _is_inside(port: Link, links: dict[int, Link]) -> bool:
    """Returns True if both ends of the pair are the host's."""
    peer = links.get(port.peer)
    return peer is not None and (peer.kind, peer.peer) == ("veth", port.ifindex)


def _with_word(text: str) -> str:
    alias = parse_alias(text)._replace(isolated=True)
    return alias.text if alias.label or not text else text


def end(host: Host) -> None:
    """Undoes all that was done for the pods' ports, whoever did it. Raises NetlinkError, OSError, CniError."""
    folder, rtnl_socket = host.pod_records, host.rtnl
    marker, ending = os.path.join(folder, ISOLATED), os.path.join(folder, ENDING)
    with contextlib.suppress(FileNotFoundError):
        os.rename(marker, ending)
    if not os.path.exists(ending):
        return
    for port in rtnl_socket.links():
        alias = parse_alias(port.alias)
        if alias.isolated and port.master:
            rtnl_socket.request(*rtnl.set_bridge_port(port.name, port.hairpin, isolated=False))
            rtnl_socket.request(*rtnl.set_alias(port.name, alias._replace(isolated=False).text))
    _set_proxies(rtnl_socket, set())
    for setting, value in _read(folder, ENDING).items():
        if sysctl.read(setting) is not None:
            sysctl.write(setting, value)
    nft_load.send(host.netfilter, nft_ruleset.replace(Table("inet", REDIRECTS)))
    os.unlink(ending)
    log.info("ports of pods are no longer isolated for NetworkPolicy")


def _read(folder: str, name: str) -> dict[str, str]:
    """Returns the settings of before, in any order."""
    text = sysctl.read_text(os.path.join(folder, name)) or ""
    return dict([line.split(" ", 1) for line in text.splitlines() if " " in line])


def _write(folder: str, settings: dict[str, str]) -> None:
    """Writes the file as a whole. Raises OSError."""
    path = os.path.join(folder, ISOLATED)
    descriptor = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.writelines([f"{setting} {value}\n" for setting, value in settings.items()])
    os.rename(f"{path}.new", path)
