"""A port of the host that one container is given by several attachments: one holds it, the others stand by.

Docker Compose publishes a container's ports once for each of its networks. The element of an attachment that stands by
has the port's key and its own target for a key; its verdict is where packets to the port go, conditions included.
"""

from __future__ import annotations

from errno import EEXIST

from cni.effects.nft_socket import PORT_SETS
from cni.kernel import nft
from cni.kernel.nft import Element
from cni.plan.nftables import standby_map
from cni.plan.portmap import OPEN_PORTS
from cni.protocol.owner import same_container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.effects.host import Host
    from cni.effects.journal import Journal
    from cni.kernel.nft import SetRef


def standby_element(name: str, port: Element, chain: str) -> tuple[SetRef, Element]:
    """Returns the element of a port that stands by, and its map."""
    return PORT_SETS[standby_map(name)], Element(port.key + port.value, chain, port.label, leaves=True)


def add_standby(host: Host, name: str, port: Element, journal: Journal, chain: str = OPEN_PORTS) -> None:
    """Adds `port`, of the map `name`, to those that stand by. Once for each attachment: the first chain counts."""
    set_ref, element = standby_element(name, port, chain)
    journal.add(lambda: host.nft.remove(set_ref, element))
    refusal = host.nft.change(nft.add_element(set_ref, element))
    if refusal is not None and refusal.errno != EEXIST:
        raise refusal


def is_standby(host: Host, name: str, port: Element, chain: str = "") -> bool:
    """Returns whether `port` stands by while its container holds the port; with `chain`, also under this condition."""
    set_ref, element = standby_element(name, port, chain)
    standing_by, holder = host.nft.find(set_ref, element), host.nft.find(PORT_SETS[name], port)
    return (
        standing_by is not None
        and standing_by.label == port.label
        and (not chain or standing_by.chain == chain)
        and holder is not None
        and same_container(holder.label, port.label)
    )


def remove_or_hand_over(host: Host, name: str, port: Element) -> bool:
    """Removes `port` from the map, or hands it to the container's next attachment; and from those that stand by.

    Absence is success. Returns whether `port` was in the map.
    """
    standing_by = host.nft.standby(name)[port.key]
    holder = host.nft.find(PORT_SETS[name], port)
    if holder is None or holder.label != port.label:
        host.nft.remove(*standby_element(name, port, ""))
        return False
    heirs = [other for other in standing_by if other.label != port.label and same_container(other.label, port.label)]
    if not heirs:
        return host.nft.remove(PORT_SETS[name], port)
    _hand_over(host, name, port, heirs[0])
    standing_by.remove(heirs[0])
    return True


def _hand_over(host: Host, name: str, port: Element, heir: Element) -> None:
    """Gives the port to `heir` in one transaction, with its condition: no packet finds it closed, or open to others."""
    target, conditions = heir.key[len(port.key) :], PORT_SETS[f"condition_{name}"]
    messages = [
        nft.delete_element(PORT_SETS[name], port),
        nft.add_element(PORT_SETS[name], Element(port.key, "", heir.label, target)),
        nft.delete_element(PORT_SETS[standby_map(name)], heir),
    ]
    if host.nft.find(conditions, port) is not None:
        messages.append(nft.delete_element(conditions, port))
    if heir.chain != OPEN_PORTS:
        messages.append(nft.add_element(conditions, Element(port.key, heir.chain, heir.label, leaves=True)))
    refusal = host.nft.change(*messages)
    if refusal is not None:
        raise refusal
