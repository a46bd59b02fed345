"""Findings about the order of a chain: who makes the interface, who adjusts it, who serves a capability twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni import CHAINED, DELEGATING, INTERFACE, kind_of
from cni.config.keys import SERVED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni.diag.conflint.documents import Plugin

MAY_BEGIN = ("loopback",)
ONCE = ("portMappings", "bandwidth")  # a second plugin would do the same to the same interface


def judge(plugins: Sequence[Plugin]) -> Iterator[tuple[str, str]]:
    """Yields (path, message)."""
    for position, plugin in enumerate(plugins):
        kind = kind_of(plugin.type)
        if not position and kind == CHAINED and plugin.type not in MAY_BEGIN:
            remedy = "put the plugin that makes the interface before it" if plugin.prefix else "use a plugin list"
            yield f"{plugin.prefix}type", f"{plugin.type} adjusts the interface that another plugin has made ({remedy})"
        if position and kind in (INTERFACE, DELEGATING):
            others = [other.type for other in plugins[:position] if kind_of(other.type) in (INTERFACE, DELEGATING)]
            cause = f"makes the interface, as {others[0]} does" if others else "makes the interface"
            remedy = "remove one of them" if others else "put it first"
            yield f"{plugin.prefix}type", f"{plugin.type} {cause}: it ignores the plugins before it ({remedy})"
    for capability in ONCE:
        serving = [plugin for plugin in plugins if _serves(plugin, capability)]
        for plugin in serving[1:]:
            text = f"{serving[0].type} serves it already, both would do it (remove it here or there)"
            yield f"{plugin.prefix}capabilities.{capability}", text


def _serves(plugin: Plugin, capability: str) -> bool:
    requested = plugin.config.members.get("capabilities")
    is_requested = isinstance(requested, dict) and requested.get(capability) is True
    return is_requested and capability in SERVED.get(plugin.type, ())
