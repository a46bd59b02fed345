"""The plan of an attachment: the features' operations in order, and the result of ADD."""

from __future__ import annotations

from cni.plan import address, link
from cni.protocol.record import Record
from cni.protocol.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.plan.attachment import Attachment
    from cni.plan.operations import Operation
    from cni.protocol.result import Interface


class Plan(Record):
    """Operations in the order of their application, and the result that is true afterwards."""

    operations: tuple[Operation, ...]
    result: Result


def plan_attachment(attachment: Attachment) -> Plan:
    """Returns the features' operations in a safe order: no packet leaves before its rules exist."""
    conf, lease = attachment.conf, attachment.lease
    if conf.is_gateway or conf.routed:
        lease = lease._replace(ips=address.with_gateways(lease.ips))
        attachment = attachment._replace(lease=lease)
    linked, interfaces, index = _connection(attachment)
    operations = (
        _pending(attachment)
        + linked
        + _masquerade(attachment)
        + _accept(attachment)
        + _ports(attachment)
        + _bandwidth(attachment)
        + address.operations(attachment)
        + _loopback_routing(attachment)
        + _class(attachment)
    )
    result = Result(
        interfaces=interfaces + address.interfaces(attachment) + _ifb_interfaces(attachment),
        ips=tuple([ip._replace(interface=index) for ip in lease.ips]),
        routes=address.routes(attachment),
        dns=lease.dns if conf.dns is None else conf.dns,
    )
    return Plan(operations, result)


# The features below are loaded where they are needed.


def _connection(attachment: Attachment) -> tuple[tuple[Operation, ...], tuple[Interface, ...], int]:
    """Returns the link's operations, the interfaces that it adds, and the index of the container's among these."""
    if attachment.conf.routed:
        from cni.plan import routed

        return routed.operations(attachment), routed.interfaces(attachment), routed.CONTAINER_INDEX
    return link.operations(attachment), link.interfaces(attachment), link.CONTAINER_INDEX


def _pending(attachment: Attachment) -> tuple[Operation, ...]:
    record = attachment.facts.pod
    if record is None or not attachment.lease.ips:
        return ()
    from cni.plan import policy

    return policy.pending(attachment, record)


def _class(attachment: Attachment) -> tuple[Operation, ...]:
    if attachment.facts.pod is None or not attachment.lease.ips:
        return ()
    from cni.plan import policy

    return policy.await_class(attachment)


def _masquerade(attachment: Attachment) -> tuple[Operation, ...]:
    if not attachment.conf.ip_masq:
        return ()
    from cni.plan import masquerade

    return masquerade.operations(attachment)


def _accept(attachment: Attachment) -> tuple[Operation, ...]:
    if not (attachment.conf.accept and attachment.lease.ips):
        return ()
    from cni.plan import forward_accept

    return forward_accept.operations(attachment.addresses, inbound=True)


def _ports(attachment: Attachment) -> tuple[Operation, ...]:
    if not attachment.conf.ports.mappings:
        return ()
    from cni.plan import portmap

    return portmap.operations(attachment.conf.ports, attachment.addresses, attachment.owner.label)


def _loopback_routing(attachment: Attachment) -> tuple[Operation, ...]:
    if not attachment.conf.ports.mappings:
        return ()
    from cni.plan import portmap

    place = address.gateway_interface(attachment)
    label = "" if attachment.conf.routed else attachment.owner.label
    return portmap.loopback_routing(attachment.conf.ports, attachment.addresses, place, label)


def _bandwidth(attachment: Attachment) -> tuple[Operation, ...]:
    conf = attachment.conf.bandwidth
    if not (conf.ingress or conf.egress):
        return ()
    from cni.plan import bandwidth

    return bandwidth.operations(conf, attachment.owner, attachment.names.host_interface, paired=True)


def _ifb_interfaces(attachment: Attachment) -> tuple[Interface, ...]:
    if not attachment.conf.bandwidth.egress:
        return ()
    from cni.plan import bandwidth

    return bandwidth.interfaces(attachment.conf.bandwidth, attachment.owner)
