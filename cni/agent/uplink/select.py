"""External interface selection: the interface that carries the traffic between nodes, and the addresses for it.

The rules are flannel's (pkg/ipmatch), so a node that changes over keeps its interface. Three dumps tell all there is to
know: what the choice costs does not depend on what it has to try.
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
    """`addresses` and `public_ips` have one entry for each family asked for, in its order: the interface's own, and
    that by which other nodes reach it, which differ where addresses are translated on the way. `is_makeshift`: one of
    the addresses looks like a virtual one that may move to another node, and there was no better one.
    """

    ifindex: int
    name: str
    mtu: int
    addresses: tuple[Net, ...]
    public_ips: tuple[IP, ...]
    reason: str
    is_makeshift: bool = False


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
    """No interface is as it should be; the text says of all that was tried why, and what there is to choose from."""


class _Candidate(Record):
    """`told`: addresses that were asked for, to be taken before others. `named`: the user asked for just this one."""

    link: Link
    why: str
    told: tuple[IP, ...] = ()
    named: bool = False


def select_interface(route: RtnlSocket, families: tuple[int, ...], selector: InterfaceSelector) -> Underlay:
    """Raises NoUnderlay, NetlinkError."""
    return _Selection(route, families, selector).result()


def local_addresses(route: RtnlSocket) -> set[IP]:
    """The addresses of all interfaces."""
    return {one.address.ip for one in route.all_addresses()}


class _Selection:
    def __init__(self, route: RtnlSocket, families: tuple[int, ...], selector: InterfaceSelector) -> None:
        self._route, self._families, self._selector = route, families, selector
        self._links = {link.ifindex: link for link in route.links()}
        self._addresses: dict[int, list[AddressInfo]] = {}
        self._sources: dict[int, list[IP]] = {}
        for one in route.all_addresses():
            self._addresses.setdefault(one.ifindex, []).append(one)

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
        """In the order in which they are tried; a text tells why a wish leads to none."""
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
        why = f"--iface {name}"
        try:
            ip = parse_ip(name)
        except ValueError:
            link = next((link for link in self._links.values() if link.name == name), None)
            return f"there is no interface {name} ({why})" if link is None else _Candidate(link, why, named=True)
        owner = self._owner(ip)
        return f"no interface has {ip.text} ({why})" if owner is None else _Candidate(owner, why, (ip,), named=True)

    def _matching(self, pattern: str) -> Iterator[_Candidate]:
        """Returns the interfaces that match by an address of every family, else by name, and have all addresses."""
        import re

        compiled = re.compile(pattern, re.ASCII)
        why = f"--iface-regex {pattern}"
        usable = {index: _Candidate(link, why) for index, link in self._links.items() if not _is_own(link)}
        usable = {index: one for index, one in usable.items() if len(self._addresses_of(one)) == len(self._families)}
        for one in usable.values():
            told = self._matched(one, compiled)
            if len(told) == len(self._families):
                yield one._replace(told=told)
        yield from [one for one in usable.values() if compiled.search(one.link.name)]

    def _matched(self, candidate: _Candidate, pattern: Pattern[str]) -> tuple[IP, ...]:
        """The preferred one of each family's addresses that match."""
        found = [[info.address.ip for info in self._usable(candidate, family)] for family in self._families]
        matching = [next((ip for ip in ips if pattern.search(ip.text)), None) for ips in found]
        return tuple([ip for ip in matching if ip is not None])

    def _leading_to(self, ip: IP) -> _Candidate | str:
        why = f"the route to {ip.text} (--iface-can-reach)"
        if owner := self._owner(ip):  # the kernel would say lo
            return _Candidate(owner, f"{ip.text} is its own (--iface-can-reach)", (ip,))
        route = self._route.get_route(ip)
        link = self._links.get(route.ifindex) if route else None
        if route is None or link is None:
            return f"there is no route to {ip.text} (--iface-can-reach)"
        return _Candidate(link, why, (route.source,) if route.source else ())

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
            found = [self._links.get(route.ifindex) for route in self._route.defaults(family)]
            best = next((link for link in found if link is not None and not _is_own(link)), None)
            if best is None:
                return f"there is no default route of IPv{family}"
            links.append(best)
        if len({link.ifindex for link in links}) > 1:
            names = " and ".join([link.name for link in links])
            return f"the default routes of IPv4 and IPv6 lead to different interfaces, {names}"
        return _Candidate(links[0], "the default route")

    def _owner(self, ip: IP) -> Link | None:
        for index, infos in self._addresses.items():
            if index in self._links and any(one.address.ip == ip for one in infos):
                return self._links[index]
        return None

    def _addresses_of(self, candidate: _Candidate) -> list[AddressInfo]:
        """The best of each family; fewer than families where one has none."""
        found = [self._usable(candidate, family) for family in self._families]
        return [infos[0] for infos in found if infos]

    def _usable(self, candidate: _Candidate, family: int) -> list[AddressInfo]:
        """The best first."""
        public = self._selector.public_ip(family)
        told = [*candidate.told, *([public] if public else [])]
        infos = [one for one in self._addresses.get(candidate.link.ifindex, []) if one.address.family == family]
        ready = [one for one in infos if not one.flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)]
        wanted = [one for one in ready if one.address.ip in told or _is_fit(one, candidate.named)]
        sources = self._preferred_sources(family) if len(wanted) > 1 else []
        return sorted(wanted, key=lambda one: (place(one.address.ip, told), *rank(one, wanted, sources)))

    def _preferred_sources(self, family: int) -> list[IP]:
        """The addresses that the default routes prefer to speak from; asked for where there is a choice."""
        if family not in self._sources:
            routes = self._route.defaults(family)
            self._sources[family] = [route.source for route in routes if route.source is not None]
        return self._sources[family]

    def _underlay(self, candidate: _Candidate, infos: tuple[AddressInfo, ...]) -> Underlay:
        link, addresses = candidate.link, tuple([info.address for info in infos])
        publics = tuple([self._selector.public_ip(one.family) or one.ip for one in addresses])
        reason = f"{link.name} with {_listed(one.ip for one in addresses)}, by {candidate.why}"
        if translated := [ip for ip, own in zip(publics, addresses, strict=True) if ip != own.ip]:
            reason += f"; other nodes reach it by {_listed(translated)}"
        told = (*candidate.told, *self._selector.public_ips)
        makeshift = any(is_virtual(info) and info.address.ip not in told for info in infos)
        return Underlay(link.ifindex, link.name, link.mtu, addresses, publics, reason, makeshift)

    def _lack(self, candidate: _Candidate, addresses: list[AddressInfo]) -> str:
        absent = [family for family in self._families if family not in [one.address.family for one in addresses]]
        families = " and ".join([f"IPv{family}" for family in absent])
        infos = self._addresses.get(candidate.link.ifindex, [])
        waiting = [one.address.ip for one in infos if one.flags & IFA_F_TENTATIVE and one.address.family in absent]
        hint = f" ({_listed(waiting)} is still checked for duplicates)" if waiting else ""
        return f"{candidate.link.name} ({candidate.why}) has no usable {families} address{hint}"

    def _offer(self) -> str:
        """The remedy."""
        fit = []
        for link in self._links.values():
            addresses = [] if _is_own(link) else self._addresses_of(_Candidate(link, ""))
            if len(addresses) == len(self._families):
                fit.append(f"{link.name} ({_listed(one.address.ip for one in addresses)})")
        if not fit:
            return f"No interface has addresses of {' and '.join([f'IPv{family}' for family in self._families])}"
        return f"--iface chooses one of: {', '.join(fit[:SHOWN])}{', ...' if len(fit) > SHOWN else ''}"


def _is_own(link: Link) -> bool:
    """Pods are behind it, not nodes."""
    return link.name.startswith(TUNNELS) or link.name == DEFAULT_BRIDGE


def _is_fit(info: AddressInfo, loopback: bool) -> bool:
    return not info.flags & IFA_F_DEPRECATED and (loopback or not info.address.ip.is_loopback)


def _listed(ips: Iterable[IP]) -> str:
    return " and ".join([ip.text for ip in ips])
