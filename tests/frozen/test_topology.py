"""`podwire topology` of the bundle: a node with pods and podwired, as a tree, SVG, a page and JSON."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from html import escape
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from tests.frozen.test_operator import NETWORK, Operator, operator
from tests.machine import Machine, missing, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Json = dict[str, Any]

__all__ = ["operator"]  # a fixture
pytestmark = pytest.mark.xdist_group("topology")  # one node for several tests

EVIL = "<script>alert(1)<x>\"&'"
UNDERLAY = """link add eth0 type veth peer name other
link set other up alias <script>alert(2)<x>
address add 192.0.2.1/24 dev eth0
link set eth0 up
route add default via 192.0.2.254
"""
NODES = [
    {"name": f"node{number}", "PublicIP": ip, "Subnet": f"10.1.{number}.0/24"}
    for number, ip in ((1, "192.0.2.1"), (2, "192.0.2.2"), (3, "198.51.100.3"))
]
CLUSTER = {"Network": "10.1.0.0/16", "Backend": {"Type": "vxlan", "DirectRouting": True}, "nodes": NODES}
PREPARE = "cat >/run/nodes.json; mkdir /run/bin /run/net.d; ln -s {} /run/bin/ptp; cp {} /run/net.d"
BRIDGED = {**NETWORK, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.1.0/24"}]]}}
ROUTED = {
    "cniVersion": "1.1.0",
    "name": "edge",
    "type": "ptp",
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.9.0.0/24"}]]},
}
CONFLIST = "conf/10-podwire.conflist"
SECONDS = 300
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-sync",
)


def add(machine: Machine, program: str, name: str, config: Json) -> None:
    """Attaches a pod as a runtime does."""
    variables = {
        "CNI_COMMAND": "ADD", "CNI_CONTAINERID": f"{len(machine.pods)}0123456789abcdef", "CNI_IFNAME": "eth0",
        "CNI_NETNS": machine.pod().path, "CNI_ARGS": f"K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name}",
    }  # fmt: skip
    machine.run("env", *[f"{key}={text}" for key, text in variables.items()], program, stdin=json.dumps(config))


@pytest.fixture(scope="module")
def node(bundle: Path) -> Iterator[Operator]:
    """A node with two bridged pods, a routed one, and podwired that knows two other nodes."""
    if reason := missing():
        pytest.skip(reason)
    with Machine() as machine:
        machine.run("ip", "-batch", "-", stdin=UNDERLAY)
        machine.run(
            "sh", "-ec", PREPARE.format(bundle / "podwire", os.path.abspath(CONFLIST)), stdin=json.dumps(CLUSTER)
        )
        machine.start(str(bundle / "podwired"), "--nodes-file=/run/nodes.json", "--node-name=node1")
        there = Operator(machine, bundle)
        until(lambda: there.types("status").returncode == 0, "podwired is ready")
        add(machine, str(bundle / "podwire"), "web", BRIDGED)
        add(machine, str(bundle / "podwire"), EVIL, {**BRIDGED, "runtimeConfig": {}})
        add(machine, "/run/bin/ptp", "gateway", ROUTED)
        yield there


def test_a_tree_shows_pods_peers_and_the_way_out(node: Operator) -> None:
    done = node.types("topology", "--cluster", "--conf-dir", "/run/net.d")
    assert (done.returncode, done.stderr) == (0, "")
    [web] = node.asks("ps", "web")["attachments"]
    lines = [line.lstrip("│├└─ ") for line in done.stdout.splitlines()]
    for shown in (
        "node node1  10.1.1.0/24  network podnet (10-podwire.conflist)",
        "cluster 10.1.0.0/16 by vxlan  VNI 1, UDP port 8472  3 nodes",
        "node2  10.1.2.0/24  192.0.2.2  reachable: direct",
        "node3  10.1.3.0/24  198.51.100.3  reachable: vxlan",
        "uplink eth0  192.0.2.1/24  veth, MTU 1500",
        "192.0.2.254  gateway of the default route",
        "node2  10.1.2.0/24  directly by 192.0.2.2",
        f"shop/web  10.1.1.2/24  8080->80/tcp  eth0 (net) behind {web['host_interface']}",
    ):
        assert shown in lines
    assert any(line.startswith("node3  10.1.3.0/24  by 198.51.100.3  ") for line in lines)
    assert any(line.startswith("bridge cni0  10.1.1.1/24  MTU 1500  network net  2 pods") for line in lines)
    routed = lines.index("routed pods")
    assert lines[routed + 1].startswith("shop/gateway  10.9.0.2/24  eth0 (edge) behind veth")


def test_json_has_the_same(node: Operator) -> None:
    answer = node.asks("topology", "--cluster", "--conf-dir", "/run/net.d")
    seen, cluster = answer["node"], answer["cluster"]
    assert seen["networks"] == [{"name": "podnet", "file": "/run/net.d/10-podwire.conflist", "error": ""}]
    [tunnel], [bridge] = seen["tunnels"], seen["bridges"]
    assert {key: tunnel[key] for key in ("name", "vni", "port", "local", "underlay", "mtu")} == {
        "name": "flannel.1", "vni": 1, "port": 8472, "local": "192.0.2.1", "underlay": "eth0", "mtu": 1450,
    }  # fmt: skip
    [peer] = tunnel["peers"]
    assert (peer["subnets"], peer["public_ip"], peer["lacks"]) == (["10.1.3.0/24"], "198.51.100.3", [])
    assert [port["attachment"]["pod"] for port in bridge["ports"]] == [f"shop/{EVIL}", "shop/web"]
    assert [port["attachment"]["pod"] for port in seen["routed"]] == ["shop/gateway"]
    assert [(each["name"], each["alias"]) for each in seen["others"]] == [("other", "<script>alert(2)<x>")]
    assert [(each["name"], each["subnets"], each["reachable"]) for each in cluster["nodes"]] == [
        ("node1", ["10.1.1.0/24"], True), ("node2", ["10.1.2.0/24"], True), ("node3", ["10.1.3.0/24"], True),
    ]  # fmt: skip
    assert (cluster["backend"], node.asks("topology")["cluster"]) == ("vxlan", None)


def test_names_are_text_in_svg_and_in_a_browser(node: Operator, tmp_path: Path) -> None:
    files = tmp_path / "node.svg", tmp_path / "node.html"
    done = node.types("topology", "--cluster", "--svg", str(files[0]), "--html", str(files[1]))
    assert (done.returncode, done.stdout) == (0, f"written: {files[0]}\nwritten: {files[1]}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["node.html", "node.svg"]
    texts = [element.text for element in ET.parse(files[0]).iter() if element.tag.endswith("text")]
    assert {f"shop/{EVIL}", "<script>alert(2)<x>", "shop/web", "10.1.1.2/24", "node3", "198.51.100.3"} <= {*texts}
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("absent: chromium (hack/peers brings it)")
    for file in files:
        dom = dumped(chromium, file, tmp_path)
        assert "<script" not in dom
        for name in (f"shop/{EVIL}", "<script>alert(2)<x>", "shop/web"):
            assert f">{escape(name, quote=False)}<" in dom


def dumped(chromium: str, file: Path, home: Path) -> str:
    """Returns what a browser makes of a file."""
    command = [chromium, *FLAGS, f"--user-data-dir={home}/profile", "--dump-dom", f"file://{file}"]
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=SECONDS, check=True)
    return done.stdout


def test_nothing_is_changed_and_a_pod_without_its_interface_is_a_finding(operator: Operator) -> None:
    pod = operator.attach("web", NETWORK)
    before = operator.machine.snapshot()
    assert operator.types("topology").returncode == 0
    assert operator.machine.snapshot() == before
    pod.remove()
    until(lambda: "veth" not in operator.machine.run("ip", "link").stdout, "the kernel removes the interface")
    done = operator.types("topology")
    assert done.returncode == 1
    assert "its interface is gone" in done.stdout
    done = operator.types("topology", "--cluster")
    assert (done.returncode, done.stdout) == (3, "")
    assert "does podwired run?" in done.stderr
    assert operator.types("topology", "--socket", "/run/x").returncode == 2


def test_a_file_that_cannot_be_written_is_an_error_and_is_kept(operator: Operator) -> None:
    machine = operator.machine
    machine.run("sh", "-c", "mkdir /run/full /run/d; mount -t tmpfs -o size=8k tmpfs /run/full; echo old >/run/full/x")
    machine.run("sh", "-c", "mkfifo /run/fifo; cd /run/full; dd if=/dev/zero of=rest bs=4k count=1 2>&1")
    for file, reason in (
        ("/run/none/x", "its folder does not exist"),
        ("/run/d", "not a regular file"),
        ("/run/fifo", "not a regular file"),
        ("/run/full/x", "No space left on device"),
    ):
        done = operator.types("topology", "--svg", file)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr == f"podwire: {file}: {reason} (name a file that this user may write)\n"
    assert machine.run("cat", "/run/full/x").stdout == "old\n"
    assert machine.run("sh", "-c", "cd /run/full; ls -A; test -p /run/fifo; test -d /run/d").stdout.split() == [
        "rest",
        "x",
    ]


def test_a_drawing_replaces_a_file_behind_a_link_with_the_rights_that_the_umask_leaves(operator: Operator) -> None:
    draw = f"{operator.bundle}/podwire topology --svg /run/link >&2"
    script = f"umask 027; echo old >/run/d.svg; ln -s d.svg /run/link; {draw}; stat -c %a /run/d.svg"
    assert operator.machine.run("sh", "-ec", script).stdout == "640\n"
    assert operator.machine.run("sh", "-c", "readlink /run/link; head -c 4 /run/d.svg").stdout == "d.svg\n<svg"
