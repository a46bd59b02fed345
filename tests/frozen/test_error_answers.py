"""Errors of the bundle: the code in the table in conf/README.md, and a message short enough for a pod's event."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.calls import ENVIRONMENT, NETWORK
from tests.frozen.calls import PROGRAMS, Call, call, run, run_all

if TYPE_CHECKING:
    from pathlib import Path

CHAINED = ["portmap", "bandwidth", "firewall", "tuning", "loopback"]
PREVIOUS = {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": "/x"}], "ips": []}
LEASES = {"type": "host-local", "subnet": "10.1.2.0/24"}
LIMIT = 4000  # characters of a message


@pytest.mark.parametrize(
    ("code", "program", "members", "environment"),
    [
        (1, "podwire", {"cniVersion": "9.9.9"}, {}),
        (1, "host-local", {"cniVersion": "1.0.0"}, {"CNI_COMMAND": "GC"}),
        (4, "podwire", {}, {"CNI_IFNAME": "a/b"}),
        (4, "portmap", {}, {"CNI_COMMAND": "UPDATE"}),
        (5, "host-local", {"ipam": LEASES | {"resolvConf": "/nowhere/resolv.conf"}}, {}),
        (6, "podwire", {"cniVersion": "one"}, {}),
        (7, "bridge", {"mtu": "1500"}, {}),
        (8, "podwire", {}, {}),
        (11, "flannel", {"subnetFile": "/nowhere/subnet.env"}, {}),
        (50, "flannel", {"subnetFile": "/nowhere/subnet.env"}, {"CNI_COMMAND": "STATUS"}),
        (100, "podwire", {"ipam": {"type": "absent"}}, {"CNI_COMMAND": "STATUS"}),
        (101, "host-local", {"ipam": LEASES, "prevResult": PREVIOUS}, {"CNI_COMMAND": "CHECK"}),
    ],
)
def test_each_code_of_the_reference_is_answered(
    bundle: Path, tmp_path: Path, code: int, program: str, members: dict[str, Any], environment: dict[str, str]
) -> None:
    network = NETWORK | members
    if "ipam" in members and members["ipam"]["type"] == "host-local":
        network["ipam"] = {**members["ipam"], "dataDir": str(tmp_path)}
    ended = run(bundle, call(network, environment, program))
    assert (ended.error[0], ended.stderr) == (code, b"")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("command", ["ADD", "CHECK", "STATUS"])
def test_a_name_at_fault_hides_no_other_fault(bundle: Path, program: str, command: str) -> None:
    config = NETWORK | {"name": "a b", "plugins": [], "prevResult": "text"}
    code, message = run(bundle, call(config, {"CNI_COMMAND": command}, program)).error
    assert code == 7
    assert "name: invalid characters found in network name 'a b'" in message
    assert "plugins: is a key of a plugin list" in message
    if (program, command) not in {*[(name, "STATUS") for name in CHAINED], ("flannel", "CHECK")}:
        assert "prevResult: expected an object" in message


WRONG: list[Any] = [
    [],
    "text",
    5,
    True,
    {"interfaces": {}},
    {"interfaces": [5]},
    {"interfaces": [{"name": 5}]},
    {"interfaces": [{"name": "a", "mac": []}]},
    {"ips": "10.1.2.3/24"},
    {"ips": [{"address": 5}]},
    {"ips": [{"address": "10.1.2.3/24", "interface": "0"}]},
    {"ips": [{"address": "10.1.2.3/24", "gateway": {}}]},
    {"routes": [None]},
    {"routes": [{"dst": "0.0.0.0/0", "mtu": "1400"}]},
    {"dns": []},
    {"dns": {"nameservers": "10.1.2.1"}},
    {"cniVersion": 1.1},
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_earlier_result_of_a_wrong_type_is_refused(bundle: Path, program: str) -> None:
    ipam = {"ipam": {"type": "host-local", "subnet": "10.1.2.0/24", "dataDir": "/nowhere"}}
    calls = [call(NETWORK | ipam | {"prevResult": result}, {}, program) for result in WRONG]
    for request, ended in zip(calls, run_all(bundle, calls), strict=True):
        assert (ended.error[0], ended.stderr) == (7, b""), request
        assert ended.error[1].startswith("invalid network configuration: prevResult"), request


@pytest.mark.parametrize("program", CHAINED)
def test_arguments_that_a_plugin_does_not_read_are_not_judged(bundle: Path, program: str) -> None:
    for text in ("none", "a=b", "IP=1=2;", "IgnoreUnknown=maybe"):
        ended = run(bundle, call(NETWORK, {"CNI_ARGS": text}, program))
        assert "CNI_ARGS" not in ended.error[1]


@pytest.mark.parametrize("program", ["podwire", "bridge", "host-local"])
def test_arguments_that_a_plugin_reads_are(bundle: Path, program: str) -> None:
    assert run(bundle, call(NETWORK, {"CNI_ARGS": "none"}, program)).error == (
        4,
        "CNI_ARGS: 'none' is not one KEY=VALUE",
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_name_or_an_id_that_no_file_can_have_is_the_callers_fault(bundle: Path, program: str) -> None:
    for command in ("ADD", "DEL"):
        config = {"CNI_COMMAND": command}
        assert run(bundle, call(NETWORK | {"name": "a" * 256}, config, program)).error[0] == 7
        assert run(bundle, call(NETWORK, config | {"CNI_CONTAINERID": "a" * 256}, program)).error[0] == 7


def test_an_id_that_a_saved_file_cannot_bear_is_refused_and_released(bundle: Path, tmp_path: Path) -> None:
    agent = tmp_path / "subnet.env"
    agent.write_text("FLANNEL_NETWORK=10.9.0.0/16\nFLANNEL_SUBNET=10.9.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n")
    network = NETWORK | {"subnetFile": str(agent), "dataDir": f"{tmp_path}/saved"}
    config = {"CNI_CONTAINERID": "a" * 253}
    code, message = run(bundle, call(network, config, "flannel")).error
    assert code == 7
    assert "CNI_CONTAINERID" in message
    done = run(bundle, call(network, config | {"CNI_COMMAND": "DEL"}, "flannel"))
    assert (done.status, done.stdout) == (0, b"")


@pytest.mark.parametrize("folder", ["/nowhere/" + "a" * 256, "/nowhere" + "/a" * 2000])
def test_a_folder_that_no_path_can_name_is_the_configurations_fault(bundle: Path, folder: str) -> None:
    ipam = {"type": "host-local", "subnet": "10.1.2.0/24", "dataDir": folder, "resolvConf": folder}
    calls = [
        call(NETWORK | {"ipam": ipam}, {}, "host-local"),
        call(NETWORK | {"subnetFile": folder, "dataDir": folder}, {}, "flannel"),
        call(NETWORK | {"dataDir": folder, "prevResult": PREVIOUS}, {}, "tuning"),
    ]
    for ended, keys in zip(run_all(bundle, calls), (2, 2, 1), strict=True):
        assert ended.error[0] == 7
        assert ended.error[1].count("is too long for a path") == keys


FLOODS: dict[str, bytes] = {
    "entries": b'{"cniVersion":"1.1.0","name":"n","ipam":{"type":"host-local","routes":[' + b"0," * 200_000 + b"0]}}",
    "text": json.dumps({**NETWORK, "ipam": {**LEASES, "subnet": "x" * 2_000_000}}).encode(),
    "letters": json.dumps({**NETWORK, "ipam": {**LEASES, "subnet": "\u65e5" * 100_000}}).encode(),
    "name": json.dumps({**NETWORK, "name": "a b" * 200_000}).encode(),
    "version": json.dumps({**NETWORK, "cniVersion": "1" * 200_000}).encode(),
    "key": json.dumps({**NETWORK, "sysctl": {"kernel." + "\u65e5" * 100_000: "1"}}).encode(),
    "keys": json.dumps({**NETWORK, "sysctl": {f"kernel.{number}": "1" for number in range(50_000)}}).encode(),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_message_is_short_whatever_is_at_fault(bundle: Path, flood: str) -> None:
    calls = [call(FLOODS[flood], {}, program) for program in ("host-local", "bridge", "tuning")]
    for ended in run_all(bundle, calls):
        code, message = ended.error
        assert code in (6, 7, 8)
        assert len(message) <= LIMIT + 100
        assert len(ended.stdout) < 3 * LIMIT


def test_what_a_message_leaves_out_is_counted(bundle: Path) -> None:
    _, message = run(bundle, call(FLOODS["entries"], {}, "host-local")).error
    shown = message.count("expected an object")
    assert shown > 10
    assert message.endswith(f"; and {200_001 - shown} more")
    _, message = run(bundle, call(FLOODS["text"], {}, "host-local")).error
    assert "characters left out" in message
    assert message.endswith("x/24)")


def test_a_variable_of_any_length_makes_no_long_message(bundle: Path) -> None:
    environment = {"CNI_COMMAND": "a" * 100_000}
    assert len(run(bundle, call(NETWORK, environment)).error[1]) < LIMIT + 100
    long = ENVIRONMENT | {"CNI_ARGS": ";".join(["a"] * 30_000), "CNI_NETNS": "/" + "n" * 100_000}
    assert len(run(bundle, Call(json.dumps(NETWORK).encode(), long)).error[1]) < LIMIT + 100


def test_what_has_no_effect_is_reported_on_stderr_and_the_add_goes_on(bundle: Path) -> None:
    config = NETWORK | {"ipmask": True, "capabilities": {"portMapping": True}, "disableCheck": True, "type": "podwire"}
    ended = run(bundle, call(config, {}))
    assert ended.error[0] == 8
    assert ended.stderr.decode().splitlines() == [
        "ipmask: unknown key, ignored (did you mean ipMasq?)",
        "capabilities.portMapping: this capability is not supported, ignored (did you mean portMappings?)",
    ]
    assert run(bundle, call(config, {"CNI_COMMAND": "DEL"})).stderr == b""


def test_an_allocator_without_a_type_is_refused_or_reported(bundle: Path) -> None:
    config = NETWORK | {"ipam": {"subnet": "10.1.2.0/24"}}
    code, message = run(bundle, call(config, {})).error
    assert code == 7
    assert "ipam.type: missing, so that no plugin would allocate the addresses (did you mean host-local?)" in message
    drop_in = run(bundle, call(config, {}, "bridge"))
    assert drop_in.error[0] == 8
    assert drop_in.stderr == b"ipam: has no type, so the container gets no address (did you mean host-local?)\n"
    for ipam in ({}, {"type": ""}, {"type": "", "subnet": None}):
        assert run(bundle, call(NETWORK | {"ipam": ipam}, {})).error[0] == 8
