"""Settings of a container's interface and kernel: the reference tuning plugin's keys."""

from __future__ import annotations

from cni.protocol.address import MTU_LIMIT, parse_mac
from cni.protocol.fields import UINT32
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from cni.protocol.fields import ConfigErrors, Fields
    from cni.protocol.jsontext import JsonValue
    from cni.protocol.plugin_config import PluginConfig
    from cni.protocol.request import Request

DATA_DIR = "/run/cni/tuning"
ALLOWLIST = "/etc/cni/tuning/allowlist.conf"
MTU_LOW = 68  # RFC 791
MANY = 100  # sysctls
# What Go's regular expressions know in a set, and Python's do not.
CLASSES = {
    "[:alnum:]": "0-9A-Za-z",
    "[:alpha:]": "A-Za-z",
    "[:digit:]": "0-9",
    "[:lower:]": "a-z",
    "[:upper:]": "A-Z",
    "[:word:]": "0-9A-Za-z_",
}


class LinkSettings(Record):
    """None: left as it is. `mtu` in bytes, `txqlen` in packets."""

    mac: bytes | None = None
    promisc: bool | None = None
    mtu: int | None = None
    allmulti: bool | None = None
    txqlen: int | None = None

    @property
    def given(self) -> tuple[str, ...]:
        """The names of those that are not left as they are."""
        return tuple([name for name, value in self._asdict().items() if value is not None])


class Settings(Record):
    """`sysctls`: (path below /proc/sys, value), in the order in which they are written."""

    link: LinkSettings = LinkSettings()
    sysctls: tuple[tuple[str, str], ...] = ()


class Tuning(Record):
    settings: Settings
    data_dir: str


def parse_tuning(
    config: PluginConfig, request: Request, errors: ConfigErrors, allowlist: Collection[str] | None = None
) -> Tuning:
    """What is at fault is left out, and noted. `allowlist`: the lines of ALLOWLIST, None where everything is allowed.

    args.cni wins over runtimeConfig, that over CNI_ARGS, all of them over the rest: the reference's order.
    """
    fields = config.fields(errors)
    args = fields.object("args").object("cni")

    def source(key: str) -> Fields:
        return fields if args.raw(key) is None else args

    link = LinkSettings(
        mac=_mac(fields, args, request.args.get("MAC", "")),
        promisc=source("promisc").flag("promisc") or None,
        mtu=source("mtu").integer("mtu", MTU_LOW, MTU_LIMIT) or None,
        allmulti=optional_flag(source("allmulti"), "allmulti"),
        txqlen=source("txQLen").optional_integer("txQLen", 0, UINT32),
    )
    sysctls = _sysctls(fields, request.ifname, allowlist) | _sysctls(args, request.ifname, allowlist)
    written = fields.raw("sysctl")
    for key in _repeated(config.data, written if isinstance(written, dict) else ()):
        fields.error(f"sysctl.{key}", "is there more than once")
    return Tuning(Settings(link, tuple(sysctls.items())), fields.file_path("dataDir") or DATA_DIR)


def optional_flag(fields: Fields, key: str) -> bool | None:
    """None where the key is absent: false is a value of its own."""
    return None if fields.raw(key) is None else fields.flag(key)


def _mac(fields: Fields, args: Fields, environment: str) -> bytes | None:
    """In args.cni an empty text is a choice as well."""
    runtime = fields.object("runtimeConfig")
    if args.raw("mac") is not None:
        return args.mac("mac")
    if runtime.text("mac"):
        return runtime.mac("mac")
    if not environment:
        return fields.mac("mac")
    try:
        return parse_mac(environment)
    except ValueError as error:
        fields.errors.add("CNI_ARGS.MAC", str(error))
        return None


def _sysctls(fields: Fields, ifname: str, allowlist: Collection[str] | None) -> dict[str, str]:
    """Path below /proc/sys -> value. Two spellings of one setting must not say two things."""
    found: dict[str, str] = {}
    for key, value in fields.members("sysctl").items():
        if value is None:
            continue
        path = _path(key, ifname)
        error = _fault(key, path, value) or _refusal(key, allowlist)
        if not error and found.get(path, value) != value:
            error = "sets once more what another spelling has set"
        if error:
            fields.error(f"sysctl.{key}", error)
        elif isinstance(value, str):
            found[path] = value
    return found


def _path(key: str, ifname: str) -> str:
    """As the reference: dots and slashes part the words alike, and the first IFNAME is the interface's name."""
    words = key.replace(".", "/").replace("IFNAME", ifname, 1).split("/")
    return "/".join([word for word in words if word])


def _fault(key: str, path: str, value: JsonValue) -> str:
    if ".." in key or not path.startswith("net/"):
        return "is not a setting of the network (as in net.ipv4.conf.IFNAME.arp_filter)"
    if not key.isprintable():
        return "holds a character that no setting's name has"
    if not isinstance(value, str):
        return "expected a text"
    if not is_plain(value):
        return "holds a character that no setting's value has"
    return ""


def is_plain(value: str) -> bool:
    """True if a sysctl file takes the value: no NUL and no other control character."""
    return all(letter.isprintable() or letter in "\t\n" for letter in value)


def _refusal(key: str, allowlist: Collection[str] | None) -> str:
    if allowlist is None:
        return ""
    try:
        return "" if is_allowed(key, allowlist) else f"is not allowed by {ALLOWLIST}"
    except ValueError as error:
        return str(error)


def is_allowed(key: str, lines: Collection[str]) -> bool:
    """One of the regular expressions matches somewhere in the key, which is compared as it is written.

    Raises ValueError for a line before that which is none.
    """
    import re

    for line in lines:
        pattern = line
        for name, letters in CLASSES.items():
            pattern = pattern.replace(name, letters)
        try:
            if "[:" in pattern and ":]" in pattern:
                raise ValueError(f"{ALLOWLIST}: the line {line!r} has a class of letters that podwire does not know")
            if re.compile(pattern, re.ASCII).search(key):
                return True
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"{ALLOWLIST}: the line {line!r} is not a regular expression: {error}") from None
    return False


def _repeated(data: bytes, keys: Collection[str]) -> list[str]:
    """Keys of `sysctl` that the document has more than once, which its parser does not tell: the last one won.

    json, which can be made to tell, costs 5 ms; it is asked only where the letters of a key are there twice, where
    letters may be there as escapes, or where it takes longer to look for each key.
    """
    if b"\\" not in data and len(keys) < MANY and all(data.count(f'"{key}"'.encode()) < 2 for key in keys):
        return []
    from json import JSONDecoder

    document: Any = JSONDecoder(object_pairs_hook=tuple).decode(data.decode("utf-8", "replace"))
    objects = [value for name, value in document if name.casefold() == "sysctl" and isinstance(value, tuple)]
    seen: set[str] = set()
    repeated: dict[str, None] = {}
    for key in [key for members in objects for key, _ in members]:
        if key in seen:
            repeated[key] = None
        seen.add(key)
    return list(repeated)
