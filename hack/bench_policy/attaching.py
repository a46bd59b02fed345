"""ADD by the plugin: in a host where policies are enforced, and in one where they are not."""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import TYPE_CHECKING

from hack.bench_policy.objects import SPACE
from hack.bench_policy.pods import NAMESPACES, batch, inside

if TYPE_CHECKING:
    from pathlib import Path

WITH, WITHOUT = "with", "without"
PLAIN = "plain"  # the host without policies
NETWORK = {
    "cniVersion": "1.0.0",
    "name": "bench",
    "type": "podwire",
    "mode": "routed",
    "isDefaultGateway": True,
    "ipam": {"type": "host-local", "subnet": "10.1.2.0/24"},
}


class Attaching:
    """Two hosts of the same plugin, each with leases of its own."""

    def __init__(self, podwire: Path) -> None:
        self._podwire = podwire
        for name in (PLAIN, "pod"):
            batch(f"netns add {name}")
        batch("link set lo up", namespace=PLAIN)

    def add(self, host: str, pod: str) -> float:
        """Returns the milliseconds of an ADD of the pod, whose DEL follows."""
        began = time.perf_counter()
        self._call(host, pod, "ADD")
        took = (time.perf_counter() - began) * 1000
        self._call(host, pod, "DEL")
        return took

    def _call(self, host: str, pod: str, command: str) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": f"{host}-{pod}",
            "CNI_NETNS": str(NAMESPACES / "pod"),
            "CNI_IFNAME": "eth1",
            "CNI_PATH": str(self._podwire.parent),
            "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE={SPACE};K8S_POD_NAME={pod}",
        }
        ipam = {**NETWORK["ipam"], "dataDir": f"/run/leases-{host}"}  # type: ignore[dict-item]
        config = json.dumps({**NETWORK, "ipam": ipam}).encode()
        if host == WITHOUT:
            with inside(PLAIN):
                self._run(environment, config)
        else:
            self._run(environment, config)

    def _run(self, environment: dict[str, str], config: bytes) -> None:
        done = subprocess.run([self._podwire], input=config, env=environment, capture_output=True, check=False)
        if done.returncode:
            raise SystemExit(
                f"bench: {environment['CNI_COMMAND']} failed: {done.stdout.decode()}{done.stderr.decode()}"
            )
