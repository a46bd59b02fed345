"""Evidence of an attachment: DEL's path may be another container's by now, with an interface of the same name."""

from __future__ import annotations

from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.address import Net
    from cni.protocol.owner import Owner
    from cni.protocol.result import Result


class Traces(Record):
    """Evidence that an interface of that name is the attachment's: the key in the alias of its peer, ADD's result
    (`mac`, `hosts`: the host's interfaces), its addresses. `bridge`: the master of the peer, empty if there is none.
    `knows_leases`: without addresses here, the attachment has none any more.
    """

    key: str
    mac: str
    hosts: tuple[str, ...]
    addresses: tuple[Net, ...]
    bridge: str
    knows_leases: bool


def traces_of(owner: Owner, previous: Result, addresses: tuple[Net, ...], bridge: str, knows_leases: bool) -> Traces:
    """Returns the evidence. `previous`: ADD's result, as far as the runtime passes it."""
    inside = [
        interface.mac.lower()
        for interface in previous.interfaces
        if interface.name == owner.ifname and interface.sandbox
    ]
    hosts = tuple(
        [interface.name for interface in previous.interfaces if not interface.sandbox and interface.name != bridge]
    )
    return Traces(owner.key, inside[0] if inside else "", hosts, addresses, bridge, knows_leases)
