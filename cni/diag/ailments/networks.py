"""The runtime's networks: files that are wrong, programs that are missing, firewalls that drop what containers send."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cni.diag.ailments import plugins
from cni.diag.ailments.ailment import Ailment
from cni.diag.ailments.attachments import some
from cni.diag.ailments.gateways import gateways
from cni.diag.conflint import documents
from cni.diag.lint import errors
from cni.diag.node.barriers import barrier_of
from cni.diag.node.here import opened_host
from cni.effects.journal import FAILURES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cni.diag.ailments.ailment import NodeView
    from cni.diag.node.conflists import Network

LOOPBACK = "loopback"


def find(node: NodeView) -> Iterator[Ailment]:
    """Yields the findings of lint, then missing programs, then firewalls. Raises CniError."""
    yield from _missing(node)
    yield from _files(node)
    yield from _programs(node)
    yield from plugins.find(node)
    yield from _firewalls(node)


def _missing(node: NodeView) -> Iterator[Ailment]:
    """Yields a folder without networks where a runtime has attached containers by one."""
    attached = [each for each in node.attached if each.kept is not None and each.kept.by_runtime]
    if attached and not node.networks:
        yield Ailment(
            "no-network",
            node.conf_dir,
            f"no network configuration, and a runtime has attached {some([each.name for each in attached])} by one",
            "the runtime is not ready, and attaches no pod: cni plugin not initialized",
            "restore the file, or what writes it (--conf-dir, if the runtime has another folder)",
            f"ls -l {node.conf_dir}",
        )


def _files(node: NodeView) -> Iterator[Ailment]:
    if evidence := _unexpected(node.networks):
        yield Ailment(
            "several-networks",
            node.conf_dir,
            evidence,
            "pods may be attached to another network than expected",
            "correct or remove the file that is not wanted",
            f"podwire lint {node.conf_dir}",
        )
    for finding in errors([documents.read(network.path) for network in node.networks]):
        place = f"{finding.file}: {finding.path}" if finding.path else finding.file
        remedy, consequence = finding.remedy or "correct the file", "ADD fails"
        yield Ailment("network-file", place, finding.cause, consequence, remedy, f"podwire lint {node.conf_dir}")


def _unexpected(networks: Sequence[Network]) -> str:
    """Returns why a runtime may take another file than people expect; empty where each is used by its name, or there
    is one.
    """
    broken = [network.path for network in networks[:1] if network.error]
    if broken and len(networks) > 1:
        return f"{broken[0]}, the first file by name, is broken: a runtime takes {networks[1].path}"
    first: dict[str, str] = {}
    for network in networks:
        if network.name and first.setdefault(network.name, network.path) != network.path:
            return f"{first[network.name]} and {network.path} both define the network {network.name}"
    return ""


def _programs(node: NodeView) -> Iterator[Ailment]:
    """Yields the programs that are in none of the folders in which a runtime may look, or that cannot be executed."""
    types = [config.get("type") for config in node.configs()]
    wanted = {LOOPBACK: "an attachment"} if LOOPBACK in types else {}  # some runtimes make lo themselves
    for network in node.networks:
        for config in network.configs:
            ipam = config.get("ipam")
            for name in (config.get("type"), ipam.get("type") if isinstance(ipam, dict) else None):
                if isinstance(name, str) and name:
                    wanted.setdefault(name, network.path)
    for name, user in wanted.items():
        present = [path for folder in node.bin_dirs if os.path.lexists(path := f"{folder}/{name}")]
        if any(os.access(path, os.X_OK) for path in present):
            continue
        evidence, proof = f"no program of that name in {', '.join(node.bin_dirs)}", f"ls -l {node.bin_dirs[0]}"
        remedy = f"podwire install --bin-dir {node.bin_dirs[0]}"
        if present:
            evidence, proof = f"{present[0]} cannot be executed", f"ls -lL {present[0]}"
            remedy = f"podwire install --bin-dir {os.path.dirname(present[0])} --names {name} --force"
        consequence, remedy = "ADD fails: failed to find plugin", f"{remedy}, or install the package that has it"
        yield Ailment("plugin-missing", name, f"{evidence}, and {user} needs it", consequence, remedy, proof)


def _firewalls(node: NodeView) -> Iterator[Ailment]:
    """Yields what bars forwarded packets of the networks for which this node is the gateway."""
    for interface, families in sorted(gateways(node, node.configs()).items()):
        try:
            with opened_host() as host:
                barrier = barrier_of(host, sorted(families), interface)
        except FAILURES:
            continue
        if barrier is None:
            continue
        yield Ailment(
            "forward-dropped",
            interface,
            barrier.cause,
            "pods reach no other node and nothing outside",
            barrier.remedy,
            "nft list ruleset | grep -A5 'hook forward'; iptables -S FORWARD",
        )
