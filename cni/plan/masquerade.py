"""The masquerade feature (ipMasq): one element of a map for each address, whatever the number of containers."""

from __future__ import annotations

from cni.plan.operations import Masquerade

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.plan.attachment import Attachment
    from cni.plan.operations import Operation


def operations(attachment: Attachment) -> tuple[Operation, ...]:
    if not attachment.conf.ip_masq:
        return ()
    return tuple([Masquerade(ip.address, attachment.owner.label) for ip in attachment.lease.ips])
