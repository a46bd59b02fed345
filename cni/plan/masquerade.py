"""The masquerade feature (ipMasq): one element of a map for each address, whatever the number of containers."""

from __future__ import annotations

from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.plan.attachment import Attachment
    from cni.plan.operations import Operation
    from cni.protocol.address import IP, Net


class Masquerade(Record):
    """Packets of `address.ip` that leave its subnet take the host's source address."""

    address: Net
    label: str

    @property
    def ip(self) -> IP:
        return self.address.ip

    def describe(self) -> str:
        element = f"{self.ip.text} : jump {masquerade_chain(self.address)}"
        return f"nft add element inet podwire masquerade{self.address.family} {{ {element} }}"


def masquerade_chain(address: Net) -> str:
    """One chain a subnet; nft takes letters, digits, `/`, `.`, `_` and `-` in a name."""
    return f"masquerade-{address.network.text.replace(':', '_')}"


def operations(attachment: Attachment) -> tuple[Operation, ...]:
    return tuple([Masquerade(ip.address, attachment.owner.label) for ip in attachment.lease.ips])
