"""The part of a lease that depends on the backend: flannel's BackendData, as JSON fields and as values.

Leases of other backends, which are not served, are read as those of a backend without data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cni.agent.model.network import VNI_LIMIT, VXLAN
from cni.protocol.address import mac_text
from cni.protocol.owner import mac_of

if TYPE_CHECKING:
    from cni.agent.model.network import BackendConfig
    from cni.protocol.address import IP
    from cni.protocol.fields import Fields
    from cni.protocol.jsontext import JsonValue


class LeaseFormat(Protocol):
    """One backend's part of its leases."""

    def vni(self, config: BackendConfig) -> int:
        """Returns the VNI of the network's leases; 0 if they have none."""

    def vtep_mac(self, public_ip: IP, vni: int) -> bytes | None:
        """Returns the MAC address of a VTEP whose lease names no other; None if there is no VTEP."""

    def parse(self, fields: Fields, key: str) -> tuple[bytes | None, int]:
        """Returns the VTEP's MAC address, and the VNI (0 if none is named), of the member `key` of a lease.

        Notes every error in `fields`.
        """

    def render(self, vtep_mac: bytes | None, vni: int) -> JsonValue:
        """Returns the data with its members in the order of flannel's struct; None if the lease has none."""

    def conflict(self, vni: int, config: BackendConfig) -> str:
        """Returns why a lease of this VNI is not one of the network's; empty if it is."""


class VxlanFormat:
    """The data of a VTEP: `{"VNI":1,"VtepMAC":"0a:00:00:00:00:01"}`."""

    def vni(self, config: BackendConfig) -> int:
        return config.vni

    def vtep_mac(self, public_ip: IP, vni: int) -> bytes | None:
        return derived_mac(public_ip, vni)

    def parse(self, fields: Fields, key: str) -> tuple[bytes | None, int]:
        data = fields.object(key)
        mac, vni = data.mac("VtepMAC"), data.integer("VNI", 0, VNI_LIMIT)
        if mac is None:
            data.error("VtepMAC", "missing")
        return mac, vni

    def render(self, vtep_mac: bytes | None, vni: int) -> JsonValue:
        return {"VNI": vni, "VtepMAC": mac_text(vtep_mac)} if vtep_mac is not None else None

    def conflict(self, vni: int, config: BackendConfig) -> str:
        return f"its VNI is {vni}, not {config.vni}" if vni != config.vni else ""


class PlainFormat:
    """No data: as with host-gw, a node's address is all that others need."""

    def vni(self, config: BackendConfig) -> int:  # noqa: ARG002
        return 0

    def vtep_mac(self, public_ip: IP, vni: int) -> bytes | None:  # noqa: ARG002
        return None

    def parse(self, fields: Fields, key: str) -> tuple[bytes | None, int]:  # noqa: ARG002
        return None, 0

    def render(self, vtep_mac: bytes | None, vni: int) -> JsonValue:  # noqa: ARG002
        return None

    def conflict(self, vni: int, config: BackendConfig) -> str:  # noqa: ARG002
        return ""


PLAIN: LeaseFormat = PlainFormat()
FORMATS: dict[str, LeaseFormat] = {VXLAN: VxlanFormat()}


def lease_format(backend: str) -> LeaseFormat:
    """Returns the format of the leases of a backend, by flannel's BackendType."""
    return FORMATS.get(backend, PLAIN)


def derived_mac(public_ip: IP, vni: int) -> bytes:
    """Returns the default MAC address of a VTEP: it follows from the address and the VNI, on every node the same."""
    return mac_of("vtep", str(vni), public_ip.text)
