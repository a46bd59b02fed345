"""Calls as no runtime would make them: configurations and environments, each a little damaged."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from cni.main import run
from tests.unit.calls import NOWHERE, Sink, Source

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

PREVIOUS = {
    "cniVersion": "1.1.0",
    "interfaces": [{"name": "eth0", "mac": "0a:00:00:00:00:01", "sandbox": NOWHERE, "mtu": 1400}, {"name": "v"}],
    "ips": [{"address": "10.1.2.3/24", "gateway": "10.1.2.1", "interface": 0, "version": "4"}],
    "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.2.1", "mtu": 1400, "table": 7, "scope": 0}],
    "dns": {"nameservers": ["10.1.2.1"], "domain": "a", "search": ["b"], "options": ["c"]},
}
WHOLE: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "net",
    "type": "podwire",
    "bridge": "br0",
    "isDefaultGateway": True,
    "ipMasq": True,
    "ipMasqBackend": "iptables",
    "mode": "bridged",
    "mtu": 1500,
    "hairpinMode": True,
    "vlan": 5,
    "vlanTrunk": [{"id": 7}, {"minID": 9, "maxID": 10}],
    "macspoofchk": True,
    "snat": True,
    "masqAll": True,
    "markMasqBit": 13,
    "conditionsV4": ["ip", "saddr", "192.0.2.0/24"],
    "conditionsV6": ["iif lo"],
    "backend": "nftables",
    "ingressPolicy": "isolated",
    "sysctl": {"net.ipv4.conf.IFNAME.arp_notify": "1"},
    "promisc": True,
    "txQLen": 100,
    "ingressRate": 8000,
    "ingressBurst": 8000,
    "egressRate": 8000,
    "egressBurst": 8000,
    "capabilities": {"mac": True, "portMappings": True, "bandwidth": True},
    "dns": {"nameservers": ["10.1.2.1"], "domain": "a", "search": ["b"], "options": ["c"]},
    "ipam": {
        "type": "host-local",
        "ranges": [
            [{"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.99"}],
            [{"subnet": "2001:db8::/64"}],
        ],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": "leases",
        "resolvConf": "resolv.conf",
    },
    "args": {"cni": {"mac": "0a:00:00:00:00:01", "ips": ["10.1.2.9"]}},
    "runtimeConfig": {
        "mac": "0a:00:00:00:00:02",
        "ipRanges": [[{"subnet": "10.2.0.0/16"}]],
        "ips": ["10.2.0.9/16"],
        "portMappings": [
            {"hostPort": 80, "containerPort": 8080, "protocol": "tcp"},
            {"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "2001:db8:2::1"},
        ],
        "bandwidth": {"ingressRate": 8000, "ingressBurst": 8000, "egressRate": 0, "egressBurst": 0},
    },
    "prevResult": PREVIOUS,
    "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}],
}
ENVIRONMENT = {
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": NOWHERE,
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "IgnoreUnknown=1;IP=10.1.2.9;MAC=0a:00:00:00:00:03",
    "CNI_PATH": "/nowhere/bin",
}
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 4095, 1 << 32, 1 << 70, 1.5, 1e300, "", "a", "..", ".", "x/y", "a\0b", "é", "\ud800",
    "\udcff", "a" * 300, "a b", "10.1.2.3", "10.1.2.3/24", "::ffff:10.1.2.3/120", "255.255.255.255/32", "::/0",
    "0.0.0.0/0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128", "fe80::1%eth0/64", "0a:00:00:00:00:09",
    "ff:ff:ff:ff:ff:ff", "0.1.0", "0.4.0", "1.0.0", "9.9.9", "nftables", "none",
    "routed", "udp", "::", [], {}, [None], [[]], [{}], {"": 1},
]  # fmt: skip
TEXTS = [
    "",
    "a",
    "..",
    "a/b",
    "a" * 300,
    "\udcff",
    "é",
    "a b",
    "a=b",
    "=",
    ";",
    "IP=x",
    "MAC=1",
    "IgnoreUnknown=2",
    "true",
]
PLACES = [NOWHERE, NOWHERE, NOWHERE, "", "/dev/null", "/", "\udcff", "relative", "/nowhere/" + "a" * 300]
BYTES = [
    b"",
    b"{",
    b"}",
    b"[",
    b'"',
    b"\\",
    b",",
    b":",
    b"\xff",
    b"\xed\xa0\x80",
    b"\x00",
    b"\xef\xbb\xbf",
    b"NaN",
    b"-",
    b"1" * 40,
]


def places_in(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) below a value."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, member in members for place in [(value, key), *places_in(member)]]


def document(chance: random.Random) -> bytes:
    whole = deepcopy(WHOLE)
    for key in chance.sample(sorted(whole), chance.randrange(len(whole))):
        if key not in ("name", "cniVersion") or chance.random() < 0.1:
            del whole[key]
    for _ in range(chance.randrange(4)):
        container, key = chance.choice([*places_in(whole), (whole, "other")])
        kind = chance.randrange(4)
        if kind == 3 and isinstance(container, dict):
            container[chance.choice((str.upper, str.title))(str(key))] = deepcopy(chance.choice(VALUES))
        elif kind == 2 and isinstance(container, list):
            container.append(deepcopy(chance.choice(VALUES)))
        else:
            container[key] = deepcopy(chance.choice(VALUES))
    data = json.dumps(whole, ensure_ascii=chance.random() < 0.9).encode("utf-8", "surrogatepass")
    for _ in range(chance.choice((0,) * 12 + (1, 2))):
        start = chance.randrange(len(data) + 1)
        data = data[:start] + chance.choice(BYTES) + data[start + chance.randrange(9) :]
    return data


def environment(chance: random.Random, verb: str) -> dict[str, str]:
    """Names of folders are never such that programs would be found in them."""
    found = ENVIRONMENT | {"CNI_COMMAND": verb, "CNI_NETNS": chance.choice(PLACES)}
    for _ in range(chance.choice((0,) * 8 + (1, 2))):
        name = chance.choice(["CNI_CONTAINERID", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH", "CNI_NETNS_OVERRIDE"])
        found[name] = chance.choice(["", "/nowhere"] if name == "CNI_PATH" else TEXTS)
    if chance.random() < 0.05:
        del found[chance.choice(sorted(found.keys() - {"CNI_COMMAND"}))]
    return found


def error(program: str, told: Mapping[str, str], data: bytes) -> str:
    """What is wrong with the answer to one call; empty where nothing is."""
    out, err = Sink(), Sink()
    status = run([program], told, Source(data), out, err)
    if status == 0 and told["CNI_COMMAND"] in ("DEL", "GC", "CHECK", "STATUS"):
        return f"output without failure: {out.text}" if out.writes else ""
    if len(out.writes) != 1:
        return f"{len(out.writes)} writes"
    answer = json.loads(out.text)
    if status == 0:
        return "" if answer["cniVersion"] and "code" not in answer else f"no answer: {answer}"
    if status != 1 or not isinstance(answer["code"], int) or not answer["msg"]:
        return f"status {status}: {answer}"
    return f"internal error: {err.text}" if "internal error" in answer["msg"] else ""


def campaign(chance: random.Random, program: str, verbs: list[str], rounds: int) -> list[str]:
    """Every fault found, with the call that shows it."""
    found = []
    for _ in range(rounds):
        verb = chance.choice(verbs)
        told, data = environment(chance, verb), document(chance)
        if wrong := error(program, told, data):
            found.append(f"{program} {told} {data!r}: {wrong}")
    return found
