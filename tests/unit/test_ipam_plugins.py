"""IPAM: a third-party plugin, host-local in this process, or none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import ipam.main
from cni.plugins.ipam import NoIpam, allocator
from cni.plugins.ipam_exec import ExecIpam
from cni.protocol.address import parse_ip, parse_net
from cni.protocol.errors import CniError, DecodingFailure, Delegated, InvalidEnvironment, OperationFailed
from cni.protocol.fields import ConfigErrors
from cni.protocol.plugin_config import PluginConfig, parse_plugin_config
from cni.protocol.request import Request, parse_request
from cni.protocol.result import DNS, IPConfig, Result, Route

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_subprocess import FakeProcess

    from cni.plugins.ipam import Ipam
    from ipam.lease import Lease

MODERN = {
    "cniVersion": "1.1.0",
    "ips": [{"address": "10.1.2.3/24", "gateway": "10.1.2.1"}],
    "routes": [{"dst": "0.0.0.0/0"}],
    "dns": {"domain": "a.example"},
}
MIDDLE = MODERN | {"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "10.1.2.3/24", "gateway": "10.1.2.1"}]}
OLDEST = {
    "cniVersion": "0.2.0",
    "ip4": {"ip": "10.1.2.3/24", "gateway": "10.1.2.1", "routes": [{"dst": "0.0.0.0/0"}]},
    "dns": {"domain": "a.example"},
}
RESULT = Result(
    (),
    (IPConfig(parse_net("10.1.2.3/24"), parse_ip("10.1.2.1")),),
    (Route(parse_net("0.0.0.0/0")),),
    DNS(domain="a.example"),
)
ERROR = {"cniVersion": "1.1.0", "code": 11, "msg": "pool is empty", "details": "wait"}
USES: dict[str, Callable[[Ipam, Request, PluginConfig], object]] = {
    "DEL": lambda plugin, request, network: plugin.delete(request, network, alive),
    "CHECK": lambda plugin, request, network: plugin.check(request, network, None),
    "GC": lambda plugin, _, network: plugin.collect(network, set(), alive),
    "STATUS": lambda plugin, _, network: plugin.status(network, alive),
}


def alive(_: Lease) -> bool:
    return True


class Scene:
    """A fake of the plugin `dhcp`, and the call that executes it."""

    def __init__(self, folder: Path, fake: FakeProcess, version: str = "1.1.0") -> None:
        self.program = folder / "dhcp"
        self.program.write_text("")
        self.program.chmod(0o755)
        self.fake = fake
        self.heard: list[bytes] = []
        self.calls: list[Any] = []
        self.request = self._request(str(folder))
        data = json.dumps({"cniVersion": version, "name": "net", "ipam": {"type": "dhcp", "x": 1}}).encode()
        self.network = parse_plugin_config(data, "ADD")
        self.ipam = allocator("dhcp", self.request)

    @staticmethod
    def _request(path: str) -> Request:
        return parse_request(
            {
                "CNI_COMMAND": "ADD",
                "CNI_CONTAINERID": "c1",
                "CNI_NETNS": "/run/netns/c1",
                "CNI_IFNAME": "eth0",
                "CNI_PATH": f"/nowhere:{path}",
                "HOME": "/root",
            }
        )

    def answers(self, answer: object, status: int = 0) -> None:
        """Sets the next output of the plugin."""
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        recorder = self.fake.register(
            [str(self.program)], stdout=data, returncode=status, stdin_callable=self.heard.append
        )
        self.calls.append(recorder)

    @property
    def commands(self) -> list[str]:
        return [call.kwargs["env"]["CNI_COMMAND"] for recorder in self.calls for call in recorder.calls]

    def add(self) -> Result:
        return self.ipam.add(self.request, self.network, alive)


@pytest.fixture
def scene(tmp_path: Path, fp: FakeProcess) -> Scene:
    return Scene(tmp_path, fp)


@pytest.mark.parametrize(
    "answer", [MODERN, MIDDLE, OLDEST, MODERN | {"cniVersion": ""}, {**MODERN, "cniVersion": None}]
)
def test_an_answer_is_read_in_its_own_version(scene: Scene, answer: dict[str, Any]) -> None:
    scene.answers(answer)
    assert scene.add() == RESULT
    assert scene.commands == ["ADD"]


def test_an_answer_without_version_has_that_of_the_configuration(tmp_path: Path, fp: FakeProcess) -> None:
    scene = Scene(tmp_path, fp, "0.2.0")
    scene.answers({key: value for key, value in OLDEST.items() if key != "cniVersion"})
    assert scene.add() == RESULT


def test_the_program_gets_the_whole_configuration_and_our_environment(scene: Scene) -> None:
    scene.answers(MODERN)
    scene.add()
    assert scene.heard == [scene.network.data]
    (call,) = scene.calls[0].calls
    assert call.kwargs["env"] == scene.request.environment
    assert call.kwargs["stderr"] is None  # what it says to people goes where ours goes


@pytest.mark.parametrize("verb", USES)
def test_the_verb_is_all_that_is_changed_in_our_environment(scene: Scene, verb: str) -> None:
    scene.answers(b"")
    USES[verb](scene.ipam, scene.request, scene.network)
    (call,) = scene.calls[0].calls
    assert call.kwargs["env"] == dict(scene.request.environment) | {"CNI_COMMAND": verb}
    assert scene.request.environment["CNI_COMMAND"] == "ADD"


@pytest.mark.parametrize("verb", USES)
def test_each_verb_is_handed_on(scene: Scene, verb: str) -> None:
    scene.answers(b"")
    USES[verb](scene.ipam, scene.request, scene.network)
    assert scene.commands == [verb]
    assert scene.heard == [scene.network.data]


@pytest.mark.parametrize("verb", USES)
def test_an_error_of_the_program_keeps_its_code(scene: Scene, verb: str) -> None:
    scene.answers(ERROR, 1)
    with pytest.raises(Delegated) as refusal:
        USES[verb](scene.ipam, scene.request, scene.network)
    assert (refusal.value.code, refusal.value.message, refusal.value.details) == (11, "dhcp: pool is empty", "wait")
    assert scene.commands == [verb]


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        ({"code": 7}, 7, "dhcp: "),
        ({"msg": "odd"}, 999, "dhcp: odd"),
        ({"code": "7", "msg": 7}, 999, "dhcp: "),
        ({"code": -1, "msg": "odd"}, 999, "dhcp: odd"),
        ({"Code": 120, "MSG": "odd"}, 120, "dhcp: odd"),
    ],
)
def test_an_error_of_odd_form_is_an_error(scene: Scene, answer: dict[str, Any], code: int, message: str) -> None:
    scene.answers(answer, 1)
    with pytest.raises(Delegated) as refusal:
        scene.ipam.delete(scene.request, scene.network, alive)
    assert (refusal.value.code, refusal.value.message) == (code, message)


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        (b"", 2, "ended with status 2: its answer is empty"),
        (b"panic: runtime error", 2, "ended with status 2: its answer is not JSON"),
        (b"[]", 1, "ended with status 1: its answer is not a JSON object"),
        (b"", -9, "ended with status -9: its answer is empty"),
    ],
)
def test_a_failure_without_error_object_says_how_it_ended(scene: Scene, answer: bytes, status: int, text: str) -> None:
    scene.answers(answer, status)
    with pytest.raises(OperationFailed, match=rf"^dhcp {text}"):
        scene.ipam.delete(scene.request, scene.network, alive)


@pytest.mark.parametrize(
    ("answer", "status", "kind", "message"),
    [
        (ERROR, 1, Delegated, "dhcp: pool is empty"),
        (b"", 0, DecodingFailure, "the answer of dhcp is empty, expected a JSON object"),
        (b"hello", 0, DecodingFailure, "the answer of dhcp is not JSON: "),
        (b"[]", 0, DecodingFailure, "the answer of dhcp is not a JSON object"),
        (MODERN | {"ips": [{}]}, 0, DecodingFailure, "the answer of dhcp is no result: dhcp.ips[0].address: missing"),
        (MODERN | {"cniVersion": "x"}, 0, DecodingFailure, "cniVersion 'x' is not a version"),
        (
            MODERN | {"cniVersion": 1},
            0,
            DecodingFailure,
            "the answer of dhcp is no result: dhcp.cniVersion: expected a text",
        ),
    ],
)
@pytest.mark.parametrize("second", [0, 1])
def test_after_a_failed_add_the_program_gets_a_del_and_the_first_error_counts(
    scene: Scene, answer: object, status: int, kind: type[CniError], message: str, second: int
) -> None:
    scene.answers(answer, status)
    scene.answers(ERROR | {"msg": "another"}, second)
    with pytest.raises(kind) as refusal:
        scene.add()
    assert refusal.value.message.startswith(message)
    assert scene.commands == ["ADD", "DEL"]


def test_a_program_that_is_not_there_is_named_with_the_path(scene: Scene) -> None:
    scene.program.unlink()
    with pytest.raises(OperationFailed) as refusal:
        scene.add()
    path = ["/nowhere", str(scene.program.parent)]
    assert refusal.value.message == f"failed to find plugin 'dhcp' in path {path}: install it there"


def test_without_a_path_no_program_can_be_executed(scene: Scene) -> None:
    ipam_ = ExecIpam("dhcp", scene.request._replace(path=()))
    with pytest.raises(
        InvalidEnvironment, match=r"^required env variables \[CNI_PATH\] missing: the plugin dhcp is executed$"
    ):
        ipam_.add(scene.request, scene.network, alive)


def test_a_file_that_the_kernel_cannot_execute_is_named(scene: Scene) -> None:
    scene.fake.allow_unregistered(allow=True)
    with pytest.raises(OperationFailed) as refusal:
        scene.add()
    assert refusal.value.message == f"cannot execute {scene.program}: Exec format error"


def test_the_configuration_of_a_program_is_its_own_to_judge(scene: Scene) -> None:
    errors = ConfigErrors()
    scene.ipam.validate(scene.request, scene.network, errors)
    assert errors.messages == []
    assert scene.ipam.leased(scene.request, scene.network) == ()
    assert scene.commands == []


def test_without_ipam_nothing_is_given_or_asked(scene: Scene) -> None:
    nobody = allocator("", scene.request)
    assert isinstance(nobody, NoIpam)
    assert nobody.add(scene.request, scene.network, alive) == Result()
    assert nobody.leased(scene.request, scene.network) == ()
    errors = ConfigErrors()
    nobody.validate(scene.request, scene.network, errors)
    for use in USES.values():
        use(nobody, scene.request, scene.network)
    assert errors.messages == []
    assert scene.commands == []


def test_host_local_gives_addresses_in_this_process(scene: Scene) -> None:
    assert allocator("host-local", scene.request) is ipam.main
