"""The reconciler: makes the kernel's state what follows from the store's events and from this node.

It is level-triggered: every full sync compares desired with actual state, so no event history is kept. Only a changed
lease of a peer is applied alone, so that it costs the same however many peers there are.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from cni.agent.backends import backend_of
from cni.agent.controllers.base import NEVER
from cni.agent.controllers.drift import Drift
from cni.agent.controllers.peerlog import PeerLog, fields_of
from cni.agent.dataplane import devices, routes
from cni.agent.dataplane.state import ForwardingState, NextHopLinks, difference, entry_of, forwarding_state
from cni.agent.logs import error_text, log
from cni.agent.model.cluster_state import ClusterState
from cni.agent.model.events import Failed, Held, StoreEvent
from cni.agent.model.lease import node_of
from cni.agent.node.publisher import NodePublisher
from cni.agent.runtime.instance import Occupied
from cni.agent.uplink.pinned import PinnedUnderlay
from cni.agent.uplink.select import NoUnderlay
from cni.effects.journal import FAILURES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cni.agent.controllers.base import AgentEvent, Notifications
    from cni.agent.dataplane.state import Entry
    from cni.agent.metrics import Metrics
    from cni.agent.model.lease import Endpoint, Lease, Node
    from cni.agent.model.network import NetworkConfig
    from cni.agent.model.peers import Peers
    from cni.agent.node.publisher import Settings
    from cni.agent.uplink.select import Underlay
    from cni.effects.host import Host
    from cni.kernel.rtnl import Message


class Reconciler:
    """One node's reconciler. `register` gives the store this node's part of its lease. `ready` is called once pods can
    be attached, `status` with the reason why other nodes' pods are unreachable, empty when they are reachable again.
    """

    def __init__(
        self,
        settings: Settings,
        host: Host,
        metrics: Metrics,
        register: Callable[[Node], None],
        ready: Callable[[], None],
        status: Callable[[str], None],
    ) -> None:
        self.drift = Drift(settings.instance.name)
        self.is_ready = False
        self._settings, self._host, self._metrics = settings, host, metrics
        self._register, self._ready, self._status = register, ready, status
        self.cluster = ClusterState()
        self.peer_log = PeerLog()
        self.links: dict[int, NextHopLinks] = {}
        self.refused: dict[int, set[Entry]] = {}  # by family: entries that the kernel refused since all were compared
        self.pinned = PinnedUnderlay(host.rtnl, settings.selector)
        self._node: Node | None = None
        self._publisher = NodePublisher(settings, host)
        self._networks = {*settings.networks}
        self._ensured: dict[int, tuple[int, bool]] = {}  # by family: the device's index, and if it was wanted before
        self._all_due = self._rules_due = self._failed = False
        self._blocks: list[str] = []  # what keeps all pods of other nodes from being reached
        self._wanted: dict[str, object] = {}  # the settings of things, as they were last made so

    @property
    def due_at(self) -> float:
        is_due = self._all_due or self._rules_due or self.cluster.has_changes or self._publisher.is_due
        return 0.0 if is_due else NEVER

    def handle(self, event: AgentEvent) -> None:
        """Takes in an event of the store of leases; `sync` acts on it."""
        if not isinstance(event, StoreEvent):
            return
        held = self.cluster.held
        self._all_due |= self.cluster.handle(event)
        if isinstance(event, Held):
            self._metrics.lease_expiry.set(event.expires or 0)
            if held is None or held.lease != event.lease:
                log.info("this node's lease: %s", fields_of(event.lease))
        self._metrics.store_up.set(not self.cluster.failure)
        if isinstance(event, Failed):
            self._metrics.errors.labels("store").inc()

    def handle_links(self, notifications: Notifications) -> list[str]:
        """Returns how changes of links, addresses, neighbours and routes disturb what is desired. Raises Malformed."""
        disturbances = [text for kind, payload in notifications if (text := self.drift.disturbed(kind, payload))]
        self._rules_due |= self.drift.take_pods()
        return disturbances

    def handle_rules(self, notifications: Notifications) -> None:
        """Takes in changes in nftables; `sync` acts on those that disturb what is desired. Raises Malformed."""
        if any(self.drift.elements_disturbed(kind, payload) for kind, payload in notifications):
            self.request_rules_sync()
        elif any(self.drift.rules_disturbed(kind, payload) for kind, payload in notifications):
            self._rules_due = True

    def request_full_sync(self) -> None:
        self._all_due = True

    def request_rules_sync(self) -> None:
        """Makes the next `sync` compare the rules, and the filter's sets with what the kernel has."""
        self._publisher.filter.forget()
        self._rules_due = True

    def sync(self) -> bool:
        """Does what is due. Returns False if some of it failed, and has to be tried again."""
        began = time.monotonic()
        extent, self._failed = "all" if self._all_due or self._publisher.is_held else "part", False
        self._try(self._sync_all if extent == "all" else self._sync_part)
        self._metrics.sync_seconds.labels(extent).observe(time.monotonic() - began)
        return not self._failed

    def _sync_all(self) -> None:
        self._all_due = self._rules_due = False
        was_ready, blocked, self._blocks = self.is_ready, self._blocks, []
        self._try(self._reconcile, blocks=True)
        if was_ready and self._blocks != blocked:
            self._status("; ".join(dict.fromkeys(self._blocks)))

    def _sync_part(self) -> None:
        self._sync_changed_peers()
        if self._rules_due:
            self._rules_due = False
            self._note_healed(self._publisher.ensure_rules())

    def _try(self, step: Callable[[], None], *, blocks: bool = False) -> bool:
        """Runs a step; a failure is logged and does not stop other steps. Returns True if it was done."""
        try:
            step()
        except NoUnderlay as error:
            self._fail("interface", str(error), blocks=blocks)
        except Occupied as error:
            if not self.is_ready:
                raise
            self._fail("instance", str(error))
        except FAILURES as error:
            self._fail("kernel", error_text(error), blocks=blocks)
        else:
            return True
        return False

    def _fail(self, where: str, text: str, *, blocks: bool = False) -> None:
        self._failed = True
        if blocks:
            self._blocks.append(text)
        self._metrics.errors.labels(where).inc()
        log.error("%s", text)

    def _reconcile(self) -> None:
        """Compares everything with the kernel's state, and applies the difference."""
        configured = self.cluster.configured
        if configured is None:
            return
        config = configured.config
        self._serve(config)
        self.drift.searches = True
        underlay = self.pinned.current(config, configured.public_ips)
        self.drift.searches = self.pinned.searches
        if self.pinned.error:
            self._fail("interface", self.pinned.error, blocks=True)
        node = node_of(config.backend, underlay.public_ips)
        if node != self._node:
            self._node = node
            self._register(node)
        own = self.cluster.lease_of(config, node)
        if own is None:
            return
        state = self.pinned.as_chosen(devices.link_state(self._host.rtnl, underlay.name))
        self.drift.links, self.drift.devices = {underlay.ifindex: state}, {}
        ensure = partial(self._ensure_device, config, underlay)
        ensured = [self._try(partial(ensure, endpoint), blocks=True) for endpoint in own.endpoints]
        published = self._try(partial(self._publish, config, underlay, own, all(ensured)), blocks=True)
        connected = [pair for family in config.families for pair in routes.connected_networks(self._host.rtnl, family)]
        peers = self.cluster.resolve_peers(config, own, tuple([net for net, _ in connected]))
        if peers is None:
            return
        self._count(peers)
        self.peer_log.note_all(peers)
        self._try(partial(self._publisher.filter.admit_all, peers.served.values()))
        self.drift.follow([(config.network(subnet.family), subnet) for subnet in own.subnets], connected)
        self.drift.routes_directly = backend_of(config.backend).routes_directly
        succeeded = [
            has_device and self._try(partial(self._reconcile_family, underlay, endpoint, peers), blocks=True)
            for has_device, endpoint in zip(ensured, own.endpoints, strict=True)
        ]
        self.drift.waits_for_link = not all(succeeded)
        self._remove_stale(config)
        self._publisher.filter.ports = self.drift.ports
        if published:
            self._end_publishing()

    def _serve(self, config: NetworkConfig) -> None:
        """Raises Occupied where another podwired serves the tunnel."""
        self._settings.instance.serve(backend_of(config.backend).vni)
        self._networks.update([config.network(family) for family in config.families])
        self.drift.networks = frozenset(self._networks)

    def _publish(self, config: NetworkConfig, underlay: Underlay, own: Lease, has_devices: bool) -> None:
        rules = self._publisher.rules
        done = self._publisher.publish(config, underlay, own, has_devices=has_devices)
        self._note_done("the firewall's rules", done, same=rules == self._publisher.rules)

    def _end_publishing(self) -> None:
        """Does what has to wait for the routes to peers."""
        self._publisher.install_conflist()
        for error in self._publisher.errors:
            self._fail("conflist", error, blocks=not self._publisher.is_published)
        if self._publisher.is_published and not self._blocks and not self.is_ready:
            self.is_ready = True
            self._ready()
        same = self._is_as_before("the firewall's rules", self._publisher.rules)
        self._note_done("the firewall's rules", self._publisher.ensure_rules(), same=same)

    def _remove_stale(self, config: NetworkConfig) -> None:
        """Removes devices and routes that the network had before it was changed."""
        names = [backend_of(config.backend).device_name(family) for family in config.families]
        for name in devices.remove_stale_devices(self._host.rtnl, self._settings.instance.name, names):
            log.info("removed %s: the network no longer uses it", name)
        for family in (4, 6):
            if family not in config.families:
                self.links.pop(family, None)
                self.drift.desired.pop(family, None)
                for text in routes.clear(self._host.rtnl, family, self._networks):
                    self._fail("kernel", text)

    def _count(self, peers: Peers) -> None:
        self._metrics.peers.set(len(peers.served))
        self._metrics.refused_peers.set(len(peers.errors))

    def _ensure_device(self, config: NetworkConfig, underlay: Underlay, own: Endpoint) -> None:
        rtnl_socket, settings, family, index, same = self._host.rtnl, self._settings, own.subnet.family, 0, True
        device = backend_of(config.backend).device(underlay, own, settings.instance.name, offloads=settings.offloads)
        if device is not None:
            index, done = device.ensure(rtnl_socket)
            same = self._is_as_before(device.name, device)
            self._note_done(device.name, done, same=same)
            self.drift.links[index] = device.as_ensured(devices.link_state(rtnl_socket, device.name))
            self.drift.devices[index] = family
        self._ensured[family] = index, same

    def _reconcile_family(self, underlay: Underlay, own: Endpoint, peers: Peers) -> None:
        rtnl_socket, family = self._host.rtnl, own.subnet.family
        index, same = self._ensured[family]
        direct = self.drift.routes_directly
        host_routes = routes.host_routes(rtnl_socket, underlay.ifindex, index, family) if direct else ()
        self.drift.other_links |= {ifindex for net, ifindex in host_routes if ifindex and net.prefix < net.ip.bits}
        self.links[family] = links = NextHopLinks(index, host_routes)
        wanted = self._forwarding_state(peers.served.values(), links, family)
        before, self.drift.desired[family] = self.drift.desired.get(family), wanted
        self.refused.pop(family, None)
        messages = difference(routes.read_forwarding_state(rtnl_socket, family, index, self._networks), wanted, links)
        if count := len(messages) - self._apply(messages, family):
            # The kernel takes entries away from a device that is given another MAC address.
            same = same and before is not None and before.is_same(wanted)
            self._note_done(f"{count} entries of IPv{family}", [f"{count} entries of IPv{family} differed"], same=same)
        blackholes = (own.subnet,) if self._settings.blackholes else ()
        routes.ensure_blackhole_routes(rtnl_socket, family, blackholes, self._networks)

    def _forwarding_state(self, leases: Iterable[Lease], links: NextHopLinks, family: int) -> ForwardingState:
        endpoints = [endpoint for endpoint in [lease.endpoint(family) for lease in leases] if endpoint is not None]
        state = forwarding_state(endpoints, links)
        for endpoint in state.unreachable:
            log.warning("no direct route to %s: cannot reach %s", endpoint.public_ip.text, endpoint.subnet.text)
        return state

    def _apply(self, messages: list[Message], family: int) -> int:
        """Sends the messages; returns the number of those that failed."""
        self._metrics.writes.inc(len(messages))
        refusals = routes.apply(self._host.rtnl, messages)
        for refusal in refusals:
            self._fail("kernel", refusal.text)
        self.refused.setdefault(family, set()).update(filter(None, [entry_of(each.message) for each in refusals]))
        return len(refusals)

    def _is_as_before(self, name: str, wanted: object) -> bool:
        before, self._wanted[name] = self._wanted.get(name), wanted
        return before == wanted

    def _note_done(self, subject: str, done: list[str], *, same: bool) -> None:
        """Logs what was done: with the same settings as before it is a repair, else it follows from the new ones."""
        if done and same:
            self._note_healed(done)
        elif done:
            log.info("set up %s", subject)
            log.debug("%s", "; ".join(done))

    def _note_healed(self, done: list[str]) -> None:
        for repair in done:
            log.info("healed: %s", repair)
        if done:
            self._metrics.healed.inc()

    def _sync_changed_peers(self) -> None:
        """Applies the changes of single peers, without asking the kernel for its state."""
        before, peers = self.cluster.take_changes()
        if peers is None:
            return
        after = {key: peers.served.get(key) for key in before}
        self._try(partial(self._publisher.filter.admit, [*filter(None, after.values())]))
        for family, links in self.links.items():
            old, new = (
                self._forwarding_state(filter(None, leases.values()), links, family) for leases in (before, after)
            )
            new.fdb.update(vtep for vtep in old.fdb if peers.is_used(*vtep))  # by another lease
            self._apply(difference(old, new, links), family)
            self.drift.desired[family].replace(old, new)
        self._try(partial(self._publisher.filter.dismiss, [*filter(None, before.values())]))
        self._count(peers)
        self.peer_log.note(peers, before)
