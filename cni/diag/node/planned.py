"""The gateway's address that the next ADD of a network would set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni import DELEGATING, INTERFACE, kind_of
from cni.config.flannel import parse_flannel, parse_subnet_env, render
from cni.diag.node.calls import call_of
from cni.diag.node.keptcalls import KeptCall
from cni.diag.plan import lease_now
from cni.effects.bridge import in_conflict
from cni.effects.journal import FAILURES
from cni.kernel import statefile
from cni.plan.operations import GatewayAddress
from cni.plugins import bridge
from cni.protocol.errors import CniError
from cni.protocol.fields import ConfigErrors
from cni.protocol.owner import Owner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.effects.host import Host
    from cni.protocol.address import Net
    from cni.protocol.plugin_config import PluginConfig

    Json = dict[str, Any]


def planned_gateways(config: Json, host: Host) -> Iterator[GatewayAddress]:
    """Yields the operations on a bridge's address; none where an ADD would fail before these."""
    owner = Owner(str(config.get("name", "")), "example", "eth0")
    kept = KeptCall(owner, "", {}, "", (), {}, 0.0)
    try:
        if kind_of(str(config.get("type"))) == DELEGATING:
            config = _delegated(call_of(kept, config, "ADD", host).config)
        if kind_of(str(config.get("type"))) != INTERFACE:
            return
        call = call_of(kept, config, "ADD", host)
        conf, _, _ = bridge.validate(call)
        operations = bridge.prepare(call, conf, lease_now(call, conf.ipam_type)).operations
    except (CniError, ValueError, *FAILURES):
        return
    yield from [operation for operation in operations if isinstance(operation, GatewayAddress)]


def _delegated(config: PluginConfig) -> Json:
    """Returns what flannel would delegate now. Raises CniError, ValueError."""
    errors = ConfigErrors()
    conf = parse_flannel(config, errors)
    data = statefile.read(conf.subnet_file, links=True) or b""
    rendered = render(config, conf, parse_subnet_env(data.decode("utf-8", "replace"), conf.subnet_file))
    return {**rendered, "name": config.name, "cniVersion": config.version}


def occupying(host: Host, op: GatewayAddress) -> list[Net]:
    """Returns the addresses of the bridge because of which the operation would fail."""
    if op.force or host.rtnl.find(op.bridge) is None:
        return []
    present = [info.address for info in host.rtnl.addresses(op.bridge)]
    return [other for other in present if in_conflict(op.address, other) and op.address not in present]
