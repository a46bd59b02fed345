"""The kernel's network as a report shows it: by pyroute2, and podwire's tables by nft where that is installed."""

from __future__ import annotations

import os
from itertools import islice
from socket import AF_INET, AF_INET6
from typing import TYPE_CHECKING, Any

from cni import proc
from cni.diag.node.rtnetlink import opened_rtnetlink
from cni.kernel import sysctl
from cni.plan.alias import parse_alias
from cni.protocol.owner import label_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

MOST = 5000  # objects of a kind
NOISE = ("IFLA_STATS", "IFLA_STATS64", "IFLA_AF_SPEC", "IFLA_MAP", "IFLA_XDP", "header", "event", "attrs", "value")
OF_HOST = (
    "net/ipv4/ip_forward",
    "net/ipv4/icmp_echo_ignore_all",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/all/disable_ipv6",
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
    "net/netfilter/nf_conntrack_count",
    "net/netfilter/nf_conntrack_max",
    "kernel/osrelease",
)
OF_INTERFACE = (
    "ipv4/conf/{}/rp_filter",
    "ipv4/conf/{}/route_localnet",
    "ipv6/conf/{}/accept_ra",
    "ipv6/conf/{}/forwarding",
)
INTERFACES = 64  # whose settings are read
ALIAS = "IFLA_IFALIAS"
TABLES = "podwire"  # how the names of podwire's and podwired's tables begin


def objects() -> dict[str, list[Any]]:
    """Returns interfaces, addresses, routes, rules, neighbours and the FDB; where the kernel refuses one, why."""
    return {name: list(_objects(dump)) for name, dump in DUMPS.items()}


def _objects(dump: Callable[[Any], Iterable[Any]]) -> Iterator[Any]:
    try:
        with opened_rtnetlink() as route:
            yield from map(_plain, islice(dump(route), MOST))
    except OSError as error:
        yield f"cannot be read: {error.strerror}"


DUMPS: dict[str, Callable[[Any], Iterable[Any]]] = {
    "links": lambda route: map(_named, route.get_links()),
    "addresses": lambda route: route.get_addr(),
    "routes": lambda route: route.get_routes(family=AF_INET),
    "routes6": lambda route: route.get_routes(family=AF_INET6),
    "rules": lambda route: route.get_rules(family=AF_INET),
    "rules6": lambda route: route.get_rules(family=AF_INET6),
    "neighbours": lambda route: route.get_neighbours(),
    "fdb": lambda route: route.fdb("dump"),
}


def _named(message: Any) -> Any:
    """Returns a link without an alias that podwire has not given it: people write there what they like."""
    attributes = [
        (name, value) for name, value, *_ in message["attrs"] if name != ALIAS or label_keys(parse_alias(value).label)
    ]
    return {**message, "attrs": attributes}


def _plain(message: Any) -> Any:
    """Returns a message or an attribute of pyroute2's as JSON has it."""
    if isinstance(message, dict):
        plain = {str(key): _plain(value) for key, value in message.items() if key not in NOISE}
        for attribute in message.get("attrs") or ():
            if attribute[0] not in NOISE:
                plain[attribute[0]] = _plain(attribute[1])
        return plain
    if isinstance(message, list | tuple):
        return [_plain(each) for each in message]
    return message if isinstance(message, str | int | float | bool | None) else str(message)


def settings() -> dict[str, str]:
    """Returns sysctls of the host and of its interfaces; those that there are not are left out."""
    names = ["all", "default", *sorted(os.listdir("/sys/class/net"))[:INTERFACES]]
    keys = [*OF_HOST, *[f"net/{key.format(name)}" for name in names for key in OF_INTERFACE]]
    values = {key: _setting(key) for key in keys}
    return {key: value for key, value in values.items() if value is not None}


def _setting(key: str) -> str | None:
    try:
        return sysctl.read(key)
    except OSError as error:
        return f"({error.strerror})"


def tables(environment: Mapping[str, str]) -> Iterator[str]:
    """Yields podwire's tables as nft lists them. Raises OSError."""
    program = proc.find_system("nft", environment)
    if program is None:
        yield "nft is not installed"
        return
    for line in _output([program, "list", "tables"], environment).splitlines():
        _, family, name = (*line.split(), "", "")[:3]
        if name.startswith(TABLES):
            yield _output([program, "list", "table", family, name], environment)


def journal(environment: Mapping[str, str], lines: int) -> str:
    """Returns podwired's last lines in the journal; empty where there is none. Raises OSError."""
    program = proc.find_system("journalctl", environment)
    if program is None:
        return ""
    return _output(
        [program, "-u", "podwired", "-n", str(lines), "--no-pager", "--no-hostname", "-q", "-o", "short-iso"],
        environment,
    )


def _output(command: list[str], environment: Mapping[str, str]) -> str:
    return proc.run(command, b"", environment, capture_stderr=True).stdout.decode("utf-8", "replace")
