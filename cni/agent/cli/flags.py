"""podwired's flags: flanneld's, parsed as by Go, their environment variables, and a few of its own.

argparse stops at the first error, takes abbreviated names after a single hyphen, and takes no value that begins with
one.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from cni.protocol.address import IP, parse_ip
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIXES = ("PODWIRED_", "FLANNELD_")  # of variables; the first that is set counts
TRUE, FALSE = ("1", "t", "T", "true", "TRUE", "True"), ("0", "f", "F", "false", "FALSE", "False")  # Go's
NOW = ("help", "version", "cleanup")  # orders, which are no variable's: images set FLANNELD_VERSION
WIDTH = 100
USAGE = """A flag is written --flag=value, --flag value or -flag value, a switch --switch or --switch=false. What no
flag says is taken from the environment: from the variable that is named here, or the same with FLANNELD_ in place of
PODWIRED_. An empty variable does not count."""


class Flag(Record):
    """A flag. `value` stands for its value in the help; without it the flag is a switch."""

    name: str
    help: str
    value: str = ""
    default: str = ""

    @property
    def variable(self) -> str:
        return self.name.upper().replace("-", "_")


ENDPOINTS = "http://127.0.0.1:4001,http://127.0.0.1:2379"
FLAGS = {
    "Where the network's configuration and the leases are kept": (
        Flag("etcd-endpoints", "etcd's servers, separated by commas: scheme, host and port", "URLS", ENDPOINTS),
        Flag("etcd-prefix", "prefix of the keys in etcd", "PREFIX", "/coreos.com/network"),
        Flag("etcd-cafile", "CA certificates (PEM) by which etcd's certificate is verified", "FILE"),
        Flag("etcd-certfile", "client certificate (PEM) for etcd, together with --etcd-keyfile", "FILE"),
        Flag("etcd-keyfile", "key (PEM) of the client certificate", "FILE"),
        Flag("etcd-username", "user of etcd, together with --etcd-password", "NAME"),
        Flag("etcd-password", "the user's password; a variable shows it to fewer than a flag", "PASSWORD"),
        Flag("subnet-lease-renew-margin", "how long before its end the lease is renewed, 1 to 1439", "MINUTES", "60"),
        Flag("nodes-file", "no etcd: this file has the network and all its nodes; changes to it are followed", "FILE"),
        Flag("node-name", "this node's name in the nodes file or Kubernetes; else NODE_NAME, host name or pod", "NAME"),
    ),
    "The interface that carries the traffic between nodes (default: that of the default route)": (
        Flag("iface", "its name or one of its addresses; may be repeated, the first that fits is taken", "NAME|IP"),
        Flag("iface-regex", "pattern of its addresses, or else its name; after all --iface; may be repeated", "REGEX"),
        Flag("iface-can-reach", "the interface by which this address is reached; after all --iface-regex", "IP"),
        Flag("public-ip", "IPv4 address by which others reach this node; alone, the interface that has it", "IP"),
        Flag("public-ipv6", "IPv6 address by which others reach this node; alone, the interface that has it", "IP"),
    ),
    "What is done on this node": (
        Flag("subnet-file", "file for CNI plugins, with subnet and MTU", "FILE", "/run/flannel/subnet.env"),
        Flag("conflist", "the runtime's network configuration; copied once pods can be attached, and followed", "FILE"),
        Flag("conflist-dir", "the folder where the runtime looks for it", "DIR", "/etc/cni/net.d"),
        Flag("ip-masq", "masquerade what leaves the network", "", "false"),
        Flag("ip-masq-fully-random-disable", "with --ip-masq: do not choose source ports at random", "", "false"),
        Flag(
            "iptables-forward-rules", "accept the network's traffic where the host drops forwarded packets", "", "true"
        ),
        Flag("iptables-resync", "accepted without effect: rules are kept up without a period", "SECONDS", "5"),
        Flag("ip-blackhole-route", "drop what is for no pod of the node's own subnet", "", "false"),
        Flag("tunnel-filter", "drop VXLAN packets that come from no known node, and those of pods", "", "true"),
        Flag("tunnel-checksum-offload", "leave checksums of what is tunnelled to the network card", "", "true"),
        Flag(
            "network-policy",
            "enforce NetworkPolicies and ClusterNetworkPolicies, of Kubernetes or of --policy-files",
            "",
            "false",
        ),
        Flag("policy-files", "folder with Namespaces, Nodes, Pods and policies in YAML or JSON; followed", "DIR"),
        Flag("policy-unknown", "new pods until podwired knows them: closed, or open", "closed|open", "closed"),
        Flag("policy-log", "log packets that policies deny, at most ten a second: off, or denied", "off|denied", "off"),
        Flag("policy-counters", "count what each rule matches; names of policies are in /metrics for all", "", "false"),
        Flag(
            "control-socket",
            "socket of `podwire status` and `policy` (default /run/podwire/podwired.sock)",
            "FILE",
        ),
        Flag("policy-node-egress", "egress to the own node: judged as any other, or open", "judged|open", "judged"),
        Flag("policy-established", "connections that policies no longer allow: cut, or keep", "cut|keep", "cut"),
        Flag("healthz-ip", "health server address (/, /healthz, /readyz, /metrics)", "IP", "0.0.0.0"),  # noqa: S104  # flannel's
        Flag("healthz-port", "health server port; 0 disables it", "PORT", "0"),
        Flag("cleanup", "remove what podwired made on this node, and end", "", "false"),
    ),
    "Kubernetes": (
        Flag("kube-subnet-mgr", "no etcd: leases are the pod CIDRs and annotations of Kubernetes' nodes", "", "false"),
        Flag("kube-api-url", "the API server, instead of the one that the kubeconfig or the pod names", "URL"),
        Flag("kubeconfig-file", "access to the API server; without it the service account of the pod", "FILE"),
        Flag("kube-annotation-prefix", "prefix of the nodes' annotations", "PREFIX", "flannel.alpha.coreos.com"),
        Flag("net-config-path", "file with the network's configuration", "FILE", "/etc/kube-flannel/net-conf.json"),
        Flag("set-node-network-unavailable", "report to Kubernetes when the node's network is available", "", "true"),
    ),
    "Logging and information": (
        Flag("v", "above 0: log details", "LEVEL", "0"),
        Flag("vmodule", "accepted without effect", "PATTERN=LEVEL"),
        Flag("log_backtrace_at", "accepted without effect", "FILE:LINE"),
        Flag("version", "print the version and end", "", "false"),
        Flag("help", "print this and end", "", "false"),
    ),
}
BY_NAME = {flag.name: flag for flags in FLAGS.values() for flag in flags}


class InvalidOptions(Exception):
    """Invalid flags or variables; the text names each of them with its error."""


class FlagSet:
    """The values of flags and variables, and their origin. Each value that cannot be parsed is noted as an error."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str]) -> None:
        self._values: dict[str, list[str]] = {}
        self._variables: dict[str, str] = {}
        self._errors: list[str] = []
        self.notices: list[str] = []
        self._read(arguments)
        for flag in BY_NAME.values():
            names = [] if flag.name in NOW else [prefix + flag.variable for prefix in PREFIXES]
            variable = next((name for name in names if environment.get(name)), None)
            if variable is not None and flag.name not in self._values:
                self._variables[flag.name] = variable
                self._values[flag.name] = [environment[variable]]

    def _read(self, arguments: list[str]) -> None:
        """Parses the command line as Go's package flag; an argument that is not a flag is an error, not the end."""
        rest = iter(arguments)
        for argument in rest:
            front, equals, value = argument.partition("=")
            name = front.removeprefix("-").removeprefix("-")
            flag = BY_NAME.get("help" if name == "h" else name)
            if not argument.startswith("-") or not name:
                self._errors.append(f"{argument!r}: not a flag; a switch takes a value as in --ip-masq=false")
            elif flag is None:
                self._errors.append(f"{front}: unknown flag (--help lists all flags)")
            else:
                text = value if equals else next(rest, None) if flag.value else "true"
                if text is None:
                    self._errors.append(f"--{name}: needs a value, {flag.value}")
                else:
                    self._values.setdefault(flag.name, []).append(text)

    def source(self, name: str) -> str:
        """Returns the flag or the variable that sets a value; empty if neither does."""
        return self._variables.get(name) or (f"--{name}" if name in self._values else "")

    def error(self, name: str, text: str) -> None:
        self._errors.append(self._placed(name, text))

    def notice(self, name: str, text: str) -> None:
        self.notices.append(self._placed(name, text))

    def _placed(self, name: str, text: str) -> str:
        return f"{self.source(name) or f'--{name}'}: {text}"

    def raise_if_any(self) -> None:
        if self._errors:
            raise InvalidOptions("; ".join(self._errors))

    def text(self, name: str) -> str:
        """Returns the last of several values, as Go does."""
        return self._values.get(name, [BY_NAME[name].default])[-1]

    def texts(self, name: str) -> tuple[str, ...]:
        return tuple([value for value in self._values.get(name, []) if value])

    def required(self, name: str) -> str:
        text = self.text(name)
        if not text:
            self.error(name, f"is empty; expected {BY_NAME[name].value}, as in {BY_NAME[name].default}")
        return text

    def boolean(self, name: str) -> bool:
        text = self.text(name)
        if text not in TRUE + FALSE:
            self.error(name, f"{text!r} is neither true nor false")
        return text in TRUE

    def number(self, name: str, low: int, high: int) -> int:
        text = self.text(name)
        try:
            number = int(text, 0)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            self.error(name, f"{text!r} is not a whole number from {low} to {high}")
        return number

    def ip(self, name: str, family: int = 0) -> IP | None:
        """Returns None for an empty text. With a family the address has to be one that a node can have."""
        text = self.text(name)
        try:
            ip = parse_ip(text) if text else None
        except ValueError as error:
            self.error(name, str(error))
            return None
        if ip is not None and family and (ip.family != family or not ip.value):
            self.error(name, f"{text!r} is not the IPv{family} address of a node")
        return ip


def usage(program: str) -> str:
    """Returns the help text: every flag with its variable and its default."""
    lines = [
        f"usage: {program} [FLAG]...",
        f"       {program} status [--json] [--socket PATH]",
        "",
        *textwrap.wrap(USAGE, WIDTH),
    ]
    for title, flags in FLAGS.items():
        lines += ["", f"{title}:"]
        for flag in flags:
            lines += [f"  --{flag.name} {flag.value}".rstrip(), f"      {flag.help}"]
            if flag.name not in NOW:
                default = f" (default {flag.default})" if flag.default else ""
                lines.append(f"      {PREFIXES[0]}{flag.variable}{default}")
    return "\n".join(lines)
