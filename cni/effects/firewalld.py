"""firewalld: containers' addresses in one of its zones, by D-Bus (firewalld.dbus(5)), as the reference plugin does it.

The library for D-Bus is loaded only where firewalld may be running, as it costs 30 ms.
"""

from __future__ import annotations

from cni.effects import Effect
from cni.effects.journal import error_text
from cni.kernel import sysctl
from cni.protocol.errors import OperationFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cni.effects.host import Host
    from cni.effects.journal import Journal
    from cni.plan.firewalld import ZoneSource

ADDRESS = "DBUS_SYSTEM_BUS_ADDRESS"
SOCKET = "/run/dbus/system_bus_socket"
# Without a policy the system's bus gives nobody the name: there firewalld is not installed.
POLICIES = tuple([f"{folder}/dbus-1/system.d/FirewallD.conf" for folder in ("/usr/share", "/etc", "/usr/local/share")])
NAME, PATH = "org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1"
ZONE = f"{NAME}.zone"
ALREADY_SET = "ZONE_ALREADY_SET"
GONE = ("UNKNOWN_SOURCE", "ZONE_CONFLICT", "INVALID_ZONE")  # in no zone, in another one, and where the zone is gone
SECONDS = 10.0


def may_run(environment: Mapping[str, str]) -> bool:
    """Returns whether the bus is worth asking: two looks at the file system, on most hosts."""
    if environment.get(ADDRESS):
        return True
    return sysctl.exists(SOCKET) and any(map(sysctl.exists, POLICIES))


def is_running(environment: Mapping[str, str]) -> bool:
    """Returns whether somebody owns firewalld's name on the system's bus."""
    if not may_run(environment):
        return False
    try:
        _call(environment, "org.freedesktop.DBus", "/org/freedesktop/DBus", "GetNameOwner", NAME)
    except OperationFailed:
        return False
    return True


def apply(host: Host, op: ZoneSource, journal: Journal) -> None:
    """Adds the source. One that is in the zone already outlives a rollback; in another zone it is an error: its owner
    chose that.
    """
    if not differs(host, op):
        return
    journal.add(lambda: release(host, op))
    try:
        _call(host.environment, ZONE, PATH, "addSource", op.zone, op.address.text)
    except OperationFailed as error:
        if ALREADY_SET not in error.message:
            raise


def release(host: Host, op: ZoneSource) -> None:
    """Removes the source from its zone; where it is not in there, or firewalld does not run, there is nothing to do."""
    if not is_running(host.environment):
        return
    try:
        _call(host.environment, ZONE, PATH, "removeSource", op.zone, op.address.text)
    except OperationFailed as error:
        if not any(reason in error.message for reason in GONE):
            raise


def differs(host: Host, op: ZoneSource) -> str:
    (is_source,) = _call(host.environment, ZONE, PATH, "querySource", op.zone, op.address.text)
    return "" if is_source else f"{op.address.text} is not a source of firewalld's zone {op.zone}"


def _call(environment: Mapping[str, str], interface: str, path: str, method: str, *arguments: str) -> tuple[Any, ...]:
    """The answer's values. Raises OperationFailed, with firewalld's own words."""
    from jeepney import AuthenticationError, DBusAddress, DBusErrorResponse, new_method_call
    from jeepney.io.blocking import open_dbus_connection
    from jeepney.wrappers import unwrap_msg

    bus = environment.get(ADDRESS) or f"unix:path={SOCKET}"
    name = NAME if interface == ZONE else interface
    question = new_method_call(DBusAddress(path, name, interface), method, "s" * len(arguments), arguments)
    try:
        with open_dbus_connection(bus, auth_timeout=SECONDS) as connection:
            answer: tuple[Any, ...] = unwrap_msg(connection.send_and_get_reply(question, timeout=SECONDS))
    except DBusErrorResponse as error:
        reason = " ".join(map(str, error.data or ())) or error.name
        raise OperationFailed(f"firewalld: {method} {' '.join(arguments)}: {reason}") from None
    except (OSError, RuntimeError, ValueError, AuthenticationError) as error:
        raise OperationFailed(f"D-Bus: no answer from {bus} ({error_text(error)})") from None
    return answer


EFFECTS = {
    "ZoneSource": Effect(apply, release, differs),
}
