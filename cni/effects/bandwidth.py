"""Bandwidth limits: queueing disciplines, and the detour that lets what arrives be queued."""

from __future__ import annotations

from errno import EEXIST, ENODEV

from cni.kernel import rtnl, tc
from cni.kernel.netlink import Refused
from cni.kernel.rtnl import GROUPS
from cni.protocol.owner import label_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.effects.host import Machine
    from cni.effects.journal import Journal
    from cni.plan.bandwidth import Ifb, Redirect, TokenBucket


def apply_bucket(machine: Machine, op: TokenBucket, journal: Journal) -> None:
    index = machine.route.ifindex(op.interface)
    message, way_back = tc.new_token_bucket(index, op.rate, op.burst, op.limit), tc.delete_token_bucket(index)
    journal.take(lambda: machine.route.request(*message), lambda: machine.route.tolerate(ENODEV, way_back))


def bucket_differs(machine: Machine, op: TokenBucket) -> str:
    link = machine.route.find(op.interface)
    if link is None:
        return f"{op.interface}, which limits the bandwidth, is gone"
    answers = machine.route.dump(*tc.all_qdiscs(link.ifindex))
    buckets = [tc.parse_token_bucket(answer, link.ifindex) for answer in answers]
    if tc.Bucket(op.rate, op.limit) not in buckets:
        return f"{op.interface} does not limit the bandwidth to {op.rate} bytes a second"
    return ""


def apply_ifb(machine: Machine, op: Ifb, journal: Journal) -> None:
    host = machine.route.need(op.host_interface)
    group = GROUPS + host.ifindex if op.paired else 0
    if op.paired:  # first, so that a DEL finds even an ifb of which nothing more is known
        machine.route.request(*rtnl.set_group(op.host_interface, group))
    message = rtnl.new_ifb(op.name, op.mac, host.mtu, group)
    journal.take(lambda: machine.route.request(*message), lambda: machine.route.delete(op.name))
    machine.route.request(*rtnl.set_alias(op.name, op.label))


def release_ifb(machine: Machine, op: Ifb) -> None:
    """A paired one goes with the host's interface, if that is there still: then the kernel's wait is paid once.

    Another link may have the name; an ADD that was killed may not have come to the label.
    """
    if op.paired and machine.route.in_group(op.host_interface):
        return
    link = machine.route.find(op.name)
    if link is not None and link.kind == "ifb" and label_keys(link.alias) in (None, label_keys(op.label)):
        machine.route.delete(op.name)


def ifb_differs(machine: Machine, op: Ifb) -> str:
    link = machine.route.find(op.name)
    if link is None:
        return f"{op.name}, which limits what the container sends, is gone"
    return "" if link.up else f"{op.name} is down"


def apply_redirect(machine: Machine, op: Redirect, journal: Journal) -> None:
    index = machine.route.ifindex(op.host_interface)
    made, unmade = tc.new_ingress(index), tc.delete_ingress(index)
    try:
        journal.take(lambda: machine.route.request(*made), lambda: machine.route.tolerate(ENODEV, unmade))
    except Refused as refused:
        if refused.errno != EEXIST:  # with a filter there before, as ports have, which stays
            raise
        journal.add(lambda: machine.route.tolerate(ENODEV, tc.delete_redirect(index)))
    machine.route.request(*tc.new_redirect(index, machine.route.ifindex(op.ifb)))


def redirect_differs(machine: Machine, op: Redirect) -> str:
    host, ifb = machine.route.find(op.host_interface), machine.route.find(op.ifb)
    if host is None or ifb is None:
        return f"{op.ifb if host else op.host_interface} is gone"
    filters = machine.route.dump(*tc.ingress_filters(host.ifindex))
    if ifb.ifindex in map(tc.redirects_to, filters):
        return ""
    return f"what arrives at {op.host_interface} does not pass {op.ifb}"
