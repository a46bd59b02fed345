"""The environment of a call: the variables that each verb needs, all errors at once."""

from __future__ import annotations

import pytest

from cni.protocol.errors import InvalidConfig, InvalidEnvironment
from cni.protocol.request import ifname_error, is_identifier, is_plugin_name, parse_request, split_args

FULL = {
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/c1",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "IgnoreUnknown=1;IP=10.1.2.3",
    "CNI_PATH": "/opt/cni/bin:/usr/lib/cni",
}
NEEDED = {
    "ADD": ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
    "CHECK": ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
    "DEL": ["CNI_CONTAINERID", "CNI_IFNAME"],
    "GC": [],
    "STATUS": [],
    "VERSION": [],
}


@pytest.mark.parametrize("command", NEEDED)
def test_a_complete_environment_becomes_a_request(command: str) -> None:
    environment = FULL | {"CNI_COMMAND": command}
    request = parse_request(environment)
    assert (request.command, request.container_id, request.netns) == (command, "c1", "/run/netns/c1")
    assert (request.ifname, request.path) == ("eth0", ("/opt/cni/bin", "/usr/lib/cni"))
    assert request.netns_override is False
    assert request.environment is environment
    assert request.args == ({"IgnoreUnknown": "1", "IP": "10.1.2.3"} if NEEDED[command] else {})


@pytest.mark.parametrize("blank", [{}, dict.fromkeys(FULL, "")])
@pytest.mark.parametrize(("command", "needed"), NEEDED.items())
def test_all_that_is_missing_is_named_at_once(command: str, needed: list[str], blank: dict[str, str]) -> None:
    environment = {"CNI_COMMAND": command} | blank
    if not needed:
        assert parse_request(environment).container_id == ""
        return
    with pytest.raises(InvalidEnvironment) as refusal:
        parse_request(environment)
    assert refusal.value.message == f"required env variables [{','.join(needed)}] missing"


@pytest.mark.parametrize("command", ["add", "UPDATE", "", "ADD "])
def test_an_unknown_verb_is_refused(command: str) -> None:
    with pytest.raises(InvalidEnvironment, match=rf"^unknown CNI_COMMAND: {command}$"):
        parse_request(FULL | {"CNI_COMMAND": command})


def test_no_verb_is_refused() -> None:
    with pytest.raises(InvalidEnvironment, match=r"^unknown CNI_COMMAND: $"):
        parse_request({})


@pytest.mark.parametrize("text", ["a", "A9", "9", "a.b-c_d", "a..", "a--"])
def test_identifiers(text: str) -> None:
    assert is_identifier(text)


@pytest.mark.parametrize("text", ["", ".", "-a", "_", ".a", "a b", "a/b", "a\n", "é", "aé", "a²", "a\0", "a:b"])
def test_what_is_no_identifier(text: str) -> None:
    assert not is_identifier(text)


@pytest.mark.parametrize("command", ["ADD", "CHECK", "DEL"])
def test_a_container_id_with_odd_characters_is_refused(command: str) -> None:
    with pytest.raises(InvalidEnvironment, match=r"^invalid characters in containerID 'c1\\n' \(CNI_CONTAINERID\)$"):
        parse_request(FULL | {"CNI_COMMAND": command, "CNI_CONTAINERID": "c1\n"})


@pytest.mark.parametrize("command", ["GC", "STATUS", "VERSION"])
def test_verbs_without_attachment_do_not_judge_its_variables(command: str) -> None:
    odd = {"CNI_CONTAINERID": "/", "CNI_IFNAME": "a/b", "CNI_ARGS": "odd"}
    assert parse_request(FULL | odd | {"CNI_COMMAND": command}).args == {}


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("a" * 16, "interface name is too long (it should be less than 16 characters)"),
        ("é" * 8, "interface name is too long (it should be less than 16 characters)"),
        (".", "interface name is . or .."),
        ("..", "interface name is . or .."),
        ("a/b", "interface name contains / or : or whitespace characters"),
        ("a:b", "interface name contains / or : or whitespace characters"),
        ("a b", "interface name contains / or : or whitespace characters"),
        ("a\n", "interface name contains / or : or whitespace characters"),
        ("a\u2003b", "interface name contains / or : or whitespace characters"),
        ("a" * 15, ""),
        ("é" * 7, ""),
        ("\udcff" * 15, ""),
        ("...", ""),
        ("veth-1_2.3", ""),
        ("AZ!#&'*+;=?|~X", ""),
    ],
)
def test_interface_names_are_those_that_the_kernel_takes(name: str, error: str) -> None:
    assert ifname_error(name) == error


def test_all_faults_are_reported_at_once() -> None:
    environment = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "!", "CNI_IFNAME": "a/b", "CNI_ARGS": "odd"}
    with pytest.raises(InvalidEnvironment) as refusal:
        parse_request(environment)
    assert refusal.value.message == (
        "invalid characters in containerID '!' (CNI_CONTAINERID); "
        "interface name contains / or : or whitespace characters: 'a/b' (CNI_IFNAME); "
        "required env variables [CNI_NETNS] missing; "
        "CNI_ARGS: 'odd' is not one KEY=VALUE"
    )


def test_del_is_not_stopped_by_odd_arguments() -> None:
    assert parse_request(FULL | {"CNI_COMMAND": "DEL", "CNI_ARGS": "odd"}).args == {}
    with pytest.raises(InvalidEnvironment, match="odd"):
        parse_request(FULL | {"CNI_COMMAND": "CHECK", "CNI_ARGS": "odd"})


@pytest.mark.parametrize(
    ("text", "args"),
    [
        ("", {}),
        ("IP=10.1.2.3", {"IP": "10.1.2.3"}),
        ("IP=", {"IP": ""}),
        ("IP=1;IP=2", {"IP": "2"}),
        ("IgnoreUnknown=true;a=b", {"IgnoreUnknown": "true", "a": "b"}),
        ("a=b;IgnoreUnknown=TRUE", {"IgnoreUnknown": "TRUE", "a": "b"}),
        ("IgnoreUnknown=0;MAC=x;GATEWAY=y", {"IgnoreUnknown": "0", "MAC": "x", "GATEWAY": "y"}),
        (
            "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_UID=d",
            {"K8S_POD_NAMESPACE": "a", "K8S_POD_NAME": "b", "K8S_POD_INFRA_CONTAINER_ID": "c", "K8S_POD_UID": "d"},
        ),
    ],
)
def test_arguments(text: str, args: dict[str, str]) -> None:
    assert split_args(text) == (args, [])


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a", "'a' is not one KEY=VALUE"),
        ("IP=1;", "'' is not one KEY=VALUE"),
        ("IP=1=2", "'IP=1=2' is not one KEY=VALUE"),
        ("a=b;IP=1;c=d", "unknown keys a, c (set IgnoreUnknown=1 to allow them)"),
        ("ip=1", "unknown keys ip (set IgnoreUnknown=1 to allow them)"),
        ("a=b;IgnoreUnknown=false", "unknown keys a (set IgnoreUnknown=1 to allow them)"),
        ("IgnoreUnknown=yes", "IgnoreUnknown=yes is neither true nor false"),
        ("IgnoreUnknown=", "IgnoreUnknown= is neither true nor false"),
    ],
)
def test_arguments_at_fault(text: str, error: str) -> None:
    assert split_args(text)[1] == [f"CNI_ARGS: {error}"]
    with pytest.raises(InvalidEnvironment) as refusal:
        parse_request(FULL | {"CNI_COMMAND": "ADD", "CNI_ARGS": text})
    assert refusal.value.message == f"CNI_ARGS: {error}"


@pytest.mark.parametrize("text", ["none", "IP=1;", "a=b", "IgnoreUnknown=yes"])
def test_arguments_that_nobody_reads_are_not_judged(text: str) -> None:
    environment = FULL | {"CNI_COMMAND": "ADD", "CNI_ARGS": f"{text};MAC=x"}
    assert parse_request(environment, reads_args=False).args["MAC"] == "x"


@pytest.mark.parametrize(("name", "right"), [("host-local", True), ("..a", True), ("a b", True), ("a" * 300, True)])
def test_a_plugins_name_is_a_files(name: str, right: bool) -> None:
    assert is_plugin_name(name) is right
    for wrong in (f"../{name}", f"/{name}", f"{name}/", f"{name}\0", f"..\\{name}"):
        assert not is_plugin_name(wrong)


@pytest.mark.parametrize("command", ["ADD", "CHECK", "DEL"])
def test_an_id_that_no_file_can_be_named_by_is_refused(command: str) -> None:
    assert parse_request(FULL | {"CNI_COMMAND": command, "CNI_CONTAINERID": "a" * 255}).container_id == "a" * 255
    with pytest.raises(InvalidConfig, match=r"^containerID of 256 characters is too long for a file name \(CNI_"):
        parse_request(FULL | {"CNI_COMMAND": command, "CNI_CONTAINERID": "a" * 256})


@pytest.mark.parametrize(("value", "allowed"), [("1", True), ("true", True), ("True", True), ("0", False), ("", False)])
def test_the_own_namespace_may_be_allowed(value: str, allowed: bool) -> None:
    request = parse_request(FULL | {"CNI_COMMAND": "ADD", "CNI_NETNS_OVERRIDE": value})
    assert request.netns_override is allowed


@pytest.mark.parametrize(
    ("text", "path"), [("", ()), (":", ()), ("/a", ("/a",)), (":/a::/b:", ("/a", "/b")), ("relative", ("relative",))]
)
def test_the_path_is_a_list_of_folders(text: str, path: tuple[str, ...]) -> None:
    assert parse_request(FULL | {"CNI_COMMAND": "ADD", "CNI_PATH": text}).path == path
