"""bandwidth: rate limits for a container that another plugin has attached by a veth pair."""

from __future__ import annotations

from cni.config.bandwidth import parse_bandwidth
from cni.plan import bandwidth
from cni.plan.bandwidth import Ifb, ifb_mac, ifb_name
from cni.plugins.context import owner_of
from cni.protocol.errors import CheckFailed, OperationFailed
from cni.protocol.versions import MTU_SINCE, at_least

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.plan.operations import Operation
    from cni.plugins.chained import Released
    from cni.plugins.context import Call
    from cni.protocol.fields import ConfigErrors
    from cni.protocol.result import Result

REFERENCE_PREFIX, REFERENCE_LENGTH = "bwp", 15


class Bandwidth:
    needs_netns = True
    prev_result_optional = False
    keeps_shared = False

    def __init__(self, call: Call, errors: ConfigErrors) -> None:
        self._call = call
        self._owner = owner_of(call)
        self._conf = parse_bandwidth(call.config.fields(errors))

    def operations(self, previous: Result) -> tuple[Operation, ...]:
        if not (self._conf.ingress or self._conf.egress):
            return ()
        return bandwidth.operations(self._conf, self._owner, self._host_interface(previous), paired=False)

    def _host_interface(self, previous: Result) -> str:
        """Returns the host's interface in the result that is the veth peer of the container's.

        Raises OperationFailed, for CHECK CheckFailed.
        """
        host, ifname = self._call.host, self._call.request.ifname
        inside = host.container_rtnl.find(ifname)
        peer = inside.peer if inside is not None else -1
        for interface in previous.interfaces:
            link = host.rtnl.find(interface.name) if not interface.sandbox else None
            if link is not None and link.ifindex == peer and link.kind == "veth":
                return interface.name
        text = f"prevResult.interfaces names no veth peer of {ifname} on the host: bandwidth can limit veth pairs only"
        if self._call.request.command == "CHECK":
            raise CheckFailed(text)
        raise OperationFailed(text)

    def answer(self, previous: Result) -> Result:
        added = bandwidth.interfaces(self._conf, self._owner)
        if at_least(self._call.config.version, MTU_SINCE):
            added = tuple([ifb.with_mtu(self._call.host.rtnl.need(ifb.name).mtu) for ifb in added])
        return previous._replace(interfaces=previous.interfaces + added)

    def released(self, previous: Result) -> Released:
        """Returns the ifb and the one that the reference makes; the rest goes with the host's interface."""
        del previous
        names = (ifb_name(self._owner), self._reference_name())
        return tuple([Ifb(name, ifb_mac(self._owner), "", self._owner.label, paired=False) for name in names]), False

    def _reference_name(self) -> str:
        """Returns the ifb's name in the reference plugin (plugins/meta/bandwidth, getIfbDeviceName)."""
        from hashlib import sha512

        hashed = sha512((self._owner.network + self._owner.container_id).encode()).hexdigest()
        return f"{REFERENCE_PREFIX}{hashed}"[:REFERENCE_LENGTH]

    def release_labelled(self, matches: Callable[[str], bool]) -> None:
        """Deletes ifb links only: a veth pair belongs to the plugin that created it."""
        rtnl = self._call.host.rtnl
        for name in [link.name for link in rtnl.links() if link.kind == "ifb" and matches(link.alias)]:
            rtnl.delete(name)

    def status(self) -> None:
        """Checks nothing: the kernel loads its modules (ifb, sch_tbf) on demand."""


PLUGIN = Bandwidth
