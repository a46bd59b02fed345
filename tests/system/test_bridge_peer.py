"""The reference bridge and podwire return the same result, make the same pod, and release each other's attachments."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.machine import Machine, Pod
from tests.snapshot import Snapshot, added
from tests.system.plugins import Attachment, Json, RefusedError, call
from tests.system.shared import without_marks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
IPV4 = [{"subnet": "10.1.2.0/24"}]
IPV6 = [{"subnet": "2001:db8:1::/64"}]
WANTED_MAC = "02:00:00:00:00:44"
MAC = "[0-9a-f]{2}(:[0-9a-f]{2}){5}"
STATIC = {"type": "static", "addresses": [{"address": "10.1.2.77/24", "gateway": "10.1.2.1"}]}


def addresses(*sets: list[Json], **ipam: object) -> Json:
    return {"type": "host-local", "ranges": [*sets], **ipam}


ONE, DUAL = addresses(IPV4), addresses(IPV4, IPV6)

CONFIGS: dict[str, Json] = {
    "plain L2": {},
    "plain L2 with another bridge": {"bridge": "br-test"},
    "no gateway": {"ipam": ONE},
    "isGateway": {"isGateway": True, "ipam": ONE},
    "isDefaultGateway": {"isDefaultGateway": True, "ipam": ONE},
    "dual stack": {"isDefaultGateway": True, "ipam": DUAL},
    "dual stack without gateway": {"ipam": DUAL},
    "IPv6 alone": {"isDefaultGateway": True, "ipam": addresses(IPV6)},
    "gateway of one's own": {
        "isDefaultGateway": True,
        "ipam": addresses([{"subnet": "10.1.2.0/24", "gateway": "10.1.2.254"}]),
    },
    "default route by the allocator": {"isGateway": True, "ipam": {**ONE, "routes": [{"dst": "0.0.0.0/0"}]}},
    "routes": {
        "isGateway": True,
        "ipam": {**DUAL, "routes": [{"dst": "192.0.2.0/24", "gw": "10.1.2.9"}, {"dst": "2001:db8:9::/48"}]},
    },
    "routes with priority and table": {
        "isGateway": True,
        "ipam": {
            **ONE,
            "routes": [{"dst": "192.0.2.0/24", "priority": 7}, {"dst": "198.51.100.0/24", "table": 99}],
        },
    },
    "dns": {
        "isGateway": True,
        "ipam": ONE,
        "dns": {"nameservers": ["192.0.2.53"], "domain": "a.example", "search": ["b.example"], "options": ["ndots:2"]},
    },
    "empty dns list": {"ipam": ONE, "dns": {"nameservers": []}},
    "mtu": {"mtu": 1400, "isGateway": True, "ipam": ONE},
    "ipMasq": {"isDefaultGateway": True, "ipMasq": True, "ipam": DUAL},
    "hairpinMode": {"hairpinMode": True, "isGateway": True, "ipam": ONE},
    "promiscMode": {"promiscMode": True, "isGateway": True, "ipam": ONE},
    "portIsolation": {"portIsolation": True, "isGateway": True, "ipam": ONE},
    "forceAddress": {"forceAddress": True, "isGateway": True, "ipam": ONE},
    "static addresses by another program": {"isDefaultGateway": True, "ipam": STATIC},
    "runtimeConfig": {
        "isGateway": True,
        "ipam": ONE,
        "runtimeConfig": {"ips": ["10.1.2.44"], "mac": WANTED_MAC},
    },
}
CHOSEN = r" (mac=\S+|alias=.*?(?= \w+=|$))"  # of a link's line in a snapshot
OURS = ("podwire", "bridge")  # podwire under its own name and under the reference's


def config(settings: Json, kind: str = "bridge", version: str = "1.1.0") -> Json:
    return {"cniVersion": version, "name": "same", "type": kind, **settings}


def attachment(pod: Pod, others: Path | None = None) -> Attachment:
    return Attachment(container=f"container-{pod.name}", netns=pod.path, others=others)


@pytest.fixture
def machine(usual_machine: Machine) -> Machine:
    return usual_machine


@pytest.fixture(scope="module")
def run_both(peers: Path, plugins: Path) -> Callable[..., tuple[list[Any], list[Any]]]:
    """Returns a function that adds a pod on two like machines, one for each program."""

    def run(program: Path, request: Json) -> list[Any]:
        with Machine() as machine:
            pod = machine.pod()
            try:
                answer = call(machine, program, "ADD", request, attachment(pod, peers))
            except RefusedError:
                # The words and codes of a refusal are podwire's own; the reference knows little but 999.
                return ["refused"]
            return [without_names(answer), what_the_pod_sees(machine.snapshot())]

    def both(settings: Json, ours: str, version: str) -> tuple[list[Any], list[Any]]:
        theirs = run(peers / "bridge", config(settings, "bridge", version))
        return theirs, run(plugins / ours, config(settings, ours, version))

    return both


@pytest.mark.parametrize("ours", OURS)
@pytest.mark.parametrize("settings", CONFIGS.values(), ids=CONFIGS)
def test_same_answer_and_same_pod(
    run_both: Callable[..., tuple[list[Any], list[Any]]], settings: Json, ours: str
) -> None:
    theirs, mine = run_both(settings, ours, "1.1.0")
    assert mine == theirs
    assert theirs != ["refused"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["plain L2", "isGateway", "dual stack", "routes", "dns"])
def test_same_answer_in_every_version(
    run_both: Callable[..., tuple[list[Any], list[Any]]], name: str, version: str
) -> None:
    """Versions before 0.3.0 cannot say that there is no address: both refuse plain L2 there."""
    theirs, mine = run_both(CONFIGS[name], "bridge", version)
    assert mine == theirs
    assert (theirs == ["refused"]) == (name == "plain L2" and version < "0.3.0")


@pytest.mark.parametrize("ours", OURS)
@pytest.mark.parametrize("settings", [CONFIGS["plain L2"], CONFIGS["dual stack"]], ids=["plain L2", "dual stack"])
@pytest.mark.parametrize("order", ["reference adds", "podwire adds"])
def test_one_deletes_what_the_other_added(
    machine: Machine, peers: Path, plugins: Path, settings: Json, ours: str, order: str
) -> None:
    first, second = peers / "bridge", plugins / ours
    if order == "podwire adds":
        first, second = second, first
    shared, pod = machine.pod(), machine.pod()
    # A first pod brings what pods share, so that the second alone makes the difference.
    call(machine, first, "ADD", config(settings, first.name), attachment(shared))
    before = machine.snapshot()
    result = call(machine, first, "ADD", config(settings, first.name), attachment(pod))
    call(machine, second, "DEL", {**config(settings, second.name), "prevResult": result}, attachment(pod))
    machine.run("sh", "-c", "rm -f /run/podwire/attachment-*")  # the command line's record: the reference leaves it
    assert added(without_marks(before), without_marks(machine.snapshot())) == {}


@pytest.mark.parametrize("ours", OURS)
@pytest.mark.parametrize("order", ["reference adds", "podwire adds"])
def test_one_checks_what_the_other_added(
    each_machine: Machine, peers: Path, plugins: Path, ours: str, order: str
) -> None:
    machine = each_machine
    first, second = peers / "bridge", plugins / ours
    if order == "podwire adds":
        first, second = second, first
    pod, settings = machine.pod(), CONFIGS["dual stack"]
    result = call(machine, first, "ADD", config(settings, first.name), attachment(pod))
    call(machine, second, "CHECK", {**config(settings, second.name), "prevResult": result}, attachment(pod))


def without_names(answer: Json) -> Json:
    """Replaces values that each program chooses: host interface names and MAC addresses.

    The MTU of an interface is left out because the reference never fills it in.
    """
    interfaces = [
        {
            **{key: value for key, value in interface.items() if key not in ("mac", "mtu")},
            "name": re.sub(r"^(?!cni0$|br-test$|eth0$).*", "host interface", interface["name"]),
            "mac": re.sub(f"^(?!{WANTED_MAC}){MAC}$", "any", interface.get("mac", "")),
        }
        for interface in answer.get("interfaces", ())
    ]
    return {**answer, **({"interfaces": interfaces} if interfaces else {})}


def what_the_pod_sees(snapshot: Snapshot) -> Snapshot:
    """Returns addresses, routes and links of host and pod, without values that each program chooses."""
    return {
        "addresses": snapshot["addresses"],
        "routes": snapshot["routes"],
        "sysctls": snapshot["sysctls"],
        "links": sorted(
            re.sub(
                r"^(?!lo |cni0 |br-test |pod1:)\S+",
                "host interface",
                re.sub(r" (mac=\S+|alias=.*?(?= \w+=|$))", "", line),
            )
            for line in snapshot["links"]
        ),
    }
