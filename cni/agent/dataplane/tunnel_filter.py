"""The tunnel's filter: VXLAN packets that do not come from a known node are dropped, and so are those of pods.

Rules ask four sets, which are kept here: the peers' addresses by family, the interfaces behind which pods are, and the
UDP port. The port comes last: while it is not in its set nothing is dropped, so that a table which is loaded again
drops no packet of a peer. Peers' addresses are added before the routes to them, and removed after these.
"""

from __future__ import annotations

import collections
import contextlib
import socket
from struct import Struct
from typing import TYPE_CHECKING

from cni.kernel import nft, nft_keys
from cni.kernel.netlink import NetlinkError
from cni.plan.nftrule import (
    DROP,
    FILTER,
    RETURN,
    AnonymousSet,
    Chain,
    Counter,
    Hook,
    Lookup,
    Match,
    NamedSet,
    Rule,
    Verdict,
)
from cni.protocol.address import IP
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cni.agent.model.lease import Lease
    from cni.effects.host import Host
    from cni.kernel.nft import SetRef
    from cni.kernel.rtnl import Message
    from cni.kernel.rtnl_socket import RtnlSocket
    from cni.protocol.address import Net

PEERS = {4: "peers4", 6: "peers6"}
PODS, PORTS = "pods", "ports"
SETS = {PEERS[4]: "ipv4_addr", PEERS[6]: "ipv6_addr", PODS: "ifname", PORTS: "inet_service"}
WORDS = {4: "ip", 6: "ip6"}
PORT = Struct(">H")
NAME_BYTES = 16  # IFNAMSIZ
TUNNEL, AWAY = "tunnel", "away"
VNI = "@th,96,24"  # in the VXLAN header behind that of UDP (RFC 7348)


class Tunnel(Record):
    """A tunnel's end on this node; `devices` has one name for each family."""

    vni: int
    devices: tuple[str, ...]


def sets() -> tuple[NamedSet, ...]:
    """Returns the sets, which are empty until they are filled."""
    return tuple([NamedSet(name, kind) for name, kind in SETS.items()])


def chains(tunnel: Tunnel, spaces: Iterable[tuple[Net, Net]]) -> list[Chain]:
    """Returns the chains.

    A packet of another VNI is another network's, which may have peers of its own on this port. One that is too short to
    tell its VNI passes no rule that asks for it. Where a fragment has no port, it comes behind one that has.
    `spaces`: by family the network and this node's subnet of it.
    """
    dropped, of_tunnel, of_pods = (Counter(), DROP), Lookup("udp dport", PORTS), Lookup("iifname", PODS)
    unknown = [
        Rule((of_pods, *dropped)),
        Rule((Match("iifname", AnonymousSet(tunnel.devices)), *dropped)),
        Rule((Match(VNI, tunnel.vni, negated=True), RETURN)),
        *[Rule((Lookup(f"{WORDS[family]} saddr", peers), RETURN)) for family, peers in PEERS.items()],
        Rule(dropped),
    ]
    forwarded, away = [Rule((of_tunnel, of_pods, Verdict("goto", AWAY)))], []
    for network, subnet in spaces:
        ip = WORDS[network.family]
        forwarded.append(Rule((of_tunnel, Match(f"{ip} saddr", subnet), Verdict("goto", AWAY))))
        away.append(Rule((Lookup(f"{ip} daddr", PEERS[network.family]), *dropped)))
        away.append(Rule((Match(f"{ip} daddr", network), RETURN)))
    return [
        Chain(TUNNEL, tuple(unknown)),
        Chain("input", (Rule((of_tunnel, Verdict("goto", TUNNEL))),), Hook("filter", "input", FILTER)),
        Chain(AWAY, (*away, Rule(dropped))),
        Chain("forward", tuple(forwarded), Hook("filter", "forward", FILTER)),
    ]


class TunnelFilter:
    """The sets as they have to be, and as they are as far as is known. `ports` are the tunnel's UDP ports."""

    def __init__(self, host: Host, table: str) -> None:
        self._host, self._table = host, table
        self._peers = collections.Counter[IP]()  # by the number of leases with each address
        self._knows_peers = False
        self.ports: set[int] = set()
        self._held: dict[str, set[bytes]] | None = None

    @property
    def peers(self) -> frozenset[IP]:
        """The addresses whose packets are accepted."""
        return frozenset(self._peers)

    def forget(self) -> None:
        """Discards what is known of the sets, since they may have been changed: the kernel is asked again."""
        self._held = None

    def admit_all(self, leases: Iterable[Lease]) -> None:
        """Lets in the packets of these peers; `confine` removes all others. Raises NetlinkError, OSError."""
        self._peers, self._knows_peers = collections.Counter(_addresses(leases)), True
        self.forget()
        self._add(self._wanted_peers())

    def admit(self, leases: Iterable[Lease]) -> None:
        """Lets in the packets of these peers as well. Raises NetlinkError, OSError."""
        addresses = _addresses(leases)
        self._peers.update(addresses)
        self._add(_keys(addresses))

    def dismiss(self, leases: Iterable[Lease]) -> None:
        """Removes the addresses of these peers, unless another peer has them. Raises NetlinkError, OSError."""
        addresses = _addresses(leases)
        self._peers.subtract(addresses)
        gone = {ip for ip in addresses if self._peers[ip] <= 0}
        for ip in gone:
            del self._peers[ip]
        self._remove(_keys(gone))

    def confine(self, pods: Iterable[str]) -> list[str]:
        """Makes the sets what they have to be; returns what had to be done. Raises NetlinkError, OSError.

        `pods`: the interfaces behind which they are. Where the rules are not loaded, there are no sets. What an earlier
        agent has let in stays until this one knows the peers.
        """
        if not self._knows_peers:
            return []
        wanted = {
            **self._wanted_peers(),
            PODS: {name.encode().ljust(NAME_BYTES, b"\0") for name in pods},
            PORTS: {PORT.pack(port) for port in self.ports},
        }
        count = self._add(wanted)
        count += self._remove({name: keys - wanted[name] for name, keys in (self._held or {}).items()})
        return [f"{count} entries of the tunnel's filter differed"] if count else []

    def _wanted_peers(self) -> dict[str, set[bytes]]:
        return {name: set[bytes]() for name in PEERS.values()} | _keys(self._peers)

    def _add(self, wanted: dict[str, set[bytes]]) -> int:
        """Adds missing keys; returns their number."""
        held = self._current()
        lacking = {name: keys - held[name] for name, keys in wanted.items() if name in held}
        for name, keys in lacking.items():
            self._change(name, keys, nft_keys.add_keys)
            held[name] |= keys
        return sum(map(len, lacking.values()))

    def _remove(self, surplus: dict[str, set[bytes]]) -> int:
        held = self._current()
        present = {name: keys & held[name] for name, keys in surplus.items() if name in held}
        for name, keys in present.items():
            self._change(name, keys, nft_keys.delete_keys)
            held[name] -= keys
        return sum(map(len, present.values()))

    def _change(self, name: str, keys: set[bytes], message: Callable[[SetRef, list[bytes]], Message]) -> None:
        """Sends a thousand keys in a transaction; after an error the sets are unknown. Raises NetlinkError."""
        waiting = [*keys]
        for start in range(0, len(waiting), nft_keys.AT_A_TIME):
            part = message(self._place(name), waiting[start : start + nft_keys.AT_A_TIME])
            refusal = self._host.netfilter.batch(nft.transaction([part]))
            if refusal is not None:
                self.forget()
                raise refusal

    def _current(self) -> dict[str, set[bytes]]:
        """Returns the keys in each set by its name; none where the rules are not loaded."""
        if self._held is None:
            listed = {name: self._listed(name) for name in SETS}
            self._held = {name: keys for name, keys in listed.items() if keys is not None}
        return self._held

    def _listed(self, name: str) -> set[bytes] | None:
        """Returns None if there is no such set."""
        try:
            answers = self._host.netfilter.dump(*nft.all_elements(self._place(name)))
        except (NetlinkError, OSError) as error:
            if error.errno not in nft.NOT_FOUND_OR_EINVAL:
                raise
            return None
        return {key for answer in answers for key in nft_keys.parse_keys(answer)}

    def _place(self, name: str) -> SetRef:
        return nft.SetRef(nft.NFPROTO_INET, self._table, name)


def _addresses(leases: Iterable[Lease]) -> list[IP]:
    return [ip for lease in leases for ip in (*[endpoint.public_ip for endpoint in lease.endpoints], *lease.sources)]


def _keys(addresses: Iterable[IP]) -> dict[str, set[bytes]]:
    """Returns the keys by the set that they belong to."""
    keys: dict[str, set[bytes]] = {}
    for ip in addresses:
        keys.setdefault(PEERS[ip.family], set()).add(ip.packed)
    return keys


def pod_links(rtnl_socket: RtnlSocket, subnets: Iterable[Net], others: Iterable[str]) -> set[str]:
    """Returns the interfaces behind which pods are: those with an address of this node's subnets, but for `others`.

    A bridge has the gateway's address, and so has the host's end of each pod's pair where there is no bridge.
    """
    subnets = tuple(subnets)
    indexes = {
        info.ifindex for info in rtnl_socket.all_addresses() if any(net.contains(info.address.ip) for net in subnets)
    }
    names = set()
    for index in indexes:
        with contextlib.suppress(OSError):  # gone by now
            names.add(socket.if_indextoname(index))
    return names.difference(others)
