"""Kept calls as calls of today: what was attached is planned and compared by the same functions as at its ADD."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cni.plugins.context import Call
from cni.protocol.plugin_config import parse_plugin_config
from cni.protocol.request import Request

if TYPE_CHECKING:
    from cni.diag.node.keptcalls import KeptCall
    from cni.effects.host import Host
    from cni.protocol.result import Result

    Json = dict[str, Any]

FOLDER = "/opt/cni/bin"  # where plugins are, if the runtime's CNI_PATH was not kept


def call_of(kept: KeptCall, config: Json, verb: str, host: Host) -> Call:
    """Returns the call of a verb with a kept configuration and ADD's result, if there is one. Raises CniError."""
    previous = {"prevResult": kept.result} if kept.result else {}
    data = json.dumps({**config, "cniVersion": _version(config, verb), **previous}).encode()
    path = kept.path or FOLDER
    request = Request(
        command=verb,
        container_id=kept.owner.container_id,
        netns=kept.netns,
        ifname=kept.owner.ifname,
        args=kept.args,
        path=tuple(path.split(":")),
        netns_override=True,
        environment={**host.environment, "CNI_COMMAND": verb},
    )
    return Call(
        str(config.get("type", "")), request, parse_plugin_config(data, verb), host, _no_text, _no_answer, host.warn
    )


def _version(config: Json, verb: str) -> str:
    """Returns the configuration's version; where it is too old for CHECK, the first one that has CHECK and results of
    the same shape.
    """
    version = str(config.get("cniVersion") or "")
    return "0.4.0" if verb == "CHECK" and version in ("0.3.0", "0.3.1") else version


def _no_text(_: Result) -> str:
    return ""


def _no_answer(_: str) -> None:
    return
