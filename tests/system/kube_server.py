"""A real Kubernetes API server on a real etcd inside a machine, and nodes in it that no kubelet stands behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import urllib3

from cni.agent.stores.kube.nodes import names_of
from tests.machine import until

if TYPE_CHECKING:
    from collections.abc import Mapping

Json = dict[str, Any]

PEERS = Path(__file__).parents[2] / "hack/peers"
FOLDER = "/run/kube"
ETCD, PORT = "http://127.0.0.1:2379", 6443
PREFIX = "flannel.alpha.coreos.com/"
NAMES = names_of(PREFIX)
ADMIN, AGENT, AGENT_TOO, STRANGER, READER = "admin", "agent", "agent-too", "stranger", "reader"  # tokens
USERS = {ADMIN: "admin,1,system:masters", AGENT: "podwired,2", AGENT_TOO: "podwired,2", STRANGER: "stranger,3"}
USERS[READER] = "reader,4"
SEEING = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]}
TELLING = {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]}
ASKING = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
RBAC = "/apis/rbac.authorization.k8s.io/v1"
_PKI = """
openssl ecparam -genkey -name prime256v1 -noout -out ca.key
openssl req -x509 -new -key ca.key -subj /CN=ca -days 30 -out ca.crt -addext keyUsage=digitalSignature,keyCertSign
for name in server client; do
    openssl ecparam -genkey -name prime256v1 -noout -out $name.key
    openssl req -new -key $name.key -subj /CN=podwired -out $name.csr
    printf 'subjectAltName=IP:127.0.0.1,DNS:kube.test\\n' > $name.ext
    openssl x509 -req -in $name.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile $name.ext -out $name.crt
done
"""


def binary() -> str:
    """Returns the path of the API server, or an empty text."""
    where = subprocess.run([PEERS, "--where"], capture_output=True, text=True, check=True).stdout.strip()
    folders = [where, os.environ.get("KUBE_BIN", ""), os.environ.get("PATH", "")]
    return shutil.which("kube-apiserver", path=os.pathsep.join(filter(None, folders))) or ""


def absent() -> str:
    """Why there can be no API server, or nothing."""
    if not binary():
        return "absent: kube-apiserver (of Kubernetes, in PATH or in the folder KUBE_BIN)"
    programs = [name for name in ("etcd", "openssl") if shutil.which(name) is None]
    return f"absent: {', '.join(programs)}" if programs else ""


class Server:
    """To be used inside the machine; whatever it starts ends with the machine."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.url = f"https://127.0.0.1:{PORT}"
        self._http: urllib3.PoolManager | None = None  # made in the machine: before, there is no certificate

    def install(self) -> None:
        """Certificates, etcd, the API server, and what each user may do there."""
        os.makedirs(FOLDER)
        subprocess.run(["sh", "-ec", _PKI], cwd=FOLDER, check=True, capture_output=True)
        self.start_etcd()
        self.start()
        for role, rules in (("podwired", [SEEING, TELLING, ASKING]), ("reader", [SEEING])):
            name: Json = {"metadata": {"name": role}}
            self.call("POST", f"{RBAC}/clusterroles", {**name, "rules": rules})
            to = {"kind": "ClusterRole", "name": role, "apiGroup": "rbac.authorization.k8s.io"}
            subject = {"kind": "User", "name": role, "apiGroup": "rbac.authorization.k8s.io"}
            self.call("POST", f"{RBAC}/clusterrolebindings", {**name, "roleRef": to, "subjects": [subject]})
        self.call("POST", "/api/v1/namespaces", {"metadata": {"name": "flannel"}})

    def start_etcd(self) -> None:
        urls = [
            "--listen-client-urls",
            ETCD,
            "--advertise-client-urls",
            ETCD,
            "--listen-peer-urls",
            "http://127.0.0.1:0",
        ]
        _start("etcd", "etcd", "--data-dir", f"{FOLDER}/data", "--log-level", "error", *urls)
        until(lambda: _answers(2379), "etcd serves")

    def start(self, *tokens: str) -> None:
        """Serves; whoever has another token is not known."""
        write("tokens", "".join([f"{token},{USERS[token]}\n" for token in tokens or USERS]))
        _start(
            "api",
            self.program,
            f"--etcd-servers={ETCD}",
            f"--secure-port={PORT}",
            *["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none"],
            *["--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=RBAC"],
            *["--disable-admission-plugins=ServiceAccount", "--service-account-issuer=https://kube.test"],
            *f"--token-auth-file={FOLDER}/tokens --client-ca-file={FOLDER}/ca.crt".split(),
            *f"--tls-cert-file={FOLDER}/server.crt --tls-private-key-file={FOLDER}/server.key".split(),
            *f"--service-account-key-file={FOLDER}/server.crt --cert-dir={FOLDER}".split(),
            f"--service-account-signing-key-file={FOLDER}/server.key",
        )
        until(lambda: self.status("GET", "/readyz") == 200, "the API server is ready", 60)

    def stop(self, sign: signal.Signals = signal.SIGKILL) -> None:
        _stop("api", sign)
        until(lambda: not _answers(PORT), "the API server is gone")

    def stop_etcd(self) -> None:
        _stop("etcd", signal.SIGKILL)
        until(lambda: not _answers(2379), "etcd is gone")

    def restart(self, *tokens: str) -> None:
        self.stop()
        self.start(*tokens)

    def compact(self) -> None:
        """Nothing that was before now can be had any more."""
        http = urllib3.PoolManager()
        answer = http.request("POST", f"{ETCD}/v3/kv/range", body=b'{"key": "AA=="}').json()
        revision = {"revision": answer["header"]["revision"], "physical": True}
        assert http.request("POST", f"{ETCD}/v3/kv/compaction", body=json.dumps(revision)).status == 200

    def status(self, method: str, path: str, body: Json | None = None, kind: str = "application/json") -> int:
        """Asks for something; 0 where nobody answers."""
        try:
            return self._request(method, path, body, kind).status
        except urllib3.exceptions.HTTPError:
            return 0

    def call(self, method: str, path: str, body: Json | None = None, kind: str = "application/json") -> Json:
        answer = self._request(method, path, body, kind)
        assert answer.status in (200, 201), answer.data
        parsed: Json = answer.json()
        return parsed

    def _request(self, method: str, path: str, body: Json | None, kind: str) -> urllib3.BaseHTTPResponse:
        if self._http is None:
            self._http = urllib3.PoolManager(retries=False, ca_certs=f"{FOLDER}/ca.crt", timeout=30, maxsize=8)
        headers = {"Authorization": f"Bearer {ADMIN}", "Content-Type": kind}
        return self._http.request(method, self.url + path, headers=headers, body=json.dumps(body) if body else None)

    def add(self, name: str, *cidrs: str, annotations: Mapping[str, str] | None = None) -> Json:
        """A new node; without CIDRs it has none yet."""
        spec: Json = {"podCIDR": cidrs[0], "podCIDRs": cidrs} if cidrs else {}
        usual = {"node.alpha.kubernetes.io/ttl": "0"}  # without any annotation flanneld panics
        about = {"name": name, "annotations": usual | dict(annotations or {})}
        return self.call("POST", "/api/v1/nodes", {"metadata": about, "spec": spec})

    def peer(self, name: str, number: int, **annotations: str) -> None:
        """A node of flannel's: 10.244.NUMBER.0/24 at 192.0.2.NUMBER."""
        changes = {key.replace("_", "-"): text for key, text in annotations.items()}
        prefixed = {f"{PREFIX}{key}": text for key, text in {**flannels(number), **changes}.items()}
        self.add(name, f"10.244.{number}.0/24", annotations=prefixed)

    def node(self, name: str) -> Json:
        return self.call("GET", f"/api/v1/nodes/{name}")

    def annotations(self, name: str) -> dict[str, str]:
        """Flannel's, without their prefix."""
        current = self.node(name)["metadata"].get("annotations", {})
        return {key.removeprefix(PREFIX): text for key, text in current.items() if key.startswith(PREFIX)}

    def annotate(self, name: str, **annotations: str | None) -> None:
        """Writes some of flannel's; None removes one."""
        prefixed = {PREFIX + key.replace("_", "-"): text for key, text in annotations.items()}
        self.patch(name, {"metadata": {"annotations": prefixed}})

    def patch(self, name: str, change: Json, below: str = "") -> None:
        self.call("PATCH", f"/api/v1/nodes/{name}{below}", change, "application/strategic-merge-patch+json")

    def delete(self, name: str) -> None:
        self.call("DELETE", f"/api/v1/nodes/{name}")

    def wait_written(self, node: str, **annotations: str) -> None:
        wanted = {key.replace("_", "-"): text for key, text in annotations.items()}.items()
        until(lambda: wanted <= self.annotations(node).items(), f"the node says {annotations}")

    def condition(self, name: str) -> Json:
        """Returns NetworkUnavailable, empty if it is not set."""
        conditions = self.node(name)["status"].get("conditions", [])
        return next((condition for condition in conditions if condition["type"] == "NetworkUnavailable"), {})

    def clear(self) -> None:
        self.call("DELETE", "/api/v1/nodes")


def flannels(number: int) -> dict[str, str]:
    """Returns the annotations that flanneld writes for a node with VXLAN and IPv4."""
    data = json.dumps({"VNI": 1, "VtepMAC": f"02:00:00:00:00:{number:02x}"}, separators=(",", ":"))
    ip = f"192.0.2.{number}"
    return {"backend-type": "vxlan", "backend-data": data, "public-ip": ip, "kube-subnet-manager": "true"}


def write(name: str, text: str) -> str:
    """A file in the machine, whole at any moment; its path."""
    path = os.path.join(FOLDER, name)
    Path(f"{path}.new").write_text(text)
    os.rename(f"{path}.new", path)
    return path


def kubeconfig(token: str = AGENT, *, server: str = f"https://127.0.0.1:{PORT}", **user: str) -> str:
    """Writes a kubeconfig and returns its path; without a token the user is as given."""
    config = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "it", "user": "me"}}],
        "clusters": [{"name": "it", "cluster": {"server": server, "certificate-authority": "ca.crt"}}],
        "users": [{"name": "me", "user": {**({"token": token} if token else {}), **user}}],
    }
    return write("kubeconfig", json.dumps(config))


def _start(name: str, *command: str) -> None:
    with open(f"{FOLDER}/{name}.log", "ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    write(f"{name}.pid", str(process.pid))


def _stop(name: str, sign: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(int(Path(f"{FOLDER}/{name}.pid").read_text()), sign)


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
