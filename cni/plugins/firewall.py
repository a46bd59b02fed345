"""firewall: accepts the traffic of a container that another plugin has attached, or keeps it within its bridge."""

from __future__ import annotations

from cni.config.firewall import FIREWALLD, ISOLATED, OPEN, parse_firewall
from cni.effects import iptables_legacy
from cni.plan import adminchain, forward_accept
from cni.plan.isolation import IsolatedPort, Isolation
from cni.plugins.context import require_nft
from cni.protocol.errors import InvalidConfig, PluginNotAvailable
from cni.protocol.request import ifname_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.plan.operations import Operation
    from cni.plugins.chained import Released
    from cni.plugins.context import Call
    from cni.protocol.address import Net
    from cni.protocol.fields import ConfigErrors
    from cni.protocol.result import Result

ANY_INTERFACE = "*"


class Firewall:
    needs_netns = False
    prev_result_optional = False
    keeps_shared = True

    def __init__(self, call: Call, errors: ConfigErrors) -> None:
        self._call = call
        self._conf = parse_firewall(call.config.fields(errors))
        self._firewalld: bool | None = None

    def operations(self, previous: Result) -> tuple[Operation, ...]:
        """Returns isolation first, so that a packet it drops is never accepted before."""
        policy = self._conf.policy
        accepted = self._accepted(previous)
        if policy == OPEN:
            return accepted
        bridge, within = self._bridge(previous), policy == ISOLATED
        ports = self._ports(previous, bridge) if within else []
        return (Isolation(bridge, within), *map(IsolatedPort, ports), *accepted)

    def _accepted(self, previous: Result) -> tuple[Operation, ...]:
        """Returns accept rules; those of new connections from outside are for host ports alone."""
        addresses = [ip.address for ip in previous.ips]
        return self._source_rules(addresses) + forward_accept.operations(addresses, inbound=False)

    def _source_rules(self, addresses: list[Net]) -> tuple[Operation, ...]:
        """Returns the sources of firewalld's zone, or else the administrator's chain, as the reference does."""
        if not self._asks_firewalld():
            return adminchain.operations(self._conf.admin_chain, addresses)
        from cni.plan import firewalld

        return firewalld.operations(self._conf.zone, addresses)

    def _asks_firewalld(self) -> bool:
        """Returns True if the backend is firewalld, or none and firewalld runs. Looked up once for a call."""
        from cni.effects import firewalld

        if self._firewalld is None:
            running = not self._conf.backend and firewalld.is_running(self._call.request.environment)
            self._firewalld = running or self._conf.backend == FIREWALLD
        return self._firewalld

    def _bridge(self, previous: Result) -> str:
        """Returns the host's first interface in the result, where bridge puts its own. Raises InvalidConfig."""
        names = [interface.name for interface in previous.interfaces if not interface.sandbox]
        error = ifname_error(names[0]) if names and names[0] else "no host interface"
        if error:
            raise InvalidConfig(
                f"prevResult.interfaces: {error}, ingressPolicy {self._conf.policy} needs the bridge there:"
                " chain firewall behind bridge"
            )
        return names[0]

    def _ports(self, previous: Result, bridge: str) -> list[str]:
        """Returns the host's interfaces in the result that are ports of the bridge."""
        rtnl = self._call.host.rtnl
        links = [rtnl.find(interface.name) for interface in previous.interfaces if not interface.sandbox]
        masters = [link.ifindex for link in links if link is not None and link.name == bridge]
        return [link.name for link in links if link is not None and link.master in masters]

    def answer(self, previous: Result) -> Result:
        """Warns of packets that iptables-legacy drops and the reference would accept; the ADD does not fail for it."""
        try:
            families = {ip.address.family for ip in previous.ips}
            admin_chain = "" if self._asks_firewalld() else self._conf.admin_chain
            iptables_legacy.refuse_drops(self._call.host, families, ANY_INTERFACE, admin_chain)
        except PluginNotAvailable as error:
            self._call.warn(error.message)
        return previous

    def released(self, previous: Result) -> Released:
        """Returns what ADD applies: a subnet of one address goes; what containers share (subnet, bridge) stays."""
        return self._accepted(previous), True

    def release_labelled(self, matches: Callable[[str], bool]) -> None:
        """Releases nothing: no rule has the label of one container."""

    def status(self) -> None:
        """Assumes IPv4 and any interface: only the plugin before knows those of a container."""
        from cni.effects import forward_audit

        if self._conf.policy != OPEN:
            require_nft(self._call)
        self._require_firewalld()
        accepting = FIREWALLD if self._asks_firewalld() else ""
        forward_audit.refuse_drops(self._call.host, [4], ANY_INTERFACE, accepting)

    def _require_firewalld(self) -> None:
        """Raises PluginNotAvailable if firewalld is asked for by name and does not run."""
        from cni.effects import firewalld

        if self._conf.backend == FIREWALLD and not firewalld.is_running(self._call.request.environment):
            raise PluginNotAvailable("firewalld: not running on the system's D-Bus (backend firewalld)")


PLUGIN = Firewall
