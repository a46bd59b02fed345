"""The alias of a host interface (ip-link(8), `alias`): whose it is, and which rules were made for it.

DEL's configuration may differ from ADD's, and somebody may flush the rules: the alias says what there was, and goes
with the interface.
"""

from __future__ import annotations

from cni.spec.address import Net, mac_text, parse_mac, parse_net
from cni.spec.record import Record

LENGTH = 255  # kernel include/uapi/linux/if.h: IFALIASZ with its NUL
GUARDED = "; guarded "
MASQUERADE = "; masquerade "


class Alias(Record):
    """`label` is the owner's; `guarded`: the only source MAC address allowed; `masqueraded`: addresses with prefix."""

    label: str
    guarded: bytes | None = None
    masqueraded: tuple[Net, ...] = ()

    @property
    def text(self) -> str:
        """With as many addresses as there is room for: one that was cut would read as another."""
        text = self.label + (f"{GUARDED}{mac_text(self.guarded)}" if self.guarded else "")
        for position, address in enumerate(self.masqueraded):
            longer = f"{text}{' ' if position else MASQUERADE}{address.text}"
            if len(longer) > LENGTH:
                break
            text = longer
        return text


def parse_alias(text: str) -> Alias:
    """Of an alias that others wrote, all is label; words that are no address are passed over."""
    front, _, words = text.partition(MASQUERADE)
    label, _, mac = front.partition(GUARDED)
    addresses = []
    for word in words.split():
        try:
            addresses.append(parse_net(word))
        except ValueError:
            continue
    try:
        guarded = parse_mac(mac)
    except ValueError:
        return Alias(front, None, tuple(addresses))
    return Alias(label, guarded, tuple(addresses))
