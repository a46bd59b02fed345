"""podwired's command line, checked: what is to be done on this node, and where its store is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cni import VERSION
from cni.agent.cli.flags import BY_NAME, FlagSet, usage
from cni.agent.node.conflist import SUFFIX, Conflist
from cni.agent.stores.etcd.options import EtcdOptions
from cni.agent.stores.kube.nodes import annotation_prefix
from cni.agent.stores.kube.options import KubeOptions
from cni.agent.uplink.select import InterfaceSelector
from cni.protocol.address import IP, PORT_LIMIT
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping


PROGRAM = "podwired"
INTEGERS = (-(1 << 31), (1 << 31) - 1)
OPEN = "open"
UNKNOWN = ("closed", OPEN)  # what pods are that podwired does not know yet
NODE_EGRESS = ("judged", OPEN)  # what pods send to their own node
KEEP = "keep"
ESTABLISHED = ("cut", KEEP)  # what becomes of connections that policies no longer allow
DENIED = "denied"
LOGGED = ("off", DENIED)  # packets that are logged
DAY = 24 * 60  # minutes: what a lease lasts
PAIRS = (("etcd-certfile", "etcd-keyfile"), ("etcd-username", "etcd-password"))
STORES = "--etcd-endpoints, --nodes-file or --kube-subnet-mgr chooses one"
WITHOUT_EFFECT = ("iptables-resync", "vmodule", "log_backtrace_at")
KUBE = ("kube-api-url", "kubeconfig-file", "kube-annotation-prefix", "net-config-path", "set-node-network-unavailable")


class HelpRequested(Exception):
    """The text is all that was asked for: help, or the version."""


class Options(Record):
    """The options of one run. Without `kube` and `etcd` the store is the nodes file; `conflist` is None if podwired
    installs none; `policy_files` is empty where policies are those of Kubernetes; `control_socket` is empty
    where its path follows from the subnet file; `healthz_port` 0 disables the server;
    `notices` are to be logged.
    """

    kube: KubeOptions | None
    etcd: EtcdOptions | None
    nodes_file: str
    node_name: str
    selector: InterfaceSelector
    subnet_file: str
    conflist: Conflist | None
    ip_masq: bool
    random_fully: bool
    forward_rules: bool
    blackhole_route: bool
    tunnel_filter: bool
    tunnel_checksum_offload: bool
    network_policy: bool
    policy_files: str
    policy_unknown_open: bool
    logs_denied: bool
    policy_counters: bool
    control_socket: str
    keeps_established: bool
    opens_node: bool
    healthz_ip: IP
    healthz_port: int
    debug: bool
    cleanup: bool
    notices: tuple[str, ...]

    @property
    def store(self) -> str:
        """The kind of the store of leases, for people."""
        if self.kube is not None:
            return "kubernetes"
        return "etcd" if self.etcd is not None else "nodes file"


def parse_options(arguments: list[str], environment: Mapping[str, str]) -> Options:
    """Parses flags, which precede variables of the environment. Raises HelpRequested, InvalidOptions."""
    given = FlagSet(arguments, environment)
    if given.boolean("help"):
        raise HelpRequested(usage(PROGRAM))
    if given.boolean("version"):
        raise HelpRequested(f"{PROGRAM} {VERSION}")
    in_kube = given.boolean("kube-subnet-mgr")
    options = Options(
        kube=_kube(given, environment) if in_kube else None,
        etcd=None if in_kube else _etcd(given),
        nodes_file=given.text("nodes-file"),
        node_name=given.text("node-name") or environment.get("NODE_NAME", ""),
        selector=_selector(given),
        subnet_file=given.required("subnet-file"),
        conflist=_conflist(given),
        ip_masq=given.boolean("ip-masq"),
        random_fully=not given.boolean("ip-masq-fully-random-disable"),
        forward_rules=given.boolean("iptables-forward-rules"),
        blackhole_route=given.boolean("ip-blackhole-route"),
        tunnel_filter=given.boolean("tunnel-filter"),
        tunnel_checksum_offload=given.boolean("tunnel-checksum-offload"),
        network_policy=given.boolean("network-policy"),
        policy_files=_policy_files(given, in_kube=in_kube),
        policy_unknown_open=_choice(given, "policy-unknown", UNKNOWN) == OPEN,
        logs_denied=_choice(given, "policy-log", LOGGED) == DENIED,
        policy_counters=given.boolean("policy-counters"),
        control_socket=given.text("control-socket"),
        opens_node=_choice(given, "policy-node-egress", NODE_EGRESS) == OPEN,
        keeps_established=_choice(given, "policy-established", ESTABLISHED) == KEEP,
        healthz_ip=given.ip("healthz-ip") or IP(4, 0),
        healthz_port=given.number("healthz-port", 0, PORT_LIMIT),
        debug=given.number("v", *INTEGERS) > 0,
        cleanup=given.boolean("cleanup"),
        notices=_notices(given, in_kube=in_kube),
    )
    given.raise_if_any()
    return options


def _selector(given: FlagSet) -> InterfaceSelector:
    import re

    patterns = given.texts("iface-regex")
    named_class = re.compile(r"\[:\^?[a-z]+:\]")  # Python would read it as a set of letters
    for pattern in patterns:
        if named_class.search(pattern):
            given.error("iface-regex", f"{pattern!r} has a class such as [:digit:], which is not known: write 0-9")
            continue
        try:
            re.compile(pattern, re.ASCII)
        except (re.error, OverflowError, RecursionError) as error:
            given.error("iface-regex", f"{pattern!r} is not a regular expression: {error}")
    publics = given.ip("public-ip", 4), given.ip("public-ipv6", 6)
    return InterfaceSelector(
        names=given.texts("iface"),
        patterns=patterns,
        can_reach=given.ip("iface-can-reach"),
        public_ips=tuple([ip for ip in publics if ip is not None]),
    )


def _conflist(given: FlagSet) -> Conflist | None:
    source = given.text("conflist")
    if not source:
        if given.source("conflist-dir"):
            given.error("conflist-dir", "needs --conflist as well")
        return None
    path = os.path.join(given.required("conflist-dir"), os.path.basename(source))
    if not source.endswith(SUFFIX):
        given.error("conflist", f"{source!r} does not end in {SUFFIX}, by which a runtime knows a list of plugins")
    elif os.path.abspath(path) == os.path.abspath(source):
        given.error("conflist", f"{source} is where the runtime looks already")
    return Conflist(source, path)


def _policy_files(given: FlagSet, *, in_kube: bool) -> str:
    folder = given.text("policy-files")
    if given.boolean("network-policy"):
        if folder and in_kube:
            given.error("policy-files", f"does not go together with {given.source('kube-subnet-mgr')}")
        elif not (folder or in_kube):
            given.error("network-policy", "needs --policy-files as well, or --kube-subnet-mgr")
    elif folder:
        given.notice("policy-files", "has no effect without --network-policy")
    return folder


def _choice(given: FlagSet, name: str, values: tuple[str, ...]) -> str:
    text = given.text(name)
    if text not in values:
        given.error(name, f"{text!r} is neither {' nor '.join(values)}")
    return text


def _etcd(given: FlagSet) -> EtcdOptions | None:
    if given.text("nodes-file"):
        for name in [name for name in BY_NAME if name.startswith("etcd-") and given.source(name)]:
            given.error(name, f"does not go together with {given.source('nodes-file')}, which stands in for etcd")
        return None

    for flag, other in PAIRS:
        if bool(given.text(flag)) != bool(given.text(other)):
            present, absent = (flag, other) if given.text(flag) else (other, flag)
            given.error(present, f"needs --{absent} as well")
    prefix = given.required("etcd-prefix")
    cleaned = "".join([f"/{part}" for part in prefix.split("/") if part])
    secure = bool(given.text("etcd-cafile") or given.text("etcd-certfile"))
    texts = [text.strip() for text in given.text("etcd-endpoints").split(",")]
    return EtcdOptions(
        endpoints=tuple([_endpoint(given, text, secure) for text in texts]),
        prefix=cleaned if prefix.startswith("/") else cleaned[1:],
        cafile=given.text("etcd-cafile"),
        certfile=given.text("etcd-certfile"),
        keyfile=given.text("etcd-keyfile"),
        username=given.text("etcd-username"),
        password=given.text("etcd-password"),
        renew_margin=given.number("subnet-lease-renew-margin", 1, DAY - 1),
    )


def _kube(given: FlagSet, environment: Mapping[str, str]) -> KubeOptions:
    if given.text("nodes-file"):
        given.error("nodes-file", f"does not go together with {given.source('kube-subnet-mgr')}")
    kubeconfig, server = given.text("kubeconfig-file"), given.text("kube-api-url")
    host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT") or "443"
    if not (kubeconfig or server or host):
        given.error("kubeconfig-file", "missing: outside of a pod it, or --kube-api-url, says where the API server is")
    if "@" in server:  # a password perhaps, not to be shown
        given.error("kube-api-url", "has a user: that is for --kubeconfig-file")
    elif server and not server.startswith(("http://", "https://")):
        given.error("kube-api-url", f"{server!r} is not a server, as https://10.0.0.1:6443 is")
    name = given.text("node-name") or environment.get("NODE_NAME", "")
    pod = environment.get("POD_NAMESPACE", ""), environment.get("POD_NAME", "")
    if not (name or all(pod)):
        given.error("node-name", "missing, and no variable says it: NODE_NAME, or POD_NAMESPACE and POD_NAME")
    prefix = given.required("kube-annotation-prefix")
    try:
        prefix = annotation_prefix(prefix) if prefix else ""
    except ValueError as error:
        given.error("kube-annotation-prefix", str(error))
    return KubeOptions(
        node_name=name,
        pod=("", "") if name else pod,
        server=server,
        kubeconfig=kubeconfig,
        service=f"https://{f'[{host}]' if ':' in host else host}:{port}" if host else "",
        prefix=prefix,
        network_file=given.required("net-config-path"),
        set_network_condition=given.boolean("set-node-network-unavailable"),
    )


def _endpoint(given: FlagSet, text: str, secure: bool) -> str:
    """Returns the URL of an endpoint; the default scheme is https if there are certificates, as for etcdctl."""
    url = text.rstrip("/") if "://" in text else f"{'https' if secure else 'http'}://{text.rstrip('/')}"
    try:
        parts = urlsplit(url)
        whole = bool(parts.hostname) and parts.port != 0 and url == f"{parts.scheme}://{parts.netloc}"
    except ValueError:
        whole = False
    if "@" in url:  # a password perhaps, not to be shown
        given.error("etcd-endpoints", "has a user: that is for --etcd-username and --etcd-password")
    elif not whole or not url.startswith(("http://", "https://")):
        given.error("etcd-endpoints", f"{text!r} is not a server, as http://10.0.0.1:2379 or https://etcd:2379 are")
    elif secure and url.startswith("http://"):
        given.notice("etcd-endpoints", f"{url} is not encrypted, whatever certificates there are; https:// is")
    return url


def _notices(given: FlagSet, *, in_kube: bool) -> tuple[str, ...]:
    """To be called last."""
    given.number("iptables-resync", *INTEGERS)
    for name in WITHOUT_EFFECT:
        if given.source(name):
            given.notice(name, "has no effect")
    etcd = [name for name in BY_NAME if name.startswith("etcd-")]
    if not (in_kube or given.text("nodes-file") or given.boolean("cleanup") or any(map(given.source, etcd))):
        given.notices.append(f"no store was chosen, etcd at {given.text('etcd-endpoints')} is tried: {STORES}")
    others = etcd if in_kube else KUBE
    for name in filter(given.source, others):
        given.notice(name, f"has no effect with{'' if in_kube else 'out'} --kube-subnet-mgr")
    return tuple(given.notices)
