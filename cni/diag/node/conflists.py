"""The networks that a runtime finds in its folder, in the order in which it looks (go-cni, libcni.ConfFiles)."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from cni.kernel import statefile
from cni.protocol.errors import CniError
from cni.protocol.record import Record

if TYPE_CHECKING:
    Json = dict[str, Any]

FOLDER = "/etc/cni/net.d"
SUFFIXES = (".conf", ".conflist", ".json")


class Network(Record):
    """A file. `configs` are those of its plugins, with name and version; `error` says why it has none."""

    path: str
    name: str
    configs: tuple[Json, ...]
    error: str


def files_in(folder: str) -> list[str]:
    """Returns a folder's files in the order in which a runtime takes them (libcni, ConfFiles). Raises OSError."""
    paths = [f"{folder.rstrip('/')}/{name}" for name in sorted(os.listdir(folder)) if name.endswith(SUFFIXES)]
    return [path for path in paths if not os.path.isdir(path)]


def networks(folder: str = FOLDER) -> list[Network]:
    """Returns all networks of a folder by their file's name; a folder that does not exist has none. Raises OSError."""
    try:
        return [_network(path) for path in files_in(folder)]
    except FileNotFoundError:
        return []


def _network(path: str) -> Network:
    try:
        network = json.loads(statefile.read(path, links=True) or b"")
        name = str(network.get("name", ""))
        common = {"name": name, "cniVersion": network.get("cniVersion", "")}
        configs = tuple([{**config, **common} for config in network.get("plugins", [network])])
    except CniError as error:
        return Network(path, "", (), error.message)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return Network(path, "", (), "not the JSON of a network configuration (podwire lint says why)")
    return Network(path, name, configs, "")
