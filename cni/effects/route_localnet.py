"""route_localnet of an interface, so that 127.0.0.1 reaches a port of a container, and the filter that keeps it safe.

With the setting alone, containers reach what listens on the host's loopback (CVE-2020-8558). A rule of nftables forbids
it, but goes when somebody flushes the ruleset. So the interface itself has a filter, of traffic control: what arrives
for 127.0.0.0/8 is dropped unless it is an answer, which the rules have marked. Setting and filter come, stay and go
together: the filter also tells that the setting is podwire's. Only the end of a pair that other plugins work on is left
to them: there the rule guards alone.
"""

from __future__ import annotations

from errno import EEXIST, EINVAL, ENOENT, ENOTSUP

from cni.config.portmap import MARK_BIT
from cni.effects import Effect
from cni.effects.nft_socket import PORT_SETS, Nft
from cni.kernel import sysctl
from cni.kernel.netlink import NLM_F_ACK, NetlinkError
from cni.plan.portmap import LoopbackRouting, route_localnet
from cni.protocol.address import IP, Net
from cni.protocol.errors import TryAgain
from cni.protocol.owner import label_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.effects.host import Host
    from cni.effects.journal import Journal
    from cni.kernel.nft import Element
    from cni.kernel.rtnl_parse import Link

IPV4 = 4
HAIRPINS = PORT_SETS["hairpin4"]  # an element for each container whose ports 127.0.0.1 may reach
DEFAULT = route_localnet("default")  # of interfaces that are made from now on
LACKING = (ENOENT, EINVAL, ENOTSUP)  # no cls_bpf or ingress in the kernel, or the place is another's


def apply(host: Host, op: LoopbackRouting, journal: Journal) -> None:
    before = sysctl.read(op.key)
    if before == "0":
        if not op.pair:
            _add_filter(host, op.interface, journal)
        # The interface may be the attachment's own, and gone by then.
        journal.add_shared(lambda: sysctl.ensure(op.key, before))
        sysctl.ensure(op.key, "1")


def _add_filter(host: Host, interface: str, journal: Journal) -> None:
    """Adds the filter; if the kernel refuses it, the rule of nftables guards alone, and a notice says so."""
    from cni.kernel import tc

    index = host.rtnl.ifindex(interface)
    journal.add_shared(lambda: _remove_filter(host, interface))
    # In one datagram: a place for filters without the filter would not be known for podwire's, were this call killed.
    messages = [
        (kind, flags | NLM_F_ACK, payload)
        for kind, flags, payload in (tc.new_ingress(index), tc.new_loopback_guard(index, 1 << MARK_BIT))
    ]
    for answer in host.rtnl.ask_each(messages):
        if not isinstance(answer, NetlinkError) or answer.errno == EEXIST:
            continue
        if answer.errno not in LACKING:
            raise answer
        _remove_filter(host, interface)
        host.warn(
            f"{interface}: no filter of traffic control keeps containers from 127.0.0.1 (kernel module cls_bpf?):"
            " after nft flush ruleset they reach it until the next container with a port is attached"
        )
        return


def _remove_filter(host: Host, interface: str) -> None:
    """Deletes the filter, and the ingress qdisc unless another program uses it."""
    from cni.kernel import tc

    link = host.rtnl.find(interface)
    if link is None:
        return
    try:
        host.rtnl.request(*tc.delete_loopback_guard(link.ifindex))
    except NetlinkError as error:
        if error.errno not in LACKING:
            raise
    qdiscs = host.rtnl.dump(*tc.all_qdiscs(link.ifindex))
    if any(tc.is_ingress(answer, link.ifindex) for answer in qdiscs) and not _filters(host, link.ifindex):
        host.rtnl.request(*tc.delete_ingress(link.ifindex))


def _filters(host: Host, index: int) -> list[bytes]:
    from cni.kernel import tc

    return host.rtnl.dump(*tc.ingress_filters(index))


def differs(host: Host, op: LoopbackRouting) -> str:
    return f"{op.interface} no longer takes packets of 127.0.0.1 ({op.key} is 0)" if sysctl.read(op.key) == "0" else ""


def release(host: Host, op: LoopbackRouting) -> None:
    """The setting goes with the last container that needs it; one that podwire did not make stays."""
    if not op.label:
        return
    on = sysctl.read(op.key) == "1"
    if op.pair:
        if on and sysctl.read(DEFAULT) == "0":  # else the interface was made with the setting
            sysctl.ensure(op.key, "0", optional=True)
    elif (on or _guarded(host, op.interface)) and not _surely_needed(op):  # an ADD may have been killed before it
        _take_back(host, op.interface, lambda label: label == op.label)


def take_back_unused(host: Host) -> None:
    """Takes the setting back wherever no container needs it; the cost grows with the interfaces."""
    for link in host.rtnl.links():
        if sysctl.read(route_localnet(link.name)) == "1":
            _take_back(host, link.name, lambda _label: False)


def _surely_needed(op: LoopbackRouting) -> bool:
    """Returns True once a neighbour with a port is found; the first is enough, so the cost does not grow with them."""
    nft = Nft()
    try:
        return any(
            element.label != op.label and _is_in(element.key, op.address.network)
            for element in nft.each_element(HAIRPINS)
        )
    finally:
        nft.close()


def _take_back(host: Host, interface: str, leaving: Callable[[str], bool]) -> None:
    """Resets the setting if no port needs it, under the exclusive lock; if others hold the lock, the setting stays."""
    link = host.rtnl.find(interface)
    if link is None or not _guarded(host, interface):
        return
    try:
        host.lock.lock_exclusive()
    except TryAgain:
        return
    try:
        staying = [hairpin for hairpin in host.nft.elements(HAIRPINS) if not leaving(hairpin.label)]
        if not _is_needed(host, link, staying):
            sysctl.ensure(route_localnet(interface), "0")
            _remove_filter(host, interface)
    finally:
        host.lock.lock_shared()


def _guarded(host: Host, interface: str) -> bool:
    from cni.kernel import tc

    link = host.rtnl.find(interface)
    return link is not None and any(map(tc.is_loopback_guard, _filters(host, link.ifindex)))


def _is_needed(host: Host, link: Link, hairpins: list[Element]) -> bool:
    """True if one of these containers is behind the link: the one whose pair it is, or those in a bridge's subnets."""
    if keys := label_keys(link.alias):
        return any(label_keys(hairpin.label) == keys for hairpin in hairpins)
    subnets = [info.address.network for info in host.rtnl.addresses(link.name) if info.address.family == IPV4]
    return any(_is_in(hairpin.key, subnet) for hairpin in hairpins for subnet in subnets)


def _is_in(packed: bytes, subnet: Net) -> bool:
    return subnet.contains(IP.from_packed(packed))


EFFECTS = {
    "LoopbackRouting": Effect(apply, release, differs),
}
