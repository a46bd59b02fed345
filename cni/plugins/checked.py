"""CHECK of the interface plugins: the attachment as ADD's result and the kernel have it."""

from __future__ import annotations

from cni.effects.veth import find_own
from cni.plan.alias import parse_alias
from cni.plugins.context import owner_of
from cni.protocol.address import parse_mac
from cni.protocol.errors import InvalidConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.config.netconf import NetConf
    from cni.plan.attachment import Facts, Names
    from cni.plugins.context import Call
    from cni.protocol.owner import Owner
    from cni.protocol.result import Result


def from_result(
    call: Call, previous: Result, conf: NetConf, facts: Facts, names: Names
) -> tuple[NetConf, Facts, Names]:
    """Returns the three as ADD's result and the kernel have them: a chained plugin may have changed the MTU."""
    owner, netns = owner_of(call), call.request.netns
    names = _names_in_result(previous, owner, conf, names, netns)
    if conf.mtu:
        conf = conf._replace(mtu=_mtu_in_result(previous, owner, netns))
    own = find_own(call.host, owner)
    if own is not None:
        alias = parse_alias(own.alias)
        names = names._replace(allowed_mac=alias.allowed_mac or b"", further_sources=alias.further_sources)
        facts = facts._replace(isolated=alias.isolated)
        conf = conf._replace(ip_spoof_check=conf.ip_spoof_check or alias.further_sources is not None)
    if names.host_interface != owner.host_interface:
        # Attached by a third-party plugin: its rules are not podwire's, and it may leave out settings of IPv6.
        conf = conf._replace(ip_masq=False, mac_spoof_check=False, ip_spoof_check=False, accept=False)
        facts = facts._replace(ipv6=False)
    return conf, facts, names


def _names_in_result(previous: Result, owner: Owner, conf: NetConf, names: Names, netns: str) -> Names:
    """Returns the names in ADD's result: a third-party plugin chooses others, a chained one adds interfaces after them.

    Raises InvalidConfig.
    """
    hosts = [each.name for each in previous.interfaces if not each.sandbox and each.name != conf.bridge]
    if hosts:
        names = names._replace(host_interface=hosts[0])
    for interface in previous.interfaces:
        if interface.name == owner.ifname and interface.sandbox == netns and interface.mac:
            names = names._replace(container_mac=_mac(interface.mac))
    return names


def _mtu_in_result(previous: Result, owner: Owner, netns: str) -> int:
    """Returns the MTU of the container's interface after the whole chain; 0 if the result's version has none."""
    return next((each.mtu for each in previous.interfaces if (each.name, each.sandbox) == (owner.ifname, netns)), 0)


def _mac(text: str) -> bytes:
    """Raises InvalidConfig."""
    try:
        return parse_mac(text)
    except ValueError as error:
        raise InvalidConfig(f"prevResult.interfaces: {error}") from None
