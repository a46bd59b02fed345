"""The runtime's networks: files that are wrong, programs that are missing, firewalls that drop what containers send."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cni import INTERFACE, kind_of
from cni.diag.ailments.ailment import Ailment
from cni.diag.conflint import documents
from cni.diag.lint import judge
from cni.diag.node.here import opened_host
from cni.effects.forward_audit import refuse_drops
from cni.effects.journal import FAILURES
from cni.protocol.errors import PluginNotAvailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.diag.ailments.ailment import Json, NodeView

LOOPBACK = "loopback"  # a runtime calls it for each pod (go-cni, WithLoNetwork)
BRIDGES = {"bridge": "cni0", "podwire": "cni0"}


def find(node: NodeView) -> Iterator[Ailment]:
    """Yields the findings of lint, then missing programs, then firewalls. Raises CniError."""
    yield from _files(node)
    yield from _programs(node)
    yield from _firewalls(node)


def _files(node: NodeView) -> Iterator[Ailment]:
    names = [network.path for network in node.networks]
    if len(names) > 1:
        yield Ailment(
            "several-networks",
            node.conf_dir,
            f"{len(names)} files, of which a runtime takes the first by name: {os.path.basename(names[0])}",
            "pods may be attached to another network than expected",
            "remove the files that are not wanted",
            f"ls {node.conf_dir}",
        )
    for finding in judge([documents.read(name) for name in names], on_node=False):
        place = f"{finding.file}: {finding.path}" if finding.path else finding.file
        remedy, consequence = finding.remedy or "correct the file", "ADD fails, or ignores what is meant"
        yield Ailment("network-file", place, finding.cause, consequence, remedy, f"podwire lint {node.conf_dir}")


def _programs(node: NodeView) -> Iterator[Ailment]:
    wanted = {LOOPBACK: "the runtime"} if node.networks else {}
    for network in node.networks:
        for config in network.configs:
            ipam = config.get("ipam")
            for name in (config.get("type"), ipam.get("type") if isinstance(ipam, dict) else None):
                if isinstance(name, str) and name:
                    wanted.setdefault(name, network.path)
    for name, user in wanted.items():
        if not any(os.access(f"{folder}/{name}", os.X_OK) for folder in node.bin_dirs):
            yield Ailment(
                "plugin-missing",
                name,
                f"no program of that name in {', '.join(node.bin_dirs)}, and {user} needs it",
                "ADD fails: failed to find plugin",
                f"podwire install --bin-dir {node.bin_dirs[0]}, or install the package that has it",
                f"ls -l {node.bin_dirs[0]}",
            )


def _firewalls(node: NodeView) -> Iterator[Ailment]:
    """Yields what bars forwarded packets of the networks that are bridged on this node."""
    bridges = {_bridge(config) for config in node.configs() if kind_of(str(config.get("type", ""))) == INTERFACE}
    present = {link.name for link in node.links}
    for bridge in sorted(bridges & present):
        with opened_host() as host:
            try:
                refuse_drops(host, (4, 6), bridge)
            except PluginNotAvailable as error:
                message = error.message
            except FAILURES:
                continue
            else:
                continue
        cause, _, remedy = message.rpartition(" (")
        yield Ailment(
            "forward-dropped",
            bridge,
            cause or message,
            "pods reach no other node and nothing outside",
            remedy.removesuffix(")") or "accept the pods' subnet in that chain",
            "nft list ruleset | grep -A5 'hook forward'; iptables -S FORWARD",
        )


def _bridge(config: Json) -> str:
    return str(config.get("bridge") or BRIDGES.get(str(config.get("type", "")), ""))
