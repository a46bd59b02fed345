"""The attachments of this node: from kept calls and from the aliases of host interfaces."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import click

from cni import HOST_LOCAL
from cni.diag.node.keptcalls import DAMAGED, KeptCall, kept_calls
from cni.diag.node.links import links
from cni.kernel import statefile
from cni.plan.alias import parse_alias
from cni.protocol.address import parse_net
from cni.protocol.owner import Owner, host_interface_of, label_keys
from cni.protocol.record import Record
from ipam.config import DATA_DIR

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cni.diag.node.links import Link
    from cni.effects.host import Host
    from cni.plan.alias import Alias

    Json = dict[str, Any]

OWN, FOREIGN, LOOPBACK = "podwire", "another plugin", "loopback"
PRESENT, GONE = "present", "gone"  # the host interface


class Attached(Record):
    """An attachment. `pod` is NAMESPACE/NAME or empty; `made_by` OWN or FOREIGN; `interface` PRESENT or GONE; `since`
    seconds (time.time), 0 where it is not known; `kept` None if all that is known is the alias.
    """

    owner: Owner
    pod: str
    program: str
    made_by: str
    addresses: tuple[str, ...]
    host_interface: str
    interface: str
    ports: tuple[str, ...]
    limits: tuple[str, ...]
    netns: str
    since: float
    kept: KeptCall | None

    @property
    def name(self) -> str:
        """Returns what people call it: the pod, else the container's ID."""
        return self.pod or self.owner.container_id

    def is_called(self, text: str) -> bool:
        """Returns True for a pod's name, with or without its Kubernetes namespace, the container's ID, a network
        namespace's path or name, the host interface, an address.
        """
        addresses = [address.partition("/")[0] for address in self.addresses]
        exact = (
            self.pod,
            self.pod.partition("/")[2],
            self.owner.container_id,
            self.netns,
            self.netns.rpartition("/")[2],
            self.host_interface,
        )
        return bool(text) and text in (*addresses, *exact)

    @property
    def members(self) -> Json:
        """Returns what --json prints of it."""
        network, container_id, ifname = self.owner
        shown = {"network": network, "containerID": container_id, "ifname": ifname, "pod": self.pod}
        rest = ("program", "made_by", "addresses", "host_interface", "interface", "ports", "limits", "netns", "since")
        return shown | {name: getattr(self, name) for name in rest}


SHORT = 6  # digits of an ID that are enough


def attachments(host: Host) -> list[Attached]:
    """Returns all attachments, by pod, container and interface. Raises OSError, also where records may not be read."""
    present = links()
    labelled = dict(_labelled(present))
    names = {link.name for link in present}
    seen = []
    for call in kept_calls(host).values():
        link = labelled.pop(call.owner.key, None)
        with contextlib.suppress(*DAMAGED):
            seen.append(_from_call(call, link, names))
    seen = [each for each in seen if each.interface == PRESENT or _leaves_traces(each)]
    seen += [_from_alias(link) for link in labelled.values()]
    return sorted(seen, key=lambda attached: (not attached.pod, attached.pod, *attached.owner))


def without_loopbacks(seen: Iterable[Attached]) -> list[Attached]:
    """Returns the attachments that others can reach: containerd and CRI-O keep one of `loopback` for each pod."""
    return [each for each in seen if each.program != LOOPBACK]


def _leaves_traces(attached: Attached) -> bool:
    """Returns True if an attachment whose interface is gone was not detached: its runtime has not forgotten it, or it
    still has a lease. Where a reference plugin has detached it, only podwire's record is left.
    """
    kept = attached.kept
    if kept is None or kept.by_runtime:
        return True
    owner = attached.owner
    for config in kept.configs:
        ipam = config.get("ipam")
        if isinstance(ipam, dict) and ipam.get("type") == HOST_LOCAL:
            folder = f"{ipam.get('dataDir') or DATA_DIR}/{owner.network}"
            leases = [statefile.read(f"{folder}/{text.partition('/')[0]}") for text in attached.addresses]
            if any((lease or b"").startswith(owner.container_id.encode()) for lease in leases):
                return True
    return False


def called(seen: Iterable[Attached], text: str) -> list[Attached]:
    """Returns the attachments of a name. An ID's first digits are one where nothing is called so."""
    attached = [*seen]
    exact = [each for each in attached if each.is_called(text)]
    return exact or [each for each in attached if len(text) >= SHORT and each.owner.container_id.startswith(text)]


def named(host: Host, names: Sequence[str]) -> list[Attached]:
    """Returns the attachments of these names, without names all. Raises OSError, click.UsageError."""
    seen = attachments(host)
    nobodys = [name for name in names if not called(seen, name)]
    if nobodys:
        raise click.UsageError(f"no attachment is called {', '.join(nobodys)} (podwire ps lists all)")
    wanted = [each for name in names for each in called(seen, name)]
    return [each for each in seen if each in wanted] if names else seen


def _labelled(present: Iterable[Link]) -> Iterator[tuple[str, Link]]:
    """Yields the host interfaces that podwire has made by the attachment's key."""
    for link in present:
        keys = label_keys(parse_alias(link.alias).label)
        if keys is not None and link.name == host_interface_of(keys[1]):
            yield keys[1], link


def _from_call(call: KeptCall, link: Link | None, names: set[str]) -> Attached:
    hosts = [item.get("name", "") for item in call.result.get("interfaces") or () if not item.get("sandbox")]
    pair = [name for name in hosts if name.startswith("veth")]
    if link is not None or call.by_podwire:
        name = call.owner.host_interface if link is None else link.name
        is_present = name in names
    else:  # without a pair (macvlan, loopback) the namespace decides
        name = pair[0] if pair else ""
        is_present = name in names if pair else not call.netns or os.path.exists(call.netns)
    ports, limits = [], []
    for config in call.configs:
        runtime = config.get("runtimeConfig") or {}
        ports += [_port(mapping) for mapping in runtime.get("portMappings") or ()]
        limits += _limits({**config, **(runtime.get("bandwidth") or {})})
    return Attached(
        call.owner,
        call.pod,
        call.program,
        OWN if link is not None or call.by_podwire else FOREIGN,
        tuple(filter(_is_address, [str(ip.get("address", "")) for ip in call.result.get("ips") or ()])),
        name,
        PRESENT if is_present else GONE,
        tuple(ports),
        tuple(limits),
        call.netns,
        call.since,
        call,
    )


def _is_address(text: str) -> bool:
    """Returns False for what no plugin answers: the file is damaged."""
    try:
        return bool(parse_net(text))
    except ValueError:
        return False


def _from_alias(link: Link) -> Attached:
    alias: Alias = parse_alias(link.alias)
    network, _, rest = alias.label.split(" ", 3)[-1].partition("/")
    container_id, _, ifname = rest.partition("/")
    addresses = tuple([address.text for address in alias.addresses])
    ports = tuple([mapping.text for mapping in alias.ports])
    owner = Owner(network, container_id, ifname)
    return Attached(owner, "", "", OWN, addresses, link.name, PRESENT, ports, (), "", 0.0, None)


def _port(mapping: Json) -> str:
    host_ip = mapping.get("hostIP") or ""
    host = f"[{host_ip}]:" if ":" in host_ip else f"{host_ip}:" if host_ip else ""
    protocol = mapping.get("protocol") or "tcp"
    return f"{host}{mapping.get('hostPort')}->{mapping.get('containerPort')}/{protocol.lower()}"


def _limits(config: Json) -> list[str]:
    """Returns rates in bits per second, with the direction as the plugin `bandwidth` names it."""
    return [f"{way} {_rate(config[key])}" for way in ("ingress", "egress") if config.get(key := f"{way}Rate")]


def _rate(bits: float) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if bits >= size:
            return f"{bits / size:g} {unit}bit/s"
    return f"{bits:g} bit/s"
