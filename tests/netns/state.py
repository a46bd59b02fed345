"""The state of a machine: the whole, to be compared before and after, or the part of one attachment."""

from __future__ import annotations

import json
import re
from subprocess import check_output
from typing import TYPE_CHECKING, Any

from tests.snapshot import files_of, missing_from

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.machine import Machine, Pod
    from tests.snapshot import Snapshot

LEASES = "/var/lib/cni"
_SETTINGS = ("/proc/sys/net/ipv4/conf", "/proc/sys/net/ipv6/conf", "/proc/sys/net/ipv4/ip_forward")
_LINKS = ("ip", "-j", "-d", "link")
_RULESET = ("nft", "-j", "-p", "list", "ruleset")
_LEASE = re.compile(r"/(\d+\.\d+\.\d+\.\d+|[0-9a-f]*:[0-9a-f:]*) '")


def leases(machine: Machine) -> dict[str, str]:
    """Returns the leased addresses, each with its owner as CONTAINER/INTERFACE."""
    return _leases(machine.files(LEASES))


def _leases(files: Iterable[str]) -> dict[str, str]:
    leased = {}
    for line in files:
        if match := _LEASE.search(line):
            content = line[match.end() - 1 :].strip("'\"")
            leased[match[1]] = content.replace("\\r\\n", "/")
    return leased


def whole(machine: Machine) -> Snapshot:
    """Returns everything that an attachment touches, every interface's settings on both sides included.

    Left out are what an allocator may remember: its lock, its folder, and where its next round begins.
    """
    seen = machine.snapshot((LEASES,), _SETTINGS)
    return {**seen, "files": sorted(f"{address} {owner}" for address, owner in _leases(seen["files"]).items())}


def difference(before: Snapshot, after: Snapshot) -> list[str]:
    """Returns the lines that are in one of them only, each with a sign."""
    lost = [f"- {line}" for section in before for line in missing_from(after[section], before[section])]
    gained = [f"+ {line}" for section in after for line in missing_from(before[section], after[section])]
    return lost + gained


def shown(where: Machine | Pod, *command: str) -> Any:
    """Returns what ip, bridge or nft shows as JSON."""
    return json.loads(where.run(*command).stdout or "[]")


def link(where: Machine | Pod, name: str) -> dict[str, Any]:
    """Returns one link with its details, or nothing."""
    links = [item for item in shown(where, "ip", "-j", "-d", "link") if item["ifname"] == name]
    return links[0] if links else {}


def links(where: Machine | Pod) -> set[str]:
    """Returns the names of all links."""
    return {item["ifname"] for item in shown(where, "ip", "-j", "link")}


def routes(where: Machine | Pod, family: int = 4) -> list[dict[str, Any]]:
    """Returns the routes that somebody made, of all tables."""
    routes = shown(where, "ip", "-j", "-d", f"-{family}", "route", "show", "table", "all")
    return [route for route in routes if route["protocol"] == "boot"]


def elements(machine: Machine) -> dict[str, str]:
    """Returns the elements of podwire's tables as "SET KEY", each with its owner as CONTAINER/INTERFACE.

    Protocols are numbers: their names are in /etc/protocols, which a bare machine lacks.
    """
    return _elements(shown(machine, *_RULESET))


def _elements(ruleset: Any) -> dict[str, str]:
    owned = {}
    for item in ruleset["nftables"]:
        ((kind, body),) = item.items()
        for element in body.get("elem", []) if kind in ("set", "map") else []:
            inner = element[0] if isinstance(element, list) else element
            key = inner["elem"]["val"]
            text = " ".join(map(str, key["concat"])) if isinstance(key, dict) else key
            owned[f"{body['name']} {text}"] = "/".join(inner["elem"]["comment"].split(" ")[3].split("/")[1:])
    return owned


def owners(machine: Machine) -> dict[str, str]:
    """Returns the host's links that podwire made for containers, each with its owner as CONTAINER/INTERFACE."""
    return _owners(shown(machine, *_LINKS))


def _owners(links: Any) -> dict[str, str]:
    owned = {}
    for link in links:
        if link.get("ifalias", "").startswith("podwire "):
            label = link["ifalias"].partition(";")[0].split(" ")[3]
            owned[link["ifname"]] = "/".join(label.split("/")[1:])
    return owned


def held_by(machine: Machine, *some: str) -> list[str]:
    """Returns everything on the machine that bears one of the owners CONTAINER/INTERFACE: links, elements, leases."""
    links, ruleset, files = machine.call(_look_for_owners)
    held = {**_owners(links), **_elements(ruleset), **_leases(files)}
    return [name for name, of in held.items() if of in some]


def _look_for_owners() -> tuple[Any, Any, list[str]]:
    """Asks from within the machine, which takes two programs less."""
    return (*(json.loads(check_output(command)) for command in (_LINKS, _RULESET)), files_of([LEASES]))


def filters_vlans(machine: Machine) -> bool:
    """True if the kernel's bridges know VLANs."""
    done = machine.run("ip", "link", "add", "probe", "type", "bridge", "vlan_filtering", "1", check=False)
    if done.returncode == 0:
        machine.run("ip", "link", "delete", "probe")
    return done.returncode == 0
