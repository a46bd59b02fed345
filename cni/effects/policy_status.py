"""STATUS of NetworkPolicy: where podwired does not run, pods that wait for it are told of."""

from __future__ import annotations

import posix as os  # see cni/__init__.py
from time import time

from cni.effects.policy import is_open, is_running, read_record
from cni.kernel import nft, rtnl_parse
from cni.kernel.netlink import NetlinkError
from cni.plan.policy import IN, TABLE, map_name, new_map, pending_chain
from cni.protocol.errors import PluginNotAvailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.effects.host import Host
    from cni.kernel.nft import Element
    from cni.protocol.address import IP

GRACE_SECONDS = 30.0  # podwired may be restarting: a node that is not ready for that would lose its services


def refuse_absence(host: Host) -> None:
    """Raises PluginNotAvailable if podwired does not run and a pod has been closed for longer than it takes to restart
    podwired. An address that is pending without a record is nobody's.
    """
    if is_open(host) or is_running(host):
        return
    for ip in _pending(host):
        path = f"{host.pod_records}/{ip.text}"
        record = read_record(path)
        if record is None:
            continue
        try:
            seconds = time() - os.stat(path).st_mtime
        except OSError:  # a DEL
            continue
        if seconds > GRACE_SECONDS:
            raise PluginNotAvailable(
                "NetworkPolicy: podwired is not running, so new pods stay closed:"
                f" {'/'.join(filter(None, (record.namespace, record.name)))} ({ip.text}) has waited for {seconds:.0f} s"
                " (start podwired; started without --network-policy it removes the table)"
            )


def _pending(host: Host) -> list[IP]:
    """Returns the addresses that are pending and have no class as new pods either."""
    pending = []
    for name in (map_name(IN, 4), map_name(IN, 6)):
        elements = _elements(host, name)
        judged = {element.key for element in _elements(host, new_map(name))} if elements else set()
        keys = [element.key for element in elements if element.chain == pending_chain(IN)]
        pending += [rtnl_parse.ip_of(key) for key in keys if key not in judged]
    return pending


def _elements(host: Host, name: str) -> list[Element]:
    """Returns the elements of a map; none if there is no such map. Raises NetlinkError."""
    try:
        answers = host.netfilter.dump(*nft.all_elements(nft.SetRef(nft.NFPROTO_INET, TABLE, name)))
    except NetlinkError as error:
        if error.errno not in nft.NOT_FOUND_OR_EINVAL:
            raise
        return []
    return [element for answer in answers for element in nft.each_element(answer)]
