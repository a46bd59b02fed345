"""`podwire doctor --bundle` of the bundle: an archive without secrets and without others' names."""

from __future__ import annotations

import io
import json
import os
import stat
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.frozen.test_operator import NETWORK, Operator
from tests.machine import Machine, missing

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = "/run/report.tar.gz"
CONFLIST = {
    "cniVersion": "1.1.0",
    "name": "net",
    "plugins": [
        {key: NETWORK[key] for key in ("type", "ipam")},
        {"type": "calico", "kubernetes": {"k8s_auth_token": "PLANTEDsecret"}, "env": {"PROXY": "PLANTEDsecret"}},
    ],
}
BROKEN = '{"token": "PLANTEDsecret",'
LOG = """
2026-11-29T12:00:00 level=warning msg="node planted-node is gone" node=plantednode url=https://root:PLANTEDsecret@etcd.planted.example:2379
-----BEGIN PRIVATE KEY-----
PLANTEDsecret
-----END PRIVATE KEY-----
{"log": "--etcd-password PLANTEDsecret", "password": "PLANTEDsecret"} pods "planted" is forbidden
plantedhost podwired[7]: level=info msg="policy plantedspace/plantedpolicy: applied" Authorization: Bearer PLANTEDsecret
"""
JOURNAL = f"""mkdir -p /run/programs; cat >/run/programs/journalctl <<'END'
#!/bin/sh
cat <<'LOG'
{LOG}
LOG
END
chmod +x /run/programs/journalctl"""
POLICIES = 'table inet podwire-policy { chain in { counter drop comment "plantedspace/plantedpolicy ingress 0"; }; }'
FOREIGN = "table inet PLANTEDtable { }"


@pytest.fixture
def operator(bundle: Path) -> Iterator[Operator]:
    """Gives a node with a pod, and a call that failed."""
    if reason := missing():
        pytest.skip(reason)
    with Machine() as machine:
        operator = Operator(machine, bundle)
        machine.run("sh", "-ec", JOURNAL)
        machine.run(
            "sh", "-c", "mkdir -p /etc/cni/net.d; cat >/etc/cni/net.d/10-net.conflist", stdin=json.dumps(CONFLIST)
        )
        machine.run("sh", "-c", "cat >/etc/cni/net.d/20-other.conf", stdin=BROKEN)
        machine.run("nft", POLICIES)
        machine.run("nft", FOREIGN)
        machine.run("sh", "-c", "ip link add uplink type bridge; ip link set uplink alias 'of PLANTED Corporation'")
        pod = machine.pod("plantedpod")
        args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=plantedspace;K8S_POD_NAME=plantedpod"
        operator.call("ADD", "0123456789abcdef", pod, NETWORK, CNI_ARGS=args)
        failing = {**NETWORK, "mtu": "PLANTED"}
        environment = {
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": "0f",
            "CNI_NETNS": "/x",
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": args,
        }
        machine.run(str(bundle / "podwire"), stdin=json.dumps(failing), env=environment, check=False)
        yield operator


def packed(operator: Operator, *arguments: str) -> tuple[int, str]:
    command = [
        "unshare",
        "--uts",
        "sh",
        "-ec",
        'hostname plantedhost; exec "$@"',
        "sh",
        str(operator.bundle / "podwire"),
    ]
    environment = {"PATH": f"/run/programs:{os.environ['PATH']}"}
    done = operator.machine.run(*command, "doctor", "--bundle", FILE, *arguments, env=environment, check=False)
    return done.returncode, done.stdout + done.stderr


def test_an_archive_has_what_a_report_needs_and_no_secret_and_no_name(operator: Operator) -> None:
    status, printed = packed(operator)
    assert status == 1, printed  # the broken file
    assert f"written: {FILE}" in printed
    path = Path(f"{operator.machine.root}{FILE}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    files = {}
    with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as archive:
        for member in archive:
            content = archive.extractfile(member)
            assert content
            files[member.name.partition("/")[2]] = content.read().decode()
    assert set(files) == {
        "README.txt", "findings.json", "attachments.json", "leases.json", "status.json", "events.json", "kernel.json",
        "sysctls.json", "versions.json", "podwire.nft", "podwired.log", "subnet.env", "networks/10-net.conflist",
        "networks/20-other.conf",
    }  # fmt: skip
    for name, text in files.items():
        assert "planted" not in text.lower(), name
    [attachment] = json.loads(files["attachments.json"])
    [event] = json.loads(files["events.json"])
    assert attachment["pod"] == event["pod"]
    assert attachment["addresses"] == ["10.1.2.2/29"]
    assert "node " in files["podwired.log"]
    assert "counter" in files["podwire.nft"]
    kernel = json.loads(files["kernel.json"])
    assert "cni0" in [link["IFLA_IFNAME"] for link in kernel["links"]]
    assert all(kernel[kind] for kind in ("addresses", "routes", "rules"))
    assert json.loads(files["sysctls.json"])["net/ipv4/ip_forward"] == "1"


def test_a_file_that_exists_is_replaced_only_by_force(operator: Operator) -> None:
    operator.machine.run("sh", "-c", f"echo mine >{FILE}; chmod 644 {FILE}")
    status, printed = packed(operator)
    assert (status, "exists (--force replaces it)" in printed) == (2, True)
    assert operator.machine.run("cat", FILE).stdout == "mine\n"
    packed(operator, "--force")
    assert operator.machine.run("stat", "-c", "%a", FILE).stdout == "600\n"
    assert operator.machine.run("sh", "-c", "ls /run/*.partial", check=False).stdout == ""
