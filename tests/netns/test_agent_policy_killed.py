"""podwired killed between two messages to the kernel: nothing opens, and the next one makes the table whole.

Every EVERYth message is tried; PODWIRE_POLICY_KILL_EVERY=1 tries them all (a second each).
"""

from __future__ import annotations

import os
import sys
from itertools import count
from typing import TYPE_CHECKING

from cni.kernel.netlink import Netlink
from tests.machine import Machine, MachineError
from tests.netns.faults import Saboteur, crash
from tests.netns.test_agent_policy import Net, listed
from tests.netns.test_agent_revocation import (
    CLOSED,
    FROM_WEB,
    NO_WAY_OUT,
    OPTIONS,
    changed,
    run_agent_with,
    without,
)
from tests.traffic import Target, ask_each
from tests.unit.policy_objects import pod_of, policy_of

if TYPE_CHECKING:
    from cni.agent.policy.events import PolicyEvent

WAYS_OUT = policy_of(
    "shop/ways-out",
    """{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.1.0.0/16, except: [10.1.9.0/24]}}],
    ports: [{port: 80}, {port: 80, protocol: UDP}, {port: 1, endPort: 79}]}]}""",
)
WEB = pod_of("shop/web", "10.1.0.3", "fd00:1::3", labels={"app": "web", "tier": "front"})
NEW = pod_of("shop/new", "10.1.0.9", labels={"app": "db"})
EVERY = 9
# After each step shop/db is isolated, and 10.1.0.4 may never reach it.
STEPS: list[list[PolicyEvent]] = [
    changed(CLOSED),
    changed(FROM_WEB, WAYS_OUT),
    changed(NO_WAY_OUT, NEW),
    without(CLOSED, NO_WAY_OUT),
    changed(WEB),
]
END = changed(FROM_WEB, WAYS_OUT, NEW, WEB)
FLOOD = """
import itertools, socket, time
for number in itertools.count():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"?", ("10.1.0.2", 80))
    time.sleep(0.002)
"""
ARRIVALS = """
table inet arrivals {
  counter ours { }
  chain input { type filter hook input priority 0; ip saddr 10.1.0.4 counter name ours; }
}
"""


def run_until(number: int) -> bool:
    """Inside: runs an agent through all steps, which ends before the message of that number; returns True if there is
    none.
    """
    saboteur = Saboteur(crash)
    for name in [name for name in vars(Netlink) if not name.startswith("_") and name != "close"]:
        setattr(Netlink, name, saboteur.wrap(name, getattr(Netlink, name)))
    saboteur.aim_at(number)
    run_agent_with(OPTIONS, *STEPS)
    return True


def is_through(machine: Machine, number: int) -> bool:
    try:
        return machine.call(run_until, number)
    except MachineError as error:
        if "ended without an answer" not in str(error):
            raise
        return False


def test_nothing_opens_and_the_next_agent_makes_the_table_whole() -> None:
    with Machine() as machine:
        net = Net(machine, bridged=False)
        machine.call(run_agent_with, OPTIONS, *STEPS)
        machine.call(run_agent_with, OPTIONS, END)
        whole = sorted(listed(machine))
        db, other = net.places["shop/db"][0], net.places["blue/other"][0]
        db.run("nft", "-f", "-", stdin=ARRIVALS)
        machine.start("ip", "netns", "exec", other.name, sys.executable, "-c", FLOOD)
        for number in count(0, int(os.environ.get("PODWIRE_POLICY_KILL_EVERY", EVERY))):
            if is_through(machine, number):
                break
            machine.call(run_agent_with, OPTIONS, END)
            assert sorted(listed(machine)) == whole, f"after the end before message {number}"
        assert number > 2 * EVERY
        assert "packets 0 " in db.run("nft", "list", "counter", "inet", "arrivals", "ours").stdout
        (answer,) = ask_each(net.places["shop/web"][0], [Target("udp", "10.1.0.2", 80)], 10.0)
        assert answer.name == "db"
        machine.run("nft", "delete", "table", "inet", "podwire-policy")
        db.run("sh", "-c", "until nft list counters | grep -q 'packets [1-9]'; do sleep 0.1; done")
