"""What a call loads: each module of the standard library costs up to 10 ms, so a new one is a decision."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.machine import Machine, missing
from tests.rules.source import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

# The C halves that stand behind hashlib, ctypes, json, operator, signal, socket and struct.
FIRST = {"__future__", "_json", "_signal"}
STANDARD = FIRST | {"_blake2", "_ctypes", "_operator", "_socket", "_struct", "errno", "fcntl"}
PROTOCOL = {"cni", "cni.main", "cni.spec", "cni.spec.errors", "cni.spec.jsontext", "cni.spec.versions"}
COMMON = PROTOCOL | {
    "cni.spec.address", "cni.spec.fields", "cni.spec.network", "cni.spec.owner", "cni.spec.record", "cni.spec.request",
    "cni.spec.result",
}  # fmt: skip
KERNEL = {
    "cni.kernel", "cni.kernel.alive", "cni.kernel.apply", "cni.kernel.bridge", "cni.kernel.container",
    "cni.kernel.forwarding", "cni.kernel.journal", "cni.kernel.machine", "cni.kernel.netlink", "cni.kernel.netns",
    "cni.kernel.nfnl", "cni.kernel.nft", "cni.kernel.route", "cni.kernel.rtinfo",
    "cni.kernel.rtnl", "cni.kernel.sysctl", "cni.kernel.veth",
}  # fmt: skip
PLAN = {
    "cni.config", "cni.config.netconf", "cni.plan", "cni.plan.address", "cni.plan.alias", "cni.plan.attachment",
    "cni.plan.link",
    "cni.plan.masquerade", "cni.plan.operations", "cni.plan.plan",
}  # fmt: skip
ALLOCATOR = {
    "ipam", "ipam.allocate", "ipam.boot", "ipam.config", "ipam.index", "ipam.lease", "ipam.ledger", "ipam.main",
    "ipam.ranges", "ipam.resolv", "ipam.store",
}  # fmt: skip
ATTACHING = COMMON | KERNEL | PLAN | ALLOCATOR | {"cni.commands", "cni.delegate", "cni.proc", "cni.plan.ruleset"}

CALL = f"""
import sys
before = set(sys.modules)
sys.path.insert(0, {str(ROOT)!r})
sys.argv = [sys.argv[1]]
from cni.main import main
status = main()
sys.stderr.write(f"{{status}} " + " ".join(sorted(set(sys.modules) - before)))
"""
NETWORK = {
    "cniVersion": "1.1.0",
    "name": "net",
    "type": "podwire",
    "isDefaultGateway": True,
    "ipMasq": True,
    "hairpinMode": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8::/64"}]]},
}


def arguments(program: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", CALL, program]


def loaded(said: str) -> tuple[set[str], set[str]]:
    """The modules of a call that went well: podwire's, others."""
    status, *modules = said.split()
    assert status == "0", said
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


def call(machine: Machine, verb: str, program: str, **network: object) -> tuple[set[str], set[str]]:
    environment = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": machine.pods["pod1"].path,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/nowhere",
    }
    told = json.dumps(NETWORK | network)
    done = machine.run(*arguments(program), stdin=told, env=environment, check=False)
    return loaded(done.stderr)


def test_attaching_and_releasing_load_what_is_listed(machine: Machine) -> None:
    """But for the first call after boot, which has nft load the rules."""
    call(machine, "ADD", "podwire")
    call(machine, "DEL", "podwire")
    for verb in ("ADD", "DEL"):
        own, others = call(machine, verb, "podwire")
        assert own - ATTACHING == set(), verb
        assert others - STANDARD == set(), verb
        assert {"cni.commands", "ipam.main"} <= own


def test_without_rules_to_care_for_their_room_is_not_entered(machine: Machine) -> None:
    for verb in ("ADD", "DEL"):
        own, _ = call(machine, verb, "podwire", ipMasq=False)
        assert own & {"cni.kernel.nft", "cni.kernel.nfnl", "cni.plan.ruleset", "cni.proc"} == set(), verb


def test_the_allocator_alone_loads_no_network(machine: Machine) -> None:
    """But for the first call after boot, which makes folders."""
    call(machine, "ADD", "host-local")
    call(machine, "DEL", "host-local")
    for verb in ("ADD", "DEL"):
        own, others = call(machine, verb, "host-local")
        assert own & (PLAN | {"cni.commands", "cni.delegate", "cni.proc", "cni.kernel.apply"}) == set(), verb
        assert others - STANDARD == set(), verb


def test_a_network_without_addresses_loads_no_allocator(machine: Machine) -> None:
    for verb in ("ADD", "DEL"):
        own, others = call(machine, verb, "podwire", ipam={}, isDefaultGateway=False)
        assert own & ALLOCATOR == set(), verb
        assert others - STANDARD == set(), verb
