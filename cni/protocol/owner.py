"""Owners of objects on the host, and the names that are derived from them.

The name and MAC address of the host's end are hashes of the owner: they are known before anything is created, equal at
every retry, and found at DEL without state. The label is written on every object that has a text (a link's alias, an
nftables element's comment): 16 hex digits for the network, 16 for the attachment, then the names for people.
"""

from __future__ import annotations

from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

try:
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b

LABEL_LENGTH = 127  # nft prints comments up to 128 bytes with their NUL (libnftnl, NFTNL_UDATA_COMMENT_MAXLEN)
LABEL_MARK = "podwire"
SHORT_ID_LENGTH = 12  # digits of a container ID that identify it (Docker's short ID)
LABEL_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-/"  # letters that nft does not quote


def digest(*parts: str, size: int = 8) -> bytes:
    """Returns `size` bytes, a hash of all parts."""
    return blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=size).digest()


def checksum(content: bytes, *names: str) -> bytes:
    """Returns 8 bytes that depend on the content and on the names under which it was written."""
    state = blake2b("\0".join(names).encode(), digest_size=8)
    state.update(content)
    return state.digest()


def mac_of(*parts: str) -> bytes:
    """Returns a locally administered unicast MAC address (IEEE 802, second bit of the first byte)."""
    octets = digest("mac", *parts, size=6)
    return bytes([octets[0] & 0xFC | 0x02]) + octets[1:]


def attachment_key(network: str, container_id: str, ifname: str) -> str:
    """Returns 16 hex digits, unique to the attachment."""
    return digest("attachment", network, container_id, ifname).hex()


class Owner(Record):
    """An attachment: SPEC's (network name, CNI_CONTAINERID, CNI_IFNAME)."""

    network: str
    container_id: str
    ifname: str

    @property
    def key(self) -> str:
        return attachment_key(*self)

    @property
    def host_interface(self) -> str:
        return host_interface_of(self.key)

    @property
    def host_mac(self) -> bytes:
        return mac_of("host", *self)

    @property
    def container_mac(self) -> bytes:
        return mac_of("container", *self)

    @property
    def label(self) -> str:
        names = "".join([letter if letter in LABEL_LETTERS else "?" for letter in "/".join(self)])
        return f"{LABEL_MARK} {network_key(self.network)} {self.key} {names}"[:LABEL_LENGTH]

    def owns(self, label: str) -> bool:
        """True if the label is that of this attachment."""
        keys = label_keys(label)
        return keys is not None and keys[1] == self.key


def stale_labels(network: str, valid: set[tuple[str, str]]) -> Callable[[str], bool]:
    """Returns a predicate on labels: True for an attachment of the network that is not one of `valid`.

    `valid`: (container ID, interface name) of each valid attachment.
    """
    key, valid_keys = network_key(network), {Owner(network, *attachment).key for attachment in valid}

    def is_stale(label: str) -> bool:
        keys = label_keys(label)
        return keys is not None and keys[0] == key and keys[1] not in valid_keys

    return is_stale


def host_interface_of(key: str) -> str:
    """Returns 15 characters, the kernel's limit. Network managers ignore links whose names begin with veth."""
    return f"veth{key[:11]}"


def network_key(network: str) -> str:
    """Returns 16 hex digits, unique to the network's name."""
    return digest("network", network).hex()


def same_container(label: str, other: str) -> bool:
    """True if two labels name one container, by the names after their keys. A truncated label is compared if enough of
    the container's ID is left.
    """
    (first, first_whole), (second, second_whole) = _container_id_of(label), _container_id_of(other)
    if first_whole and second_whole:
        return first == second
    shorter = min(len(first), len(second))
    return shorter >= SHORT_ID_LENGTH and first[:shorter] == second[:shorter]


def _container_id_of(label: str) -> tuple[str, bool]:
    """Returns the ID in NETWORK/ID/INTERFACE, and True if it is not truncated."""
    names = label.split(" ", 3)[-1]
    container_id, slash, _ = names.partition("/")[2].partition("/")
    return container_id, bool(slash)


def label_keys(label: str) -> tuple[str, str] | None:
    """Returns (network key, attachment key) of a label; None if the text is not a label."""
    parts = label.split(" ", 3)
    if len(parts) < 4 or parts[0] != LABEL_MARK:
        return None
    return parts[1], parts[2]
