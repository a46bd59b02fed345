"""nftables: elements added, found and removed over netlink; tables and chains loaded by nft when they are missing."""

from __future__ import annotations

from errno import EEXIST, ENOENT, EOPNOTSUPP, EPROTONOSUPPORT

from cni import proc
from cni.kernel import nfnl
from cni.kernel.netlink import Refused
from cni.plan import ruleset
from cni.plan.alias import parse_alias
from cni.plan.operations import masquerade_chain
from cni.spec.errors import MachineRefused
from cni.spec.owner import label_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.kernel.journal import Journal
    from cni.kernel.machine import Machine
    from cni.plan.alias import Alias
    from cni.plan.operations import Masquerade, SpoofGuard

ABSENT = (ENOENT, EOPNOTSUPP, EPROTONOSUPPORT)  # the table is not there, or nothing of nftables is
MASQUERADE = {family: nfnl.Place(nfnl.NFPROTO_INET, ruleset.TABLE, ruleset.masquerade_map(family)) for family in (4, 6)}
ALLOWED = nfnl.Place(nfnl.NFPROTO_BRIDGE, ruleset.TABLE, ruleset.ALLOWED)
GUARDED = nfnl.Place(nfnl.NFPROTO_BRIDGE, ruleset.TABLE, ruleset.GUARDED)
PLACES = (*MASQUERADE.values(), ALLOWED, GUARDED)
FAMILY_WORD = {nfnl.NFPROTO_INET: "inet", nfnl.NFPROTO_BRIDGE: "bridge"}
IFNAME_BYTES = 16


def _masquerade_element(op: Masquerade) -> tuple[nfnl.Place, nfnl.Element]:
    return MASQUERADE[op.ip.family], nfnl.Element(op.ip.packed, masquerade_chain(op.address), op.label)


def _guard_elements(op: SpoofGuard) -> list[tuple[nfnl.Place, nfnl.Element]]:
    """In a concatenation every part is padded to four bytes (libnftnl)."""
    name = op.host_interface.encode().ljust(IFNAME_BYTES, b"\0")
    allowed = nfnl.Element(name + op.mac.ljust(8, b"\0"), "", op.label)
    return [(ALLOWED, allowed), (GUARDED, nfnl.Element(name, "", op.label))]


def apply_masquerade(machine: Machine, op: Masquerade, journal: Journal) -> None:
    place, element = _masquerade_element(op)
    _ensure(machine, lambda: _is_whole(machine, place, element), lambda: _restore_masquerade(machine, op, journal))
    _hold(machine, place, element, journal)


def _ensure(machine: Machine, is_whole: Callable[[], bool], restore: Callable[[], None]) -> None:
    """Restores what is missing, alone; whoever had to wait looks again, since another may have restored it."""
    if is_whole():
        return
    machine.lock.alone()
    if not is_whole():
        restore()
    machine.lock.share()


def _is_whole(machine: Machine, place: nfnl.Place, element: nfnl.Element) -> bool:
    return all(_has_rules(machine, place, chain) for chain in (ruleset.POSTROUTING, element.chain))


def _has_rules(machine: Machine, place: nfnl.Place, chain: str) -> bool:
    """False where the chain is empty, too: somebody flushed it."""
    try:
        return bool(machine.nft.dump(*nfnl.rules_of(place.family, place.table, chain)))
    except (Refused, OSError) as error:
        if error.errno in ABSENT:
            return False
        raise


def _restore_masquerade(machine: Machine, op: Masquerade, journal: Journal) -> None:
    """The whole table anew, with the elements of all who are attached: their host interfaces' aliases name them."""
    journal.add(lambda: release_masquerade(machine, op))
    held = [(address, alias.label) for _, alias in _attached(machine) for address in alias.masqueraded]
    by_ip = {address.ip: (address, label) for address, label in [*held, (op.address, op.label)]}
    _load(machine, nfnl.NFPROTO_INET, ruleset.masquerade(by_ip.values()), journal)


def _attached(machine: Machine) -> list[tuple[str, Alias]]:
    """Name and alias of every host interface that is an attachment's."""
    aliases = [(link.name, parse_alias(link.alias)) for link in machine.route.links()]
    return [(name, alias) for name, alias in aliases if label_keys(alias.label)]


def _restore_guard(machine: Machine, op: SpoofGuard, journal: Journal) -> None:
    """As `_restore_masquerade`."""
    journal.add(lambda: release_guard(machine, op))
    ports = [(name, alias.guarded, alias.label) for name, alias in _attached(machine) if alias.guarded]
    others = [port for port in ports if port[0] != op.host_interface]
    text = ruleset.spoof_guard([*others, (op.host_interface, op.mac, op.label)])
    _load(machine, nfnl.NFPROTO_BRIDGE, text, journal)


def apply_guard(machine: Machine, op: SpoofGuard, journal: Journal) -> None:
    _ensure(
        machine,
        lambda: _has_rules(machine, ALLOWED, ruleset.GUARD_CHAIN),
        lambda: _restore_guard(machine, op, journal),
    )
    for place, element in _guard_elements(op):
        _hold(machine, place, element, journal)


def _load(machine: Machine, family: int, text: str, journal: Journal) -> None:
    """Loads static rules; the way back is the table as it was."""
    table = f"{FAMILY_WORD[family]} {ruleset.TABLE}"
    before = _nft(machine, ["list", "table", *table.split()], "", absent_allowed=True)

    def restore() -> None:
        _nft(machine, ["-f", "-"], f"add table {table}\ndelete table {table}\n{before}")
        forget(machine, lambda label: bool(label_keys(label)))  # whoever was attached then is not now: see unshared

    journal.add_shared(restore)
    _nft(machine, ["-f", "-"], text)


def _nft(machine: Machine, arguments: list[str], text: str, absent_allowed: bool = False) -> str:
    program = proc.find_system("nft", machine.environment)
    if program is None:
        raise MachineRefused("the program nft is missing: install nftables, or switch off what needs it (ipMasq)")
    ended = proc.run([program, *arguments], text.encode(), machine.environment, capture_stderr=True)
    if ended.status != 0:
        if absent_allowed:
            return ""
        words = ended.stderr.decode("utf-8", "replace").strip()
        raise MachineRefused(f"nft refused podwire's rules: {words}")
    return ended.stdout.decode("utf-8", "replace")


def _hold(machine: Machine, place: nfnl.Place, element: nfnl.Element, journal: Journal) -> None:
    """Adds an element. A key that is taken is its last holder's left-over: the address is ours now."""
    journal.add(lambda: _remove(machine, place, element))
    added = nfnl.add_element(place, element)
    refusal = machine.nft.batch(nfnl.transaction([added]))
    if refusal is not None and refusal.errno == EEXIST:
        replaced = nfnl.transaction([nfnl.delete_element(place, element), added])
        refusal = machine.nft.batch(replaced)
    if refusal is not None:
        raise refusal


def _find(machine: Machine, place: nfnl.Place, element: nfnl.Element) -> nfnl.Element | None:
    try:
        answer = machine.nft.ask(*nfnl.get_element(place, element))
    except (Refused, OSError) as error:
        if error.errno in ABSENT:
            return None
        raise
    return nfnl.parse_elements(answer)[0]


def _remove(machine: Machine, place: nfnl.Place, element: nfnl.Element) -> None:
    """Absence is success, and so is a key that by now is another's."""
    found = _find(machine, place, element)
    if found is None or found.label != element.label:
        return
    refusal = machine.nft.batch(nfnl.transaction([nfnl.delete_element(place, element)]))
    if refusal is not None and refusal.errno not in ABSENT:
        raise refusal


def release_masquerade(machine: Machine, op: Masquerade) -> None:
    _remove(machine, *_masquerade_element(op))


def release_guard(machine: Machine, op: SpoofGuard) -> None:
    """By the port alone where the container has another address than DEL is told: then all guarded ports are read."""
    elements = _guard_elements(op)
    if _find(machine, *elements[0]) == elements[0][1]:
        for place, element in elements:
            _remove(machine, place, element)
        return
    name = elements[1][1].key
    for place in (ALLOWED, GUARDED):
        _remove_all(machine, place, lambda element: element.key.startswith(name))


def masquerade_differs(machine: Machine, op: Masquerade) -> str:
    place, element = _masquerade_element(op)
    if _find(machine, place, element) != element:
        return f"the masquerade of {op.ip.text} is gone from table inet {ruleset.TABLE}"
    if not _is_whole(machine, place, element):
        return f"table inet {ruleset.TABLE} has lost its rules"
    return ""


def guard_differs(machine: Machine, op: SpoofGuard) -> str:
    if any(_find(machine, place, element) != element for place, element in _guard_elements(op)):
        return f"the guard against spoofing on {op.host_interface} is gone from table bridge {ruleset.TABLE}"
    if not _has_rules(machine, ALLOWED, ruleset.GUARD_CHAIN):
        return f"table bridge {ruleset.TABLE} has lost its rules"
    return ""


def forget(machine: Machine, doomed: Callable[[str], bool]) -> None:
    """Removes every element whose label is doomed; for DEL without addresses, and GC. Cost grows with all elements."""
    for place in PLACES:
        _remove_all(machine, place, lambda element: doomed(element.label))


def _remove_all(machine: Machine, place: nfnl.Place, doomed: Callable[[nfnl.Element], bool]) -> None:
    try:
        answers = machine.nft.dump(*nfnl.all_elements(place))
    except (Refused, OSError) as error:
        if error.errno in ABSENT:
            return
        raise
    for element in [one for answer in answers for one in nfnl.parse_elements(answer) if doomed(one)]:
        _remove(machine, place, element)
