"""The networks that a runtime finds in its folder, in the order in which it looks (go-cni, libcni.ConfFiles)."""

from __future__ import annotations

import json
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


def networks(folder: str = FOLDER) -> list[Network]:
    """Returns all networks of a folder by their file's name: most runtimes take the first. Raises CniError."""
    return [_network(f"{folder}/{name}") for name in sorted(statefile.names(folder)) if name.endswith(SUFFIXES)]


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
