"""Plugins of others that do not know the version of a network's configuration: they are asked by VERSION."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from cni import proc
from cni.diag.ailments.ailment import Ailment, is_podwire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.diag.ailments.ailment import NodeView

MOST = 16  # programs that are asked
SECONDS = "2"
QUESTION = b'{"cniVersion": "1.0.0"}'  # as libcni sends it (pkg/invoke, GetVersionInfo)


def find(node: NodeView) -> Iterator[Ailment]:
    """Yields the plugins that would refuse a network's configuration. Raises OSError."""
    wanted = {
        (program, network.name, str(config["cniVersion"]))
        for network in node.networks
        for config in network.configs
        for program in _programs(node, config)
        if config.get("cniVersion")
    }
    supported = {program: _supported(program) for program in sorted({program for program, _, _ in wanted})[:MOST]}
    for program, network, version in sorted(wanted):
        versions = supported.get(program)
        if versions and version not in versions:
            yield Ailment(
                "plugin-version",
                program,
                f"network {network} has cniVersion {version}, and the plugin supports {', '.join(versions)}",
                "ADD fails: incompatible CNI versions",
                f"podwire install --bin-dir {os.path.dirname(program)} --force, a newer plugin, or an older cniVersion",
                f"echo '{QUESTION.decode()}' | CNI_COMMAND=VERSION {program}",
            )


def _programs(node: NodeView, config: dict[str, object]) -> Iterator[str]:
    """Yields the programs that a configuration names, but for podwire, which supports all versions."""
    ipam = config.get("ipam")
    for name in (config.get("type"), ipam.get("type") if isinstance(ipam, dict) else None):
        program = node.program_of(name)
        if program is not None and not is_podwire(program):
            yield program


def _supported(program: str) -> list[str]:
    """Returns the versions that a plugin supports; none if it does not say so in time."""
    limit = proc.find_system("timeout", os.environ)
    if limit is None:
        return []
    environment = {"CNI_COMMAND": "VERSION", "PATH": proc.SYSTEM_PATH}
    try:
        done = proc.run([limit, SECONDS, program], QUESTION, environment, capture_stderr=True)
        versions = json.loads(done.stdout)["supportedVersions"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [str(version) for version in versions] if isinstance(versions, list) else []
