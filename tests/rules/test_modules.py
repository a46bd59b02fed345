"""Tests the modules that a call loads: each of the standard library costs up to 10 ms, so a new one is a decision."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.machine import Machine, missing
from tests.rules.source import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

# The C halves that stand behind hashlib, ctypes, json, operator, signal, socket and struct.
FIRST = {"__future__", "_json", "_signal", "errno"}
STANDARD = FIRST | {"_blake2", "_ctypes", "_operator", "_socket", "_struct", "errno", "fcntl"}
PROTOCOL = {"cni", "cni.main", "cni.protocol", "cni.protocol.errors", "cni.protocol.jsontext", "cni.protocol.versions"}
COMMON = PROTOCOL | {
    "cni.protocol.address", "cni.protocol.fields", "cni.protocol.owner", "cni.protocol.plugin_config",
    "cni.protocol.record", "cni.protocol.request", "cni.protocol.result",
}  # fmt: skip
KEYS = {"cni.config", "cni.config.keys"}  # an ADD tells of those that nobody reads
KERNEL = {
    "cni.kernel", "cni.kernel.hostlock", "cni.kernel.netlink", "cni.kernel.netns", "cni.kernel.rtnl",
    "cni.kernel.rtnl_parse", "cni.kernel.rtnl_socket", "cni.kernel.sysctl", "cni.locks",
    "cni.effects", "cni.effects.alive", "cni.effects.bridge", "cni.effects.container", "cni.effects.engine",
    "cni.effects.forwarding", "cni.effects.host", "cni.effects.journal", "cni.effects.veth",
}  # fmt: skip
PLAN = {
    *KEYS, "cni.config.bandwidth", "cni.config.netconf", "cni.config.portmap", "cni.plan", "cni.plan.address",
    "cni.plan.alias", "cni.plan.attachment", "cni.plan.link", "cni.plan.operations", "cni.plan.plan",
}  # fmt: skip
ALLOCATOR = {
    "ipam", "ipam.allocate", "ipam.config", "ipam.index", "ipam.lease", "ipam.ledger", "ipam.main", "ipam.ranges",
    "ipam.store", "cni.locks",
}  # fmt: skip
LINKING = COMMON | KERNEL | PLAN | {"cni.plugins", "cni.plugins.bridge", "cni.plugins.context", "cni.plugins.ipam"}
ATTACHING = LINKING | ALLOCATOR
# podwire looks after the host's firewall, which its drop-ins leave to the plugin chained behind them.
ACCEPTING = {"cni.plan.forward_accept", "cni.effects.forward_accept", "cni.kernel.nft"}
ROUTED = {"cni.plan.routed", "cni.effects.routed"}
RULES = {"cni.kernel.nft", "cni.effects.nft_elements", "cni.effects.nft_socket", "cni.plan.nftables"}
MASQUERADING = RULES | {"cni.plan.masquerade", "cni.effects.masquerade"}
CHECKING = RULES | {"cni.plan.sourcecheck", "cni.effects.sourcecheck"}
PORTS = RULES | {
    "cni.plan.portmap", "cni.effects.portmap", "cni.effects.conntrack", "cni.effects.route_localnet",
    "cni.kernel.conntrack",  # the messages, apart from their use: one module more for ports alone
}  # fmt: skip
GUARDING = {"cni.kernel.tc"}  # the first port behind an interface, and the last
# Where podwired enforces NetworkPolicy, by whatever name podwire attaches.
HANDING_OVER = {"cni.plan.policy", "cni.effects.policy", "cni.kernel.nft", "cni.kernel.statefile"}
SHAPING = {"cni.plan.bandwidth", "cni.effects.bandwidth", "cni.kernel.tc"}

CALL = f"""
import sys
before = set(sys.modules)
sys.path.insert(0, {str(ROOT)!r})
sys.argv = [sys.argv[1]]
from cni.main import main
status = main()
sys.stderr.write(f"{{status}} " + " ".join(sorted(set(sys.modules) - before)))
"""
END_OF_ARGPARSE = """
try:
    status = main()
except SystemExit as ended:
    status = ended.code"""
NETWORK = {
    "cniVersion": "1.1.0",
    "name": "net",
    "type": "podwire",
    "isDefaultGateway": True,
    "hairpinMode": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8::/64"}]]},
}


def arguments(program: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", CALL, program]


def loaded(output: str) -> tuple[set[str], set[str]]:
    """The modules of a call that went well: podwire's, others."""
    status, *modules = output.split()
    assert status == "0", output
    own = {name for name in modules if name.partition(".")[0] in ("cni", "ipam")}
    return own, set(modules) - own


@pytest.fixture
def machine() -> Iterator[Machine]:
    if reason := missing():
        pytest.skip(reason)
    with Machine() as machine:
        machine.pod("pod1")
        yield machine


def test_version_loads_next_to_nothing() -> None:
    environment = {"CNI_COMMAND": "VERSION"}
    done = subprocess.run(arguments("podwire"), env=environment, capture_output=True, text=True, check=True)
    own, others = loaded(done.stderr)
    assert own - PROTOCOL == set()
    assert others - FIRST == set()


@pytest.mark.parametrize("command_line", [["help"], ["version"], ["install", "--help"]])
def test_help_version_and_install_load_no_library_of_the_command_line(command_line: list[str]) -> None:
    """They work where it is not installed."""
    script = CALL.replace("[sys.argv[1]]", "sys.argv[1:]").replace("status = main()", END_OF_ARGPARSE)
    command = [sys.executable, "-I", "-S", "-c", script, "podwire", *command_line]
    own, others = loaded(subprocess.run(command, env={}, capture_output=True, text=True, check=True).stderr)
    known = {"cni.diag", "cni.diag.entry", "cni.diag.install", "cni.protocol.folders", "cni.protocol.record"}
    assert own - PROTOCOL <= known
    assert "click" not in others


def run(machine: Machine, verb: str, program: str, **network: object) -> subprocess.CompletedProcess[str]:
    environment = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": machine.pods["pod1"].path,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/nowhere",
    }
    stdin = json.dumps(NETWORK | network)
    return machine.run(*arguments(program), stdin=stdin, env=environment, check=False)


def call(machine: Machine, verb: str, program: str, **network: object) -> tuple[set[str], set[str]]:
    return loaded(run(machine, verb, program, **network).stderr)


MAPPINGS = [{"hostPort": 80, "containerPort": 8080}, {"hostPort": 53, "containerPort": 53, "protocol": "udp"}]
LIMITS = {"ingressRate": 8_000_000, "ingressBurst": 8_000_000, "egressRate": 8_000_000, "egressBurst": 8_000_000}
# What a network asks for beyond the least, and the modules that are loaded for that and for nothing else.
FEATURES: dict[str, tuple[str, dict[str, Any], set[str]]] = {
    "nothing": ("podwire", {}, ACCEPTING),
    "nothing, as bridge": ("bridge", {}, set()),
    "nothing, as ptp": ("ptp", {}, ROUTED),
    "routed": ("podwire", {"mode": "routed", "hairpinMode": False}, ACCEPTING | ROUTED),
    "masquerading": ("podwire", {"ipMasq": True}, ACCEPTING | MASQUERADING),
    "masquerading, as bridge": ("bridge", {"ipMasq": True}, MASQUERADING),
    "guard": ("podwire", {"macspoofchk": True}, ACCEPTING | RULES | {"cni.plan.spoofcheck", "cni.effects.spoofcheck"}),
    "sources": ("podwire", {"ipSpoofCheck": True}, ACCEPTING | CHECKING),
    "sources, as ptp": ("ptp", {"ipSpoofCheck": True}, ROUTED | CHECKING),
    "ports": ("podwire", {"runtimeConfig": {"portMappings": MAPPINGS}}, ACCEPTING | PORTS | GUARDING),
    "limits": ("podwire", LIMITS, ACCEPTING | SHAPING),
}


@pytest.mark.parametrize(("program", "members", "modules"), FEATURES.values(), ids=FEATURES)
def test_attaching_and_releasing_load_what_the_network_asks_for(
    machine: Machine, program: str, members: dict[str, Any], modules: set[str]
) -> None:
    """All that is listed and nothing else, but for the first call after boot, which loads the rules."""
    call(machine, "ADD", program, **members)
    call(machine, "DEL", program, **members)
    seen = set[str]()
    for verb in ("ADD", "DEL"):
        own, others = call(machine, verb, program, **members)
        assert others - STANDARD == set(), verb
        assert {"cni.plugins.bridge", "ipam.main"} <= own
        seen |= own
    assert seen == ATTACHING | modules


def make_folder_of_records() -> None:
    os.makedirs(f"/run/podwire/pods-{os.stat('/proc/thread-self/ns/net').st_ino}")


def test_pods_are_handed_over_to_podwired_by_few_modules(machine: Machine) -> None:
    machine.call(make_folder_of_records)
    call(machine, "ADD", "bridge")
    call(machine, "DEL", "bridge")
    seen = set[str]()
    for verb in ("ADD", "DEL"):
        own, others = call(machine, verb, "bridge")
        assert others - STANDARD == set(), verb
        seen |= own
    assert seen == ATTACHING | HANDING_OVER | CHECKING


def test_releasing_asks_no_rules_of_a_network_that_has_none(machine: Machine) -> None:
    call(machine, "ADD", "podwire")
    own, _ = call(machine, "DEL", "podwire")
    assert own & (RULES | ACCEPTING) == set()


def test_the_allocator_alone_loads_no_network(machine: Machine) -> None:
    """But for the first call after boot, which makes folders."""
    call(machine, "ADD", "host-local")
    call(machine, "DEL", "host-local")
    for verb in ("ADD", "DEL"):
        own, others = call(machine, verb, "host-local")
        assert (
            own & ((PLAN - KEYS) | {"cni.plugins.bridge", "cni.plugins.ipam", "cni.proc", "cni.effects.engine"})
            == set()
        ), verb
        assert others - STANDARD == set(), verb


def test_a_network_without_addresses_loads_no_allocator(machine: Machine) -> None:
    for verb in ("ADD", "DEL"):
        own, others = call(machine, verb, "podwire", ipam={}, isDefaultGateway=False)
        assert own - LINKING == set(), verb
        assert others - STANDARD == set(), verb


# What a chained plugin is loaded for; the first call after boot loads rules.
CHAINED: dict[str, set[str]] = {"portmap": PORTS | GUARDING, "bandwidth": SHAPING, "loopback": set()}
REFERENCE_NAMES = {"hashlib", "_hashlib"}  # bandwidth's DEL finds what the reference made


@pytest.mark.parametrize("program", CHAINED)
def test_a_plugin_that_is_chained_loads_nothing_of_attachments_and_of_other_plugins(
    machine: Machine, program: str
) -> None:
    members: dict[str, Any] = {"runtimeConfig": {"portMappings": MAPPINGS, "bandwidth": LIMITS}}
    answer = json.loads(run(machine, "ADD", "bridge").stdout)
    if program == "portmap":
        call(machine, "ADD", program, prevResult=answer, **members)
        call(machine, "DEL", program, prevResult=answer, **members)
    foreign = (
        (ALLOCATOR - KERNEL)
        | RULES
        | PORTS
        | SHAPING
        | {"cni.plugins.bridge", "cni.config.netconf", "cni.plugins.ipam"}
    )
    for verb in ("ADD", "DEL"):
        own, others = call(machine, verb, program, prevResult=answer, **members)
        assert own & (foreign - CHAINED[program]) == set(), verb
        assert {name.removeprefix("cni.plugins.") for name in own if name.startswith("cni.plugins.")} == {
            "chained", "context", program,
        }  # fmt: skip
        assert others - STANDARD - (REFERENCE_NAMES if (program, verb) == ("bandwidth", "DEL") else set()) == set()
