"""A resolv.conf as the DNS part of a result (resolv.conf(5); reference: host-local, dns.go)."""

from __future__ import annotations

from cni.protocol.errors import IOFailure
from cni.protocol.result import DNS

NOTHING = "/dev/null"  # how some say that there is no resolver


def parse_resolv_conf(text: str) -> DNS:
    """`search` and `options` add up, the last `domain` wins; lines that say nothing are skipped."""
    nameservers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    domain = ""
    for line in text.split("\n"):
        words = line.split()
        if len(words) < 2 or words[0][0] in "#;":
            continue
        if words[0] == "nameserver":
            nameservers.append(words[1])
        elif words[0] == "domain":
            domain = words[1]
        elif words[0] == "search":
            search += words[1:]
        elif words[0] == "options":
            options += words[1:]
    return DNS(tuple(nameservers), domain, tuple(search), tuple(options))


def read_resolv_conf(path: str) -> DNS:
    """Raises IOFailure."""
    if path == NOTHING:
        return DNS()
    from cni.protocol import smallfile  # few networks have one

    try:
        return parse_resolv_conf(smallfile.read(path).decode("utf-8", "replace"))
    except OSError as error:
        raise IOFailure(f"ipam.resolvConf: cannot read {path}: {error.strerror}") from error
