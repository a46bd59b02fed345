"""The hops in the host: host ports, routing, firewalls, policies, masquerading."""

from __future__ import annotations

from errno import EHOSTUNREACH, ENETUNREACH
from typing import TYPE_CHECKING

from cni.config.flannel import SUBNET_FILE, parse_subnet_env
from cni.config.portmap import PROTOCOLS as NUMBERS
from cni.diag.asking import NoAnswer, NotRunning, ask
from cni.diag.node import lookups
from cni.diag.node.barriers import barrier_of
from cni.diag.path.ends import ICMP
from cni.diag.path.hop import passes, stops, unknown
from cni.effects.nft_socket import MASQUERADE_SETS, PORT_SETS
from cni.effects.portmap import PORT, PROTOCOL
from cni.kernel import nft, sysctl
from cni.kernel.netlink import NetlinkError
from cni.kernel.nft import Element, SetRef
from cni.plan.nftables import PROTOCOL as PREFIX
from cni.plan.nftables import masquerade_map
from cni.protocol import smallfile
from cni.protocol.address import IP, MULTICAST, parse_net
from cni.protocol.control import ALLOWED, DENIED, STATUS, WHY
from cni.protocol.errors import CniError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from typing import Any

    from cni.config.flannel import SubnetEnv
    from cni.diag.node.lookups import NextHop
    from cni.diag.path.ends import Connection
    from cni.diag.path.hop import Hop
    from cni.effects.host import Host
    from cni.kernel.rtnl_parse import Link
    from cni.protocol.address import Net

    Json = dict[str, Any]

# IPv6 is forwarded for all interfaces or for none (net/ipv6/ip6_output.c, ip6_forward).
FORWARDING = {4: "net/ipv4/conf/{}/forwarding", 6: "net/ipv6/conf/all/forwarding"}
KUBE_PROXY, SERVICES, NO_ENDPOINTS = "kube-proxy", "service-ips", "no-endpoint-services"
RP_FILTER, STRICT = "net/ipv4/conf/{}/rp_filter", "1"  # the larger of the two applies


def service(host: Host, path: Connection) -> Iterator[Hop]:
    """Yields what is known of a Kubernetes Service, from the maps of kube-proxy's nftables mode: which endpoint it
    leads to only a packet shows. Raises NetlinkError, OSError.
    """
    number, family = NUMBERS.get(path.protocol), nft.PROTOCOLS[path.family]
    if number is None:
        return
    element = Element(path.target_ip.packed + PROTOCOL.pack(number) + PORT.pack(path.port), "", "")
    subject, table = f"{path.target_ip.text}:{path.port}", f"table {PREFIX[path.family]} {KUBE_PROXY}"
    if host.nft.find(SetRef(family, KUBE_PROXY, NO_ENDPOINTS), element) is not None:
        yield stops("service", subject, f"it has no endpoints (map {NO_ENDPOINTS} of {table})", "kubectl get endpoints")
    elif host.nft.find(SetRef(family, KUBE_PROXY, SERVICES), element) is not None:
        yield unknown("service", subject, f"DNAT to an endpoint (map {SERVICES} of {table}), which --send shows")


def host_port(host: Host, path: Connection) -> Iterator[tuple[Hop, Connection]]:
    """Yields the translation of a host port, with the connection that it makes of this one. Raises NetlinkError."""
    number = NUMBERS.get(path.protocol)
    if number is None:
        return
    key = PROTOCOL.pack(number) + PORT.pack(path.port)
    for name, front in ((f"hostip_hostports{path.family}", path.target_ip.packed), (f"hostports{path.family}", b"")):
        element = host.nft.find(PORT_SETS[name], Element(front + key, "", ""))
        if element is not None and element.value:
            size = len(path.target_ip.packed)
            ip, (port,) = IP.from_packed(element.value[:size]), PORT.unpack_from(element.value, size)
            where = f"map {name} of table inet podwire"
            hop = passes("host port", f"{path.target_ip.text}:{path.port}", f"DNAT to {ip.text}:{port} ({where})")
            yield hop, path._replace(target_ip=ip, port=port)
            return


def route(host: Host, path: Connection, incoming: Link) -> Generator[Hop, None, NextHop | None]:
    """Yields the host's route for a packet that it receives; returns it, None if the kernel drops the packet. Raises
    OSError.
    """
    target = path.target_ip.text
    answer = lookups.next_hop(host.rtnl, path.target_ip, path.source_ip, incoming.ifindex)
    if isinstance(answer, NetlinkError):
        yield stops("route", target, *_refusal(host, answer, path, incoming))
        return None
    if answer.is_local:
        yield passes("route", target, "an address of this node")
        return answer
    if not _forwards(path, incoming):
        yield stops("route", target, *_not_forwarded(path, incoming))
        return None
    link = host.rtnl.find_at(answer.ifindex)
    if link is None or not link.up:
        yield stops("route", target, f"it is by {link.name}, which is down" if link else "its interface is gone")
        return None
    via = f"via {answer.gw.text} " if answer.gw is not None else ""
    yield passes("route", target, f"{via}by {link.name}")
    return answer


def _refusal(host: Host, error: NetlinkError, path: Connection, incoming: Link) -> tuple[str, str]:
    """Returns evidence and remedy of a packet for which the kernel has no route."""
    if _is_filtered(host, path, incoming):
        evidence = f"rp_filter drops {path.source_ip.text} from {incoming.name}: its own route is by another interface"
        return evidence, f"ip route get {path.source_ip.text}; podwire repair {path.source.name}"
    if error.errno == EHOSTUNREACH and not _forwards(path, incoming):
        return _not_forwarded(path, incoming)
    plain = lookups.next_hop(host.rtnl, path.target_ip)
    if not isinstance(plain, NetlinkError):
        proof = f"ip rule; ip route get {path.target_ip.text} from {path.source_ip.text} iif {incoming.name}"
        return f"the kernel does not route it for {path.source_ip.text} ({error}), as a rule may say", proof
    if plain.errno in (EHOSTUNREACH, ENETUNREACH):
        return "there is no route", "ip route; podwired maintains the routes to other nodes: podwired status"
    evidence = f"the kernel does not route it: {plain} (of a blackhole or prohibit route, say)"
    return evidence, f"ip route show table all; ip route get {path.target_ip.text}"


def _is_filtered(host: Host, path: Connection, incoming: Link) -> bool:
    """Returns True if rp_filter drops the packet: since Linux 6.14 the kernel's error is EINVAL, whatever the cause."""
    if path.family != 4:
        return False
    modes = [sysctl.read(RP_FILTER.format(name)) or "0" for name in ("all", incoming.name)]
    back = lookups.next_hop(host.rtnl, path.source_ip)
    if isinstance(back, NetlinkError):
        return max(modes) != "0"
    return max(modes) == STRICT and back.ifindex != incoming.ifindex


def _forwards(path: Connection, incoming: Link) -> bool:
    return sysctl.read(FORWARDING[path.family].format(incoming.name)) != "0"


def _not_forwarded(path: Connection, incoming: Link) -> tuple[str, str]:
    key = sysctl.dotted(FORWARDING[path.family].format(incoming.name))
    return f"{key} is 0: packets are not forwarded", f"sysctl -w {key}=1"


def firewall(host: Host, path: Connection, incoming: Link) -> Iterator[Hop]:
    """Yields what the tables of the host do with what the container sends through it. Raises one of FAILURES."""
    barrier = barrier_of(host, (path.family,), incoming.name)
    if barrier is None:
        yield passes("forward", incoming.name, "no chain drops or rejects all that containers send")
    else:
        yield stops("forward", incoming.name, barrier.cause, barrier.remedy)


def policy(path: Connection) -> Iterator[Hop]:
    """Yields podwired's answer about NetworkPolicies, where it runs."""
    ends = {"from": path.source_ip.text, "to": path.target_ip.text}
    protocol = "" if path.protocol == ICMP else path.protocol.upper()
    try:
        if ask("", ask=STATUS).get("policies") is None:
            yield passes("policy", "podwired", "NetworkPolicy is not enforced")
            return
        answer = ask("", ask=WHY, **ends, protocol=protocol, port=path.port)
    except NotRunning:
        return
    except NoAnswer as error:
        yield unknown("policy", "podwired", str(error))
        return
    for connection in answer.get("connections", ()):
        yield _verdict(connection, path)


def _verdict(connection: Json, path: Connection) -> Hop:
    reasons = [direction["reason"] for direction in connection["directions"]] or [connection["reason"]]
    evidence, port = f"{connection['verdict']}: {'; '.join(reasons)}", f":{path.port}" if path.port else ""
    proof = f"podwire policy why {path.source_ip.text} {path.target_ip.text}{port}"
    if connection["verdict"] == DENIED:
        return stops("policy", "podwired", evidence, proof)
    if connection["verdict"] == ALLOWED:
        return passes("policy", "podwired", evidence)
    return unknown("policy", "podwired", evidence, proof)


def masquerade(host: Host, path: Connection, out: Link) -> Iterator[Hop]:
    """Yields the source NAT of podwire's table, or of the node's agent. Raises NetlinkError, OSError."""
    where = _masquerader(host, path)
    if not where or parse_net(MULTICAST[path.family]).contains(path.target_ip):
        return
    answer = lookups.next_hop(host.rtnl, path.target_ip)
    source = answer.source.text if not isinstance(answer, NetlinkError) and answer.source else f"{out.name}'s address"
    yield passes("masquerade", path.source_ip.text, f"SNAT to {source} ({where})")


def _masquerader(host: Host, path: Connection) -> str:
    """Returns what translates the source, empty if nothing does that is known."""
    name = masquerade_map(path.family)
    element = host.nft.find(MASQUERADE_SETS[name], Element(path.source_ip.packed, "", ""))
    subnets = [parse_net(text).network for text in path.source.addresses]
    if element is not None and not _has(subnets, path.target_ip):
        return f"chain {element.chain} of table inet podwire"
    env = _subnet_env()
    masquerades = env is not None and env.masquerades and _has(env.networks, path.source_ip)
    if env is not None and masquerades and not _has(env.networks, path.target_ip):
        return f"by the agent that has written {SUBNET_FILE}"
    return ""


def _has(networks: Iterable[Net], ip: IP) -> bool:
    return any(network.family == ip.family and network.contains(ip) for network in networks)


def _subnet_env() -> SubnetEnv | None:
    try:
        return parse_subnet_env(smallfile.read(SUBNET_FILE).decode("utf-8", "replace"), SUBNET_FILE)
    except (OSError, ValueError, CniError):
        return None
