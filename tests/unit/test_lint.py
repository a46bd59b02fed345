"""Tests `podwire lint`: what it finds in configurations, what it leaves alone, and how it ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("click", reason="the command line is made with it (pip install click)")

from cni import PROGRAMS
from cni.config.keys import EVERYWHERE
from cni.diag import commandline
from cni.diag.conflint import documents, folders
from cni.diag.conflint.findings import Finding
from cni.diag.conflint.folders import Network, NodeAddress
from cni.diag.lint import judge
from cni.protocol.address import parse_net
from tests.machine import Machine, missing
from tests.unit.strategies import PROFILE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cni.diag.entry import Ended

Json = dict[str, Any]
HOST_LOCAL = {"type": "host-local", "subnet": "10.1.0.0/16"}


def listed(*plugins: object, **members: object) -> Json:
    return {"cniVersion": "1.0.0", "name": "net", "plugins": [*plugins], **members}


def single(kind: str = "podwire", **members: object) -> Json:
    return {"cniVersion": "1.0.0", "name": "net", "type": kind, **members}


@pytest.fixture
def texts(tmp_path: Path) -> Callable[..., list[str]]:
    """Returns a function from a document to the texts of its findings, without the file's name."""

    def of(document: object, name: str = "") -> list[str]:
        is_list = isinstance(document, dict) and "plugins" in document
        path = tmp_path / (name or ("10-net.conflist" if is_list else "10-net.conf"))
        path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
        found = judge([documents.read(str(path))], on_node=False)
        return [finding.text.removeprefix(f"{path}: ") for finding in found]

    return of


VERSIONS = "0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"
DID_YOU_MEAN = "ipam.type: missing, so that the container gets no address (did you mean host-local?)"
TWICE = "is set more than once, the last value counts"
ONLY_NETWORK = "is not a sysctl of the network (as in net.ipv4.conf.IFNAME.arp_filter)"
UNSERVED = "this capability is not supported, ignored (did you mean portMappings?)"
SERVED_TWICE = "podwire serves it already, both would do it (remove it here or there)"
ADJUSTS = "adjusts the interface that another plugin has made"
IGNORES = "it ignores the plugins before it"
CHOOSE_BRIDGE = "with another gateway: ADD to the second one fails (choose another bridge, or set forceAddress)"
ONE_ADDRESS = "two containers may get one address (choose another subnet)"
# As other projects install them.
CLEAN: dict[str, Json] = {
    "podwire": single(
        bridge="cni0", isDefaultGateway=True, ipMasq=True, ipam=HOST_LOCAL, capabilities={"portMappings": True}
    ),
    "nerdctl": listed(
        {
            "type": "bridge",
            "bridge": "nerdctl0",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {
                "ranges": [[{"gateway": "10.4.0.1", "subnet": "10.4.0.0/24"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                "type": "host-local",
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "firewall", "ingressPolicy": "same-bridge"},
        {"type": "tuning"},
        nerdctlID="17f29b073143d8cd97b5bbe492bdeffec1c5fee55cc1fe2112c8b9335f8b6121",
        nerdctlLabels={"nerdctl/default-network": "true"},
    ),
    "podman": listed(
        {
            "type": "bridge",
            "bridge": "cni-podman0",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "routes": [{"dst": "0.0.0.0/0"}],
                "ranges": [[{"subnet": "10.88.0.0/16", "gateway": "10.88.0.1"}]],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "firewall"},
        {"type": "tuning"},
    ),
    "k3s": listed(
        {"type": "flannel", "delegate": {"hairpinMode": True, "forceAddress": True, "isDefaultGateway": True}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
        cniVersion="1.0.0",
    ),
    "calico": listed(
        {
            "type": "calico",
            "log_level": "info",
            "log_file_path": "/var/log/calico/cni/cni.log",
            "datastore_type": "kubernetes",
            "ipam": {"type": "calico-ipam"},
            "policy": {"type": "k8s"},
            "kubernetes": {"kubeconfig": "/etc/cni/net.d/calico-kubeconfig"},
        },
        {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}},
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
    ),
    "kube-router": listed(
        {
            "name": "kubernetes",
            "type": "bridge",
            "bridge": "kube-bridge",
            "isDefaultGateway": True,
            "hairpinMode": True,
            "mtu": 1480,
            "ipam": HOST_LOCAL,
        },
        {"type": "portmap", "capabilities": {"snat": True, "portMappings": True}},
    ),
    "kindnet": listed(
        {
            "type": "ptp",
            "ipMasq": False,
            "ipam": {
                "type": "host-local",
                "dataDir": "/run/cni-ipam-state",
                "routes": [{"dst": "0.0.0.0/0"}],
                "ranges": [[{"subnet": "10.244.0.0/24"}]],
            },
            "mtu": 1500,
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
        cniVersion="0.3.1",
    ),
    "multus": {"cniVersion": "0.3.1", "name": "multus", "type": "multus", "kubeconfig": "/etc/x", "delegates": []},
    "loopback": {"cniVersion": "1.0.0", "name": "lo", "type": "loopback"},
    "macvlan and tuning": listed(
        {"type": "macvlan", "master": "eth0", "ipam": {"type": "dhcp"}},
        {"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}},
    ),
    "comments": listed({**single(), "_comment": "x", "x.y/z": 1}, disableCheck="true", disableGC=True, comment="x"),
    "whatever case": {"CNIVersion": "1.0.0", "Name": "net", "Type": "bridge", "IPAM": HOST_LOCAL, "IsGateway": True},
}


@pytest.mark.parametrize("document", CLEAN.values(), ids=CLEAN)
def test_configurations_of_other_projects_have_no_findings(texts: Callable[..., list[str]], document: Json) -> None:
    known = ("nerdctlID", "nerdctlLabels")  # at the list, where libcni ignores them
    assert [text for text in texts(document) if not text.startswith(known)] == []


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (b"", ["is empty, expected a JSON object"]),
        (b"[]", ["is not a JSON object"]),
        (b'{"name": "a"', ["is not JSON: Expecting ',' delimiter: line 1 column 13 (char 12)"]),
        (
            {"type": "podwire"},
            [
                "cniVersion: missing, which means 0.1.0 without CHECK, GC and STATUS (set 1.1.0)",
                "name: missing network name",
            ],
        ),
        (single(cniVersion="2.0.0"), [f"cniVersion: config is '2.0.0', plugin supports {VERSIONS}"]),
        (single(cniVersion=1, name=2), ["name: expected a text", "cniVersion: expected a text"]),
        (single(name="a b"), ["name: invalid characters found in network name 'a b'"]),
        (single(ipmask=True), ["ipmask: unknown key, ignored (did you mean ipMasq?)"]),
        (single(mtu="1500", vlan=5000), ["mtu: expected an integer", "vlan: 5000 is not between 0 and 4094"]),
        (
            single(ipam={"subnet": "10.1.0.0/16"}),
            ["ipam.type: missing, so that no plugin would allocate the addresses (did you mean host-local?)"],
        ),
        (
            single("bridge", ipam={"subnet": "10.1.0.0/16"}),
            [DID_YOU_MEAN],
        ),
        (
            single(ipam={"type": "hostlocal"}),
            ["ipam.type: hostlocal is a program in CNI_PATH (did you mean host-local?)"],
        ),
        (single(ipam={"type": "host-local"}), ["ipam: no IP ranges specified"]),
        (
            single(ipam={"type": "host-local", "ranges": [[{"subnet": "10.0.0.0/33"}]]}),
            ["ipam.ranges[0][0].subnet: '10.0.0.0/33' has no valid prefix length"],
        ),
        (
            single(mode="routed"),
            ["ipam.type: missing, a routed container needs addresses"],
        ),
        (
            single(ipam={"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/16"}]], "gateway": "10.1.0.9"}),
            ["ipam.gateway: has no effect without ipam.subnet (put it into a range of ipam.ranges)"],
        ),
        (
            listed({"type": "x", "capabilities": {"a": 1}, "ipam": {"type": 1}, "dns": {"search": ""}, "args": ""}),
            [
                "plugins[0].ipam.type: expected a text",
                "plugins[0].args: expected an object",
                "plugins[0].dns.search: expected a list",
                "plugins[0].capabilities.a: expected true or false",
            ],
        ),
        (
            single("ptp", hairpinMode=True, ipam=HOST_LOCAL),
            ["hairpinMode: is a key of podwire, bridge: ptp ignores it (move it there, or remove it)"],
        ),
        (single(runtimeConfig={}), ["runtimeConfig: is set by the runtime, a file's value is lost"]),
        (
            single(logLevel="debug", logFile="x"),
            ["logFile: 'x' is not an absolute path", "logLevel: 'debug' is neither error nor info"],
        ),
        (single(capabilities={"portMapping": True}), [f"capabilities.portMapping: {UNSERVED}"]),
        (single("bridg"), ["type: bridg is no plugin of podwire's (did you mean bridge?)"]),
        (
            single("host-local", ipam=HOST_LOCAL),
            ["type: host-local allocates addresses and attaches nothing (it is a type of ipam)"],
        ),
        (single("portmap"), [f"type: portmap {ADJUSTS} (use a plugin list)"]),
        (
            single("flannel", delegate={"name": "x", "mtuu": 1, "vlan": 5000}),
            [
                "delegate.name: is set by flannel, remove it",
                "delegate.vlan: 5000 is not between 0 and 4094",
                "delegate.mtuu: unknown key, ignored (did you mean mtu?)",
            ],
        ),
        (listed(), ["plugins: is empty"]),
        (listed(loadOnlyInlinedPlugins=False), []),
        (listed(3), ["plugins[0]: expected an object"]),
        (listed({"bridge": "cni0"}), ["plugins[0].type: missing (it names the plugin's program)"]),
        (listed({"type": 5}), ["plugins[0].type: expected a text"]),
        ({"cniVersion": "1.0.0", "name": "net", "plugins": {}}, ["plugins: expected a list"]),
        (
            listed({"type": "bridge"}, plugin=[], ipMasq=True, disableCheck=1),
            [
                "plugin: unknown key of a plugin list, ignored (did you mean plugins?)",
                "ipMasq: unknown key of a plugin list, ignored (keys of a plugin belong into plugins[...])",
                "disableCheck: expected true or false",
            ],
        ),
        (listed({"type": "bridge"}, cniVersions=["1.0.0", "7", 1]), [
            f"cniVersions[1]: '7' is none of {VERSIONS}",
            f"cniVersions[2]: 1 is none of {VERSIONS}",
        ]),
        (
            listed({"type": "portmap"}, {"type": "bridge"}),
            [
                f"plugins[0].type: portmap {ADJUSTS} (put the plugin that makes the interface before it)",
                f"plugins[1].type: bridge makes the interface: {IGNORES} (put it first)",
            ],
        ),
        (
            listed({"type": "bridge"}, {"type": "ptp", "ipam": HOST_LOCAL}),
            [f"plugins[1].type: ptp makes the interface, as bridge does: {IGNORES} (remove one of them)"],
        ),
        (
            listed(*[{"type": kind, "capabilities": {"portMappings": True}} for kind in ("podwire", "portmap")]),
            [
                f"plugins[1].capabilities.portMappings: {SERVED_TWICE}"
            ],
        ),
        (
            listed({"type": "bridge"}, {"type": "tuning", "sysctl": {"vm.overcommit_memory": "1"}}),
            [f"plugins[1].sysctl.vm.overcommit_memory: {ONLY_NETWORK}"],
        ),
        (
            b'{"cniVersion": "1.0.0", "name": "n", "type": "bridge", "mtu": 1, "MTU": 2, "dns": {"a.b": 0, "a.b": 0}}',
            [f"MTU: {TWICE}", f"dns.a.b: {TWICE}"],
        ),
    ],
)  # fmt: skip
def test_errors_are_found_with_their_path(
    texts: Callable[..., list[str]], document: object, expected: list[str]
) -> None:
    assert texts(document) == expected


def test_a_list_and_a_configuration_are_told_apart_by_the_files_name(texts: Callable[..., list[str]]) -> None:
    (text,) = texts(listed({"type": "bridge"}), "10-net.conf")
    assert text == "plugins: a plugin list in a file that is named as a single configuration is (name it .conflist)"
    (text,) = texts(single("bridge"), "10-net.conflist")
    assert text == 'plugins: missing in a plugin list (put the configuration into "plugins": [...])'
    assert texts(listed({"type": "bridge"}), "draft") == texts(single("bridge"), "draft") == []


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 5000) | st.sampled_from(["", "x", "10.1.0.0/16", *PROGRAMS]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(sorted(EVERYWHERE)), inner, max_size=3),
    max_leaves=8,
)
CONFIGURATIONS = st.dictionaries(st.sampled_from([*sorted(EVERYWHERE), "logFile", "bogus"]), VALUES, max_size=6)
TYPED = st.builds(lambda members, kind: {**members, "type": kind}, CONFIGURATIONS, st.sampled_from([*PROGRAMS, "x", 1]))


@settings(PROFILE)
@given(TYPED | st.builds(lambda plugins, members: {**members, "plugins": plugins}, st.lists(TYPED), CONFIGURATIONS))
def test_nothing_that_is_json_stops_it(tmp_path_factory: pytest.TempPathFactory, document: Json) -> None:
    path = tmp_path_factory.getbasetemp() / "any.conf"
    path.write_text(json.dumps(document))
    for finding in judge([documents.read(str(path))], on_node=False):
        assert finding.cause


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that writes documents by their file's name, and returns the folder."""

    def of(**written: Json) -> Path:
        for name, document in written.items():
            (tmp_path / f"{name}.conf").write_text(json.dumps(document))
        return tmp_path

    return of


def typed(*arguments: object) -> Ended:
    return commandline.run(["lint", *map(str, arguments)], {}, is_terminal=False)


def between(path: Path) -> list[str]:
    lines = typed("--offline", path).stdout.splitlines()[:-1]
    return [line.replace(f"{path}/", "") for line in lines]


def test_networks_of_a_folder_are_compared(folder: Callable[..., Path]) -> None:
    one = single("bridge", name="one", isGateway=True, ipam=HOST_LOCAL)
    two = single("bridge", name="two", isGateway=True, ipam={"type": "host-local", "subnet": "10.2.0.0/16"})
    flat = single("bridge", name="flat", ipam={"type": "host-local", "ranges": [[{"subnet": "10.2.7.0/24"}]]})
    path, place = folder(a=one, b=two, c=flat, d=one), "ipam.ranges[0][0].subnet"
    assert between(path) == [
        f"b.conf: bridge: cni0 is the bridge of network one (a.conf) {CHOOSE_BRIDGE}",
        f"c.conf: {place}: 10.2.7.0/24 overlaps with 10.2.0.0/16 of network two (b.conf): {ONE_ADDRESS}",
        "d.conf: name: one is the name of the network in a.conf, too: they share leases and rules (rename one)",
        f"d.conf: bridge: cni0 is the bridge of network two (b.conf) {CHOOSE_BRIDGE}",
    ]
    assert typed("--offline", path).stdout.splitlines()[-1].startswith(f"{path}/a.conf: the first file by name")


def test_networks_that_go_together_have_no_findings(folder: Callable[..., Path]) -> None:
    one = single("bridge", name="one", isGateway=True, ipam=HOST_LOCAL)
    six = single("bridge", name="six", isGateway=True, ipam={"type": "host-local", "subnet": "fd00::/64"})
    two = single("bridge", name="two", bridge="b", isGateway=True, ipam={"type": "host-local", "subnet": "10.2.0.0/16"})
    ended = typed("--offline", folder(a=one, b=six, c=two))
    assert ended.status == 0
    assert "no errors in 3 files" in ended.stdout


def test_a_folder_without_networks_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "README").touch()
    assert typed("--offline", tmp_path)[:2] == (
        1, f"{tmp_path}: no network configuration (a runtime needs a .conflist here)",
    )  # fmt: skip


def test_the_json_has_files_findings_and_the_first(folder: Callable[..., Path]) -> None:
    path = folder(b=single("bridge"), a=single("bridge", mtu="x"))
    assert json.loads(typed("--json", "--offline", path).stdout) == {
        "version": 1,
        "files": [f"{path}/a.conf", f"{path}/b.conf"],
        "first": f"{path}/a.conf",
        "findings": [
            {"file": f"{path}/a.conf", "path": "mtu", "cause": "expected an integer", "remedy": ""},
            {
                "file": f"{path}/b.conf",
                "path": "name",
                "cause": f"net is the name of the network in {path}/a.conf, too: they share leases and rules",
                "remedy": "rename one",
            },
        ],
    }


def test_a_kernel_that_does_not_answer_is_told(folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[NodeAddress]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(folders, "node_addresses", fail)
    ended = typed(folder(a=single("bridge", ipam=HOST_LOCAL)))
    assert (ended.status, ended.stdout) == (3, "")
    assert "(--offline needs none)" in ended.stderr


def test_the_end_tells_what_was_found(folder: Callable[..., Path]) -> None:
    path = folder(a=single("bridge"))
    assert typed("--offline", path / "a.conf")[:2] == (0, f"{path}/a.conf: no errors in 1 file")
    assert typed("--offline", path / "b.conf").status == 2
    assert typed("--wrong").status == 2
    (path / "a.conf").write_text('{"\\u001b[31m": 1, "type": "bridge"}')
    ended = typed("--offline", path / "a.conf")
    assert ended.status == 1
    assert r"\x1b[31m: unknown key" in ended.stdout


@pytest.mark.parametrize(
    ("message", "cause", "remedy"),
    [
        ("missing", "missing", ""),
        ("is wrong (set it)", "is wrong", "set it"),
        ("of a (b.conf) is wrong", "of a (b.conf) is wrong", ""),
        ("of a (b.conf) is wrong (set it)", "of a (b.conf) is wrong", "set it"),
        ("is wrong (set f(x))", "is wrong", "set f(x)"),
    ],
)
def test_a_remedy_is_told_apart(message: str, cause: str, remedy: str) -> None:
    assert Finding.of("f", "p", message) == Finding("f", "p", cause, remedy)
    assert Finding.of("f", "p", message).text == f"f: p: {message}"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("10.0.0.0/8", "10.9.8.0/24", True),
        ("10.9.8.0/24", "10.0.0.0/8", True),
        ("10.0.0.0/9", "10.128.0.0/9", False),
        ("::/0", "10.0.0.0/8", False),
        ("0.0.0.0/0", "10.0.0.0/8", True),
        ("fd00::/64", "fd00::1/128", True),
    ],
)
def test_overlaps(one: str, other: str, expected: bool) -> None:
    assert folders.overlap(parse_net(one), parse_net(other)) is expected


def networks(path: Path) -> list[Network]:
    from cni.diag.conflint import plugins

    document = documents.read(str(path / "a.conf"))
    judged = plugins.judge(document.plugins[0], on_node=False)
    assert judged.conf is not None
    return [Network(document.file, document.name, "", judged.conf, judged.sets)]


def test_subnets_are_compared_with_the_nodes_addresses(folder: Callable[..., Path]) -> None:
    path = folder(a=single("bridge", isGateway=True, ipam=HOST_LOCAL))
    addresses = [NodeAddress("eth0", parse_net("10.1.9.9/8")), NodeAddress("eth1", parse_net("192.0.2.1/24"))]
    own = [NodeAddress("cni0", parse_net("10.1.0.1/16")), NodeAddress("flannel.1", parse_net("10.1.0.0/32"))]
    ((_, place, message),) = folders.judge_node(networks(path), addresses + own)
    assert place == "ipam.subnet"
    assert message.startswith("10.1.0.0/16 overlaps with 10.1.9.9/8 of eth0 on this node: ")
    folder(a=single("ptp", ipam=HOST_LOCAL))
    assert len([*folders.judge_node(networks(path), own)]) == 1  # a routed network has no bridge


def seen() -> list[tuple[str, str]]:
    return [(address.interface, address.net.text) for address in folders.node_addresses()]


def test_the_addresses_of_a_node_are_those_of_its_interfaces_without_pairs() -> None:
    if reason := missing():
        pytest.skip(reason)
    with Machine() as machine:
        machine.outside()
        machine.run("ip", "link", "add", "br0", "type", "bridge")
        machine.run("ip", "address", "add", "10.7.0.1/24", "dev", "br0")
        assert machine.call(seen) == [("br0", "10.7.0.1/24")]
