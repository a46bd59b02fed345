"""A firewalld of a machine's own, on a system bus of the machine's own."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.machine import until

if TYPE_CHECKING:
    from tests.machine import Machine

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
MISSING = [name for name in ("firewalld", "firewall-cmd", "dbus-daemon") if shutil.which(name, path=PATH) is None]
NEEDS_FIREWALLD = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (hack/peers)")

SOCKET = "unix:path=/run/dbus/system_bus_socket"
BUS = f"""<busconfig>
  <type>system</type>
  <listen>{SOCKET}</listen>
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
    until(lambda: running(machine), "firewalld runs")


def ask(interface: str, member: str, *arguments: str) -> Any:
    """Asks the firewalld of this network namespace, as firewall-cmd does, whose start takes most of a second."""
    from jeepney import DBusAddress, MessageType, new_method_call
    from jeepney.io.blocking import open_dbus_connection

    address = DBusAddress("/org/fedoraproject/FirewallD1", "org.fedoraproject.FirewallD1", interface)
    call = new_method_call(address, member, "s" * len(arguments), arguments)
    with open_dbus_connection(SOCKET) as connection:
        reply = connection.send_and_get_reply(call, timeout=60)
    if reply.header.message_type is MessageType.error:
        raise OSError(f"{member}: {reply.body}")
    return reply.body[0]


def running(machine: Machine) -> bool:
    try:
        state = machine.call(ask, "org.freedesktop.DBus.Properties", "Get", "org.fedoraproject.FirewallD1", "state")
    except OSError:  # it is not there yet
        return False
    return bool(state == ("s", "RUNNING"))


def zones(machine: Machine, member: str, *arguments: str) -> Any:
    """Calls a method of the interface of zones: addSource, removeSource, getSources, getActiveZones."""
    return machine.call(ask, "org.fedoraproject.FirewallD1.zone", member, *arguments)


def sources(machine: Machine, zone: str = "trusted") -> list[str]:
    return sorted(zones(machine, "getSources", zone))
