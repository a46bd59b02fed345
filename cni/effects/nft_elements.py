"""podwire's nftables: elements held for a container, and rules loaded by nft when they are missing."""

from __future__ import annotations

from errno import EEXIST

from cni import proc
from cni.effects.nft_socket import GUARDS, MASQUERADES, PORTS
from cni.kernel import nft
from cni.plan.alias import parse_alias
from cni.protocol.errors import MachineRefused
from cni.protocol.owner import label_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cni.effects.host import Machine
    from cni.effects.journal import Journal
    from cni.kernel.nft import Element, Place
    from cni.plan.alias import Alias
    from cni.plan.nfttext import Part


def hold(machine: Machine, place: Place, element: Element, journal: Journal) -> None:
    """Adds an element. A key that is taken is its last holder's left-over: the address is ours now."""
    journal.add(lambda: machine.nft.remove(place, element))
    added = nft.add_element(place, element)
    refusal = machine.nft.change(added)
    if refusal is not None and refusal.errno == EEXIST:
        refusal = machine.nft.change(nft.delete_element(place, element), added)
    if refusal is not None:
        raise refusal


def forget(machine: Machine, doomed: Callable[[str], bool]) -> None:
    """Removes every element but ports' whose label is doomed; for DEL without addresses, and GC. The cost grows with
    all elements.
    """
    for place in (*MASQUERADES.values(), *GUARDS.values()):
        for element in machine.nft.elements(place):
            if doomed(element.label):
                machine.nft.remove(place, element)


def ensure(machine: Machine, part: Part, lost: Callable[[], Iterable[str]], journal: Journal) -> None:
    """Loads the part where one of its chains has no rules, with the elements that were lost.

    Alone; whoever had to wait looks again, since another may have loaded it.
    """
    if is_whole(machine, part):
        return
    machine.lock.alone()
    machine.nft.forget_chains()
    if not is_whole(machine, part):
        _load(machine, part.table, part.text(lost()), journal)
        machine.nft.forget_chains()
    machine.lock.share()


def is_whole(machine: Machine, part: Part) -> bool:
    return machine.nft.chains(part.table).issuperset(part.chains)


def attached(machine: Machine) -> list[tuple[str, Alias]]:
    """Name and alias of every host interface that is an attachment's."""
    aliases = [(link.name, parse_alias(link.alias)) for link in machine.route.links()]
    return [(name, alias) for name, alias in aliases if label_keys(alias.label)]


def _load(machine: Machine, table: str, text: str, journal: Journal) -> None:
    """Loads static rules; the way back is the table as it was."""
    before = _nft(machine, ["list", "table", *table.split()], "", absent_allowed=True)

    def restore() -> None:
        _nft(machine, ["-f", "-"], f"add table {table}\ndelete table {table}\n{before}")
        # Whoever was attached then is not now: see unshared.
        for place in (*MASQUERADES.values(), *GUARDS.values(), *PORTS.values()):
            for element in machine.nft.elements(place):
                machine.nft.remove(place, element)

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
