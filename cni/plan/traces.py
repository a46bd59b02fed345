"""Evidence of an attachment: DEL may be led to a container that has the path, and an interface of the name, by now."""

from __future__ import annotations

from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.address import Net
    from cni.protocol.owner import Owner
    from cni.protocol.result import Result


class Traces(Record):
    """Evidence that tells the container's end of an attachment from another's of that name: the key in the alias of its
    peer, ADD's answer (`mac`, `hosts`: the host's interfaces), its addresses. `bridge`: of which the peer is a
    port, empty where there is none. `knows_leases`: without addresses here, the attachment has none any more.
    """

    key: str
    mac: str
    hosts: tuple[str, ...]
    addresses: tuple[Net, ...]
    bridge: str
    knows_leases: bool


def traces_of(owner: Owner, previous: Result, addresses: tuple[Net, ...], bridge: str, knows_leases: bool) -> Traces:
    """`previous`: ADD's answer as far as the runtime tells it."""
    inside = [one.mac.lower() for one in previous.interfaces if one.name == owner.ifname and one.sandbox]
    hosts = tuple([one.name for one in previous.interfaces if not one.sandbox and one.name != bridge])
    return Traces(owner.key, inside[0] if inside else "", hosts, addresses, bridge, knows_leases)
