"""tuning: link settings of a container's interface, and sysctls of its namespace."""

from __future__ import annotations

from cni.config.tuning import parse_tuning
from cni.effects import tuning as kernel
from cni.plan import tuning
from cni.plan.tuning import SavedSettings, file_of
from cni.plugins.context import owner_of
from cni.protocol.address import IPV6_MTU
from cni.protocol.versions import MTU_SINCE, at_least

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.plan.operations import Operation
    from cni.plugins.chained import Released
    from cni.plugins.context import Call
    from cni.protocol.fields import ConfigErrors
    from cni.protocol.result import Result

ALLOWLIST_VERBS = ("ADD", "STATUS")  # the verbs that ask what is allowed


class Tuning:
    needs_netns = True
    prev_result_optional = False
    keeps_shared = False

    def __init__(self, call: Call, errors: ConfigErrors) -> None:
        allowlist = kernel.read_allowlist() if call.request.command in ALLOWLIST_VERBS else None
        self._call = call
        self._owner = owner_of(call)
        self._conf = parse_tuning(call.config, call.request, errors, allowlist)

    def operations(self, previous: Result) -> tuple[Operation, ...]:
        checking = self._call.request.command == "CHECK"
        conf = tuning.as_answered(self._conf, self._owner.ifname, previous) if checking else self._conf
        self._warn_of_mtu(previous)
        return tuning.operations(conf, self._owner)

    def _warn_of_mtu(self, previous: Result) -> None:
        """Warns that the MTU is too small for IPv6. The reference accepts it silently, so it is not an error."""
        mtu, lost = self._conf.settings.link.mtu, [ip.address.text for ip in previous.ips if ip.address.family == 6]
        if self._call.request.command == "ADD" and mtu and mtu < IPV6_MTU and lost:
            self._call.warn(
                f"mtu {mtu}: the kernel has no IPv6 on an interface with an MTU below {IPV6_MTU} (RFC 8200), so"
                f" {self._owner.ifname} loses {', '.join(lost)}"
            )

    def answer(self, previous: Result) -> Result:
        tells_mtu = at_least(self._call.config.version, MTU_SINCE)
        return tuning.answered(self._conf.settings.link, self._owner.ifname, previous, tells_mtu)

    def released(self, previous: Result) -> Released:
        """Returns the restoration of all that the attachment's file has saved, whatever the configuration says now."""
        del previous
        file = file_of(self._conf.data_dir, self._owner)
        return (SavedSettings(file, self._owner.label, self._owner.ifname),), True

    def release_labelled(self, matches: Callable[[str], bool]) -> None:
        """Removes the saved settings of containers that are gone."""
        kernel.release_labelled(self._conf.data_dir, matches)

    def status(self) -> None:
        """Checks nothing: it needs no more than a kernel."""


PLUGIN = Tuning
