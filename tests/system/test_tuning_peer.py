"""The reference tuning and podwire make the same changes, return the same result, and restore each other's changes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from cni.config.tuning import ALLOWLIST
from tests.machine import Machine, Pod
from tests.system.plugins import Attachment, Json, RefusedError, call

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAC, OTHER, THIRD = "02:00:00:00:00:44", "02:00:00:00:00:45", "02:00:00:00:00:46"
IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/24"}]]}
NETWORK = {"cniVersion": "1.0.0", "name": "net", "isGateway": True, "ipam": IPAM}
FORWARD, FILTER, PORTS = "net/ipv4/ip_forward", "net/ipv4/conf/eth0/arp_filter", "net/ipv4/ip_local_port_range"
LINK: Json = {"mac": MAC, "promisc": True, "mtu": 1400, "allmulti": True, "txQLen": 500}
SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net/ipv4.conf.IFNAME.arp_filter": "1",
    "net.ipv4.ip_local_port_range": "2000 3000",
}
DATA_DIR = "/run/cni/tuning"


class Scene(NamedTuple):
    """A container that is attached and not yet tuned."""

    machine: Machine
    pod: Pod
    previous: Json

    def call(self, program: Path, verb: str, settings: Json, arguments: str = "") -> Json:
        config = {"cniVersion": "1.0.0", "name": "net", "type": "tuning", "prevResult": self.previous, **settings}
        return call(self.machine, program, verb, config, Attachment("c1", self.pod.path, arguments=arguments))

    def seen(self) -> Json:
        """Returns the container's settings."""
        (state,) = json.loads(self.pod.run("ip", "-j", "link", "show", "eth0").stdout)
        keys = {key: self.pod.run("cat", f"/proc/sys/{key}").stdout.split() for key in (FORWARD, FILTER, PORTS)}
        return {key: state.get(key, 0) for key in ("address", "mtu", "txqlen")} | {"flags": set(state["flags"]), **keys}


def attached(machine: Machine, podwire: Path) -> Scene:
    pod = machine.pod()
    answer = call(machine, podwire, "ADD", {**NETWORK, "type": "podwire"}, Attachment("c1", pod.path))
    return Scene(machine, pod, answer)


@pytest.fixture(scope="module")
def theirs(peers: Path) -> Path:
    if not (peers / "tuning").exists():
        pytest.skip("absent: tuning (hack/peers brings it)")
    return peers / "tuning"


@pytest.fixture(scope="module")
def ours(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns podwire under the reference's name, beside podwire itself."""
    folder = tmp_path_factory.mktemp("tuning")
    for name in ("podwire", "tuning"):
        (folder / name).symlink_to(bundle / "podwire")
    return folder / "tuning"


@pytest.fixture
def machine(usual_machine: Machine) -> Machine:
    return usual_machine


@pytest.fixture
def scene(machine: Machine, ours: Path) -> Scene:
    return attached(machine, ours.parent / "podwire")


CONFIGS: dict[str, tuple[Json, str]] = {
    **{key: ({key: value}, "") for key, value in LINK.items()},
    "off": ({"allmulti": False, "promisc": False, "txQLen": 0}, ""),
    "nothing": ({"mac": "", "mtu": 0, "sysctl": {}}, ""),
    "sysctl": ({"sysctl": SYSCTLS}, ""),
    "other case": ({"MTU": 1400, "TXQLEN": 7, "SysCtl": {"net.ipv4.ip_forward": "1"}}, ""),
    "all": ({**LINK, "sysctl": SYSCTLS}, ""),
    "MAC of the environment": ({"mac": MAC}, f"IgnoreUnknown=1;MAC={OTHER}"),
    "MAC of the runtime": ({"mac": MAC, "runtimeConfig": {"mac": THIRD}}, f"MAC={OTHER}"),
    "MAC of the arguments": ({"args": {"cni": {"mac": MAC}}, "runtimeConfig": {"mac": THIRD}}, f"MAC={OTHER}"),
    "no MAC by the arguments": ({"args": {"cni": {"mac": ""}}, "runtimeConfig": {"mac": THIRD}}, f"MAC={OTHER}"),
    "arguments": (
        {**LINK, "sysctl": {"net.ipv4.ip_forward": "1"},
         "args": {"cni": {"mtu": 1300, "promisc": False, "allmulti": False, "txQLen": 3,
                          "sysctl": {"net.ipv4.ip_forward": "0", "net.ipv4.conf.eth0.arp_filter": "1"}}}}, ""),
    "nulls": ({"mac": None, "mtu": None, "txQLen": None, "sysctl": None, "args": None, "runtimeConfig": None}, ""),
}  # fmt: skip


@pytest.fixture(scope="module")
def run_both(theirs: Path, ours: Path) -> Callable[..., tuple[list[Any], list[Any]]]:
    """Returns a function that tunes a container on two like machines, one for each program."""

    def run(program: Path, settings: Json, arguments: str, allowlist: str | None) -> list[Any]:
        with Machine() as machine:
            scene = attached(machine, ours.parent / "podwire")
            if allowlist is not None:
                machine.run("mkdir", "-p", ALLOWLIST.rpartition("/")[0])
                machine.run("sh", "-c", f"cat > {ALLOWLIST}", stdin=allowlist)
            try:
                answer = scene.call(program, "ADD", settings, arguments)
            except RefusedError:
                return ["refused"]
            for interface in answer["interfaces"]:
                interface.pop("mtu", None)  # the reference hands on an MTU that it has changed
            del answer["interfaces"][2]["sandbox"]
            return [answer, scene.seen()]

    def both(settings: Json, arguments: str = "", allowlist: str | None = None) -> tuple[list[Any], list[Any]]:
        return run(theirs, settings, arguments, allowlist), run(ours, settings, arguments, allowlist)

    return both


@pytest.mark.parametrize(("settings", "arguments"), CONFIGS.values(), ids=CONFIGS)
def test_same_answer_and_same_container(
    run_both: Callable[..., tuple[list[Any], list[Any]]], settings: Json, arguments: str
) -> None:
    expected, outcomes = run_both(settings, arguments)
    assert outcomes == expected
    assert expected != ["refused"]


REFUSED: dict[str, Json] = {
    "another part of the kernel": {"sysctl": {"kernel.panic": "1"}},
    "no part at all": {"sysctl": {"net": "1"}},
    "out of the folder": {"sysctl": {"net/../kernel/panic": "1"}},
    "an unknown setting": {"sysctl": {"net.ipv4.nothing": "1"}},
    "a number for a setting": {"sysctl": {"net.ipv4.ip_forward": 1}},
    "a value that the kernel refuses": {"sysctl": {"net.ipv4.ip_forward": "yes"}},
    "a MAC address of a group": {"mac": "01:00:00:00:00:01"},
    "no MAC address": {"mac": "x"},
    "a small MTU": {"mtu": 67},
    "a large MTU": {"mtu": 65536},
    "a text for a number": {"mtu": "1400"},
    "a number for a flag": {"promisc": 1},
    "no earlier answer": {"prevResult": None},
}


@pytest.mark.parametrize("settings", REFUSED.values(), ids=REFUSED)
def test_what_the_reference_refuses_is_refused(
    run_both: Callable[..., tuple[list[Any], list[Any]]], settings: Json
) -> None:
    assert run_both(settings) == (["refused"], ["refused"])


LINES = [
    "", "\n", "ip_forward", "  ip_forward \n", "^net\\.ipv4\\.ip_forward$", "^ip_forward", "net.ipv4.[a-z_]+$",
    "^net\\.[[:alnum:]]+\\.[[:lower:]_]+$", "^[^[:lower:]]", "\\d", "[\\w.]{19}", "(?i)IP_FORWARD", "a|b", "x\nforward",
    "^(?:net|kernel)\\.", "(?P<name>ipv[46])", "forward\n(", "(", "\\Aip", "\\bforward\\b", "ip.forward",
    "# everything", ".*",
]  # fmt: skip


def test_an_allowlist_says_to_both_the_same(scene: Scene, theirs: Path, ours: Path) -> None:
    machine, verdicts = scene.machine, {}
    machine.run("mkdir", "-p", ALLOWLIST.rpartition("/")[0])
    for lines in LINES:
        machine.run("sh", "-c", f"cat > {ALLOWLIST}", stdin=lines)
        verdicts[lines] = [is_taken(scene, program) for program in (theirs, ours)]
    assert {lines: pair for lines, pair in verdicts.items() if len(set(pair)) == 2} == {}
    assert {pair[0] for pair in verdicts.values()} == {True, False}


def is_taken(scene: Scene, program: Path) -> bool:
    try:
        scene.call(program, "ADD", {"sysctl": {"net.ipv4.ip_forward": "1"}})
    except RefusedError:
        return False
    return True


@pytest.mark.parametrize("order", ["reference adds", "podwire adds"])
@pytest.mark.parametrize("settings", [{key: value} for key, value in LINK.items()] + [LINK], ids=[*LINK, "all"])
def test_one_restores_what_the_other_has_changed(
    scene: Scene, theirs: Path, ours: Path, settings: Json, order: str
) -> None:
    first, second = (theirs, ours) if order == "reference adds" else (ours, theirs)
    before = scene.seen()
    result = scene.call(first, "ADD", settings)
    assert scene.seen() != before
    assert scene.machine.files(DATA_DIR) != []
    scene.call(second, "DEL", {**settings, "prevResult": result})
    assert scene.seen() == before
    assert scene.machine.files(DATA_DIR) == [f"{DATA_DIR}/"]


def test_the_reference_restores_the_link_where_podwire_has_kept_more(scene: Scene, theirs: Path, ours: Path) -> None:
    before = scene.seen()
    scene.call(ours, "ADD", {**LINK, "sysctl": SYSCTLS})
    scene.call(theirs, "DEL", {**LINK, "sysctl": SYSCTLS})
    assert scene.seen() == before | {FORWARD: ["1"], FILTER: ["1"], PORTS: ["2000", "3000"]}
    assert scene.machine.files(DATA_DIR) == [f"{DATA_DIR}/"]


@pytest.mark.parametrize("order", ["reference adds", "podwire adds"])
def test_one_checks_what_the_other_has_changed(each_machine: Machine, theirs: Path, ours: Path, order: str) -> None:
    scene = attached(each_machine, ours.parent / "podwire")
    first, second = (theirs, ours) if order == "reference adds" else (ours, theirs)
    settings = {**LINK, "sysctl": {"net.ipv4.ip_forward": "1"}}
    result = {"prevResult": scene.call(first, "ADD", settings)}
    scene.call(second, "CHECK", {**settings, **result})
    for command in ("ip link set eth0 mtu 1401", "sysctl -qw net.ipv4.ip_forward=0"):
        scene.pod.run(*command.split())
        for program in (theirs, ours):
            with pytest.raises(RefusedError):
                scene.call(program, "CHECK", {**settings, **result})
        scene.call(first, "ADD", settings)


def test_a_repeated_key_is_refused_by_both(scene: Scene, theirs: Path, ours: Path) -> None:
    """The document is written by hand: no dict holds it."""
    previous = json.dumps(scene.previous)
    document = (
        f'{{"cniVersion": "1.0.0", "name": "net", "prevResult": {previous}, "sysctl": {{"net.a": "1", "net.a": "1"}}}}'
    )
    for program in (theirs, ours):
        environment = Attachment("c1", scene.pod.path).environment("ADD", program)
        done = scene.machine.run("env", "-i", *environment, str(program), stdin=document, check=False)
        answer = json.loads(done.stdout)
        assert done.returncode == 1
        assert "duplicated" in answer["msg"] or answer["msg"].endswith("sysctl.net.a: is set more than once")
