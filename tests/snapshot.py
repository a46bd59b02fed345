"""All that a plugin may change on a machine, as text that compares equal or differs."""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
from typing import TYPE_CHECKING, Any

from tests.forkserver import enter_net

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Snapshot = dict[str, list[str]]

STATE = ("/var/lib/cni", "/run/cni", "/run/podwire")
_SECTIONS = ("links", "addresses", "routes", "rules", "nft", "qdiscs", "settings")
_SYSCTLS = ("net/ipv4/ip_forward", "net/ipv4/conf/all/forwarding", "net/ipv6/conf/all/forwarding")
# What all calls of a host have in common: the lock, and the lines of those that failed.
_COMMON = ("/run/podwire/lock-", "/run/podwire/events")


def look(pods: Mapping[str, str], state: Iterable[str], settings: tuple[str, ...]) -> Snapshot:
    """Takes the snapshot that Machine.snapshot describes. To be called in the machine, in a process that ends then."""
    seen: Snapshot = {section: [] for section in _SECTIONS}
    sysctls = [f"{name}:{_text(f'/proc/sys/{name}').rstrip()}" for name in _SYSCTLS]
    for name, path in {"": "", **pods}.items():
        if path:
            if not os.path.exists(path):
                continue
            enter_net(path)
        for section, line in _lines(_shown()):
            seen[section].append(f"{name}: {line}" if name else line)
        seen["settings"] += [f"{name}: {line}" if name else line for line in _settings(settings)]
    files = [line for line in files_of(state) if not line.startswith(_COMMON)]
    return {section: sorted(lines) for section, lines in {**seen, "sysctls": sysctls, "files": files}.items()}


def files_of(folders: Iterable[str]) -> list[str]:
    """Returns the files below these folders, each with its text, and the folders that are empty."""
    entries = []
    for top in folders:
        for folder, inner, files in sorted(os.walk(top)):
            if not inner and not files:
                entries.append(f"{folder}/")
            entries += [f"{folder}/{name} {_text(f'{folder}/{name}')!r}" for name in sorted(files)]
    return entries


def added(before: Snapshot, after: Snapshot) -> Snapshot:
    """Returns the lines that are only in `after`, sections without any left out."""
    return {section: lines for section in after if (lines := missing_from(before[section], after[section]))}


def missing_from(known: Iterable[str], lines: Iterable[str]) -> list[str]:
    """Returns those of the lines that are not known."""
    seen = set(known)
    return [line for line in lines if line not in seen]


def _text(path: str) -> str:
    with open(path, "rb") as file:
        return file.read().decode("utf-8", "replace")


def _settings(folders: tuple[str, ...]) -> list[str]:
    """Returns what the files say that can be read, which secrets cannot."""
    if not folders:
        return []
    return subprocess.run(["grep", "-rs", ".", *folders], stdout=subprocess.PIPE, text=True, check=False).stdout.split(
        "\n"
    )[:-1]


def _shown() -> dict[str, Any]:
    """Asks ip, nft and tc, as seldom as possible: a snapshot is taken before and after everything.

    A dump by netlink tells whether a program has anything to show.
    """
    links, routes, rules = _answers("ip", "-j", "-d", "-batch", "-", stdin="address\nroute show table all\nrule\n")
    if len(_dump(_ROUTE, _RTM_GETRULE, bytes([socket.AF_INET6, *bytes(11)]))) != _USUAL_RULES6:
        rules += _answers("ip", "-j", "-6", "rule")[0]
    tables = _dump(_NETFILTER, _NFT_MSG_GETTABLE, bytes(4))
    nft = _answers("nft", "-j", "list", "ruleset") if tables else [{"nftables": []}]
    queues = [kind for kind in map(_queue, _dump(_ROUTE, _RTM_GETQDISC, bytes(20))) if kind != "noqueue"]
    (qdiscs,) = _answers("tc", "-j", "qdisc") if queues else [[]]
    return {"links": links, "routes": routes, "rules": rules, "nft": nft[0]["nftables"], "qdiscs": qdiscs}


def _answers(*command: str, stdin: str = "") -> list[Any]:
    """Runs a command that answers each question with a line of JSON."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


_ROUTE, _NETFILTER = 0, 12  # protocols of netlink
_RTM_GETRULE, _RTM_GETQDISC, _NFT_MSG_GETTABLE = 34, 38, 0xA01
_NLM_F_REQUEST_DUMP, _NLMSG_ERROR, _NLMSG_DONE = 0x301, 2, 3
_HEADER = struct.Struct("=IHHII")
_USUAL_RULES6 = 2  # for the tables local and main


def _dump(protocol: int, kind: int, payload: bytes) -> list[bytes]:
    """Returns the payloads of the kernel's answers; none where it knows no such thing."""
    answers: list[bytes] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as netlink:
        netlink.send(_HEADER.pack(_HEADER.size + len(payload), kind, _NLM_F_REQUEST_DUMP, 1, 0) + payload)
        while data := netlink.recv(1 << 16):
            while data:
                length, answer, *_ = _HEADER.unpack_from(data)
                if answer in (_NLMSG_ERROR, _NLMSG_DONE):
                    return answers
                answers.append(data[_HEADER.size : length])
                data = data[(length + 3) & ~3 :]
    return answers


def _queue(payload: bytes) -> str:
    """Returns the kind of a queueing discipline, its first attribute behind struct tcmsg."""
    (length,) = struct.unpack_from("=H", payload, 20)
    return payload[24 : 20 + length].rstrip(b"\0").decode()


def _lines(shown: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Turns what ip, nft and tc answered into (section, line) pairs."""
    yield from (("links", _link(link)) for link in shown["links"])
    yield from (("addresses", line) for link in shown["links"] for line in _addresses(link))
    for route in shown["routes"]:
        if not route["dst"].startswith(("fe80:", "ff00:")) and route.get("table") != "local":
            yield "routes", _sorted_json(route, without=("flags", "pref", "metrics"))
    yield from (("rules", _sorted_json(rule)) for rule in shown["rules"])
    yield from (("nft", line) for item in shown["nft"] for line in _nft(item))
    # A queue that the kernel gives to every link says nothing.
    queues = (qdisc for qdisc in shown["qdiscs"] if qdisc["kind"] != "noqueue")
    yield from (("qdiscs", _sorted_json(qdisc, without=("refcnt",))) for qdisc in queues)


def _addresses(link: Mapping[str, Any]) -> Iterator[str]:
    for address in link.get("addr_info", ()):
        if not address["local"].startswith("fe80:"):
            yield f"{link['ifname']} {address['local']}/{address['prefixlen']} {address['scope']}"


def _link(link: Mapping[str, Any]) -> str:
    info = link.get("linkinfo", {})
    port = info.get("info_slave_data", {})
    bridge = info.get("info_data", {}) if info.get("info_kind") == "bridge" else {}
    fields = {
        "kind": info.get("info_kind", link["link_type"]),
        "mac": link.get("address", ""),
        "mtu": link["mtu"],
        "up": "UP" in link["flags"],
        "promisc": link.get("promiscuity", 0) if bridge else 0,
        "master": link.get("master", ""),
        "alias": link.get("ifalias", ""),
        "hairpin": port.get("hairpin", ""),
        "isolated": port.get("isolated", ""),
        "vlan_filtering": bridge.get("vlan_filtering", ""),
    }
    return " ".join([link["ifname"], *(f"{key}={value}" for key, value in fields.items() if value not in ("", 0))])


def _nft(item: Mapping[str, Any]) -> Iterator[str]:
    """One line a table, chain, rule, set and, apart from its set, each element."""
    ((kind, body),) = item.items()
    if kind == "metainfo":
        return
    body = dict(body)
    elements = body.pop("elem", []) if kind in ("set", "map") else []
    yield f"{kind} {_sorted_json(body, without=('handle', 'index'))}"
    for element in elements:
        yield f"element {body['family']} {body['table']} {body['name']} {_sorted_json(element)}"


def _sorted_json(value: Any, without: Iterable[str] = ()) -> str:
    return json.dumps(_still(value, frozenset(without)), sort_keys=True)


def _still(value: Any, without: frozenset[str]) -> Any:
    """Leaves out what moves by itself (counters, time left) and the keys that were named."""
    if isinstance(value, dict):
        moving = {"packets", "bytes", "expires"} | without
        return {key: _still(item, frozenset()) for key, item in value.items() if key not in moving}
    if isinstance(value, list):
        return [_still(item, frozenset()) for item in value]
    return value
