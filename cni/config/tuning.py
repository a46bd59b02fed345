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
KEYS_SEARCHED = 100  # sysctls, up to which the document is searched for each
# Classes of characters in Go's regular expressions, which Python's do not have.
CHARACTER_CLASSES = {
    "[:alnum:]": "0-9A-Za-z",
    "[:alpha:]": "A-Za-z",
    "[:digit:]": "0-9",
    "[:lower:]": "a-z",
    "[:upper:]": "A-Z",
    "[:word:]": "0-9A-Za-z_",
}


class LinkSettings(Record):
    """Settings of the interface; None: not changed. `mtu` in bytes, `txqlen` in packets."""

    mac: bytes | None = None
    promisc: bool | None = None
    mtu: int | None = None
    allmulti: bool | None = None
    txqlen: int | None = None

    @property
    def given(self) -> tuple[str, ...]:
        """Returns the names of the settings that are changed."""
        return tuple([name for name, value in self._asdict().items() if value is not None])


class Settings(Record):
    """Settings of a container. `sysctls`: (path below /proc/sys, value), in the order of writing."""

    link: LinkSettings = LinkSettings()
    sysctls: tuple[tuple[str, str], ...] = ()


class Tuning(Record):
    settings: Settings
    data_dir: str


def parse_tuning(
    config: PluginConfig, request: Request, errors: ConfigErrors, allowlist: Collection[str] | None = None
) -> Tuning:
    """Parses the settings; an invalid one is left out, and is an error.

    `allowlist`: the lines of ALLOWLIST; None: every sysctl is allowed.

    The order is the reference's: args.cni wins over runtimeConfig, that over CNI_ARGS, all of them over the other keys.
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
    sysctl = fields.raw("sysctl")
    for key in _duplicates(config.data, sysctl if isinstance(sysctl, dict) else ()):
        fields.error(f"sysctl.{key}", "is set more than once")
    return Tuning(Settings(link, tuple(sysctls.items())), fields.file_path("dataDir") or DATA_DIR)


def optional_flag(fields: Fields, key: str) -> bool | None:
    """Returns None if the key is absent: false is a value."""
    return None if fields.raw(key) is None else fields.flag(key)


def _mac(fields: Fields, args: Fields, environment: str) -> bytes | None:
    """Returns the MAC address. In args.cni an empty text counts as a value."""
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
    """Returns path below /proc/sys -> value. Two spellings of one sysctl with different values are an error."""
    sysctls: dict[str, str] = {}
    for key, value in fields.members("sysctl").items():
        if value is None:
            continue
        path = _path(key, ifname)
        error = _sysctl_error(key, path, value) or _allowlist_error(key, allowlist)
        if not error and sysctls.get(path, value) != value:
            error = "has another value under another spelling"
        if error or not isinstance(value, str):  # the error of a value that is not a text is among them
            fields.error(f"sysctl.{key}", error)
        else:
            sysctls[path] = value
    return sysctls


def _path(key: str, ifname: str) -> str:
    """Returns the path of a sysctl. As in the reference, both . and / are separators, and the first IFNAME is the
    interface's name.
    """
    names = key.replace(".", "/").replace("IFNAME", ifname, 1).split("/")
    return "/".join([name for name in names if name])


def _sysctl_error(key: str, path: str, value: JsonValue) -> str:
    if ".." in key or not path.startswith("net/"):
        return "is not a sysctl of the network (as in net.ipv4.conf.IFNAME.arp_filter)"
    if not key.isprintable():
        return "contains a character that no sysctl name has"
    if not isinstance(value, str):
        return "expected a text"
    if not is_plain(value):
        return "contains a character that no sysctl value has"
    return ""


def is_plain(value: str) -> bool:
    """True if a sysctl can have the value: it has no control characters except tab and newline."""
    return all(letter.isprintable() or letter in "\t\n" for letter in value)


def _allowlist_error(key: str, allowlist: Collection[str] | None) -> str:
    if allowlist is None:
        return ""
    try:
        return "" if is_allowed(key, allowlist) else f"is not allowed by {ALLOWLIST}"
    except ValueError as error:
        return str(error)


def is_allowed(key: str, lines: Collection[str]) -> bool:
    """True if one of the regular expressions matches a part of the key as it is written.

    Raises ValueError for an invalid line before the one that matches.
    """
    import re

    for line in lines:
        pattern = line
        for name, letters in CHARACTER_CLASSES.items():
            pattern = pattern.replace(name, letters)
        try:
            if "[:" in pattern and ":]" in pattern:
                raise ValueError(f"{ALLOWLIST}: the line {line!r} has a character class that podwire does not know")
            if re.compile(pattern, re.ASCII).search(key):
                return True
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"{ALLOWLIST}: the line {line!r} is not a regular expression: {error}") from None
    return False


def _duplicates(data: bytes, keys: Collection[str]) -> list[str]:
    """Returns the keys of `sysctl` that the document has more than once: its parser keeps only the last one.

    json, which can return all, costs 5 ms: it is used only if the text of a key occurs twice, if there may be escapes,
    or if a search for each key would take longer.
    """
    if b"\\" not in data and len(keys) < KEYS_SEARCHED and all(data.count(f'"{key}"'.encode()) < 2 for key in keys):
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
