"""Who a thing on the host belongs to, and every name that is derived from it.

Names and MAC addresses are hashes of the owner, so they are known before anything is created, the same at every
retry, and found again at DEL without state. The label is written on whatever can carry a text (a link's alias, an
nftables element's comment): 16 hex digits for the network, 16 for the attachment, then words for people.
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
TELLING_LENGTH = 12  # digits of a container ID that people take for the whole (Docker's short ID)
LABEL_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-/"  # no need of quoting in nft


def digest(*parts: str, size: int = 8) -> bytes:
    return blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=size).digest()


def checksum(content: bytes, *names: str) -> bytes:
    """8 bytes that tell whether this is what was written under these names."""
    found = blake2b("\0".join(names).encode(), digest_size=8)
    found.update(content)
    return found.digest()


def mac_of(*parts: str) -> bytes:
    """A locally administered unicast address (IEEE 802, second bit of the first byte)."""
    octets = digest("mac", *parts, size=6)
    return bytes([octets[0] & 0xFC | 0x02]) + octets[1:]


class Owner(Record):
    """An attachment: SPEC's (network name, CNI_CONTAINERID, CNI_IFNAME)."""

    network: str
    container_id: str
    ifname: str

    @property
    def key(self) -> str:
        """16 hex digits, unique to the attachment."""
        return digest("attachment", *self).hex()

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
        words = "".join([letter if letter in LABEL_LETTERS else "?" for letter in "/".join(self)])
        return f"{LABEL_MARK} {network_key(self.network)} {self.key} {words}"[:LABEL_LENGTH]

    def has(self, label: str) -> bool:
        """The label is that of this attachment."""
        keys = label_keys(label)
        return keys is not None and keys[1] == self.key


def stale(network: str, valid: set[tuple[str, str]]) -> Callable[[str], bool]:
    """Whether a label is that of an attachment of the network, but of none whose (container ID, interface) is valid."""
    mine, living = network_key(network), {Owner(network, *attachment).key for attachment in valid}

    def is_stale(label: str) -> bool:
        keys = label_keys(label)
        return keys is not None and keys[0] == mine and keys[1] not in living

    return is_stale


def host_interface_of(key: str) -> str:
    """15 characters, the kernel's limit; begins as network managers expect of links to leave alone."""
    return f"veth{key[:11]}"


def network_key(network: str) -> str:
    """16 hex digits, unique to the network's name."""
    return digest("network", network).hex()


def same_container(label: str, other: str) -> bool:
    """Returns whether two labels name one container, by the words after their keys; a cut label counts if enough of
    the container's ID is left.
    """
    (one, one_whole), (two, two_whole) = _container_id(label), _container_id(other)
    if one_whole and two_whole:
        return one == two
    shorter = min(len(one), len(two))
    return shorter >= TELLING_LENGTH and one[:shorter] == two[:shorter]


def _container_id(label: str) -> tuple[str, bool]:
    """The ID in NETWORK/ID/INTERFACE, and whether it is all there."""
    words = label.split(" ", 3)[-1]
    found, slash, _ = words.partition("/")[2].partition("/")
    return found, bool(slash)


def label_keys(label: str) -> tuple[str, str] | None:
    """(network key, attachment key) of a label; None where the text is not one."""
    words = label.split(" ", 3)
    if len(words) < 4 or words[0] != LABEL_MARK:
        return None
    return words[1], words[2]
