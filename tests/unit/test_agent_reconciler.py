"""The reconciler, from events of a store to routes: on a model of the kernel's, which answers netlink messages."""

from __future__ import annotations

from errno import ENETUNREACH, ENODEV, ENOENT
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("prometheus_client", reason="podwired counts by it (pip install prometheus-client)")

from cni.agent.controllers.reconciler import Reconciler
from cni.agent.dataplane.state import PROTOCOL
from cni.agent.metrics import Metrics
from cni.agent.model.events import Changed, Configured, Failed, Held, Listed
from cni.agent.model.lease import Endpoint, Lease, Node
from cni.agent.model.network import parse_network_config
from cni.agent.node import flannel_rules
from cni.agent.node.publisher import Settings
from cni.agent.status.document import state_of
from cni.agent.status.snapshot import StoreState, take
from cni.agent.uplink.select import InterfaceSelector
from cni.kernel import rtnl, rtnl_overlay, rtnl_parse
from cni.kernel.netlink import NetlinkError, address, attribute, text, u32
from cni.kernel.rtnl_socket import RtnlSocket
from cni.protocol.address import parse_ip, parse_net

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cni.agent.model.events import StoreEvent
    from cni.agent.uplink.select import Underlay
    from cni.kernel.rtnl import Message
    from cni.protocol.address import Net

UPLINK, SPARE = 3, 4
KERNEL = 2  # RTPROT_KERNEL
CONFIG = parse_network_config(b'{"Network": "10.5.0.0/16", "Backend": {"Type": "host-gw"}}', "the test")
CONFIGURED = Configured(CONFIG)
TUNNELLED = parse_network_config(b'{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}', "the test")


def lease(number: int, ip: str = "") -> Lease:
    return Lease((Endpoint(parse_net(f"10.5.{number}.0/24"), parse_ip(ip or f"192.0.2.{number}")),), "host-gw")


OWN, TWO, THREE = lease(1), lease(2), lease(3)


def link(index: int, name: str, *, up: bool = True, mtu: int = 1500) -> bytes:
    head = rtnl.IFINFO.pack(0, 1, index, rtnl.IFF_UP if up else 0, 0)
    return head + text(rtnl.IFLA_IFNAME, name) + attribute(rtnl.IFLA_ADDRESS, bytes(6)) + u32(rtnl.IFLA_MTU, mtu)


def route(dst: str, index: int, gw: str = "", protocol: int = PROTOCOL) -> bytes:
    net = parse_net(dst)
    via = address(rtnl.RTA_GATEWAY, parse_ip(gw)) if gw else b""
    head = rtnl.RTMSG.pack(2, net.prefix, 0, 0, rtnl.RT_TABLE_MAIN, protocol, 0, rtnl.RTN_UNICAST, 0)
    return head + (address(rtnl.RTA_DST, net.ip) if net.prefix else b"") + via + u32(rtnl.RTA_OIF, index)


class ModelKernel(RtnlSocket):
    """A host's links, addresses and IPv4 routes by destination; routes to those in `refused` are errors."""

    def __init__(self) -> None:
        self._indexes, self._kept = {}, None
        self.state = {UPLINK: link(UPLINK, "eth0"), SPARE: link(SPARE, "eth1")}
        self.ips = {UPLINK: [parse_net("192.0.2.1/24")]}
        self.routes_by_dst = {
            parse_net("0.0.0.0/0"): route("0.0.0.0/0", UPLINK, "192.0.2.254", 3),
            parse_net("192.0.2.0/24"): route("192.0.2.0/24", UPLINK, "", KERNEL),
        }
        self.refused: set[Net] = set()
        self.written: list[str] = []

    def ask(self, kind: int, flags: int, payload: bytes) -> bytes:  # noqa: ARG002  # Netlink's
        assert kind == rtnl.RTM_GETLINK
        for link in self.state.values():
            if payload == rtnl.get_link(rtnl_parse.parse_link(link).name)[2]:
                return link
        raise NetlinkError(ENODEV, "")

    def take_change(self, kind: int, payload: bytes) -> None:
        """Changes a link or its addresses as somebody else does."""
        if kind == rtnl.RTM_NEWLINK:
            self.state[rtnl_parse.parse_link(payload).ifindex] = payload
            return
        info = rtnl_parse.parse_address(payload)
        others = [net for net in self.ips[info.ifindex] if net != info.address]
        self.ips[info.ifindex] = [*others, *([info.address] if kind == rtnl.RTM_NEWADDR else [])]

    def dump(self, kind: int, payload: bytes) -> list[bytes]:
        if kind == rtnl.RTM_GETLINK:
            return [*self.state.values()]
        if kind == rtnl.RTM_GETADDR:
            return [rtnl.new_address(index, net, 0)[2] for index, nets in self.ips.items() for net in nets]
        assert kind == rtnl.RTM_GETROUTE
        family, _, _, _, _, protocol, *_ = rtnl.RTMSG.unpack_from(payload)
        routes = self.routes_by_dst.values() if family == 2 else ()
        return [route for route in routes if not protocol or rtnl.RTMSG.unpack_from(route)[5] == protocol]

    def change_each(self, changes: Sequence[Message]) -> dict[int, NetlinkError]:
        answers = [self._take(message) for message in changes]
        return {position: error for position, error in enumerate(answers) if error is not None}

    def _take(self, message: Message) -> NetlinkError | None:
        kind, _, payload = message
        dst = rtnl_overlay.parse_kernel_route(payload).dst
        if dst in self.refused:
            return NetlinkError(ENETUNREACH, "")
        self.written.append(rtnl_overlay.described(message))
        if kind == rtnl.RTM_NEWROUTE:
            self.routes_by_dst[dst] = payload
        else:
            assert kind == rtnl_overlay.RTM_DELROUTE
            del self.routes_by_dst[dst]
        return None

    @property
    def peer_routes(self) -> dict[str, str]:
        """The agent's routes: the next hop by destination."""
        routes = map(rtnl_overlay.parse_kernel_route, self.routes_by_dst.values())
        return {
            route.dst.text: route.gw.text for route in routes if route.protocol == PROTOCOL and route.gw is not None
        }


class NoNetfilter:
    """A kernel without nftables."""

    def dump(self, *_: object) -> list[bytes]:
        raise NetlinkError(ENOENT, "")


class Host:
    def __init__(self) -> None:
        self.rtnl, self.netfilter = ModelKernel(), NoNetfilter()


class Instance:
    """An agent alone on its node."""

    name, predecessor = "podwired", ""

    def serve(self, vni: int | None) -> None:
        self.vni = vni


class Agent:
    """A reconciler with all that it reports."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "subnet.env"
        settings = Settings(
            instance=Instance(),  # type: ignore[arg-type]
            networks=(),
            selector=InterfaceSelector(),
            masquerades=False,
            fully_random=False,
            forwards=False,
            blackholes=False,
            filters=False,
            offloads=True,
            may_attach=lambda: self.may_attach,
            subnet_file=str(self.file),
        )
        self.host, self.metrics = Host(), Metrics()
        self.presented: list[Node] = []
        self.ready, self.statuses = 0, list[str]()
        self.may_attach = True
        self.reconciler = Reconciler(
            settings,
            self.host,  # type: ignore[arg-type]
            self.metrics,
            self.presented.append,
            self._note_ready,
            self.statuses.append,
        )

    def _note_ready(self) -> None:
        self.ready += 1

    @property
    def kernel(self) -> ModelKernel:
        return self.host.rtnl

    def handle(self, *events: StoreEvent) -> bool:
        """Returns True if the sync after the events, which has to be due, succeeded."""
        for event in events:
            self.reconciler.handle(event)
        assert self.reconciler.due_at == 0
        result = self.reconciler.sync()
        assert self.reconciler.due_at > 0
        return result

    def full_sync(self) -> bool:
        self.reconciler.request_full_sync()
        return self.handle()

    def metric(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(name) or 0.0


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Agent:
    monkeypatch.setattr(flannel_rules, "remove", lambda *_: [])
    return Agent(tmp_path)


def begin(agent: Agent, *peers: Lease) -> None:
    agent.reconciler.request_full_sync()
    assert agent.handle(CONFIGURED, Held(OWN), Listed({lease.key: lease for lease in (OWN, *peers)}))


def test_without_a_configuration_nothing_is_done(agent: Agent) -> None:
    assert agent.full_sync()
    assert (agent.presented, agent.ready, agent.kernel.written, agent.file.exists()) == ([], 0, [], False)


def test_the_store_is_presented_this_node_before_it_has_a_lease(agent: Agent) -> None:
    agent.handle(CONFIGURED)
    assert [[address.public_ip.text for address in node.addresses] for node in agent.presented] == [["192.0.2.1"]]
    agent.full_sync()
    assert len(agent.presented) == 1
    assert not agent.file.exists()


def test_events_become_routes_and_then_the_node_is_ready(agent: Agent) -> None:
    begin(agent, TWO, THREE)
    assert agent.kernel.peer_routes == {"10.5.2.0/24": "192.0.2.2", "10.5.3.0/24": "192.0.2.3"}
    assert "FLANNEL_SUBNET=10.5.1.1/24" in agent.file.read_text()
    assert (agent.ready, agent.statuses) == (1, [])
    assert agent.metric("podwired_peers") == 2


def test_pods_can_be_attached_before_the_peers_are_listed(agent: Agent) -> None:
    assert agent.handle(CONFIGURED, Held(OWN))
    assert "FLANNEL_SUBNET=10.5.1.1/24" in agent.file.read_text()
    assert agent.ready == 0
    assert agent.handle(Listed({OWN.key: OWN, TWO.key: TWO}))
    assert agent.ready == 1
    assert agent.metric("podwired_healed_total") == 0


def test_no_first_pod_is_attached_where_the_tunnel_cannot_be_made(agent: Agent) -> None:
    agent.kernel.state[SPARE] = link(SPARE, "flannel.1")  # not a tunnel
    agent.handle(Configured(TUNNELLED))
    [own] = [node.lease(OWN.subnets) for node in agent.presented]
    assert not agent.handle(Held(own), Listed({own.key: own}))
    assert (agent.file.exists(), agent.ready) == (False, 0)
    agent.file.write_text("FLANNEL_SUBNET=10.5.9.1/24\n")  # pods are attached already, and need what is true now
    assert not agent.full_sync()
    assert ("FLANNEL_SUBNET=10.5.1.1/24" in agent.file.read_text(), agent.ready) == (True, 0)


def test_the_first_pod_is_attached_once_policies_are_in_force(agent: Agent) -> None:
    agent.may_attach = False
    begin(agent, TWO)
    assert agent.kernel.peer_routes == {"10.5.2.0/24": "192.0.2.2"}
    agent.full_sync()
    assert (agent.ready, agent.file.exists()) == (0, False)
    agent.may_attach = True
    agent.handle()
    assert (agent.ready, agent.file.exists()) == (1, True)


def test_where_pods_were_attached_before_nothing_waits_for_policies(agent: Agent) -> None:
    agent.may_attach = False
    agent.file.write_text("FLANNEL_SUBNET=10.5.7.1/24")
    begin(agent, TWO)
    assert "FLANNEL_SUBNET=10.5.1.1/24" in agent.file.read_text()
    assert agent.ready == 1


def test_a_second_full_sync_writes_nothing(agent: Agent) -> None:
    begin(agent, TWO)
    agent.kernel.written.clear()
    assert agent.full_sync()
    assert agent.kernel.written == []
    assert (agent.ready, agent.metric("podwired_healed_total")) == (1, 0)


def test_a_changed_peer_costs_its_own_messages_and_no_dump(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(agent, TWO, THREE)
    agent.kernel.written.clear()
    with monkeypatch.context() as patch:
        patch.setattr(agent.kernel, "dump", lambda *_: pytest.fail("the kernel is asked for its state"))
        assert agent.handle(Changed({TWO.key: lease(2, "192.0.2.22")}), Changed({THREE.key: None}))
    assert sorted(agent.kernel.written) == [
        "ip route delete 10.5.3.0/24 via 192.0.2.3",
        "ip route replace 10.5.2.0/24 via 192.0.2.22",
    ]
    agent.kernel.written.clear()
    agent.full_sync()
    assert agent.kernel.written == []


def test_a_route_that_somebody_deleted_is_put_back_and_counted(agent: Agent) -> None:
    begin(agent, TWO)
    gone = agent.kernel.routes_by_dst.pop(TWO.subnets[0])
    disturbances = agent.reconciler.handle_links([(rtnl_overlay.RTM_DELROUTE, gone)])
    assert disturbances == ["the route to 10.5.2.0/24 has changed"]
    assert agent.full_sync()
    assert agent.kernel.peer_routes == {"10.5.2.0/24": "192.0.2.2"}
    assert agent.metric("podwired_healed_total") == 1


def test_the_agent_s_own_route_is_no_disturbance(agent: Agent) -> None:
    begin(agent, TWO)
    echo = agent.kernel.routes_by_dst[TWO.subnets[0]]
    assert agent.reconciler.handle_links([(rtnl.RTM_NEWROUTE, echo)]) == []


def test_the_state_names_the_peer_whose_route_the_kernel_refuses_until_it_has_it(agent: Agent) -> None:
    def states() -> dict[str, str]:
        seen = take("node1", StoreState("etcd"), agent.reconciler, None)
        assert (seen.lease, seen.underlay and seen.underlay.name) == (OWN, "eth0")
        assert seen.changed_at.keys() == seen.served.keys()
        return {key: state_of(lease, seen) for key, lease in seen.served.items()}

    begin(agent, TWO)
    assert states() == {TWO.key: "direct"}
    agent.kernel.refused = {THREE.subnets[0]}
    assert not agent.handle(Changed({THREE.key: THREE}))
    assert states() == {TWO.key: "direct", THREE.key: "failed"}
    assert not agent.full_sync()
    assert states() == {TWO.key: "direct", THREE.key: "failed"}
    agent.kernel.refused = set()
    assert agent.full_sync()
    assert states() == {TWO.key: "direct", THREE.key: "direct"}
    assert agent.handle(Changed({TWO.key: None}))
    assert states() == {THREE.key: "direct"}


def test_a_refused_route_fails_the_sync_and_harms_no_other(agent: Agent) -> None:
    begin(agent)
    agent.kernel.refused = {TWO.subnets[0]}
    assert not agent.handle(Changed({TWO.key: TWO}), Changed({THREE.key: THREE}))
    assert agent.kernel.peer_routes == {"10.5.3.0/24": "192.0.2.3"}
    agent.kernel.refused = set()
    assert agent.full_sync()
    assert agent.kernel.peer_routes == {"10.5.2.0/24": "192.0.2.2", "10.5.3.0/24": "192.0.2.3"}


def test_without_its_interface_a_node_is_not_ready_until_it_is_back(agent: Agent) -> None:
    begin(agent, TWO)
    agent.kernel.state[UPLINK] = link(UPLINK, "eth0", up=False)
    assert not agent.full_sync()
    assert agent.statuses == ["eth0 is down: other nodes are not reached"]
    agent.kernel.state[UPLINK] = link(UPLINK, "eth0")
    assert agent.full_sync()
    assert agent.statuses[1:] == [""]


LINK_CHANGES: dict[str, tuple[int, bytes]] = {
    "goes down": (rtnl.RTM_NEWLINK, link(UPLINK, "eth0", up=False)),
    "gets another MTU": (rtnl.RTM_NEWLINK, link(UPLINK, "eth0", mtu=1400)),
    "loses its address": (rtnl.RTM_DELADDR, rtnl.new_address(UPLINK, parse_net("192.0.2.1/24"), 0)[2]),
    "gets an address": (rtnl.RTM_NEWADDR, rtnl.new_address(UPLINK, parse_net("192.0.2.77/24"), 0)[2]),
}


@pytest.mark.parametrize("change", LINK_CHANGES)
@pytest.mark.parametrize("first", [True, False], ids=["first", "again"])
def test_what_happens_to_the_interface_during_a_sync_is_noticed_after_it(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, change: str, *, first: bool
) -> None:
    """The sync has decided by then, so the notification that comes after it is news."""
    kind, payload = LINK_CHANGES[change]
    if not first:
        begin(agent, TWO)
    choose = agent.reconciler.pinned.current

    def chosen(*arguments: Any) -> Underlay:
        underlay = choose(*arguments)
        agent.kernel.take_change(kind, payload)
        return underlay

    with monkeypatch.context() as patch:
        patch.setattr(agent.reconciler.pinned, "current", chosen)
        if first:
            begin(agent, TWO)
        else:
            agent.full_sync()
    assert agent.reconciler.handle_links([(kind, payload)]) != []


def test_a_node_whose_interface_is_down_from_the_start_is_not_ready(agent: Agent) -> None:
    agent.kernel.state[UPLINK] = link(UPLINK, "eth0", up=False)
    agent.reconciler.request_full_sync()
    assert not agent.handle(CONFIGURED, Held(OWN), Listed({OWN.key: OWN, TWO.key: TWO}))
    assert agent.ready == 0
    agent.kernel.state[UPLINK] = link(UPLINK, "eth0")
    assert agent.full_sync()
    assert agent.ready == 1


def test_a_store_that_fails_takes_nothing_away(agent: Agent) -> None:
    begin(agent, TWO)
    agent.reconciler.handle(Failed("503 Service Unavailable"))
    assert agent.reconciler.due_at > 0
    assert agent.metric("podwired_store_up") == 0
    assert agent.full_sync()
    assert agent.kernel.peer_routes == {"10.5.2.0/24": "192.0.2.2"}


def test_leases_that_cannot_be_served_are_counted(agent: Agent) -> None:
    begin(agent, TWO, lease(3, "127.0.0.1"))
    assert agent.kernel.peer_routes == {"10.5.2.0/24": "192.0.2.2"}
    assert agent.metric("podwired_refused_peers") == 1
    assert agent.handle(Changed({THREE.key: THREE}))
    assert agent.metric("podwired_refused_peers") == 0


def test_a_peer_that_no_network_of_this_node_leads_to_is_left_out(agent: Agent) -> None:
    begin(agent, lease(9, "198.51.100.9"))
    assert agent.kernel.peer_routes == {}
    assert agent.ready == 1


def test_routes_of_peers_that_went_while_the_agent_was_down_are_removed(agent: Agent) -> None:
    agent.kernel.routes_by_dst[parse_net("10.5.7.0/24")] = route("10.5.7.0/24", UPLINK, "192.0.2.7")
    begin(agent, TWO)
    assert agent.kernel.peer_routes == {"10.5.2.0/24": "192.0.2.2"}
