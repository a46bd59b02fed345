"""The tuning feature: settings of the container's interface and kernel, whose originals are kept until DEL.

They lie in a file in the format of the reference tuning plugin, so that either program restores what the other has
changed. It ignores two keys: `sysctl`, since it restores no such settings, and `owner`, the attachment's label.
"""

from __future__ import annotations

from cni.config.tuning import MTU_LOW, UINT32, LinkSettings, Settings, is_plain, optional_flag
from cni.spec.address import mac_text
from cni.spec.errors import Undecodable
from cni.spec.fields import Faults, Fields
from cni.spec.jsontext import dump, parse_object
from cni.spec.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.config.tuning import Tuning
    from cni.plan.operations import Operation
    from cni.spec.jsontext import JsonValue
    from cni.spec.owner import Owner
    from cni.spec.result import Interface, Result

JSON_KEYS = {"mac": "mac", "promisc": "promisc", "mtu": "mtu", "allmulti": "allmulti", "txqlen": "txQLen"}
WORDS = {"mac": "address", "promisc": "promisc", "mtu": "mtu", "allmulti": "allmulticast", "txqlen": "txqueuelen"}
SYSCTL, OWNER = "sysctl", "owner"


class Originals(Record):
    """What is there before the changes is kept in the file; DEL restores whatever the file holds by then."""

    file: str
    label: str
    ifname: str
    changes: Settings = Settings()

    def describe(self) -> str:
        return f"keep the settings of {self.ifname} in {self.file}"


class TunedSysctl(Record):
    """`key`: a path below /proc/sys."""

    key: str
    value: str

    def describe(self) -> str:
        return f"ip netns exec CONTAINER sysctl -w {self.key.replace('/', '.')}={self.value}"


class TunedLink(Record):
    ifname: str
    settings: LinkSettings

    def describe(self) -> str:
        return f"ip -n CONTAINER link set {self.ifname} {' '.join(words(self.settings).values())}"


def words(settings: LinkSettings) -> dict[str, str]:
    """Of each setting that is given, what ip(8) calls it and its value."""
    return {name: f"{WORDS[name]} {_word(getattr(settings, name))}" for name in settings.given}


def _word(value: bytes | bool | int) -> str:
    if isinstance(value, bytes):
        return mac_text(value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def file_of(data_dir: str, owner: Owner) -> str:
    """Where the reference keeps them."""
    return f"{data_dir}/{owner.container_id}_{owner.ifname}.json"


def operations(conf: Tuning, owner: Owner) -> tuple[Operation, ...]:
    link, sysctls = conf.settings
    if not (link.given or sysctls):
        return ()
    found: list[Operation] = [Originals(file_of(conf.data_dir, owner), owner.label, owner.ifname, conf.settings)]
    found += [TunedSysctl(key, value) for key, value in sysctls]
    found += [TunedLink(owner.ifname, link)] if link.given else []
    return tuple(found)


def restoring(saved: Settings, ifname: str) -> tuple[TunedLink | TunedSysctl, ...]:
    """In reverse; each setting on its own, so that one which is refused does not keep others from it."""
    link = {name: getattr(saved.link, name) for name in saved.link.given}
    links = [TunedLink(ifname, LinkSettings(**{name: value})) for name, value in link.items()]
    return (*reversed(links), *[TunedSysctl(key, value) for key, value in reversed(saved.sysctls)])


def answered(link: LinkSettings, ifname: str, previous: Result) -> Result:
    """The answer of those before, with what the container's interface has now."""

    def rewritten(interface: Interface) -> Interface:
        if interface.name != ifname or not interface.sandbox:
            return interface
        extras = [(key, link.mtu if key == "mtu" and link.mtu else value) for key, value in interface.extras]
        mac = mac_text(link.mac) if link.mac else interface.mac
        return interface._replace(mac=mac, extras=tuple(extras))

    return previous._replace(interfaces=tuple([rewritten(interface) for interface in previous.interfaces]))


def saved_text(found: Settings, label: str, earlier: bytes | None) -> str:
    """The file's content. What an earlier plugin has kept is older, and stays: a chain may tune an interface twice."""
    held = _members(earlier)
    values = {name: getattr(found.link, name) for name in found.link.given}
    texts = {JSON_KEYS[name]: mac_text(one) if isinstance(one, bytes) else one for name, one in values.items()}
    held_sysctls = held.get(SYSCTL)
    sysctls: dict[str, JsonValue] = dict(found.sysctls)
    sysctls |= held_sysctls if isinstance(held_sysctls, dict) else {}
    return dump({**texts, **held, **({SYSCTL: sysctls} if sysctls else {}), OWNER: label})


def read_saved(content: bytes) -> Settings:
    """Garbage holds nothing."""
    members = _members(content)
    fields = Fields(members, "", Faults())
    link = LinkSettings(
        mac=fields.mac("mac"),
        promisc=optional_flag(fields, "promisc"),
        mtu=fields.integer("mtu", MTU_LOW, UINT32) or None,
        allmulti=optional_flag(fields, "allmulti"),
        txqlen=fields.optional_integer("txQLen", 0, UINT32),
    )
    if fields.faults.count:
        return Settings()
    sysctls = members.get(SYSCTL)
    pairs = sysctls.items() if isinstance(sysctls, dict) else ()
    # The file is as trustworthy as its folder: it must not lead out of the network's settings.
    inside = [(key, one) for key, one in pairs if key.startswith("net/") and ".." not in key and key.isprintable()]
    return Settings(link, tuple([(key, one) for key, one in inside if isinstance(one, str) and is_plain(one)]))


def saved_label(content: bytes) -> str:
    """Whose the originals are; empty where podwire did not keep them."""
    label = _members(content).get(OWNER)
    return label if isinstance(label, str) else ""


def _members(content: bytes | None) -> dict[str, JsonValue]:
    try:
        return parse_object(content or b"{}", "what tuning has kept")
    except Undecodable:
        return {}
