"""The plan of an attachment: the features' operations in order, and the answer that will be true afterwards."""

from __future__ import annotations

from cni.plan import address, link, masquerade
from cni.spec.record import Record
from cni.spec.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.plan.attachment import Attachment
    from cni.plan.operations import Operation

FEATURES = (link, masquerade, address)
CONTAINER_INDEX = 2  # the container's place among link.interfaces


class Plan(Record):
    """Operations in the order of their application, and the answer that will be true afterwards."""

    operations: tuple[Operation, ...]
    result: Result


def plan_attachment(attachment: Attachment) -> Plan:
    """The features' operations in the order that is safe: no packet leaves before its rules are in place."""
    if attachment.conf.is_gateway:
        lease = attachment.lease._replace(ips=address.with_gateways(attachment.lease.ips))
        attachment = attachment._replace(lease=lease)
    operations = [operation for feature in FEATURES for operation in feature.operations(attachment)]
    conf, lease = attachment.conf, attachment.lease
    result = Result(
        interfaces=link.interfaces(attachment) + address.interfaces(attachment),
        ips=tuple([ip._replace(interface=CONTAINER_INDEX) for ip in lease.ips]),
        routes=address.routes(attachment),
        dns=lease.dns if conf.dns is None else conf.dns,
    )
    return Plan(tuple(operations), result)
