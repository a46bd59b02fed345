"""A lease and its file's content, the reference's: `ID CR LF IFNAME`; older ones hold the ID alone."""

from __future__ import annotations

from cni.protocol.owner import Owner
from cni.protocol.record import Record
from cni.protocol.request import ifname_fault, is_identifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.address import IP


class Lease(Record):
    """`ifname` is empty in leases of old; `container_id` too where the file cannot be read."""

    ip: IP
    container_id: str
    ifname: str

    @property
    def content(self) -> bytes:
        return f"{self.container_id}\r\n{self.ifname}".encode("utf-8", "surrogateescape")

    def key(self, network: str) -> str:
        return Owner(network, self.container_id, self.ifname).key


def parse_lease(ip: IP, content: bytes) -> Lease | None:
    """None where the content is what a crash leaves behind: empty, zeroed or torn."""
    text = content.decode("utf-8", "surrogateescape").strip()
    container_id, _, ifname = text.partition("\r\n")
    if not is_identifier(container_id) or ifname_fault(ifname):
        return None
    return Lease(ip, container_id, ifname)
