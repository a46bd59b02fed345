"""Bandwidth limits: queueing disciplines, and the detour that lets what arrives be queued."""

from __future__ import annotations

from errno import EEXIST, ENODEV

from cni.effects import Effect, not_released
from cni.kernel import rtnl, tc
from cni.kernel.netlink import NetlinkError
from cni.kernel.rtnl import GROUPS
from cni.protocol.owner import label_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.effects.host import Host
    from cni.effects.journal import Journal
    from cni.plan.bandwidth import Ifb, MirredRedirect, TokenBucket


def apply_bucket(host: Host, op: TokenBucket, journal: Journal) -> None:
    index = host.rtnl.ifindex(op.interface)
    message, undo = tc.new_token_bucket(index, op.rate, op.burst, op.limit), tc.delete_token_bucket(index)
    journal.run(lambda: host.rtnl.request(*message), lambda: host.rtnl.tolerate(ENODEV, undo))


def bucket_differs(host: Host, op: TokenBucket) -> str:
    link = host.rtnl.find(op.interface)
    if link is None:
        return f"{op.interface}, which limits the bandwidth, is gone"
    answers = host.rtnl.dump(*tc.all_qdiscs(link.ifindex))
    buckets = [tc.parse_token_bucket(answer, link.ifindex) for answer in answers]
    if tc.Bucket(op.rate, op.limit) not in buckets:
        return f"{op.interface} does not limit the bandwidth to {op.rate} bytes a second"
    return ""


def apply_ifb(host: Host, op: Ifb, journal: Journal) -> None:
    link = host.rtnl.need(op.host_interface)
    group = GROUPS + link.ifindex if op.paired else 0
    if op.paired:  # first, so that a DEL finds even an ifb of which nothing more is known
        host.rtnl.request(*rtnl.set_group(op.host_interface, group))
    message = rtnl.new_ifb(op.name, op.mac, link.mtu, group)
    journal.run(lambda: host.rtnl.request(*message), lambda: host.rtnl.delete(op.name))
    host.rtnl.request(*rtnl.set_alias(op.name, op.label))


def release_ifb(host: Host, op: Ifb) -> None:
    """Deletes an ifb that is not deleted with the host's interface.

    Another link may have the name; an ADD that was killed may not have come to the label.
    """
    link = host.rtnl.find(op.name)
    if link is not None and link.kind == "ifb" and label_keys(link.alias) in (None, label_keys(op.label)):
        host.rtnl.delete(op.name)


def ifb_differs(host: Host, op: Ifb) -> str:
    link = host.rtnl.find(op.name)
    if link is None:
        return f"{op.name}, which limits what the container sends, is gone"
    return "" if link.up else f"{op.name} is down"


def apply_redirect(host: Host, op: MirredRedirect, journal: Journal) -> None:
    index = host.rtnl.ifindex(op.host_interface)
    create, delete = tc.new_ingress(index), tc.delete_ingress(index)
    try:
        journal.run(lambda: host.rtnl.request(*create), lambda: host.rtnl.tolerate(ENODEV, delete))
    except NetlinkError as error:
        if error.errno != EEXIST:  # with a filter there before, as ports have, which stays
            raise
        journal.add(lambda: host.rtnl.tolerate(ENODEV, tc.delete_redirect(index)))
    host.rtnl.request(*tc.new_redirect(index, host.rtnl.ifindex(op.ifb)))


def redirect_differs(host: Host, op: MirredRedirect) -> str:
    link, ifb = host.rtnl.find(op.host_interface), host.rtnl.find(op.ifb)
    if link is None or ifb is None:
        return f"{op.ifb if link else op.host_interface} is gone"
    for to in map(tc.redirects_to, host.rtnl.dump(*tc.ingress_filters(link.ifindex))):
        if to == tc.NO_LINK:
            return f"what arrives at {op.host_interface} is redirected to an interface that is gone"
        if to == ifb.ifindex:
            return ""
    return f"what arrives at {op.host_interface} does not pass {op.ifb}"


EFFECTS = {
    "TokenBucket": Effect(apply_bucket, not_released, bucket_differs),
    "Ifb": Effect(apply_ifb, release_ifb, ifb_differs),
    "MirredRedirect": Effect(apply_redirect, not_released, redirect_differs),
}
