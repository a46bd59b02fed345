"""A lease and the content of its file, as in the reference: `ID CR LF IFNAME`; older files hold only the ID."""

from __future__ import annotations

from cni.protocol.owner import attachment_key
from cni.protocol.record import Record
from cni.protocol.request import ifname_error, is_identifier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.address import IP


class Lease(Record):
    """A lease; `ifname` is empty in older leases, and so is `container_id` if the file cannot be read."""

    ip: IP
    container_id: str
    ifname: str

    @property
    def content(self) -> bytes:
        return f"{self.container_id}\r\n{self.ifname}".encode("utf-8", "surrogateescape")

    def key(self, network: str) -> str:
        return attachment_key(network, self.container_id, self.ifname)


def parse_lease(ip: IP, content: bytes) -> Lease | None:
    """Parses a lease's file; returns None if a crash has damaged it: empty, zeroed or torn."""
    text = content.decode("utf-8", "surrogateescape").strip()
    container_id, _, ifname = text.partition("\r\n")
    if not is_identifier(container_id) or ifname_error(ifname):
        return None
    return Lease(ip, container_id, ifname)
