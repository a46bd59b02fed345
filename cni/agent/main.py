"""podwired's entry: from a command line to the running agent."""

from __future__ import annotations

import gc
import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

from cni import VERSION
from cni.agent.cli.flags import InvalidOptions
from cni.agent.cli.options import HelpRequested, parse_options
from cni.agent.controllers.inquiries import Inquiries
from cni.agent.controllers.reconciler import Reconciler
from cni.agent.controllers.status import StatusBoard
from cni.agent.dataplane import devices, policy_table, port_isolation, routes
from cni.agent.logs import configure, enable_debug, error_text, finish, log
from cni.agent.metrics import Metrics
from cni.agent.node import conflist, connections, files, masquerade, podrecords, subnetenv
from cni.agent.node.publisher import Settings
from cni.agent.runtime.control import open_control, remove_left_over
from cni.agent.runtime.health import Health, notify
from cni.agent.runtime.inotify import Files
from cni.agent.runtime.instance import NAME, Instance, Occupied
from cni.agent.runtime.loop import EventQueue, Loop, kernel_events
from cni.agent.uplink.select import local_addresses
from cni.effects.host import Host, has_ipv6
from cni.effects.journal import FAILURES
from cni.kernel.rtnl_socket import RtnlSocket
from cni.plan import sourcecheck
from cni.protocol.address import parse_net
from cni.protocol.control import ALLOWED, DENIED, socket_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cni.agent.cli.options import Options
    from cni.agent.controllers.base import Controller
    from cni.agent.controllers.policy import PolicyController
    from cni.agent.model.events import Store
    from cni.agent.policy.events import PolicyStore
    from cni.agent.runtime.loop import EventStore
    from cni.config.flannel import SubnetEnv
    from cni.plan.nftrule import Rule
    from cni.protocol.address import IP, Net

EVERYWHERE = parse_net("0.0.0.0/0"), parse_net("::/0")
COLLECT_AFTER = 50_000  # new objects: a page of the Kubernetes API has as many, and none of them is garbage
UNLABELLED = "established connections are not cut: the kernel has no CONFIG_NF_CONNTRACK_LABELS"
UNLOGGED = "denied packets are not logged: the kernel has no nfnetlink_log (modules nft_log and nfnetlink_log)"
USAGE = 2  # the exit status for a command line that cannot be followed


def run(arguments: Sequence[str], environment: Mapping[str, str], answer: Callable[[str], None]) -> int:
    """Runs podwired and returns the exit status; an error before the agent runs is logged as one line."""
    configure()
    gc.set_threshold(COLLECT_AFTER)
    try:
        return _run(arguments, environment, answer)
    finally:
        finish()


def _run(arguments: Sequence[str], environment: Mapping[str, str], answer: Callable[[str], None]) -> int:
    try:
        options = parse_options([*arguments], environment)
    except HelpRequested as asked:
        answer(str(asked))
        return 0
    except InvalidOptions as invalid:
        log.error("%s", invalid)
        return USAGE
    if options.debug:
        enable_debug()
    for notice in options.notices:
        log.warning("%s", notice)
    host, instance = Host(environment, log.warning), Instance(options.subnet_file)
    try:
        instance.begin()
        return (clean_up if options.cleanup else serve)(options, host, instance)
    except Occupied as occupied:
        log.error("%s", occupied)
        return 1
    except FAILURES as error:
        log.error(
            "%s (podwired needs CAP_NET_ADMIN)" if isinstance(error, PermissionError) else "%s", error_text(error)
        )
        return 1
    except Exception as error:  # noqa: BLE001  # a defect, which is logged as any other error
        log.critical("%s", error_text(error))
        log.debug("traceback", exc_info=error)
        return 1
    finally:
        host.close()


def serve(options: Options, host: Host, instance: Instance) -> int:
    """Runs the agent until a signal ends it; routes and devices are kept."""
    if absent := absent_packages(options):
        log.error("Python packages are not installed: %s (pip install %s)", ", ".join(absent), " ".join(absent))
        return 1
    log.info("podwired %s", VERSION)
    metrics = Metrics()
    health = Health(metrics)
    board = StatusBoard(options.node_name or os.uname().nodename, options.store, health)
    health.show(board)
    metrics.count_node(board.peers_by_state, board.address_use)
    metrics.count_connections(connections.entries, connections.limit)
    policies, controllers, stores = _policies(options, host, instance, metrics, health)
    controllers.append(
        Inquiries(host, board.document_now, policies, ALLOWED if options.policy_unknown_open else DENIED)
    )
    stores += open_control(options.control_socket or socket_path(instance.name))
    if options.healthz_port:
        health.start(options.healthz_ip.text, options.healthz_port)

    def ready() -> None:
        metrics.ready.set(1)
        health.error = ""
        notify("READY=1")
        log.info("ready: pods can be attached")
        store.ready()

    def status(error: str) -> None:
        metrics.ready.set(not error)
        health.error = error
        if error:
            log.warning("not ready: %s", error)
        else:
            log.info("ready again")

    before = subnetenv.read(options.subnet_file)
    store = open_store(options, before.subnets if before is not None else ())
    settings = _settings(
        options, instance, before, lambda: policies is None or options.policy_unknown_open or policies.in_force
    )
    reconciler = Reconciler(settings, host, metrics, store.register, ready, status)
    files = Files((options.subnet_file, *((options.conflist.path,) if options.conflist is not None else ())))
    board.follow(reconciler, policies)
    Loop([reconciler, *controllers, board], [store, *stores], EventQueue(), kernel_events(host), files).run()
    notify("STOPPING=1")
    log.info("shutting down: routes and devices are kept")
    return 0


def _settings(
    options: Options, instance: Instance, before: SubnetEnv | None, may_attach: Callable[[], bool]
) -> Settings:
    """`before`: the subnet file as the agent left it when it last ran."""
    return Settings(
        instance=instance,
        networks=before.networks if before is not None else (),
        selector=options.selector,
        masquerades=options.ip_masq,
        fully_random=options.random_fully,
        forwards=options.forward_rules,
        blackholes=options.blackhole_route,
        filters=options.tunnel_filter,
        offloads=options.tunnel_checksum_offload,
        may_attach=may_attach,
        subnet_file=options.subnet_file,
        conflist=options.conflist,
    )


def _policies(
    options: Options, host: Host, instance: Instance, metrics: Metrics, health: Health
) -> tuple[PolicyController | None, list[Controller], list[EventStore]]:
    """Returns the controller of policies, all controllers and the stores that they need. If policies are off there are
    none, and what an earlier run left is removed. Raises Occupied.
    """
    if not options.network_policy:
        remove_policies(host, instance)
        return None, [], []
    from cni.agent.controllers.denials import Denials
    from cni.agent.controllers.policy import PolicyController
    from cni.agent.dataplane.policy_counters import add_counters
    from cni.agent.policy.basetable import LABELLING, LOGGING, TableOptions
    from cni.agent.runtime.packetlog import DeniedPackets

    instance.hold_policies()

    def status(error: str) -> None:
        health.policy_error = error

    families = (4, 6) if has_ipv6() else (4,)
    table = TableOptions(
        families,
        log=options.logs_denied and _supports(host, LOGGING, UNLOGGED),
        revoke=not options.keeps_established and _supports(host, LABELLING, UNLABELLED),
        open=options.policy_unknown_open,
        opens_node=options.opens_node,
        checks_sources=_can_check_sources(host),
    )
    store = open_policy_store(options)
    policies = PolicyController(host, metrics, store, table, status)
    controllers: list[Controller] = [policies]
    stores: list[EventStore] = [store]
    add_counters(metrics, of_rules=options.policy_counters)
    metrics.note_watches(store.heard)
    if table.log:
        controllers.append(Denials(policies.index))
        stores.append(DeniedPackets())
    return policies, controllers, stores


def _supports(host: Host, rule: Rule, lack: str) -> bool:
    """Returns False, and says what is lacking, where the kernel refuses a rule. Raises NetlinkError, OSError."""
    if policy_table.is_supported(host.netfilter, rule):
        return True
    log.warning("NetworkPolicy: %s", lack)
    return False


def _can_check_sources(host: Host) -> bool:
    """Returns False, and says what is lacking, where ADD could not load the source check. Raises OSError."""
    parts = [part for routed in (False, True) for part in sourcecheck.rulesets(routed=routed)]
    lacks = filter(None, [policy_table.lack_of(host.netfilter, part.content()) for part in parts])
    if lack := "; ".join(lacks):
        log.warning(
            "NetworkPolicy: %s: not supported by the kernel: sources of pods are not checked (ipSpoofCheck)", lack
        )
        return False
    return True


def open_policy_store(options: Options) -> PolicyStore:
    if options.kube is not None:
        from cni.agent.stores.policy.kube import KubePolicyStore

        return KubePolicyStore(options.kube)
    from cni.agent.stores.policy.files import PolicyFiles

    return PolicyFiles(options.policy_files, options.node_name or os.uname().nodename)


def remove_policies(host: Host, instance: Instance) -> None:
    """Removes the table of policies, unless another podwired enforces them. Raises NetlinkError, OSError."""
    is_present = policy_table.is_present(host)
    if not (is_present or os.path.exists(host.pod_records)):
        return
    try:
        instance.hold_policies()
    except Occupied:
        return
    port_isolation.end(host)
    podrecords.remove(host.pod_records)  # first: an ADD that finds no folder makes nothing pending
    if is_present:
        policy_table.remove(host.netfilter)
        log.info("removed table %s: NetworkPolicy is not enforced", policy_table.TITLE)
    instance.release_policies()


def absent_packages(options: Options) -> list[str]:
    """Names what these options need and only the bundle brings: an installation by pip may have left it out."""
    wanted = {"prometheus-client": "prometheus_client"}
    if options.etcd is not None or options.kube is not None:
        wanted["urllib3"] = "urllib3"
    if (options.kube is not None and options.kube.kubeconfig) or (options.network_policy and options.policy_files):
        wanted["PyYAML"] = "yaml"
    return [package for package, module in wanted.items() if find_spec(module) is None]


def open_store(options: Options, subnets: tuple[Net, ...]) -> Store:
    """`subnets`: those that this node had when the agent last ran."""
    if options.kube is not None:
        from cni.agent.stores.kube.store import KubeStore

        return KubeStore(options.kube)
    if options.etcd is None:
        from cni.agent.stores.static import StaticStore

        return StaticStore(options.nodes_file, options.node_name, os.uname().nodename, addresses_now)
    from cni.agent.stores.etcd.store import EtcdStore

    return EtcdStore(options.etcd, subnets)


def _others(host: Host, instance: Instance) -> bool:
    """Returns True if another podwired has something on this node: then a route may be its own."""
    names = {link.alias for link in host.rtnl.links()} | masquerade.tables(host)
    return any(name.startswith(NAME) for name in names - {instance.name})


def addresses_now() -> set[IP]:
    """Returns the host's addresses, by a socket of its own: another thread calls this."""
    rtnl_socket = RtnlSocket()
    try:
        return local_addresses(rtnl_socket)
    finally:
        rtnl_socket.close()


def clean_up(options: Options, host: Host, instance: Instance) -> int:
    """Removes what the agent has made on this node, in the kernel and on disk; the lease stays in the store."""
    refused = conflist.remove(options.conflist) if options.conflist is not None else []
    before = subnetenv.read(options.subnet_file)
    for name in devices.remove_stale_devices(host.rtnl, instance.name, ()):
        log.info("removed %s", name)
    networks = before.networks if before is not None else ()
    routed = networks or (() if _others(host, instance) else EVERYWHERE)
    refused += [text for family in (4, 6) for text in routes.clear(host.rtnl, family, routed)]
    for text in refused:
        log.error("%s", text)
    masquerade.remove(host, instance.name, networks)
    remove_policies(host, instance)
    files.remove(options.subnet_file)
    remove_left_over(options.control_socket or socket_path(instance.name))
    instance.forget()
    return 1 if refused else 0
