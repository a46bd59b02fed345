"""The alias of a host interface (ip-link(8), `alias`): whose it is, and which rules were made for it.

DEL's configuration may differ from ADD's, and somebody may flush the rules: the alias says what there was, and goes
with the interface. After the owner's label come phrases: `; KEYWORD word word`.
"""

from __future__ import annotations

from cni.protocol.address import Net, mac_text, parse_mac, parse_net
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.config.portmap import PortMapping

LENGTH = 255  # kernel include/uapi/linux/if.h: IFALIASZ with its NUL
GUARDED, ADDRESSES, MASQUERADED, PORTS = "guarded", "addresses", "masqueraded", "ports"
MORE = "..."  # the phrase did not fit


class Alias(Record):
    """`label` is the owner's; `guarded`: the only source MAC address allowed; `addresses` with prefix, of which the
    rules are; `hairpin`: who is masqueraded on the way through the ports (cni.config.portmap). `whole`: nothing was
    left out for want of room.
    """

    label: str
    guarded: bytes | None = None
    addresses: tuple[Net, ...] = ()
    masqueraded: bool = False
    hairpin: str = ""
    ports: tuple[PortMapping, ...] = ()
    whole: bool = True

    @property
    def text(self) -> str:
        """With as many words as there is room for: one that was cut would read as another."""
        text = self.label
        for phrase in self._phrases():
            room = LENGTH - len(f"; {PORTS} {MORE}")
            for position, word in enumerate(phrase):
                longer = f"{text}{' ' if position else '; '}{word}"
                if len(longer) > room:
                    return f"{text}; {MORE}"
                text = longer
        return text if self.whole else f"{text}; {MORE}"

    def _phrases(self) -> list[list[str]]:
        found = [[GUARDED, mac_text(self.guarded)]] if self.guarded else []
        if self.masqueraded:
            found.append([MASQUERADED])
        if self.addresses:
            found.append([ADDRESSES, *[address.text for address in self.addresses]])
        if self.ports:
            found.append([PORTS, self.hairpin, *[mapping.text for mapping in self.ports]])
        return found


def parse_alias(text: str) -> Alias:
    """Of an alias that others wrote, all is label; words that are not understood are passed over."""
    label, *phrases = text.split("; ")
    found = Alias(label)
    for phrase in phrases:
        keyword, *words = phrase.split(" ")
        if keyword == GUARDED:
            found = found._replace(guarded=_mac(words))
        elif keyword == ADDRESSES:
            found = found._replace(addresses=_addresses(words))
        elif keyword == MASQUERADED:
            found = found._replace(masqueraded=True)
        elif keyword == PORTS:
            from cni.config.portmap import parse_mappings

            found = found._replace(hairpin=words[0] if words else "", ports=parse_mappings(words[1:]))
        elif keyword == MORE:
            found = found._replace(whole=False)
    return found


def _mac(words: list[str]) -> bytes | None:
    try:
        return parse_mac(" ".join(words))
    except ValueError:
        return None


def _addresses(words: list[str]) -> tuple[Net, ...]:
    found = []
    for word in words:
        try:
            found.append(parse_net(word))
        except ValueError:
            continue
    return tuple(found)
