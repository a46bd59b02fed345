"""The nftables socket: elements added, found and removed over netlink; rules loaded by nft when they are missing."""

from __future__ import annotations

from errno import EEXIST, ENOENT, EOPNOTSUPP, EPROTONOSUPPORT

from cni import proc
from cni.kernel import nfnl
from cni.kernel.netlink import NETLINK_NETFILTER, Netlink, Refused
from cni.plan import ruleset
from cni.plan.alias import parse_alias
from cni.spec.errors import MachineRefused
from cni.spec.owner import label_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cni.kernel.journal import Journal
    from cni.kernel.machine import Machine
    from cni.kernel.nfnl import Element, Place
    from cni.plan.alias import Alias
    from cni.plan.ruleset import Part

ABSENT = (ENOENT, EOPNOTSUPP, EPROTONOSUPPORT)  # the table is not there, or nothing of nftables is
FAMILIES = {ruleset.INET: nfnl.NFPROTO_INET, ruleset.BRIDGE: nfnl.NFPROTO_BRIDGE}


def _places(table: str, *names: str) -> dict[str, Place]:
    return {name: nfnl.Place(FAMILIES[table], ruleset.TABLE, name) for name in names}


MASQUERADES = _places(ruleset.INET, *[ruleset.masquerade_map(family) for family in (4, 6)])
PORT_MAPS = [f"{name}{family}" for name in ("hostip_hostports", "hostports") for family in (4, 6)]
PORTS = _places(ruleset.INET, *PORT_MAPS, *[f"condition_{name}" for name in PORT_MAPS], "hairpin4", "hairpin6")
GUARDS = _places(ruleset.BRIDGE, ruleset.ALLOWED, ruleset.GUARDED)


class Nft(Netlink):
    """Every method raises Refused and OSError for what the kernel refuses, beyond what its own line says."""

    def __init__(self) -> None:
        super().__init__(NETLINK_NETFILTER)
        self._chains: dict[str, set[str]] = {}

    def chains(self, table: str) -> set[str]:
        """The chains that have rules: one that somebody flushed is as good as none. Asked for once, until `forget`."""
        if table not in self._chains:
            try:
                answers = self.dump(*nfnl.rules_of(FAMILIES[table], ruleset.TABLE))
            except (Refused, OSError) as error:
                if error.errno not in ABSENT:
                    raise
                answers = []
            self._chains[table] = {chain for of, chain in map(nfnl.parse_rule, answers) if of == ruleset.TABLE}
        return self._chains[table]

    def forget_chains(self) -> None:
        self._chains.clear()

    def change(self, *messages: tuple[int, int, bytes]) -> Refused | None:
        """All of them or none take effect."""
        return self.batch(nfnl.transaction(list(messages)))

    def find(self, place: Place, element: Element) -> Element | None:
        """Whatever has the element's key."""
        try:
            answer = self.ask(*nfnl.get_element(place, element))
        except (Refused, OSError) as error:
            if error.errno in ABSENT:
                return None
            raise
        return nfnl.parse_elements(answer)[0]

    def remove(self, place: Place, element: Element) -> bool:
        """Absence is success, and so is a key that by now is another's. Tells whether the element was there."""
        found = self.find(place, element)
        if found is None or found.label != element.label:
            return False
        refusal = self.change(nfnl.delete_element(place, element))
        if refusal is not None and refusal.errno not in ABSENT:
            raise refusal
        return True

    def elements(self, place: Place) -> list[Element]:
        """The cost grows with their number."""
        try:
            answers = self.dump(*nfnl.all_elements(place))
        except (Refused, OSError) as error:
            if error.errno in ABSENT:
                return []
            raise
        return [one for answer in answers for one in nfnl.parse_elements(answer)]


def hold(machine: Machine, place: Place, element: Element, journal: Journal) -> None:
    """Adds an element. A key that is taken is its last holder's left-over: the address is ours now."""
    journal.add(lambda: machine.nft.remove(place, element))
    added = nfnl.add_element(place, element)
    refusal = machine.nft.change(added)
    if refusal is not None and refusal.errno == EEXIST:
        refusal = machine.nft.change(nfnl.delete_element(place, element), added)
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
