"""The tuning feature: settings of the container's interface and kernel, whose previous values are saved until DEL.

They are in a file in the format of the reference tuning plugin, so that either program restores what the other has
changed. It ignores our keys: `sysctl`, since it does not restore sysctls, `owner`, the attachment's label, `netns`, the
namespace of the settings, and `spelled`, for each sysctl the value that was written and the kernel's spelling of it.
"""

from __future__ import annotations

from cni.config.tuning import MTU_LOW, LinkSettings, Settings, is_plain, optional_flag
from cni.protocol.address import mac_text, parse_mac
from cni.protocol.errors import DecodingFailure
from cni.protocol.fields import UINT32, ConfigErrors, Fields
from cni.protocol.jsontext import dump, parse_object
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.config.tuning import Tuning
    from cni.plan.operations import Operation
    from cni.protocol.jsontext import JsonValue
    from cni.protocol.owner import Owner
    from cni.protocol.result import Interface, Result

JSON_KEYS = {"mac": "mac", "promisc": "promisc", "mtu": "mtu", "allmulti": "allmulti", "txqlen": "txQLen"}
WORDS = {"mac": "address", "promisc": "promisc", "mtu": "mtu", "allmulti": "allmulticast", "txqlen": "txqueuelen"}
SYSCTL, OWNER, NAMESPACE, SPELLED = "sysctl", "owner", "netns", "spelled"


class SavedSettings(Record):
    """The settings before the changes, saved in the file; DEL restores the content of the file."""

    file: str
    label: str
    ifname: str
    changes: Settings = Settings()

    def describe(self) -> str:
        return f"keep the settings of {self.ifname} in {self.file}"


class SetContainerSysctl(Record):
    """A sysctl of the container. `key`: a path below /proc/sys."""

    key: str
    value: str

    def describe(self) -> str:
        return f"ip netns exec CONTAINER sysctl -w {self.key.replace('/', '.')}={self.value}"


class SpelledSysctls(Record):
    """The kernel's own spelling of the sysctls, kept in the saved file once all of them are set."""

    file: str
    sysctls: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        keys = [key.replace("/", ".") for key, _ in self.sysctls]
        return f"keep in {self.file} how the kernel spells {', '.join(keys)}"


class SetLink(Record):
    ifname: str
    settings: LinkSettings

    def describe(self) -> str:
        return f"ip -n CONTAINER link set {self.ifname} {' '.join(ip_arguments(self.settings).values())}"


def ip_arguments(settings: LinkSettings) -> dict[str, str]:
    """Returns, for each setting that is given, ip(8)'s keyword and its value."""
    return {name: f"{WORDS[name]} {_word(getattr(settings, name))}" for name in settings.given}


def _word(value: bytes | bool | int) -> str:
    if isinstance(value, bytes):
        return mac_text(value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def file_of(data_dir: str, owner: Owner) -> str:
    """Returns the file of the saved settings, the reference's."""
    return f"{data_dir}/{owner.container_id}_{owner.ifname}.json"


def operations(conf: Tuning, owner: Owner) -> tuple[Operation, ...]:
    link, sysctls = conf.settings
    if not (link.given or sysctls):
        return ()
    operations: list[Operation] = [
        SavedSettings(file_of(conf.data_dir, owner), owner.label, owner.ifname, conf.settings)
    ]
    operations += [SetContainerSysctl(key, value) for key, value in sysctls]
    operations += [SetLink(owner.ifname, link)] if link.given else []
    operations += [SpelledSysctls(file_of(conf.data_dir, owner), sysctls)] if sysctls else []
    return tuple(operations)


def restoring(saved: Settings, ifname: str) -> tuple[SetLink | SetContainerSysctl, ...]:
    """Returns the settings in reverse, each on its own, so that an error of one does not prevent the others."""
    link = {name: getattr(saved.link, name) for name in saved.link.given}
    links = [SetLink(ifname, LinkSettings(**{name: value})) for name, value in link.items()]
    return (*reversed(links), *[SetContainerSysctl(key, value) for key, value in reversed(saved.sysctls)])


def as_answered(conf: Tuning, ifname: str, previous: Result) -> Tuning:
    """Returns the configuration with the values of the chain's result: a later plugin may change them."""
    link = conf.settings.link
    for interface in previous.interfaces:
        if interface.name == ifname and interface.sandbox:
            link = link._replace(
                mac=(_mac(interface.mac) or link.mac) if link.mac else None,
                mtu=(interface.mtu or link.mtu) if link.mtu else None,
            )
    return conf._replace(settings=conf.settings._replace(link=link))


def _mac(text: str) -> bytes | None:
    try:
        return parse_mac(text)
    except ValueError:
        return None


def answered(link: LinkSettings, ifname: str, previous: Result, tells_mtu: bool) -> Result:
    """Returns the previous result with the interface's settings. `tells_mtu`: with the MTU even if there was none."""

    def rewritten(interface: Interface) -> Interface:
        if interface.name != ifname or not interface.sandbox:
            return interface
        if link.mtu and (tells_mtu or interface.mtu):
            interface = interface.with_mtu(link.mtu)
        return interface._replace(mac=mac_text(link.mac)) if link.mac else interface

    return previous._replace(interfaces=tuple([rewritten(interface) for interface in previous.interfaces]))


def saved_text(current: Settings, label: str, earlier: bytes | None, namespace: str = "") -> str:
    """Returns the file's content. Values of an earlier plugin are the originals, and stay: a chain may tune twice."""
    held = _members(earlier)
    values = {name: getattr(current.link, name) for name in current.link.given}
    texts = {JSON_KEYS[name]: mac_text(value) if isinstance(value, bytes) else value for name, value in values.items()}
    held_sysctls = held.get(SYSCTL)
    sysctls: dict[str, JsonValue] = dict(current.sysctls)
    sysctls |= held_sysctls if isinstance(held_sysctls, dict) else {}
    ours = {**({SYSCTL: sysctls} if sysctls else {}), OWNER: label, **({NAMESPACE: namespace} if namespace else {})}
    return dump({**texts, **held, **ours})


def with_spelled(content: bytes | None, spelled: dict[str, tuple[str, str]]) -> str:
    """Returns the file's content with the written value and the kernel's spelling of it, by key."""
    held = _members(content)
    earlier = held.get(SPELLED)
    pairs: dict[str, JsonValue] = {key: list(pair) for key, pair in spelled.items()}
    return dump({**held, SPELLED: {**(earlier if isinstance(earlier, dict) else {}), **pairs}})


def is_as_written(key: str, written: str, value: str, content: bytes | None) -> bool:
    """Returns True if the sysctl has the kernel's spelling of the value that was written."""
    spelled = _members(content).get(SPELLED)
    pair = spelled.get(key) if isinstance(spelled, dict) else None
    return pair == [written, value] or _words(value) == _words(written)


def _words(value: str) -> list[str | int]:
    """Splits values: the kernel separates several by tabs, and prints numbers in decimal, whatever was written."""
    return [_number(word) for word in value.split()]


def _number(word: str) -> str | int:
    """Reads a number as the kernel (lib/kstrtox.c): 0x begins a hexadecimal number, 0 an octal one."""
    digits = word.lstrip("-+").lower()
    base = 16 if digits.startswith("0x") else 8 if len(digits) > 1 and digits.startswith("0") else 10
    try:
        return int(word, base) if word.isascii() and "_" not in word else word
    except ValueError:
        return word


def read_saved(content: bytes) -> Settings:
    """Returns the saved settings; none if the content is malformed."""
    members = _members(content)
    fields = Fields(members, "", ConfigErrors())
    link = LinkSettings(
        mac=fields.mac("mac"),
        promisc=optional_flag(fields, "promisc"),
        mtu=fields.integer("mtu", MTU_LOW, UINT32) or None,
        allmulti=optional_flag(fields, "allmulti"),
        txqlen=fields.optional_integer("txQLen", 0, UINT32),
    )
    if fields.errors.count:
        return Settings()
    sysctls = members.get(SYSCTL)
    pairs = sysctls.items() if isinstance(sysctls, dict) else ()
    # The file is as trustworthy as its folder: it must not lead out of the network's settings.
    inside = [(key, value) for key, value in pairs if key.startswith("net/") and ".." not in key and key.isprintable()]
    return Settings(link, tuple([(key, value) for key, value in inside if isinstance(value, str) and is_plain(value)]))


def saved_label(content: bytes) -> str:
    """Returns the owner's label; empty if podwire did not write the file."""
    return _text(content, OWNER)


def saved_namespace(content: bytes) -> str:
    """Returns the namespace of the saved settings; empty if unknown."""
    return _text(content, NAMESPACE)


def _text(content: bytes, key: str) -> str:
    value = _members(content).get(key)
    return value if isinstance(value, str) else ""


def _members(content: bytes | None) -> dict[str, JsonValue]:
    try:
        return parse_object(content or b"{}", "what tuning has kept")
    except DecodingFailure:
        return {}
