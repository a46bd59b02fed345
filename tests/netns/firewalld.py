"""A firewalld of a machine's own, on a system bus of the machine's own."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.machine import until

if TYPE_CHECKING:
    from tests.machine import Machine

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
MISSING = [name for name in ("firewalld", "firewall-cmd", "dbus-daemon") if shutil.which(name, path=PATH) is None]
NEEDS_FIREWALLD = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (hack/peers)")

BUS = """<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/> <allow own="*"/> <allow send_destination="*" eavesdrop="true"/> <allow eavesdrop="true"/>
  </policy>
</busconfig>
"""


def start_bus(machine: Machine) -> None:
    """Starts the bus alone."""
    machine.run("sh", "-c", "mkdir -p /run/dbus && cat > /run/bus.conf", stdin=BUS)
    machine.start("dbus-daemon", "--nofork", "--nosyslog", "--config-file=/run/bus.conf")
    until(lambda: machine.run("test", "-S", "/run/dbus/system_bus_socket", check=False).returncode == 0, "a bus")


def start(machine: Machine) -> None:
    """Starts both, with Debian's zones and nothing of this machine's settings."""
    start_bus(machine)
    for folder in ("/etc/firewalld", "/var/log"):
        machine.run("sh", "-c", f"mkdir -p {folder} && mount -t tmpfs tmpfs {folder}")
    machine.start("firewalld", "--nofork", "--nopid", env={"PATH": PATH})
    until(lambda: command(machine, "--state", check=False) == "running", "firewalld runs", 60)


def command(machine: Machine, *arguments: str, check: bool = True) -> str:
    return machine.run("firewall-cmd", *arguments, env={"PATH": PATH}, check=check).stdout.strip()


def sources(machine: Machine, zone: str = "trusted") -> list[str]:
    return sorted(command(machine, f"--zone={zone}", "--list-sources").split())
