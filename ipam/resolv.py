"""A resolv.conf as the DNS part of a result (resolv.conf(5); reference: host-local, dns.go)."""

from __future__ import annotations

from cni.protocol.errors import IOFailure
from cni.protocol.result import DNS

NOTHING = "/dev/null"  # means that there is no resolver


def parse_resolv_conf(text: str) -> DNS:
    """Parses the text: `search` and `options` accumulate, the last `domain` wins; incomplete lines are skipped."""
    nameservers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    domain = ""
    for line in text.split("\n"):
        tokens = line.split()
        if len(tokens) < 2 or tokens[0][0] in "#;":
            continue
        if tokens[0] == "nameserver":
            nameservers.append(tokens[1])
        elif tokens[0] == "domain":
            domain = tokens[1]
        elif tokens[0] == "search":
            search += tokens[1:]
        elif tokens[0] == "options":
            options += tokens[1:]
    return DNS(tuple(nameservers), domain, tuple(search), tuple(options))


def read_resolv_conf(path: str) -> DNS:
    """Reads and parses the file. Raises IOFailure."""
    if path == NOTHING:
        return DNS()
    from cni.protocol import smallfile  # few networks have one

    try:
        return parse_resolv_conf(smallfile.read(path).decode("utf-8", "replace"))
    except OSError as error:
        raise IOFailure(f"ipam.resolvConf: cannot read {path}: {error.strerror}") from error
