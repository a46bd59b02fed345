"""The masquerade feature (ipMasq): one element of a map for each address, whatever the number of containers."""

from __future__ import annotations

from cni.plan.operations import Masquerade, Operation
from cni.spec.address import Net, parse_net

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.plan.attachment import Attachment

GUARDED = (
    "; guarded"  # stands before the suffix where the port's MAC address is guarded: DEL's configuration may differ
)
SUFFIX = "; masquerade "
ALIAS_LENGTH = 255 - len(GUARDED)  # kernel include/uapi/linux/if.h: IFALIASZ with its NUL


def operations(attachment: Attachment) -> tuple[Operation, ...]:
    if not attachment.conf.ip_masq:
        return ()
    return tuple([Masquerade(ip.address, attachment.owner.label) for ip in attachment.lease.ips])


def alias_suffix(attachment: Attachment) -> str:
    """What the host interface's alias says behind the label: enough to restore the elements if they are flushed."""
    masqueraded = operations(attachment)
    if not masqueraded:
        return ""
    room = ALIAS_LENGTH - len(attachment.owner.label)
    text = SUFFIX + " ".join([one.address.text for one in masqueraded if isinstance(one, Masquerade)])
    while len(text) > room:  # an address that was cut would be another address
        text = text.rpartition(" ")[0]
    return text


def read_alias(alias: str) -> tuple[str, tuple[Net, ...]]:
    """(label, masqueraded addresses) of a host interface's alias; words that are no address are passed over."""
    label, _, words = alias.partition(SUFFIX)
    addresses = []
    for word in words.split():
        try:
            addresses.append(parse_net(word))
        except ValueError:
            continue
    return label.removesuffix(GUARDED), tuple(addresses)
