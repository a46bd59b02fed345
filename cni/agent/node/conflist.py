"""The runtime's network configuration, put into its folder only when pods can be attached: a runtime takes the first
list that it finds for a network that works.
"""

from __future__ import annotations

import os

from cni.agent.logs import error_text
from cni.agent.node import files
from cni.protocol import smallfile
from cni.protocol.errors import CniError, InvalidConfig
from cni.protocol.jsontext import parse_object
from cni.protocol.record import Record

SUFFIX = ".conflist"  # by which a runtime knows a list of plugins


class Conflist(Record):
    """`path` is where the runtime looks."""

    source: str
    path: str

    @property
    def memory(self) -> str:
        """Returns the path of the copy by which podwired recognizes its conflist later. No runtime reads it."""
        folder, name = os.path.split(self.path)
        return os.path.join(folder, f".{name}.podwired")


def install(conflist: Conflist) -> bool:
    """Copies the source to the runtime's folder. Returns True if the file there was another one, or missing.

    The file is renamed from a name that no runtime reads: containerd notices the rename, and reads its folder again.
    Raises CniError if the source is not a list of plugins, OSError.
    """
    text = _read(conflist.source)
    _refuse_unless_list(text, conflist.source)
    new = files.write(conflist.path, text)
    files.write(conflist.memory, text)
    return new


def is_installed(conflist: Conflist) -> bool:
    """Returns True if the runtime's folder has the file, perhaps an earlier one."""
    return os.path.exists(conflist.path)


def remove(conflist: Conflist) -> list[str]:
    """Removes the file that `install` has written, and no other; returns the reasons why it was kept."""
    try:
        if is_installed(conflist):
            if _read(conflist.path) not in (_read_if_any(conflist.memory), _read_if_any(conflist.source)):
                return [f"{conflist.path} is not podwired's: left alone"]
            files.remove(conflist.path)
        files.remove(conflist.memory)
    except (CniError, OSError) as error:
        return [f"{conflist.path} is left alone: {error_text(error)}"]
    return []


def _refuse_unless_list(text: str, path: str) -> None:
    """Checks the keys that a runtime needs of a conflist; plugins validate their own. Keys are case-sensitive, as in
    libcni. Raises CniError.
    """
    members = parse_object(text.encode(), path)
    errors = [] if _is_text(members.get("name")) else ["name: expected a text"]
    plugins = members.get("plugins")
    if not isinstance(plugins, list) or not plugins:
        errors.append("plugins: expected a list of plugins")
    else:
        errors += [
            f"plugins[{index}]: expected an object with a type"
            for index, plugin in enumerate(plugins)
            if not (isinstance(plugin, dict) and _is_text(plugin.get("type")))
        ]
    if errors:
        raise InvalidConfig(f"{path} is not a network configuration list: {'; '.join(errors)}")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _read(path: str) -> str:
    try:
        return smallfile.read(path).decode()
    except UnicodeDecodeError:
        raise InvalidConfig(f"{path} is not UTF-8 text") from None


def _read_if_any(path: str) -> str | None:
    try:
        return _read(path)
    except (FileNotFoundError, InvalidConfig):
        return None
