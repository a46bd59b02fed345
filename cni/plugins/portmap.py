"""portmap: maps ports of the host to a container that another plugin has attached."""

from __future__ import annotations

from cni.config.portmap import BACKENDS, parse_ports
from cni.effects import portmap as effects
from cni.plan import portmap as plan
from cni.plugins.context import owner_of, require_nft

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.plan.operations import Operation
    from cni.plugins.chained import Released
    from cni.plugins.context import Call
    from cni.protocol.address import Net
    from cni.protocol.fields import ConfigErrors
    from cni.protocol.result import Result


class Portmap:
    needs_netns = False
    prev_result_optional = False
    keeps_shared = False

    def __init__(self, call: Call, errors: ConfigErrors) -> None:
        fields = call.config.fields(errors)
        self._call = call
        self._conf = parse_ports(fields)
        backend = fields.text("backend")
        if backend not in BACKENDS:
            fields.error("backend", f"{backend!r} is neither iptables nor nftables")
        if backend == "iptables" and call.request.command == "ADD":
            call.warn("backend iptables: podwire maps ports in nftables, which serves the same traffic")

    def operations(self, previous: Result) -> tuple[Operation, ...]:
        if not self._conf.mappings:
            return ()
        addresses = self._addresses(previous)
        first = next((net.ip for net in addresses if net.family == 4), None)
        link = self._call.host.rtnl.link_to(first) if first is not None else None
        label = owner_of(self._call).label
        mapped = plan.operations(self._conf, addresses, label)
        if link is None:
            return mapped
        return mapped + plan.loopback_routing(self._conf, addresses, link.name, label, pair=link.kind == "veth")

    def _addresses(self, previous: Result) -> tuple[Net, ...]:
        """Returns the container's addresses. An address of another interface is skipped, as in the reference."""
        addresses = []
        for ip in previous.ips:
            if ip.interface is not None and 0 <= ip.interface < len(previous.interfaces):
                interface = previous.interfaces[ip.interface]
                if interface.name != self._call.request.ifname or not interface.sandbox:
                    continue
            addresses.append(ip.address)
        return tuple(addresses)

    def answer(self, previous: Result) -> Result:
        return previous

    def released(self, previous: Result) -> Released:
        """Returns ADD's operations; without mappings or addresses, as after a lost cache, labels are searched for."""
        operations = self.operations(previous)
        return operations, bool(operations)

    def release_labelled(self, matches: Callable[[str], bool]) -> None:
        effects.release_labelled(self._call.host, matches)

    def status(self) -> None:
        require_nft(self._call, program=self._conf.has_conditions)


PLUGIN = Portmap
