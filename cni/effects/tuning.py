"""Settings of the container's interface and kernel, and the file that keeps their originals.

What the kernel drops when a setting changes does not come back with it: below 1280 bytes an interface loses its IPv6
addresses.
"""

from __future__ import annotations

from cni.config.tuning import ALLOWLIST, LinkSettings, Settings
from cni.effects import Effect, not_released, nothing_differs
from cni.effects.engine import to_cni_error
from cni.effects.journal import FAILURES
from cni.effects.stray import peer_of
from cni.kernel import rtnl, statefile, sysctl
from cni.plan.tuning import (
    SetLink,
    ip_arguments,
    is_as_written,
    read_saved,
    restoring,
    saved_label,
    saved_namespace,
    saved_text,
    with_spelled,
)
from cni.protocol.errors import IOFailure, OperationFailed
from cni.protocol.owner import label_keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.effects.host import Host
    from cni.effects.journal import Journal
    from cni.kernel.rtnl import Message
    from cni.kernel.rtnl_parse import Link
    from cni.plan.tuning import SavedSettings, SetContainerSysctl, SpelledSysctls


def apply_originals(host: Host, op: SavedSettings, journal: Journal) -> None:
    """Saves the current settings. Raises IOFailure."""
    earlier = statefile.read(op.file)
    text = saved_text(_present(host, op), op.label, earlier, host.container_rtnl.namespace())
    statefile.write(op.file, text.encode())
    journal.add(lambda: statefile.remove(op.file) if earlier is None else statefile.write(op.file, earlier))


def _present(host: Host, op: SavedSettings) -> Settings:
    """Returns current values of the settings to change; unreadable ones are omitted (net.ipv4.route.flush)."""
    link = LinkSettings()
    if given := op.changes.link.given:
        now = _settings_of(host.container_rtnl.need(op.ifname))
        link = LinkSettings(**{name: getattr(now, name) for name in given})
    values = [(key, _read_sysctl(host, key)) for key, _ in op.changes.sysctls]
    return Settings(link, tuple([(key, value) for key, value in values if value is not None]))


def release_originals(host: Host, op: SavedSettings) -> None:
    """Restores all that can be restored. Raises OperationFailed for the rest, once: with the file the memory is gone,
    so that no setting stands in the way of a container's end for ever.
    """
    content = statefile.read(op.file)
    if content is None:
        return
    failed: list[str] = []
    for setting in restoring(read_saved(content), op.ifname) if _is_of(host, op, content) else ():
        try:
            _restore(host, setting)
        except FAILURES as error:
            failed.append(to_cni_error(setting.describe(), error).message)
    statefile.remove(op.file)
    if failed:
        raise OperationFailed("; ".join(failed))


def _is_of(host: Host, op: SavedSettings, content: bytes) -> bool:
    """True if the container exists and the saved settings are its own: its path may lead to another one by now."""
    if host.container is None:
        return False
    namespace = saved_namespace(content)
    if namespace and (now := host.container_rtnl.namespace()):
        return namespace == now
    link = host.container_rtnl.find(op.ifname)
    peer = peer_of(host, link) if link is not None else None
    keys = label_keys(peer.alias) if peer is not None else None
    return keys in (None, label_keys(op.label))


def _restore(host: Host, op: SetLink | SetContainerSysctl) -> None:
    """Restores one setting; the interface may be gone, and its settings with it."""
    if not isinstance(op, SetLink):
        _put_back(host, op.key, op.value)
    elif (link := host.container_rtnl.find(op.ifname)) is not None:
        for message, _ in _steps(link, op.settings):
            host.container_rtnl.request(*message)


def apply_sysctl(host: Host, op: SetContainerSysctl, journal: Journal) -> None:
    """Writes the value even if it is set already, since the kernel copies a setting of all interfaces to each. Then an
    error is ignored: /proc/sys may be read-only, with all set beforehand.
    """
    before = _read_sysctl(host, op.key)
    if before is not None:
        journal.add(lambda: _put_back(host, op.key, before))
    try:
        _write_sysctl(host, op.key, op.value)
    except OSError:
        if before != op.value:
            raise


def apply_spelled(host: Host, op: SpelledSysctls, journal: Journal) -> None:
    """Saves the kernel's spelling of the values; the undo is that of the file. Raises IOFailure."""
    now = _read_sysctls(host, op)
    spelled = {key: (value, now[key]) for key, value in op.sysctls if now.get(key, value).split() != value.split()}
    if spelled:
        statefile.write(op.file, with_spelled(statefile.read(op.file), spelled).encode())


def spelled_differs(host: Host, op: SpelledSysctls) -> str:
    """Compares all sysctls that were written with the kernel's spelling of them in the saved file."""
    content = statefile.read(op.file)
    now = _read_sysctls(host, op)
    wrong = [
        f"the container's {key} is {now[key]}, not {value}"
        for key, value in op.sysctls
        if key in now and not is_as_written(key, value, now[key], content)
    ]
    gone = [f"the container's {key} is gone" for key, _ in op.sysctls if key not in now and _is_gone(host, key)]
    return "; ".join(wrong + gone)


def _read_sysctls(host: Host, op: SpelledSysctls) -> dict[str, str]:
    values = [(key, _read_sysctl(host, key)) for key, _ in op.sysctls]
    return {key: value for key, value in values if value is not None}


def apply_link(host: Host, op: SetLink, journal: Journal) -> None:
    """Applies each setting on its own: of several in one message the kernel would apply some and reject the others."""
    route = host.container_rtnl

    def run(message: Message, undo: Message) -> None:
        journal.run(lambda: route.request(*message), lambda: route.request(*undo))

    for step in _steps(route.need(op.ifname), op.settings):
        run(*step)


def link_differs(host: Host, op: SetLink) -> str:
    link = host.container_rtnl.find(op.ifname)
    if link is None:
        return f"{op.ifname} is gone"
    current, expected = ip_arguments(_settings_of(link)), ip_arguments(op.settings)
    wrong = [f"{current[name]}, not {expected[name]}" for name in expected if current[name] != expected[name]]
    return f"{op.ifname} has {'; '.join(wrong)}" if wrong else ""


def _settings_of(link: Link) -> LinkSettings:
    promisc, allmulti = bool(link.flags & rtnl.IFF_PROMISC), bool(link.flags & rtnl.IFF_ALLMULTI)
    return LinkSettings(link.mac, promisc, link.mtu, allmulti, link.txqlen)


def _steps(link: Link, wanted: LinkSettings) -> list[tuple[Message, Message]]:
    """Returns the messages for settings that differ, each with its undo."""
    changes, undo = _messages(link.name, wanted), _messages(link.name, _settings_of(link))
    return [(message, undo[name]) for name, message in changes.items() if message != undo[name]]


def _messages(name: str, settings: LinkSettings) -> dict[str, Message]:
    """Returns the messages by setting, the MTU last: no undo restores IPv6 addresses that a lower one may delete."""
    messages = {}
    if settings.mac is not None:
        messages["mac"] = rtnl.set_mac(name, settings.mac)
    if settings.promisc is not None:
        messages["promisc"] = rtnl.set_flags(name, settings.promisc * rtnl.IFF_PROMISC, rtnl.IFF_PROMISC)
    if settings.allmulti is not None:
        messages["allmulti"] = rtnl.set_flags(name, settings.allmulti * rtnl.IFF_ALLMULTI, rtnl.IFF_ALLMULTI)
    if settings.txqlen is not None:
        messages["txqlen"] = rtnl.set_txqlen(name, settings.txqlen)
    if settings.mtu is not None:
        messages["mtu"] = rtnl.set_mtu(name, settings.mtu)
    return messages


def _read_sysctl(host: Host, key: str) -> str | None:
    """Returns the value; None if there is no such setting, or if it can only be written."""
    with host.in_container:
        try:
            return sysctl.read(key)
        except OSError:
            return None


def _is_gone(host: Host, key: str) -> bool:
    """True if the setting is gone, as those of an interface are with it; one that can only be written exists."""
    with host.in_container:
        return not sysctl.exists(sysctl.ROOT + key)


def _write_sysctl(host: Host, key: str, value: str) -> None:
    """Writes with a line end: without it, an empty value would not be written at all. Raises OSError."""
    with host.in_container:
        sysctl.write(key, f"{value}\n")


def _put_back(host: Host, key: str, value: str) -> None:
    """Restores the value, unless the setting is gone or has the value, since the kernel rejected the change."""
    if _read_sysctl(host, key) not in (None, value):
        _write_sysctl(host, key, value)


def release_labelled(folder: str, matches: Callable[[str], bool]) -> None:
    """Removes saved settings whose label matches; the cost grows with their number. Raises IOFailure."""
    for file in [f"{folder}/{name}" for name in statefile.names(folder) if name.endswith(".json")]:
        try:
            content = statefile.read(file)
        except IOFailure:
            continue  # not one of ours
        if matches(saved_label(content or b"")):
            statefile.remove(file)


def read_allowlist() -> tuple[str, ...] | None:
    """Returns the lines of ALLOWLIST that are not empty; None if there is no such file. Raises IOFailure."""
    content = statefile.read(ALLOWLIST, links=True)
    if content is None:
        return None
    lines = [line.strip() for line in content.decode("utf-8", "replace").split("\n")]
    return tuple([line for line in lines if line])


EFFECTS = {
    "SavedSettings": Effect(apply_originals, release_originals, nothing_differs),
    "SetContainerSysctl": Effect(apply_sysctl, not_released, nothing_differs),
    "SpelledSysctls": Effect(apply_spelled, not_released, spelled_differs),
    "SetLink": Effect(apply_link, not_released, link_differs),
}
