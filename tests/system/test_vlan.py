"""VLANs on a bridge that filters, in a kernel that has it: User-Mode Linux, on this machine's own file system."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.xdist_group("user-mode kernel")  # which boots once for all
NEEDS = ("linux.uml", "modprobe", "bridge", "ping")
MODULES = Path("/usr/lib/uml/modules")
SECONDS = 600
NETWORK = {
    "cniVersion": "1.0.0",
    "name": "vlans",
    "type": "podwire",
    "bridge": "br0",
    "isGateway": True,
    "ipam": {"type": "host-local", "subnet": "10.5.0.0/24", "dataDir": "/run/leases"},
}
# Each pod with what its network says beyond NETWORK.
PODS: dict[str, dict[str, Any]] = {
    "native": {"vlan": 100},
    "mate": {"vlan": 100},
    "other": {"vlan": 200, "ipam": {**NETWORK["ipam"], "subnet": "10.6.0.0/24"}},  # type: ignore[dict-item]
    "kept": {"vlan": 100, "preserveDefaultVlan": True},
    "trunk": {"vlan": 100, "vlanTrunk": [{"id": 7}, {"minID": 10, "maxID": 12}]},
    "untagged": {"vlanTrunk": [{"id": 7}], "isGateway": False},
}

# The first process of the kernel. What it learns goes into files of the folder that is its argument. Programs are slow
# in there: the shell itself puts an ADD's result into the configuration, and sed takes the second interface out of it.
INIT = r"""#!/bin/bash
cd FOLDER
exec >log 2>&1
export PATH=/usr/sbin:/usr/bin:/sbin:/bin CNI_IFNAME=eth0
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mkdir /run/netns
for module in ipv6 bridge veth; do modprobe -d FOLDER $module; done
ip link set lo up
podwire() { CNI_COMMAND=$1 CNI_CONTAINERID=$2 CNI_NETNS=/run/netns/$2 BUNDLE/podwire; }
with_result() { local conf=$(<$1.conf); echo "${conf%\}}, \"prevResult\": $(<$1.ADD)}"; }
port_of() { sed 's/[^}]*}[^}]*"name": *"\([^"]*\)".*/\1/' $1.ADD; }
for pod in PODS; do
    ip netns add $pod
    podwire ADD $pod <$pod.conf >$pod.ADD
    with_result $pod | podwire CHECK $pod >$pod.CHECK
    bridge -j vlan show dev "$(port_of $pod)" >$pod.vlans
done
ip -j addr >addresses
BUNDLE/podwire topology --json >topology
for target in 10.5.0.1 10.5.0.3 10.6.0.2; do
    ip netns exec native ip route replace default dev eth0
    ip netns exec native ping -c1 -W2 $target >/dev/null && echo $target >>reached
done
bridge vlan del vid 11 dev "$(port_of trunk)"
with_result trunk | podwire CHECK trunk >trunk.broken
for pod in PODS; do podwire DEL $pod <$pod.conf >$pod.DEL; done
ip -j link >links
touch done
sync
echo o >/proc/sysrq-trigger
sleep 5
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Path:
    """Returns the folder with the output of a run on such a kernel."""
    if os.geteuid() != 0:
        pytest.skip("needs root: the kernel's first process writes to this file system")
    if absent := [name for name in NEEDS if shutil.which(name) is None]:
        pytest.skip(f"not installed: {', '.join(absent)} (hack/peers brings them)")
    folder = tmp_path_factory.mktemp("uml")
    (folder / "lib").mkdir()
    (folder / "lib/modules").symlink_to(MODULES)
    for pod, settings in PODS.items():
        (folder / f"{pod}.conf").write_text(json.dumps(NETWORK | settings))
    init = folder / "init"
    text = INIT.replace("FOLDER", str(folder)).replace("BUNDLE", str(bundle)).replace("PODS", " ".join(PODS))
    init.write_text(text)
    init.chmod(0o755)
    command = ["linux.uml", "rootfstype=hostfs", "rootflags=/", "rw", f"init={init}", "mem=1G", "con=null", "quiet"]
    subprocess.run(command, capture_output=True, check=False, timeout=SECONDS)
    if not (folder / "done").exists():
        log = folder / "log"
        pytest.fail(f"the kernel ended early: {log.read_text() if log.exists() else 'it did not start'}")
    return folder


def read(folder: Path, name: str) -> Any:
    text = (folder / name).read_text()
    return json.loads(text) if text else None


def vlans(folder: Path, pod: str) -> dict[int, bool]:
    """Returns the VLANs of the pod's port, and whether they are its native one."""
    (port,) = read(folder, f"{pod}.vlans")
    vlans: dict[int, bool] = {}
    for vlan in port["vlans"]:
        for vid in range(vlan["vlan"], vlan.get("vlanEnd", vlan["vlan"]) + 1):
            vlans[vid] = "PVID" in vlan.get("flags", [])
    return vlans


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        ("native", {100: True}),
        ("kept", {1: False, 100: True}),
        ("trunk", {7: False, 10: False, 11: False, 12: False, 100: True}),
        ("untagged", {1: True, 7: False}),
    ],
)
def test_a_port_is_in_the_vlans_asked_for(results: Path, pod: str, expected: dict[int, bool]) -> None:
    assert vlans(results, pod) == expected


def test_each_vlan_has_a_gateway_of_its_own(results: Path) -> None:
    addresses = {link["ifname"]: [info["local"] for info in link["addr_info"]] for link in read(results, "addresses")}
    assert "10.5.0.1" in addresses["br0.100"]
    assert "10.6.0.1" in addresses["br0.200"]
    assert read(results, "native.ADD")["interfaces"][3]["name"] == "br0.100"


def test_the_drawing_has_vlans_of_ports_and_their_gateways(results: Path) -> None:
    ports = read(results, "topology")["node"]["bridges"][0]["ports"]
    vlans = {each["containerID"]: port["vlans"] for port in ports if (each := port["attachment"]) is not None}
    assert vlans == {
        "native": ["100"], "mate": ["100"], "other": ["200"], "kept": ["100", "1"], "trunk": ["100", "7", "10-12"],
        "untagged": ["1", "7"],
    }  # fmt: skip
    gateways = {port["gateway"]["name"]: port["vlans"] for port in ports if port["gateway"] is not None}
    assert gateways == {"br0.100": ["100"], "br0.200": ["200"]}


def test_traffic_stays_in_its_vlan(results: Path) -> None:
    assert (results / "reached").read_text().split() == ["10.5.0.1", "10.5.0.3"]


def test_check_knows_the_vlans(results: Path) -> None:
    assert {pod: read(results, f"{pod}.CHECK") for pod in PODS} == dict.fromkeys(PODS)
    assert "is not in VLAN 11" in read(results, "trunk.broken")["msg"]


def test_del_takes_every_port_but_the_gateways(results: Path) -> None:
    assert {pod: read(results, f"{pod}.DEL") for pod in PODS} == dict.fromkeys(PODS)
    names = {link["ifname"].partition(".")[0] for link in read(results, "links")}
    assert names == {"lo", "br0", "p100", "p200"}
