"""portmap and bandwidth serve one container together, whichever of the two is podwire's and whichever comes first."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import pytest

from tests.machine import until
from tests.system.plugins import Attachment, Json, call

if TYPE_CHECKING:
    from pathlib import Path

    from tests.machine import Machine

RATE = {"ingressRate": 10**8, "ingressBurst": 10**6, "egressRate": 10**8, "egressBurst": 10**6}
PORTS = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
IPAM = {"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/24"}]]}
NETWORK: dict[str, Json] = {
    "ptp": {"ipam": {**IPAM, "routes": [{"dst": "0.0.0.0/0"}]}},
    "bridge": {"isDefaultGateway": True, "ipam": IPAM},
}
ORDERS = (("portmap", "bandwidth"), ("bandwidth", "portmap"))


@pytest.fixture
def machine(usual_machine: Machine) -> Machine:
    return usual_machine


@pytest.mark.parametrize("attaching", NETWORK)
def test_a_port_and_a_limit_of_different_makers_live_together(
    machine: Machine, plugins: Path, peers: Path, attaching: str
) -> None:
    if absent := [name for name in ("ptp", "portmap", "bandwidth") if not (peers / name).exists()]:
        pytest.skip(f"absent: {', '.join(absent)} (hack/peers brings them)")
    machine.run("ip", "link", "set", "lo", "up")
    common: Json = {"cniVersion": "1.0.0", "name": "net", "backend": "nftables"}
    makers = ((peers, plugins, peers), (plugins, plugins, peers), (peers, peers, plugins))
    for number, (order, (attacher, mapper, limiter)) in enumerate(product(ORDERS, makers)):
        folders = {"portmap": mapper, "bandwidth": limiter}
        pod = machine.pod(f"pod{number}")
        pod.run("ip", "link", "set", "lo", "up")
        pod.serve(80)
        attachment = Attachment(f"c{number}", pod.path)
        first: Json = {**common, "type": attaching, **NETWORK[attaching]}
        result = call(machine, attacher / attaching, "ADD", first, attachment)
        base: Json = {**common, "runtimeConfig": {"portMappings": PORTS, "bandwidth": RATE}}
        for program in order:
            config = {**base, "type": program, "prevResult": result}
            result = call(machine, folders[program] / program, "ADD", config, attachment)
        assert until(lambda: machine.ask("127.0.0.1", 8080), "the port answers"), (order, mapper)
        config = {**base, "prevResult": result}
        for program in order:
            call(machine, folders[program] / program, "CHECK", {**config, "type": program}, attachment)
        for program in reversed(order):
            call(machine, folders[program] / program, "DEL", {**config, "type": program}, attachment)
        call(machine, attacher / attaching, "DEL", {**first, "prevResult": result}, attachment)
        links = machine.run("ip", "-o", "link").stdout
        assert "veth" not in links, (order, mapper)
        assert "ifb" not in links, (order, mapper)
