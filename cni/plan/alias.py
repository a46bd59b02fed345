"""The alias of a host interface (ip-link(8), `alias`): its owner, and the rules that were added for it.

DEL's configuration may differ from ADD's, and the rules may be flushed: the alias describes them, and is deleted with
the interface. After the owner's label come phrases: `; KEYWORD word word`.
"""

from __future__ import annotations

from cni.protocol.address import IP, Net, mac_text, parse_ip, parse_mac, parse_net
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from cni.config.portmap import PortMapping

    T = TypeVar("T")

LENGTH = 255  # kernel include/uapi/linux/if.h: IFALIASZ with its NUL
GUARDED, ADDRESSES, MASQUERADED, SOURCES, PORTS = "guarded", "addresses", "masqueraded", "sources", "ports"
RECORDED, ISOLATED = "recorded", "isolated"
MORE = "..."  # the phrase did not fit


class Alias(Record):
    """The content of an alias. `label`: the owner's; `allowed_mac`: the only allowed source MAC address; `addresses`,
    with prefix, for which there are rules; `ip_masq`: their traffic is masqueraded; `further_sources`: what is accepted
    from the container beside these by the source check, nothing if it is routed, None without the check; `recorded`:
    podwired has their record; `isolated`: its port of the bridge is isolated for NetworkPolicy; `ports_masqueraded`:
    whose connections to the ports are (Ports.masqueraded). `whole`: nothing was omitted for lack of space.
    """

    label: str
    allowed_mac: bytes | None = None
    addresses: tuple[Net, ...] = ()
    ip_masq: bool = False
    further_sources: tuple[IP, ...] | None = None
    ports_masqueraded: str = ""
    ports: tuple[PortMapping, ...] = ()
    whole: bool = True
    recorded: bool = False
    isolated: bool = False

    @property
    def sources(self) -> tuple[IP, ...]:
        """All that the source check of a container on a bridge accepts."""
        return (*[address.ip for address in self.addresses], *(self.further_sources or ()))

    @property
    def text(self) -> str:
        """The alias, with as many whole words as fit: a truncated word could be read as another."""
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
        phrases = [[GUARDED, mac_text(self.allowed_mac)]] if self.allowed_mac else []
        if self.ip_masq:
            phrases.append([MASQUERADED])
        if self.recorded:
            phrases.append([RECORDED])
        if self.isolated:
            phrases.append([ISOLATED])
        if self.addresses:
            phrases.append([ADDRESSES, *[address.text for address in self.addresses]])
        if self.further_sources is not None:  # whole or not at all, and after the addresses: what is restored is whole
            phrases.append([" ".join([SOURCES, *[ip.text for ip in self.further_sources]])])
        if self.ports:
            phrases.append([PORTS, self.ports_masqueraded, *[mapping.text for mapping in self.ports]])
        return phrases


def parse_alias(text: str) -> Alias:
    """Reads an alias; one that podwire did not write is all label, and unknown words are ignored."""
    label, *phrases = text.split("; ")
    alias = Alias(label)
    for phrase in phrases:
        keyword, *values = phrase.split(" ")
        if keyword == GUARDED:
            alias = alias._replace(allowed_mac=_mac(values))
        elif keyword == ADDRESSES:
            alias = alias._replace(addresses=_valid(parse_net, values))
        elif keyword == MASQUERADED:
            alias = alias._replace(ip_masq=True)
        elif keyword == RECORDED:
            alias = alias._replace(recorded=True)
        elif keyword == ISOLATED:
            alias = alias._replace(isolated=True)
        elif keyword == SOURCES:
            alias = alias._replace(further_sources=_valid(parse_ip, values))
        elif keyword == PORTS:
            from cni.config.portmap import parse_mappings

            alias = alias._replace(ports_masqueraded=values[0] if values else "", ports=parse_mappings(values[1:]))
        elif keyword == MORE:
            alias = alias._replace(whole=False)
    return alias


def _mac(values: list[str]) -> bytes | None:
    try:
        return parse_mac(" ".join(values))
    except ValueError:
        return None


def _valid(parse: Callable[[str], T], texts: list[str]) -> tuple[T, ...]:
    """Returns what the words say, without those that are invalid."""
    values = []
    for text in texts:
        try:
            values.append(parse(text))
        except ValueError:
            continue
    return tuple(values)
