"""loopback: sets the container's lo up, for runtimes that leave it to a plugin."""

from __future__ import annotations

from cni.effects.loopback import addresses
from cni.plan.loopback import LO, NO_MAC, LoopbackUp
from cni.plugins.context import owner_of
from cni.protocol.result import Interface, IPConfig, Result
from cni.protocol.versions import MTU_SINCE, at_least

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.plan.operations import Operation
    from cni.plugins.chained import Released
    from cni.plugins.context import Call
    from cni.protocol.fields import ConfigErrors


class Loopback:
    needs_netns = True
    prev_result_optional = True
    keeps_shared = False

    def __init__(self, call: Call, errors: ConfigErrors) -> None:
        del errors
        self._call = call

    def operations(self, previous: Result) -> tuple[Operation, ...]:
        del previous
        return (LoopbackUp(LO, owner_of(self._call).label),)

    def answer(self, previous: Result) -> Result:
        """Returns the result of the plugin before, or else lo with its first address of each family."""
        if previous.interfaces or previous.ips:
            return previous
        assigned = addresses(self._call.host, LO)
        firsts = [next((net for net in assigned if net.family == family), None) for family in (4, 6)]
        ips = tuple([IPConfig(net, interface=0) for net in firsts if net is not None])
        interface = Interface(LO, NO_MAC, self._call.request.netns)
        if at_least(self._call.config.version, MTU_SINCE):
            interface = interface.with_mtu(self._call.host.container_rtnl.need(LO).mtu)
        return Result((interface,), ips)

    def released(self, previous: Result) -> Released:
        return self.operations(previous), True

    def release_labelled(self, matches: Callable[[str], bool]) -> None:
        """Releases nothing: loopback has no state outside the container."""

    def status(self) -> None:
        """Checks nothing: it needs no more than a kernel."""


PLUGIN = Loopback
