"""The protocol of podwired's local socket: one line of JSON asks, one line of JSON answers, and the connection ends.

A request has `version`, `ask` and what that question needs; keys that are not known are ignored. An answer has
`version` and `ask`, and what was asked for or `error`. Keys may be added to an answer without another version.
"""

from __future__ import annotations

from cni.protocol.address import parse_ip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.address import IP

VERSION = 1
FOLDER = "/run/podwire"
SUFFIX = ".sock"  # of a socket in that folder; in front is the agent's name
WHY, SHOW, STATUS = "why", "show", "status"
ALLOWED, DENIED, ELSEWHERE = "allowed", "denied", "elsewhere"  # the last: the node of the pod judges
PROTOCOLS = ("TCP", "UDP", "SCTP")


def socket_path(name: str) -> str:
    """Returns the path of the socket of the agent of a name, where no flag says another."""
    return f"{FOLDER}/{name}{SUFFIX}"


def pod_or_address(text: str) -> tuple[str, str] | IP:
    """Returns namespace and name of `NAMESPACE/NAME`, or an address. Raises ValueError."""
    namespace, slash, name = text.partition("/")
    if slash and namespace and name and not {"/", ":"}.intersection(namespace + name):
        return namespace, name
    if not slash:
        try:
            return parse_ip(text)
        except ValueError:
            pass
    raise ValueError(f"{text!r} is neither NAMESPACE/NAME of a pod nor an address")
