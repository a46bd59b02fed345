"""External interface selection: the interface that carries the traffic between nodes, and the addresses for it.

The rules are flannel's (pkg/ipmatch), so a node that changes over keeps its interface. Three dumps have all
information, so the cost does not depend on the number of candidates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.uplink.ranking import is_virtual, place, rank
from cni.config.netconf import DEFAULT_BRIDGE
from cni.kernel.rtnl import IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_TENTATIVE
from cni.protocol.address import IP, Net, parse_ip
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from re import Pattern

    from cni.kernel.rtnl_parse import AddressInfo, Link
    from cni.kernel.rtnl_socket import RtnlSocket

TUNNELS = ("flannel.", "flannel-v6.")  # with a VNI: the agent's own devices
SHOWN = 8  # interfaces that an error names


class Underlay(Record):
    """The interface to other nodes. `addresses` and `public_ips` have one entry for each family, in their order:
    the interface's own address, and that by which other nodes reach it, which differ behind NAT. `is_makeshift`: one of
    the addresses looks like a virtual one that may move to another node, and there was no better one. `up`: so was the
    link when it was chosen.
    """

    ifindex: int
    name: str
    mtu: int
    addresses: tuple[Net, ...]
    public_ips: tuple[IP, ...]
    reason: str
    is_makeshift: bool = False
    up: bool = True


class InterfaceSelector(Record):
    """The user's choice of the interface. The first match of names (or addresses), then patterns, then the host
    to be reached decides; public addresses decide only without these.
    """

    names: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    can_reach: IP | None = None
    public_ips: tuple[IP, ...] = ()

    def public_ip(self, family: int) -> IP | None:
        return next((ip for ip in self.public_ips if ip.family == family), None)


class NoUnderlay(Exception):
    """No interface can be used; the text has the reason for each that was tried, and the interfaces to choose from."""


class _Candidate(Record):
    """An interface to try. `requested`: addresses that take precedence. `named`: the user asked for this interface."""

    link: Link
    reason: str
    requested: tuple[IP, ...] = ()
    named: bool = False


def select_interface(rtnl_socket: RtnlSocket, families: tuple[int, ...], selector: InterfaceSelector) -> Underlay:
    """Returns the underlay that the user's options and the host's routes select. Raises NoUnderlay, NetlinkError."""
    return _Selection(rtnl_socket, families, selector).result()


def local_addresses(rtnl_socket: RtnlSocket) -> set[IP]:
    """Returns the addresses of all interfaces."""
    return {info.address.ip for info in rtnl_socket.all_addresses()}


class _Selection:
    def __init__(self, rtnl_socket: RtnlSocket, families: tuple[int, ...], selector: InterfaceSelector) -> None:
        self._rtnl_socket, self._families, self._selector = rtnl_socket, families, selector
        self._links = {link.ifindex: link for link in rtnl_socket.links()}
        self._addresses: dict[int, list[AddressInfo]] = {}
        self._sources: dict[int, list[IP]] = {}
        for info in rtnl_socket.all_addresses():
            self._addresses.setdefault(info.ifindex, []).append(info)

    def result(self) -> Underlay:
        """Returns the first candidate that has an address of every family. Raises NoUnderlay."""
        errors = []
        for candidate in self._candidates():
            if isinstance(candidate, str):
                errors.append(candidate)
                continue
            addresses = self._addresses_of(candidate)
            if len(addresses) == len(self._families):
                return self._underlay(candidate, tuple(addresses))
            errors.append(self._lack(candidate, addresses))
        raise NoUnderlay(f"no interface to reach other nodes by: {'; '.join(errors)}. {self._offer()}")

    def _candidates(self) -> Iterator[_Candidate | str]:
        """Yields the candidates in the order in which they are tried; a text says why an option leads to none."""
        selector = self._selector
        for name in selector.names:
            yield self._named(name)
        for pattern in selector.patterns:
            yield from self._matching(pattern)
            yield f"no interface with all addresses matches --iface-regex {pattern}"
        if selector.can_reach is not None:
            yield self._leading_to(selector.can_reach)
        if selector.names or selector.patterns or selector.can_reach is not None:
            return
        publics = [ip for ip in map(selector.public_ip, self._families) if ip is not None]
        yield self._having(publics) if publics else self._default()

    def _named(self, name: str) -> _Candidate | str:
        reason = f"--iface {name}"
        try:
            ip = parse_ip(name)
        except ValueError:
            link = next((link for link in self._links.values() if link.name == name), None)
            return f"there is no interface {name} ({reason})" if link is None else _Candidate(link, reason, named=True)
        owner = self._owner(ip)
        return (
            f"no interface has {ip.text} ({reason})" if owner is None else _Candidate(owner, reason, (ip,), named=True)
        )

    def _matching(self, pattern: str) -> Iterator[_Candidate]:
        """Returns the interfaces that match by an address of every family, else by name, and have all addresses."""
        import re

        compiled = re.compile(pattern, re.ASCII)
        reason = f"--iface-regex {pattern}"
        usable = {index: _Candidate(link, reason) for index, link in self._links.items() if not _is_own(link)}
        usable = {
            index: candidate
            for index, candidate in usable.items()
            if len(self._addresses_of(candidate)) == len(self._families)
        }
        for candidate in usable.values():
            requested = self._matched(candidate, compiled)
            if len(requested) == len(self._families):
                yield candidate._replace(requested=requested)
        yield from [candidate for candidate in usable.values() if compiled.search(candidate.link.name)]

    def _matched(self, candidate: _Candidate, pattern: Pattern[str]) -> tuple[IP, ...]:
        """Returns the preferred one of each family's addresses that match."""
        ips_by_family = [[info.address.ip for info in self._usable(candidate, family)] for family in self._families]
        matching = [next((ip for ip in ips if pattern.search(ip.text)), None) for ips in ips_by_family]
        return tuple([ip for ip in matching if ip is not None])

    def _leading_to(self, ip: IP) -> _Candidate | str:
        reason = f"the route to {ip.text} (--iface-can-reach)"
        if owner := self._owner(ip):  # the kernel would say lo
            return _Candidate(owner, f"{ip.text} is its own (--iface-can-reach)", (ip,))
        route = self._rtnl_socket.get_route(ip)
        link = self._links.get(route.ifindex) if route else None
        if route is None or link is None:
            return f"there is no route to {ip.text} (--iface-can-reach)"
        return _Candidate(link, reason, (route.source,) if route.source else ())

    def _having(self, ips: list[IP]) -> _Candidate | str:
        owners = {ip.text: self._owner(ip) for ip in ips}
        if absent := [text for text, owner in owners.items() if owner is None]:
            return (
                f"no interface has {' and '.join(absent)} (--public-ip): where addresses are translated on the way,"
                " name the interface by --iface as well"
            )
        links = [owner for owner in owners.values() if owner is not None]
        if len({link.ifindex for link in links}) > 1:
            return f"{' and '.join(owners)} (--public-ip, --public-ipv6) are not addresses of one interface"
        return _Candidate(links[0], f"the public address {' and '.join(owners)}", tuple(ips))

    def _default(self) -> _Candidate | str:
        links = []
        for family in self._families:
            candidates = [self._links.get(route.ifindex) for route in self._rtnl_socket.defaults(family)]
            best = next((link for link in candidates if link is not None and not _is_own(link)), None)
            if best is None:
                return f"there is no default route of IPv{family}"
            links.append(best)
        if len({link.ifindex for link in links}) > 1:
            names = " and ".join([link.name for link in links])
            return f"the default routes of IPv4 and IPv6 lead to different interfaces, {names}"
        return _Candidate(links[0], "the default route")

    def _owner(self, ip: IP) -> Link | None:
        for index, infos in self._addresses.items():
            if index in self._links and any(info.address.ip == ip for info in infos):
                return self._links[index]
        return None

    def _addresses_of(self, candidate: _Candidate) -> list[AddressInfo]:
        """Returns the preferred address of each family; fewer than families if one has none."""
        infos_by_family = [self._usable(candidate, family) for family in self._families]
        return [infos[0] for infos in infos_by_family if infos]

    def _usable(self, candidate: _Candidate, family: int) -> list[AddressInfo]:
        """Returns the candidate's addresses of a family that can be used, the preferred one first."""
        public = self._selector.public_ip(family)
        requested = [*candidate.requested, *([public] if public else [])]
        infos = [info for info in self._addresses.get(candidate.link.ifindex, []) if info.address.family == family]
        ready = [info for info in infos if not info.flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)]
        wanted = [info for info in ready if info.address.ip in requested or _is_fit(info, candidate.named)]
        sources = self._preferred_sources(family) if len(wanted) > 1 else []
        return sorted(wanted, key=lambda info: (place(info.address.ip, requested), *rank(info, wanted, sources)))

    def _preferred_sources(self, family: int) -> list[IP]:
        """Returns the source addresses of the default routes; the kernel is asked only if there is a choice."""
        if family not in self._sources:
            routes = self._rtnl_socket.defaults(family)
            self._sources[family] = [route.source for route in routes if route.source is not None]
        return self._sources[family]

    def _underlay(self, candidate: _Candidate, infos: tuple[AddressInfo, ...]) -> Underlay:
        link, addresses = candidate.link, tuple([info.address for info in infos])
        publics = tuple([self._selector.public_ip(address.family) or address.ip for address in addresses])
        reason = f"{link.name} with {_listed(address.ip for address in addresses)}, by {candidate.reason}"
        if translated := [ip for ip, own in zip(publics, addresses, strict=True) if ip != own.ip]:
            reason += f"; other nodes reach it by {_listed(translated)}"
        requested = (*candidate.requested, *self._selector.public_ips)
        makeshift = any(is_virtual(info) and info.address.ip not in requested for info in infos)
        return Underlay(link.ifindex, link.name, link.mtu, addresses, publics, reason, makeshift, link.up)

    def _lack(self, candidate: _Candidate, addresses: list[AddressInfo]) -> str:
        absent = [family for family in self._families if family not in [info.address.family for info in addresses]]
        families = " and ".join([f"IPv{family}" for family in absent])
        infos = self._addresses.get(candidate.link.ifindex, [])
        waiting = [info.address.ip for info in infos if info.flags & IFA_F_TENTATIVE and info.address.family in absent]
        hint = f" ({_listed(waiting)} is still checked for duplicates)" if waiting else ""
        return f"{candidate.link.name} ({candidate.reason}) has no usable {families} address{hint}"

    def _offer(self) -> str:
        """Returns the remedy: the interfaces that --iface could name."""
        fit = []
        for link in self._links.values():
            addresses = [] if _is_own(link) else self._addresses_of(_Candidate(link, ""))
            if len(addresses) == len(self._families):
                fit.append(f"{link.name} ({_listed(info.address.ip for info in addresses)})")
        if not fit:
            return f"No interface has addresses of {' and '.join([f'IPv{family}' for family in self._families])}"
        return f"--iface chooses one of: {', '.join(fit[:SHOWN])}{', ...' if len(fit) > SHOWN else ''}"


def _is_own(link: Link) -> bool:
    """Returns True for the agent's own links, behind which there are pods, not nodes."""
    return link.name.startswith(TUNNELS) or link.name == DEFAULT_BRIDGE


def _is_fit(info: AddressInfo, loopback: bool) -> bool:
    return not info.flags & IFA_F_DEPRECATED and (loopback or not info.address.ip.is_loopback)


def _listed(ips: Iterable[IP]) -> str:
    return " and ".join([ip.text for ip in ips])
