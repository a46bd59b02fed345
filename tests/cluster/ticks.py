"""Traffic from pod to pod that counts itself: numbered ticks by UDP and TCP, and new connections to a service."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from tests.cluster import objects
from tests.cluster.access import Pod, until
from tests.cluster.conftest import made

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.access import Cluster

_SERVER = f"""
nc -l 7001 > /tmp/tcp &
nc -u -l 7000 > /tmp/udp &
exec /agnhost netexec --http-port={objects.TCP} --udp-port={objects.UDP}
"""
# The last number is written when all are sent; what was asked in vain is a line of its own.
_CLIENT = """
tick() {
    number=0
    while [ ! -e /tmp/stop ]; do
        echo $number
        number=$((number + 1))
        sleep 0.05
    done
    echo $number > /tmp/sent-$1
    sleep 5
}
tick udp | nc -u SERVER 7000 &
tick tcp | nc SERVER 7001 &
asked=0
while [ ! -e /tmp/stop ]; do
    curl -sSf -o /dev/null --max-time 10 http://SERVICE/hostname 2>> /tmp/unanswered
    asked=$((asked + 1))
    echo $asked > /tmp/asked
    sleep 0.1
done
touch /tmp/unanswered /tmp/asked-all
exec /agnhost pause
"""
PROTOCOLS = ("udp", "tcp")


class Ticks(NamedTuple):
    client: Pod
    server: Pod

    def wait_for(self, count: int) -> None:
        """Until so many more of each have arrived."""
        goals = [len(self._arrived(protocol)) + count for protocol in PROTOCOLS]

        def reached() -> bool:
            return all(len(self._arrived(protocol)) >= goal for protocol, goal in zip(PROTOCOLS, goals, strict=True))

        until(reached, f"{goals} ticks came")

    def stop(self) -> None:
        self.client.shell("touch /tmp/stop")
        until(lambda: self.client.shell("cat /tmp/asked-all /tmp/sent-udp /tmp/sent-tcp"), "the client has stopped")

    def lost(self) -> list[str]:
        """Returns the ticks that did not arrive."""
        return [tick for protocol in PROTOCOLS for tick in self._lost(protocol)]

    def unanswered(self) -> list[str]:
        """Returns the faults of connections to the service."""
        return self.client.shell("cat /tmp/unanswered").splitlines()

    def _lost(self, protocol: str) -> list[str]:
        sent = int(self.client.shell(f"cat /tmp/sent-{protocol}"))
        last = str(sent - 1)
        until(lambda: last in self._arrived(protocol), f"the last tick came by {protocol}", 60)
        arrived = set(self._arrived(protocol))
        return [f"{protocol} {number}" for number in range(sent) if str(number) not in arrived]

    def _arrived(self, protocol: str) -> list[str]:
        return self.server.shell(f"cat /tmp/{protocol}").split()


@contextmanager
def ticking(cluster: Cluster, client: str, server: str) -> Iterator[Ticks]:
    """Yields traffic from a pod of the first node to one of the second."""
    ready = {"readinessProbe": {"httpGet": {"path": "/healthz", "port": objects.TCP}, "periodSeconds": 1}}
    made(cluster, objects.pod("ticked", server, ["sh", "-c", _SERVER], probes=ready))
    cluster.apply(objects.service("ticked", {"app": "ticked"}))
    script = _CLIENT.replace("SERVER", Pod(cluster, "ticked").address)
    script = script.replace("SERVICE", objects.cluster_ip(cluster, "ticked"))
    made(cluster, objects.pod("ticking", client, ["sh", "-c", script]))
    try:
        yield Ticks(Pod(cluster, "ticking"), Pod(cluster, "ticked"))
    finally:
        cluster.delete("pod", "ticking", "ticked")
        cluster.delete("service", "ticked")
