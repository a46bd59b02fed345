"""The configurations of plugins that create interfaces."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cni import INTERFACE, kind_of
from cni.config.netconf import parse_netconf
from cni.diag.conflint.findings import Collected
from cni.protocol.errors import CniError
from cni.protocol.plugin_config import parse_plugin_config

if TYPE_CHECKING:
    from typing import Any

    from cni.config.netconf import NetConf
    from cni.diag.node.attachments import Attached
    from cni.protocol.plugin_config import PluginConfig

    Json = dict[str, Any]


def parse_interface(members: Json) -> tuple[PluginConfig, NetConf] | None:
    """Returns the configuration of a plugin that creates interfaces; None for another plugin, and for one that ADD
    refuses.
    """
    program = str(members.get("type", ""))
    if kind_of(program) != INTERFACE:
        return None
    try:
        config = parse_plugin_config(json.dumps(members).encode(), "ADD")
        return config, parse_netconf(config, {}, Collected(), program)
    except CniError:
        return None


def conf_of(attached: Attached) -> NetConf | None:
    """Returns the configuration of the plugin that created the interface; None if it was not kept."""
    for members in attached.kept.configs if attached.kept is not None else ():
        if parsed := parse_interface(members):
            return parsed[1]
    return None
