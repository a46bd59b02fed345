"""Strategies for input as no runtime and no kernel makes it: damaged configurations, environments and payloads.

Examples are the same in each run, and nothing of them is kept in a folder. One that has failed becomes a test, or an
@example.
"""

from __future__ import annotations

import json
import os
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

from tests.calls import NOWHERE

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn

set_hypothesis_home_dir(os.path.join(os.devnull, "hypothesis"))  # it cannot be written: no folder beside the tests
settings.register_profile(
    "podwire",
    derandomize=True,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow],  # as a busy machine is
)
settings.load_profile("podwire")
PROFILE = settings.get_profile("podwire")


def seeds(count: int) -> list[Any]:
    """Returns the seeds of a random test as parameters. One in five counts for the coverage, which triples the time."""
    return [pytest.param(seed, marks=[pytest.mark.no_cover] if seed % 5 else []) for seed in range(count)]


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
    "ipSpoofCheck": True,
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
NAMESPACES = [NOWHERE, NOWHERE, NOWHERE, "", "/dev/null", "/", "\udcff", "relative", "/nowhere/" + "a" * 300]
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


SELDOM = st.sampled_from((0,) * 12 + (1, 2))  # how many of a kind of damage
KEYS = sorted(WHOLE)


def places_in(value: Any) -> list[tuple[Any, Any]]:
    """Returns every (container, key) below a value."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, member in members for place in [(value, key), *places_in(member)]]


@st.composite
def documents(draw: DrawFn) -> bytes:
    """Draws a configuration: some of all keys, up to three wrong members, seldom a few wrong bytes."""
    dropped = int.from_bytes(draw(st.binary(min_size=len(KEYS) // 8 + 1, max_size=len(KEYS) // 8 + 1)), "little")
    kept = () if draw(st.integers(0, 9)) == 9 else ("name", "cniVersion")
    document = {key: deepcopy(WHOLE[key]) for bit, key in enumerate(KEYS) if key in kept or not dropped >> bit & 1}
    for _ in range(draw(st.integers(0, 3))):
        places = [(document, "other"), *places_in(document)]
        container, key = places[draw(st.integers(0, len(places) - 1))]
        value = deepcopy(draw(st.sampled_from(VALUES)))
        change = draw(st.sampled_from(["replace", "replace", "add", "spell"]))
        if change == "spell" and isinstance(container, dict):
            container[draw(st.sampled_from((str.upper, str.title)))(str(key))] = value
        elif change == "add" and isinstance(container, list):
            container.append(value)
        else:
            container[key] = value
    data = json.dumps(document, ensure_ascii=draw(st.integers(0, 9)) < 9).encode("utf-8", "surrogatepass")
    for _ in range(draw(SELDOM)):
        start = draw(st.integers(0, len(data)))
        data = data[:start] + draw(st.sampled_from(BYTES)) + data[start + draw(st.integers(0, 8)) :]
    return data


@st.composite
def environments(draw: DrawFn, verbs: list[str]) -> dict[str, str]:
    """Draws the variables of a call; CNI_PATH never names a folder with programs."""
    environment = ENVIRONMENT | {
        "CNI_COMMAND": draw(st.sampled_from(verbs)),
        "CNI_NETNS": draw(st.sampled_from(NAMESPACES)),
    }
    for _ in range(draw(SELDOM)):
        name = draw(st.sampled_from(["CNI_CONTAINERID", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH", "CNI_NETNS_OVERRIDE"]))
        environment[name] = draw(st.sampled_from(["", "/nowhere"] if name == "CNI_PATH" else TEXTS))
    if draw(st.integers(0, 19)) == 19:
        del environment[draw(st.sampled_from(sorted(environment.keys() - {"CNI_COMMAND"})))]
    return environment


@st.composite
def damaged(draw: DrawFn, whole: bytes) -> bytes:
    """Draws a payload that is cut, has bytes changed or put in, or a length that lies."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(len(content) - 1, 0)))
        change = draw(st.sampled_from(["cut", "change", "length", "insert"]))
        if change == "cut":
            del content[start:]
        elif change == "change" and content:
            content[start] = draw(st.integers(0, 255))
        elif change == "length":
            length = draw(st.sampled_from([0, 1, 3, 4, 5, 8, 0xFFFF]))
            content[start & ~3 : (start & ~3) + 2] = length.to_bytes(2, "little")
        else:
            content[start:start] = draw(st.binary(max_size=8))
    return bytes(content)
