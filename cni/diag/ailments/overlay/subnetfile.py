"""The file of this node's subnet, which an agent writes and each ADD of flannel reads: missing, damaged, or wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cni import DELEGATING, kind_of
from cni.config.flannel import SUBNET_FILE, parse_flannel, parse_subnet_env
from cni.diag.ailments.ailment import Ailment
from cni.kernel import statefile
from cni.protocol.address import parse_net
from cni.protocol.errors import CniError
from cni.protocol.fields import ConfigErrors
from cni.protocol.plugin_config import parse_plugin_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.diag.ailments.ailment import NodeView

    Json = dict[str, Any]


def find(node: NodeView) -> Iterator[Ailment]:
    """Yields the files of the runtime's networks that are not as an ADD needs them, each once."""
    configs = [config for network in node.networks for config in network.configs]
    paths = [_path_of(config) for config in configs if kind_of(str(config.get("type", ""))) == DELEGATING]
    for path in filter(None, dict.fromkeys(paths)):
        consequence, reason = problem_of(node, path)
        if reason:
            writer = "kill -HUP $(pidof podwired), which writes it" if node.agent else "start podwired or flanneld"
            yield Ailment("subnet-file", path, reason, consequence, writer, f"cat {path}; podwired status")


def _path_of(config: Json) -> str:
    """Returns the file that a configuration of flannel names; empty for one that ADD refuses (network-file)."""
    try:
        return parse_flannel(parse_plugin_config(json.dumps(config).encode(), "ADD"), ConfigErrors()).subnet_file
    except CniError:
        return ""


def problem_of(node: NodeView, path: str) -> tuple[str, str]:
    """Returns the consequence of what is wrong with a file, and what it is; empty texts if it is as it has to be."""
    try:
        data = statefile.read(path, links=True)
        if data is None:
            return "ADD fails", "no such file"
        subnets = {subnet.text for subnet in parse_subnet_env(data.decode("utf-8", "replace"), path).subnets}
    except (CniError, ValueError) as error:
        return "ADD fails", error.message if isinstance(error, CniError) else str(error)
    leased = {parse_net(text).network.text for text in ((node.agent or {}).get("lease") or {}).get("subnets", ())}
    if path == SUBNET_FILE and leased and subnets != leased:
        evidence = f"it has {', '.join(sorted(subnets))}, and the lease is {', '.join(sorted(leased))}"
        return "ADD fails, or gives pods addresses that other nodes route elsewhere", evidence
    return "", ""
