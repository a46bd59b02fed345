"""Modules that networks need and the kernel has not: neither built in, nor loaded, nor as a file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cni import INTERFACE, kind_of
from cni.diag.ailments.ailment import Ailment, is_podwire
from cni.protocol import smallfile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.diag.ailments.ailment import Json, NodeView

FOLDER, LOADED = "/lib/modules", "/sys/module"
LISTS = ("modules.builtin", "modules.dep")  # modprobe(8); a line begins with the path of a module
LIST_BYTES = 16 << 20
MASQUERADE = ("nf_tables", "nft_chain_nat", "nft_masq")


def find(node: NodeView) -> Iterator[Ailment]:
    """Yields the modules that are missing; none where the kernel's lists are not on this node."""
    wanted = dict(_wanted(node))
    release = os.uname().release
    missing = [name for name in wanted if not os.path.exists(f"{LOADED}/{name}")]
    available = _available(f"{FOLDER}/{release}") if missing else None
    for name in missing if available is not None else ():
        if available is not None and name not in available:
            yield Ailment(
                "module-missing",
                name,
                f"kernel {release} has no module {name}, and {wanted[name]} needs it",
                "ADD fails: not supported by the kernel",
                "install the kernel's package of extra modules, or another kernel",
                f"modinfo {name}",
            )


def _wanted(node: NodeView) -> Iterator[tuple[str, str]]:
    """Yields modules with who needs them."""
    for network in node.networks:
        for config in network.configs:
            program = node.program_of(config.get("type"))
            if program is None or is_podwire(program):  # the reference's plugins masquerade by iptables
                yield from [(name, f"network {network.name}") for name in _of_config(config)]
    if ((node.agent or {}).get("network") or {}).get("backend") == "vxlan":
        yield "vxlan", "podwired"


def _of_config(config: Json) -> Iterator[str]:
    program = str(config.get("type", ""))
    if kind_of(program) == INTERFACE:
        yield "veth"
        yield from ["bridge"] if program != "ptp" and config.get("mode") != "routed" else []
        yield from MASQUERADE if config.get("ipMasq") else ()
        yield from ["8021q"] if config.get("vlan") else []
    elif program == "bandwidth":
        yield from ("sch_tbf", "ifb")


def _available(folder: str) -> set[str] | None:
    """Returns the names of all modules of a kernel, None where they are not known."""
    names = set()
    for name in LISTS:
        try:
            lines = smallfile.read(f"{folder}/{name}", LIST_BYTES).decode("utf-8", "replace").splitlines()
        except OSError:
            return None
        names |= {line.partition(":")[0].rpartition("/")[2].partition(".ko")[0].replace("-", "_") for line in lines}
    return names or None
