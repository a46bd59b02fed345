"""A file of the runtime's folder: by its name a plugin list or a single configuration, as libcni takes it.

Each plugin gets its part with the name and the version of the list.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cni.config.spelling import nearest
from cni.diag.conflint.findings import Collected, Finding
from cni.diag.node.conflists import SUFFIXES
from cni.protocol import smallfile
from cni.protocol.errors import CniError
from cni.protocol.fields import Fields
from cni.protocol.jsontext import parse_object
from cni.protocol.plugin_config import parse_plugin_config
from cni.protocol.record import Record
from cni.protocol.result import parse_dns
from cni.protocol.versions import CURRENT, DEFAULT_VERSION, SUPPORTED, require_supported

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.protocol.plugin_config import PluginConfig

LIST = ".conflist"
TEXT, A_LIST, OBJECT, SWITCH = (str,), (list,), (dict,), (bool, str)  # libcni takes "true" as well
LIST_KEYS = {
    "cniVersion": TEXT,
    "cniVersions": A_LIST,
    "name": TEXT,
    "disableCheck": SWITCH,
    "disableGC": SWITCH,
    "loadOnlyInlinedPlugins": (bool,),
    "plugins": A_LIST,
    "nerdctlID": TEXT,
    "nerdctlLabels": OBJECT,
    "args": OBJECT,  # podman
}
EXPECTED = {str: "a text", list: "a list", dict: "an object", bool: "true or false"}
KNOWN = {key.casefold(): key for key in LIST_KEYS}
INHERITED = ("name", "cniversion")  # what plugins have of their list
ANNOTATION, COMMENTS = "./", ("_", "#", "$", "comment", "description")


class Plugin(Record):
    """A plugin's part: its type, the JSON path of its keys with a full stop (empty in a single configuration), and what
    it gets from the runtime.
    """

    type: str
    prefix: str
    config: PluginConfig


class Document(Record):
    """`plugins` are those that can be judged; `findings` concern the file and the list itself, and those that are
    `errors` make ADD fail.
    """

    file: str
    name: str
    plugins: tuple[Plugin, ...]
    errors: tuple[Finding, ...]
    findings: tuple[Finding, ...]


def read(file: str) -> Document:
    """Reads a file and judges its form."""
    try:
        data = smallfile.read(file)
        members = parse_object(data, "the file")
    except OSError as error:
        return _unreadable(file, f"cannot be read: {error.strerror}")
    except CniError as error:
        return _unreadable(file, error.message.removeprefix("the file "))
    found = [Finding.of(file, path, "is set more than once, the last value counts") for path in _repeated(data)]
    given = {key.casefold(): value for key, value in members.items()}
    is_list = "plugins" in given
    wrong = [*_wrong_form(file, given, is_list), *(_of_list(members, given) if is_list else ())]
    found += [Finding.of(file, *each) for each in _without_effect(members, given, is_list)]
    parts = _parts(given, members, is_list)
    plugins, common = [], dict[tuple[str, str], None]()
    for prefix, part in parts:
        plugin, errors = _plugin(part, prefix, _version(given))
        common.update(dict.fromkeys(errors))
        plugins += [plugin] if plugin is not None else []
    failing = tuple([Finding.of(file, *each) for each in (*wrong, *common)])
    name = given.get("name")
    name = name if isinstance(name, str) else ""
    return Document(file, name, tuple(plugins), failing, (*found, *failing))


def _unreadable(file: str, message: str) -> Document:
    errors = (Finding.of(file, "", message),)
    return Document(file, "", (), errors, errors)


def _wrong_form(file: str, given: dict[str, Any], is_list: bool) -> Iterator[tuple[str, str]]:
    if is_list and file.endswith(SUFFIXES) and not file.endswith(LIST):
        yield "plugins", f"a plugin list in a file that is named as a single configuration is (name it {LIST})"
    if not is_list and file.endswith(LIST):
        remedy = 'put the configuration into "plugins": [...]' if "type" in given else "a list needs them"
        yield "plugins", f"missing in a plugin list ({remedy})"


def _without_effect(members: dict[str, Any], given: dict[str, Any], is_list: bool) -> Iterator[tuple[str, str]]:
    """Yields the findings with which ADD works nevertheless."""
    if "cniversion" not in given:
        yield "cniVersion", f"missing, which means 0.1.0 without CHECK, GC and STATUS (set {CURRENT})"
    for key in members if is_list else ():
        known = key.casefold() in KNOWN or any(letter in key for letter in ANNOTATION)
        if not known and not key.casefold().startswith(COMMENTS):
            guess = nearest(key, LIST_KEYS)
            remedy = f"did you mean {guess}?" if guess else "keys of a plugin belong into plugins[...]"
            yield key, f"unknown key of a plugin list, ignored ({remedy})"
    versions = given.get("cniversions") if is_list else None
    for index, version in enumerate(versions if isinstance(versions, list) else ()):
        if version not in SUPPORTED:
            yield f"cniVersions[{index}]", f"{version!r} is none of {', '.join(SUPPORTED)}"


def _of_list(members: dict[str, Any], given: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the wrong values of the list itself."""
    for key, value in members.items():
        kinds = LIST_KEYS[KNOWN[key.casefold()]] if key.casefold() in KNOWN else ()
        if kinds and value is not None and not isinstance(value, kinds):
            yield key, f"expected {EXPECTED[kinds[0]]}"
    plugins = given["plugins"]
    if isinstance(plugins, list) and not plugins and given.get("loadonlyinlinedplugins", True):
        yield "plugins", "is empty"


def _parts(given: dict[str, Any], members: dict[str, Any], is_list: bool) -> list[tuple[str, Any]]:
    """Returns the JSON path of each plugin with a full stop, and its keys with those of the list."""
    if not is_list:
        return [("", members)]
    plugins = given["plugins"] if isinstance(given["plugins"], list) else []
    common = {key: given[key.casefold()] for key in ("name", "cniVersion") if key.casefold() in given}
    parts: list[tuple[str, Any]] = []
    for index, plugin in enumerate(plugins):
        inherits = isinstance(plugin, dict)
        parts.append((f"plugins[{index}].", {**plugin, **common} if inherits else plugin))
    return parts


def _plugin(part: Any, prefix: str, chosen: str) -> tuple[Plugin | None, list[tuple[str, str]]]:
    """Returns the plugin, None if it has no type, and the errors; those of name and version are the list's."""
    if not isinstance(part, dict):
        return None, [(prefix.rstrip("."), "expected an object")]
    errors = Collected()
    fields = Fields(part, "", errors)
    name, version = fields.text("name"), chosen or fields.text("cniVersion") or DEFAULT_VERSION
    is_named = not errors.count or bool(name)
    kind = fields.raw("type")
    if not isinstance(kind, str) or not kind:
        errors.add(f"{prefix}type", "expected a text" if kind else "missing (it names the plugin's program)")
    for path, message in _for_runtime(part):
        errors.add(f"{prefix}{path}", message)
    try:
        require_supported(version, "ADD")
    except CniError as error:
        errors.add("cniVersion", error.details or error.message)
        version = CURRENT  # the rest is judged nevertheless
    own = {key: value for key, value in part.items() if key.casefold() not in INHERITED}
    config = parse_plugin_config(json.dumps({**own, "name": name, "cniVersion": version}).encode(), "ADD")
    if config.error and is_named:
        errors.add("name", config.error)
    return (Plugin(kind, prefix, config) if isinstance(kind, str) and kind else None), errors.pairs


def _for_runtime(part: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns the wrong types of keys that libcni itself reads of every plugin."""
    errors = Collected()
    fields = Fields(part, "", errors)
    fields.object("ipam").text("type")
    fields.object("args")
    parse_dns(fields.object("dns"))
    capabilities = fields.object("capabilities")
    for name in fields.members("capabilities"):
        capabilities.flag(name)
    return list(dict.fromkeys(errors.pairs))


def _version(given: dict[str, Any]) -> str:
    """Returns the version that libcni chooses of cniVersion and cniVersions; empty if there is no choice."""
    versions = given.get("cniversions")
    known = [version for version in versions if version in SUPPORTED] if isinstance(versions, list) else []
    own = given.get("cniversion")
    return max([*known, *([own] if own in SUPPORTED else [])], key=SUPPORTED.index) if known else ""


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with all of its keys."""


def _repeated(data: bytes) -> list[str]:
    """Returns the JSON paths of keys that an object has more than once, in any case."""
    return list(dict.fromkeys(_repeated_in(json.JSONDecoder(object_pairs_hook=_Pairs).decode(_text(data)), "")))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _repeated_in(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for key, inner in value:
            key_path = f"{path}.{key}" if path else key
            if key.casefold() in seen:
                yield key_path
            seen.add(key.casefold())
            yield from _repeated_in(inner, key_path)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _repeated_in(inner, f"{path}[{index}]")
