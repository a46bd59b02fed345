"""NetworkPolicy: an address is recorded for podwired and pending in its maps before the container can send.

The record is a file of the address. podwired makes the folder; without it, or without the table, nothing is pending.
"""

from __future__ import annotations

import posix as os  # see cni/__init__.py
from errno import EBUSY, EEXIST
from fcntl import LOCK_NB, LOCK_SH, flock
from time import monotonic, sleep

from cni.effects import Effect, not_released, nothing_differs
from cni.kernel import nft, rtnl, statefile, sysctl
from cni.kernel.hostlock import RUN, policy_lock
from cni.kernel.netlink import NetlinkError
from cni.plan.policy import IN, ISOLATED, OPEN, OUT, TABLE, map_name, new_map, parse_record, pending_chain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cni.effects.host import Host
    from cni.effects.journal import Journal
    from cni.kernel.nft import Element, SetRef
    from cni.plan.policy import AwaitClass, Pending, PodRecord, PolicyPort
    from cni.protocol.address import IP

    Place = tuple[SetRef, Element]

TAKEN = (EEXIST, EBUSY)  # the key leads to the same chain already, or to another one
TRIES = 8  # podwired may change the same elements
FIRST_PAUSE, LONGEST_PAUSE = 0.0005, 0.02  # seconds


def apply(host: Host, op: Pending, journal: Journal) -> None:
    """Writes the records, then leads the addresses to the pending chains, whatever class an earlier holder had."""
    folder = host.pod_records
    journal.add(lambda: _release(host, op.ips, lambda label: label == op.record.label))
    try:
        for ip in op.ips:
            _write(f"{folder}/{ip.text}", op.record.data)
    except FileNotFoundError:  # the folder: policies have just been switched off
        return
    _make_pending(host, op)


def _write(path: str, data: bytes) -> None:
    """Writes a file in root's own folder. A reader may find it empty; podwired reads it when the address is pending."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def _make_pending(host: Host, op: Pending) -> None:
    """Raises NetlinkError."""
    places = _places(op.ips, op.record.label)
    adding = [nft.add_element(*place) for place in places]
    deleting: list[tuple[int, int, bytes]] = []
    for left in reversed(range(TRIES)):
        refusal = host.nft.batch(nft.transaction([*deleting, *adding]))
        if refusal is None:
            return
        of_old = 0 < refusal.position <= len(deleting)  # the first message begins the batch
        if refusal.errno in nft.NOT_FOUND_OR_EINVAL and not of_old:
            return  # no table
        if not left or not (refusal.errno in TAKEN or (of_old and refusal.errno in nft.NOT_FOUND)):
            raise refusal
        deleting = [nft.delete_element(*place) for place in _read_elements(host, [*places, *_new_places(places)])]


def _places(ips: Iterable[IP], label: str = "") -> list[Place]:
    """Returns each map of the addresses, with the element there that is pending."""
    return [
        (
            nft.SetRef(nft.NFPROTO_INET, TABLE, map_name(suffix, ip.family)),
            nft.Element(ip.packed, pending_chain(suffix), label, leaves=True),
        )
        for ip in ips
        for suffix in (IN, OUT)
    ]


def _new_places(places: list[Place]) -> list[Place]:
    """Returns for each place the one of the same address in the map of new pods."""
    return [(place._replace(name=new_map(place.name)), element) for place, element in places]


def _read_elements(host: Host, places: list[Place]) -> dict[Place, Element]:
    """Returns the places that have an element, each with it. Raises NetlinkError."""
    answers = host.nft.ask_each([nft.get_element(*place) for place in places]) if places else []
    elements: dict[Place, Element] = {}
    for place, answer in zip(places, answers, strict=True):
        if not isinstance(answer, NetlinkError):
            elements.update([(place, element) for element in nft.each_element(answer)])
        elif answer.errno not in nft.NOT_FOUND_OR_EINVAL:
            raise answer
    return elements


def apply_port(host: Host, op: PolicyPort, journal: Journal) -> None:
    """Makes the port as podwired asks for now. podwired changes its file first and lists the ports then, and here the
    port comes before the look at the file: one of the two always sees the other.
    """
    isolated = sysctl.exists(f"{host.pod_records}/{ISOLATED}")
    if isolated != op.isolated:
        host.rtnl.request(*rtnl.set_alias(op.host_interface, op.alias._replace(isolated=isolated).text))
        host.rtnl.request(*rtnl.set_bridge_port(op.host_interface, op.hairpin, isolated))


def await_class(host: Host, op: AwaitClass, journal: Journal) -> None:
    """Returns once podwired has given the addresses their class, or after the time with a notice."""
    places = _places(op.ips)
    end, pause = monotonic() + op.seconds, FIRST_PAUSE
    while _is_any_pending(host, places):
        host.raise_if_interrupted()
        if monotonic() > end:
            host.warn(_late(host, op))
            return
        sleep(pause)
        pause = min(1.5 * pause, LONGEST_PAUSE)


def _is_any_pending(host: Host, places: list[Place]) -> bool:
    """Returns True if an address is pending, and podwired has given it no class as a new pod. Raises NetlinkError.

    The maps of new pods are asked first: mostly they answer for all.
    """
    new_places = _new_places(places)
    judged = _read_elements(host, new_places)
    unjudged = [place for place, new_place in zip(places, new_places, strict=True) if new_place not in judged]
    elements = _read_elements(host, unjudged)
    return any(element.chain == place[1].chain for place, element in elements.items())


def _late(host: Host, op: AwaitClass) -> str:
    effect = "pass whatever policies say (--policy-unknown=open)" if is_open(host) else "are dropped"
    return (
        f"NetworkPolicy: {', '.join([ip.text for ip in op.ips])}: podwired did not judge the pod within {op.seconds} s"
        f" (policyWait), and until it does, the pod's connections {effect} (is podwired running? its log says what it"
        " waits for)"
    )


def is_open(host: Host) -> bool:
    """Returns True if pods that podwired does not know may do everything."""
    return sysctl.exists(f"{host.pod_records}/{OPEN}")


def release(host: Host, op: Pending) -> None:
    """Removes the records and elements of addresses that are still the attachment's.

    Elements are left to podwired if it runs: it sees the interface go, and who deletes some waits for the kernel (RCU)
    when it closes its socket.
    """
    own = _remove_records(host, op.ips, lambda label: label == op.record.label)
    if own and not is_running(host):
        _remove_elements(host, own)


def _release(host: Host, ips: Iterable[IP], matches: Callable[[str], bool]) -> None:
    _remove_elements(host, _remove_records(host, ips, matches))


def _remove_records(host: Host, ips: Iterable[IP], matches: Callable[[str], bool]) -> list[IP]:
    """Returns the addresses that had one."""
    folder, own = host.pod_records, []
    for ip in ips:
        path = f"{folder}/{ip.text}"
        record = read_record(path)
        if record is not None and matches(record.label):
            statefile.remove(path)  # first: podwired takes an element that is gone for lost while there is a record
            own.append(ip)
    return own


def _remove_elements(host: Host, ips: Iterable[IP]) -> None:
    places = _places(ips)
    places += _new_places(places)
    while present := _read_elements(host, places):
        refusal = host.nft.batch(nft.transaction([nft.delete_element(*place) for place in present]))
        if refusal is None:
            return
        if refusal.errno not in nft.NOT_FOUND:  # by podwired, which has removed one
            raise refusal


def is_running(host: Host) -> bool:
    """Returns True if a podwired holds the lock on NetworkPolicy in this network namespace."""
    try:
        descriptor = os.open(f"{RUN}/{policy_lock(os.fstat(host.netns.descriptor).st_ino)}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        flock(descriptor, LOCK_SH | LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def read_record(path: str) -> PodRecord | None:
    """Returns the record of an address; None if there is none. Raises IOFailure."""
    data = statefile.read(path)
    return parse_record(data) if data is not None else None


def release_labelled(host: Host, matches: Callable[[str], bool]) -> None:
    """Removes records and elements of all attachments whose label matches: for a DEL without addresses, and GC."""
    from cni.protocol.address import parse_ip

    ips = []
    for name in statefile.names(host.pod_records):
        try:
            ips.append(parse_ip(name))
        except ValueError:
            continue
    _release(host, ips, matches)


EFFECTS = {
    "Pending": Effect(apply, release, nothing_differs),
    "PolicyPort": Effect(apply_port, not_released, nothing_differs),
    "AwaitClass": Effect(await_class, not_released, nothing_differs),
}
