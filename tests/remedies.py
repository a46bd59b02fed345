"""Sums up the reasons of skipped tests by what remedies them."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

OTHER = "another machine (their reasons are above)"
# The first that is found in a reason is its remedy.
REMEDIES: tuple[tuple[str, str], ...] = (
    (r"hack/peers", "hack/peers"),
    (r"cluster|KUBECONFIG|PODWIRE_(NODE|OUTSIDE)|two nodes|no tunnels|DaemonSet|no process of|of others", "a cluster"),
    (r"hack/build|hack/image", "a bundle or image (hack/build or hack/image says why there is none)"),
    (r"not installed|absent|launcher", "programs that are not installed (hack/test installs some as root)"),
    (r"needs root|as root", "root"),
    (r"second user", "a user namespace with a second user"),
    (r"localedef", "Debian's package locales"),
    (r"namespaces", "root, or user namespaces for ordinary users"),
    (r"capabilit|CAP_", "a capability that is missing"),
    (r"[kK]ernel|br_netfilter|iptables-legacy|no vxlan|VXLAN|had here", "another kernel or its modules"),
    (r"no network", "network access"),
    (r"git does not list", "a clone of the repository"),
    (r"no dpkg", "Debian"),
    (r"pip install|pyroute2|prometheus", "Python packages (hack/test brings them)"),
)


def remedy_of(reason: str) -> str:
    return next((remedy for pattern, remedy in REMEDIES if re.search(pattern, reason)), OTHER)


def summed_up(reasons: Iterable[str]) -> str:
    """One line, the most frequent remedy first; empty where nothing was skipped."""
    counts = Counter(map(remedy_of, reasons))
    parts = [f"{count} need{'s' if count == 1 else ''} {remedy}" for remedy, count in counts.most_common()]
    return f"skipped: {', '.join(parts)}" if parts else ""
