"""The verbs of the interface plugins `podwire`, `bridge` and `ptp`."""

from __future__ import annotations

from cni import HOST_LOCAL
from cni.config.bandwidth import Bandwidth, Rate
from cni.config.netconf import mtu_error, parse_netconf
from cni.config.portmap import Ports
from cni.effects.alive import alive_in
from cni.effects.engine import apply, differences, release
from cni.effects.host import has_ipv6, node_identity
from cni.effects.journal import FAILURES, Journal
from cni.effects.veth import find_own, refuse_attached, with_mtus
from cni.kernel import sysctl
from cni.kernel.rtnl import GROUPS
from cni.plan.address import with_gateways
from cni.plan.alias import Alias, parse_alias
from cni.plan.attachment import Attachment, Facts, names_of
from cni.plan.operations import Veth
from cni.plan.plan import plan_attachment
from cni.plugins import context
from cni.plugins.context import Call, collect_errors, open_if_there, owner_of, raise_collected, require_nft
from cni.plugins.ipam import allocator
from cni.protocol.address import Net
from cni.protocol.errors import CheckFailed, InvalidConfig, OperationFailed, PluginNotAvailable
from cni.protocol.fields import ConfigErrors
from cni.protocol.owner import Owner, host_interface_of, stale_labels
from cni.protocol.plugin_config import previous_result, valid_attachments
from cni.protocol.result import IPConfig, Result
from cni.protocol.versions import MTU_SINCE, at_least

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.config.netconf import NetConf
    from cni.effects.host import Host
    from cni.plan.plan import Plan
    from cni.plugins.ipam import Ipam
    from cni.protocol.plugin_config import PluginConfig
    from cni.protocol.request import Request


def validate(call: Call, errors: ConfigErrors | None = None) -> tuple[NetConf, Ipam, Result | None]:
    """Returns the configuration, the IPAM plugin and prevResult. Warns of what is ignored. `errors`: of the caller.

    Raises InvalidConfig with all errors, those of the IPAM plugin included.
    """
    errors = errors or call.config.validate()
    conf = parse_netconf(call.config, call.request.args, errors, call.program)
    previous = previous_result(call.config, errors)
    if conf.routed and not conf.ipam_type:
        errors.add("ipam.type", "missing, a routed container needs addresses")
    ipam = allocator(conf.ipam_type, call.request)
    families = ipam.validate(call.request, call.config, errors)
    if error := mtu_error(conf, families):
        errors.add("mtu", error)
    errors.raise_if_any()
    for notice in conf.notices:
        call.warn(notice)
    return conf, ipam, previous


def prepare(call: Call, conf: NetConf, lease: Result) -> Plan:
    """Returns the plan that ADD applies and CHECK compares. Asks the kernel what it has, and changes nothing.

    `conf` is that of `validate`; `lease` is the IPAM plugin's result, for CHECK the result of ADD.
    """
    owner = owner_of(call)
    facts = _facts(call.host, conf)
    names = names_of(owner, conf.mac, lease)
    if call.request.command == "ADD" and _has_policies(call.host):
        from cni.plan.policy import ISOLATED, record_of

        # Where the host is no gateway it does not forward between pods: they would not reach each other.
        isolated = conf.is_gateway and not conf.routed and sysctl.exists(f"{call.host.pod_records}/{ISOLATED}")
        facts = facts._replace(pod=record_of(owner, call.request.args), isolated=isolated)
    conf = conf._replace(ip_spoof_check=_checks_sources(call.host, conf, facts, lease))
    if call.request.command == "CHECK":
        from cni.plugins import checked

        conf, facts, names = checked.from_result(call, lease, conf, facts, names)
    return plan_attachment(Attachment(owner, call.request.netns, conf, facts, names, lease))


def add(call: Call) -> None:
    """Attaches the container and writes the result; rolls all back on any failure, also that of writing."""
    request, config, host = call.request, call.config, call.host
    conf, ipam, _ = validate(call)
    host.open_container(request.netns, request.netns_override)
    owner = owner_of(call)
    # Before an address is leased: a rollback would release the lease of the container that is attached.
    refuse_attached(host, owner.host_interface, owner.ifname)
    with Journal(host) as journal:
        host.raise_if_interrupted()
        lease = ipam.add(request, config, alive_in(config.name))
        journal.add(lambda: ipam.delete(request, config, alive_in(config.name)))
        _require_address(conf, lease)
        host.lock.lock_shared()  # not earlier: an executed IPAM plugin may be slow
        plan = prepare(call, conf, lease)
        answer = call.render(plan.result)
        apply(host, plan.operations, journal)
        if at_least(config.version, MTU_SINCE):
            answer = call.render(with_mtus(host, conf, plan.result))
        journal.add(lambda: context.forget_attachment(call))
        context.record_attachment(call, answer)
        call.answer(answer)


def check(call: Call) -> None:
    """Raises CheckFailed with every difference from what ADD made."""
    made = expected(call)
    failures = differences(call.host, made.operations)
    try:
        made.check_leases()
    except CheckFailed as error:
        failures.append(error.message)
    if failures:
        raise CheckFailed("the container's network is not as ADD made it: " + "; ".join(failures))


def expected(call: Call) -> context.Expected:
    """Returns what ADD made, by the configuration and prevResult of a CHECK. Opens the container's namespace."""
    request, config = call.request, call.config
    conf, ipam, previous = validate(call)
    if previous is None:
        raise InvalidConfig("prevResult: missing, CHECK compares with what ADD answered")
    call.host.open_container(request.netns, request.netns_override)
    operations = prepare(call, conf, previous).operations
    return context.Expected(operations, lambda: ipam.check(request, config, previous))


def delete(call: Call) -> None:
    """Releases all that exists of the attachment. Missing objects and errors of the configuration do not stop it.

    Addresses and ports are those in the alias of the host's end; else those of the configuration, `prevResult` and the
    leases. Where these may lack something, all elements with the owner's label are removed.
    """
    request, config, host = call.request, call.config, call.host
    conf = parse_netconf(config, request.args, ConfigErrors(), call.program)
    ipam = allocator(conf.ipam_type, request)
    host.lock.lock_shared()
    owner = owner_of(call)
    own = find_own(host, owner)
    alias = parse_alias(own.alias if own is not None else "")
    if own is None:  # else deleting the host's end deletes the container's
        open_if_there(host, request)
    group = own.group if own is not None else 0
    conf = _with_alias(conf, alias, group)
    addresses = alias.addresses
    recorded = alias.recorded if alias.label else _has_policies(host)
    checked = conf.ip_spoof_check or (recorded and conf.ip_spoof_check is None)
    if conf.ip_masq or conf.mac_spoof_check or conf.ports.mappings or recorded or checked:
        addresses = addresses or _leased(request, config, ipam)
    lease = Result(ips=tuple([IPConfig(address) for address in addresses]))
    facts = Facts("", None, ipv6=False, group=group)
    if recorded:
        from cni.plan.policy import record_of

        facts = facts._replace(pod=record_of(owner, request.args))
    names = names_of(owner, conf.mac, lease)._replace(further_sources=alias.further_sources)
    conf = conf._replace(ip_spoof_check=checked)
    attachment = Attachment(owner, request.netns, conf, facts, names, lease)
    operations = plan_attachment(attachment).operations
    failed = release(host, [op for op in reversed(operations) if own is not None or not isinstance(op, Veth)])
    if host.container is not None:
        collect_errors(failed, lambda: _release_stray(call, owner, conf, addresses or _leased(request, config, ipam)))
    ports_unknown = conf.may_map_ports and not (alias.label or conf.ports.mappings)
    needs_addresses = conf.ip_masq or checked or conf.ports.mappings
    if ports_unknown or not alias.whole or (not addresses and needs_addresses):
        _release_labelled(host, owner.owns, failed)
    if recorded and not (alias.whole and addresses):
        from cni.effects import policy

        collect_errors(failed, lambda: policy.release_labelled(host, owner.owns))
    if failed and find_own(host, owner) is not None:
        raise_collected(failed, "the container still has its interface, so its addresses stay leased")
    host.lock.release()
    collect_errors(failed, lambda: ipam.delete(request, config, alive_in(config.name)))
    raise_collected(failed, "not everything of the attachment could be released")
    context.forget_attachment(call)


def collect(call: Call) -> None:
    """GC: releases all attachments of the network that are not in the runtime's list of valid ones."""
    config, host = call.config, call.host
    valid = valid_attachments(config)
    if valid is None:
        return  # cnitool sends no list, and must not lose all attachments
    conf = parse_netconf(config, {}, ConfigErrors(), call.program)
    is_stale = stale_labels(config.name, valid)
    failed: list[str] = []
    host.lock.lock_shared()
    _release_labelled(host, is_stale, failed)
    for link in [link for link in host.rtnl.links() if is_stale(link.alias)]:
        collect_errors(failed, lambda: host.rtnl.delete(link.name, link.group))  # noqa: B023  # called at once
    if _has_policies(host):
        from cni.effects import policy

        collect_errors(failed, lambda: policy.release_labelled(host, is_stale))
    host.lock.release()
    collect_errors(failed, lambda: context.forget_stale(call, valid))
    ipam = allocator(conf.ipam_type, call.request)
    collect_errors(failed, lambda: ipam.collect(config, valid, alive_in(config.name)))
    raise_collected(failed, "not everything stale could be released")


def status(call: Call) -> None:
    """Raises PluginNotAvailable if an ADD would fail."""
    conf, ipam, _ = validate(call)
    bridge = call.host.rtnl.find(conf.bridge)
    if not conf.routed and bridge is not None and bridge.kind != "bridge":
        raise PluginNotAvailable(f'"{conf.bridge}" exists but is not a bridge: choose another name for the bridge')
    if conf.ip_masq or conf.mac_spoof_check or conf.ip_spoof_check or conf.may_map_ports:
        require_nft(call, program=conf.may_map_ports and conf.ports.has_conditions)
    if conf.accept and conf.ipam_type:
        from cni.config.firewall import families_of
        from cni.effects import forward_audit

        forward_audit.refuse_drops(call.host, families_of(call.config), incoming_interface(conf))
    if _has_policies(call.host):
        from cni.effects import policy_status

        policy_status.refuse_absence(call.host)
    ipam.status(call.config, alive_in(call.config.name))


VERBS = {"ADD": add, "CHECK": check, "DEL": delete, "GC": collect, "STATUS": status}


def _require_address(conf: NetConf, lease: Result) -> None:
    """Raises OperationFailed, InvalidConfig if the network cannot use the lease."""
    if conf.ipam_type and not lease.ips:
        raise OperationFailed(f"the IPAM plugin {conf.ipam_type} returned no address")
    # The families of an executed IPAM plugin are not known before.
    if error := mtu_error(conf, {ip.address.family for ip in lease.ips}):
        raise InvalidConfig(f"invalid network configuration: mtu: {error}")
    for ip in with_gateways(lease.ips) if conf.routed else ():
        if ip.gateway is None:
            raise OperationFailed(f"{ip.address.text} has no gateway, which a routed container needs: set it in ipam")


def _facts(host: Host, conf: NetConf) -> Facts:
    bridge = host.rtnl.find(conf.bridge)
    mac = bridge.mac if bridge is not None and any(bridge.mac) else None
    return Facts(node_identity(), mac, has_ipv6())


def _has_policies(host: Host) -> bool:
    """Returns True if podwired enforces NetworkPolicy, or did so before it was killed."""
    return sysctl.exists(host.pod_records)


def _checks_sources(host: Host, conf: NetConf, facts: Facts, lease: Result) -> bool:
    """Returns True if the container may send from the lease's addresses alone: by default, where policies are
    enforced, since they know pods by their addresses, and the kernel can check that.
    """
    is_wanted = conf.ip_spoof_check
    if is_wanted is None and facts.pod is not None:
        from cni.plan.policy import UNCHECKED

        is_wanted = not sysctl.exists(f"{host.pod_records}/{UNCHECKED}")
    return bool(is_wanted and lease.ips)


def incoming_interface(conf: NetConf) -> str:
    """Returns the interface by which the host receives containers' packets; a pattern if each has its own (routed)."""
    if conf.routed:
        return f"{host_interface_of('')}*"
    return f"{conf.bridge}.{conf.vlan}" if conf.vlan else conf.bridge


def _release_stray(call: Call, owner: Owner, conf: NetConf, addresses: tuple[Net, ...]) -> None:
    """Deletes the container's interface without the host's end, if traces show that it is this attachment's."""
    from cni.effects import stray
    from cni.plan.traces import traces_of

    previous = previous_result(call.config, ConfigErrors()) or Result()
    bridge = "" if conf.routed else conf.bridge
    traces = traces_of(owner, previous, addresses, bridge, conf.ipam_type == HOST_LOCAL)
    stray.release(call.host, owner.ifname, traces)


def _release_labelled(host: Host, matches: Callable[[str], bool], failed: list[str]) -> None:
    """Removes all elements whose labels match, which takes longer with more of them; appends errors."""
    from cni.effects import nft_elements, portmap

    collect_errors(failed, lambda: nft_elements.remove_labelled(host, matches))
    collect_errors(failed, lambda: portmap.release_labelled(host, matches))


def _with_alias(conf: NetConf, alias: Alias, group: int) -> NetConf:
    """Returns the configuration as ADD had it, from the alias; without an interface, all that may have been made."""
    # An ADD that was killed may have left an ifb; in the interface's group it is deleted with it.
    ifb_alone = conf.may_limit_bandwidth and not alias.label and group < GROUPS
    return conf._replace(
        ip_masq=conf.ip_masq or alias.ip_masq,
        mac_spoof_check=conf.mac_spoof_check or alias.allowed_mac is not None,
        ip_spoof_check=alias.further_sources is not None if alias.label else conf.ip_spoof_check,
        mac=alias.allowed_mac or conf.mac,
        ports=Ports(alias.ports, alias.ports_masqueraded) if alias.ports else conf.ports,
        bandwidth=Bandwidth(egress=Rate(0, 0)) if ifb_alone else Bandwidth(),
    )


def _leased(request: Request, config: PluginConfig, ipam: Ipam) -> tuple[Net, ...]:
    """Returns the attachment's addresses: those of ADD's result, or else those of its leases."""
    previous = previous_result(config, ConfigErrors())
    if previous is not None and previous.ips:
        return tuple([ip.address for ip in previous.ips])
    try:
        return tuple([Net(ip, ip.bits) for ip in ipam.leased(request, config)])
    except FAILURES:
        return ()  # releasing the leases reports the error
