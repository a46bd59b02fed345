"""Port mappings: elements of nftables maps."""

from __future__ import annotations

from _struct import Struct
from errno import EEXIST

from cni.config.portmap import PROTOCOLS, Ports
from cni.effects import Effect, alive, conntrack, nft_elements, not_released, nothing_differs
from cni.effects.nft_socket import PORT_MAPS, PORT_SETS, STANDBY
from cni.kernel import nft
from cni.kernel.netlink import unpacked
from cni.kernel.nft import Element
from cni.plan import portmap as plan
from cni.plan.nftables import INET
from cni.plan.portmap import Condition, Hairpin, HostPort, host_port_map
from cni.protocol.address import IP
from cni.protocol.errors import OperationFailed
from cni.protocol.owner import same_container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.effects.host import Host
    from cni.effects.journal import Journal
    from cni.kernel.nft import SetRef
    from cni.plan.alias import Alias
    from cni.plan.operations import Operation
    from cni.plan.portmap import PortOverlap

LOOPBACK6 = IP(6, 1)
PORT = Struct(">H2x")  # in a concatenation every part is padded to four bytes (libnftnl)
PROTOCOL = Struct("B3x")
ENDING = Struct(">B3xH2x")  # of a key: both


def _key(op: HostPort, *, any_address: bool = False) -> bytes:
    ip = op.mapping.host_ip
    front = b"" if any_address or ip is None else ip.packed
    return front + PROTOCOL.pack(PROTOCOLS[op.mapping.protocol]) + PORT.pack(op.mapping.host_port)


def _port_element(op: HostPort) -> tuple[SetRef, Element]:
    target = op.ip.packed + PORT.pack(op.mapping.container_port)
    return PORT_SETS[host_port_map(op)], Element(_key(op), "", op.label, target)


def _condition_element(op: Condition) -> tuple[SetRef, Element]:
    element = Element(_key(op.port), op.chain, op.port.label, leaves=True)
    return PORT_SETS[f"condition_{host_port_map(op.port)}"], element


def _hairpin_element(op: Hairpin) -> tuple[SetRef, Element]:
    return PORT_SETS[f"hairpin{op.address.family}"], Element(op.address.ip.packed, op.chain, op.label)


def _ensure(host: Host, label: str, hairpins: list[Hairpin], conditions: list[Condition], journal: Journal) -> None:
    """Loads the rules if they are missing, with the ports in the aliases of all host interfaces but `label`'s."""
    if nft_elements.is_loaded(host, plan.ruleset(hairpins, conditions)):
        return
    held = [op for _, alias in nft_elements.attached(host) if alias.label != label for op in _operations_of(alias)]
    others = [op for op in held if isinstance(op, Hairpin)]

    def lost() -> list[tuple[SetRef, Element]]:
        missing = [owned for owned in map(_hairpin_element, others) if host.nft.find(*owned) is None]
        ports = [port for port in held if isinstance(port, HostPort)]
        return [*missing, *_lost_ports(host, ports)]

    nft_elements.ensure(host, plan.ruleset([*hairpins, *others], conditions), lost, journal)


def _lost_ports(host: Host, ports: list[HostPort]) -> list[tuple[SetRef, Element]]:
    """Returns the missing elements: one attachment holds a port, further ones of its container stand by."""
    from cni.effects import portmap_standby

    elements: list[tuple[SetRef, Element]] = []
    held: set[tuple[str, bytes]] = set()
    for port in ports:
        name, (set_ref, element) = host_port_map(port), _port_element(port)
        holder = host.nft.find(set_ref, element)
        if holder is None and (name, element.key) not in held:
            held.add((name, element.key))
            elements.append((set_ref, element))
        elif (holder is None or holder.label != port.label) and not portmap_standby.is_standby(host, name, element):
            elements.append(portmap_standby.standby_element(name, element, plan.OPEN_PORTS))
    return elements


def _operations_of(alias: Alias) -> tuple[Operation, ...]:
    return plan.operations(Ports(alias.ports, alias.ports_masqueraded), alias.addresses, alias.label)


def apply_hairpin(host: Host, op: Hairpin, journal: Journal) -> None:
    _ensure(host, op.label, [op], [], journal)
    nft_elements.add_owned(host, *_hairpin_element(op), journal)


def apply_condition(host: Host, op: Condition, journal: Journal) -> None:
    """Adds a condition under a lock that is kept until the port is added: nobody else can get the port in between."""
    _ensure(host, op.port.label, [], [op], journal)
    host.lock.lock_exclusive()
    if _other_holder(host, op.port) is None:
        nft_elements.add_owned(host, *_condition_element(op), journal)
    else:
        from cni.effects import portmap_standby

        portmap_standby.add_standby(host, host_port_map(op.port), _port_element(op.port)[1], journal, op.chain)


def apply_port(host: Host, op: HostPort, journal: Journal) -> None:
    """Adds the port. Raises OperationFailed with the container that has it already."""
    if op.mapping.host_ip == LOOPBACK6:
        reason = "out of reach, IPv6 has no route_localnet (give hostIP 127.0.0.1, or none)"
        host.warn(f"host port {op.mapping.text}: {reason}")
    _ensure(host, op.label, [], [], journal)
    _add_port(host, op, journal)


def _add_port(host: Host, op: HostPort, journal: Journal) -> None:
    set_ref, element = _port_element(op)
    journal.add(lambda: _undo_port(host, op))
    added = nft.add_element(set_ref, element)
    refusal = host.nft.change(added)
    if refusal is not None and refusal.errno == EEXIST:
        host.lock.lock_exclusive()  # to the end: of two that find the same holder dead, one would take the other's port
        if _other_holder(host, op) is not None:
            from cni.effects import portmap_standby

            portmap_standby.add_standby(host, host_port_map(op), element, journal)
            return
        holder = host.nft.find(set_ref, element)
        refusal = host.nft.change(*([nft.delete_element(set_ref, element)] if holder else []), added)
    if refusal is not None:
        raise refusal


def _undo_port(host: Host, op: HostPort) -> None:
    """Removes the port, or hands it over: another attachment of the container may stand by since."""
    host.nft.forget_standby()
    _remove_port(host, host_port_map(op), _port_element(op)[1])


def _remove_port(host: Host, name: str, port: Element) -> bool:
    """Removes a port, or hands it over to an attachment that stands by; returns True if it existed."""
    if not host.nft.standby(name).get(port.key):
        return host.nft.remove(PORT_SETS[name], port)
    from cni.effects import portmap_standby

    return portmap_standby.remove_or_hand_over(host, name, port)


def _is_standby(host: Host, name: str, port: Element, chain: str = "") -> bool:
    from cni.effects import portmap_standby

    return portmap_standby.is_standby(host, name, port, chain)


def _other_holder(host: Host, op: HostPort) -> Element | None:
    """Returns the living attachment of the same container that holds the port; the port of a dead holder is removed.

    Raises OperationFailed if the port belongs to another container that lives.
    """
    set_ref, element = _port_element(op)
    while (holder := host.nft.find(set_ref, element)) is not None and holder.label != op.label:
        if _lives(host, holder):
            if same_container(holder.label, op.label):
                return holder
            raise _in_use_error(op, holder.label)
        _remove_port(host, host_port_map(op), holder)
    return None


def _lives(host: Host, holder: Element) -> bool:
    """Returns True if the holder of a port lives; a port whose container is gone without a DEL is free."""
    target = holder.value[: len(holder.value) - PORT.size]
    return alive.holder_lives(host.rtnl, holder.label, target)


def apply_overlap(host: Host, op: PortOverlap, journal: Journal) -> None:
    """Raises OperationFailed if another container has a port on one address that this one has on all, or vice versa.

    It is checked once the own elements exist: of two concurrent ADDs at least one sees the other. Ports of single
    addresses are listed once, for all mappings.
    """
    name = f"hostip_hostports{op.ports[0].ip.family}"
    bound: dict[bytes, list[Element]] = {}
    if any(port.mapping.host_ip is None for port in op.ports):
        for element in host.nft.elements(PORT_SETS[name]):
            bound.setdefault(element.key[-ENDING.size :], []).append(element)
    for port in op.ports:
        key = _key(port, any_address=True)
        if port.mapping.host_ip is None:
            _raise_if_held(host, port, name, bound.get(key, []))
        else:
            anywhere = f"hostports{port.ip.family}"
            holder = host.nft.find(PORT_SETS[anywhere], Element(key, "", ""))
            _raise_if_held(host, port, anywhere, [holder] if holder is not None else [])


def _raise_if_held(host: Host, op: HostPort, name: str, others: list[Element]) -> None:
    """Raises OperationFailed if one of these elements belongs to another container that lives."""
    for other in others:
        if other.label == op.label or same_container(other.label, op.label):
            continue
        if _lives(host, other):
            raise _in_use_error(op, other.label)
        _remove_port(host, name, other)  # or a dead container would go on getting its share


def _in_use_error(op: HostPort, label: str) -> OperationFailed:
    holder = label.split(" ", 3)[-1]
    return OperationFailed(
        f"host port {plan.host_port_key(op)} is taken by {holder} (NETWORK/CONTAINER/INTERFACE): choose another port,"
        " or delete that container first"
    )


def release_hairpin(host: Host, op: Hairpin) -> None:
    host.nft.remove(*_hairpin_element(op))


def release_condition(host: Host, op: Condition) -> None:
    host.nft.remove(*_condition_element(op))


def release_port(host: Host, op: HostPort) -> None:
    _remove_port(host, host_port_map(op), _port_element(op)[1])


def release_labelled(host: Host, matches: Callable[[str], bool]) -> None:
    """Removes every element with a label that matches, and the conntrack entries of its port.

    Standby elements come first, so that no port is handed over to one. The cost grows with the number of mapped ports.
    """
    targets: set[tuple[bytes, int]] = set()
    removed = False
    for name in sorted(PORT_SETS, key=lambda name: name not in STANDBY):
        for element in host.nft.elements(PORT_SETS[name]):
            if not matches(element.label):
                continue
            removed = True
            if name not in PORT_MAPS:
                host.nft.remove(PORT_SETS[name], element)
            elif _remove_port(host, name, element):
                targets.update(_udp_target(element))
    conntrack.delete_mapped(host, targets)
    if removed:
        from cni.effects import route_localnet

        route_localnet.take_back_unused(host)


def _udp_target(element: Element) -> list[tuple[bytes, int]]:
    """Returns the target of a UDP port, by its element: address of the container and port of the host."""
    ip, (protocol, port) = element.value[: -PORT.size], unpacked(ENDING, element.key[-ENDING.size :])
    return [(ip, port)] if protocol == PROTOCOLS["udp"] else []


def hairpin_differs(host: Host, op: Hairpin) -> str:
    return _element_differs(host, _hairpin_element(op), f"the hairpin of {op.address.ip.text}")


def condition_differs(host: Host, op: Condition) -> str:
    name, port = host_port_map(op.port), _port_element(op.port)[1]
    missing = _element_differs(host, _condition_element(op), f"the condition of host port {op.port.mapping.text}")
    return "" if missing and _is_standby(host, name, port, op.chain) else missing


def port_differs(host: Host, op: HostPort) -> str:
    missing = _element_differs(host, _port_element(op), f"host port {op.mapping.text}")
    if missing and _is_standby(host, host_port_map(op), _port_element(op)[1]):
        missing = ""
    if not missing and not nft_elements.is_loaded(host, plan.ruleset([], [])):
        return f"table {INET} has lost its rules"
    return missing


def _element_differs(host: Host, owned: tuple[SetRef, Element], title: str) -> str:
    set_ref, element = owned
    return "" if host.nft.find(set_ref, element) == element else f"{title} is gone from table {INET}"


EFFECTS = {
    "Hairpin": Effect(apply_hairpin, release_hairpin, hairpin_differs),
    "Condition": Effect(apply_condition, release_condition, condition_differs),
    "HostPort": Effect(apply_port, release_port, port_differs),
    "PortOverlap": Effect(apply_overlap, not_released, nothing_differs),
}
