"""Findings about one plugin: the errors of its own parser, keys without effect, and what only a file shows."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

from cni import CHAINED, DELEGATING, HOST_LOCAL, INTERFACE, IPAM, PROGRAMS, kind_of
from cni.config.calllog import parse_calllog
from cni.config.flannel import SubnetEnv, parse_flannel, render
from cni.config.keys import COMMON, EVERYWHERE, KEYS, notice, unknown_keys
from cni.config.spelling import nearest
from cni.diag.conflint.findings import Collected
from cni.plugins.bridge import validate
from cni.plugins.context import Call
from cni.protocol.address import parse_net
from cni.protocol.errors import CniError
from cni.protocol.jsontext import dump
from cni.protocol.plugin_config import PluginConfig
from cni.protocol.request import Request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.config.netconf import NetConf
    from cni.diag.conflint.documents import Plugin
    from cni.effects.host import Host
    from ipam.ranges import RangeSet

FROM_RUNTIME = ("runtimeConfig", "prevResult")
# Plugins of others: a name that resembles one of ours is no misspelling if it is one of them.
FOREIGN = (
    "macvlan", "ipvlan", "vlan", "dhcp", "static", "host-device", "dummy", "vrf", "sbr", "tap", "whereabouts", "multus",
    "calico", "calico-ipam", "cilium-cni", "route-override", "ovs", "bond", "sriov",
)  # fmt: skip
ALLOCATORS = (HOST_LOCAL, "dhcp", "static", "whereabouts", "calico-ipam")
OF_SUBNET = ("rangeStart", "rangeEnd", "gateway")
SUBNET = SubnetEnv((parse_net("10.244.0.0/16"),), (parse_net("10.244.0.0/24"),), 1450, masquerades=True)  # flannel's


class Judged(Collected):
    """The findings about a plugin, and what those about other networks need: the configuration, the ranges."""

    conf: NetConf | None = None
    sets: tuple[RangeSet, ...] = ()


def judge(plugin: Plugin, *, on_node: bool) -> Judged:
    """Judges a plugin; paths are those of its own keys. `on_node`: by the allowlist of this node, too."""
    judged = Judged()
    kind = kind_of(plugin.type)
    if not kind:
        guess = "" if plugin.type in FOREIGN else nearest(plugin.type, PROGRAMS)
        if guess:
            judged.add("type", f"{plugin.type} is no plugin of podwire's (did you mean {guess}?)")
        return judged
    if kind == INTERFACE:
        _judge_interface(plugin.type, plugin.config, judged)
    elif kind == DELEGATING:
        _judge_flannel(plugin.config, judged)
    elif kind == CHAINED:
        _judge_chained(plugin.type, plugin.config, judged, on_node=on_node)
    elif kind == IPAM:
        judged.add("type", f"{plugin.type} allocates addresses and attaches nothing (it is a type of ipam)")
    _judge_keys(plugin.type, plugin.config, judged)
    return judged


def errors(plugin: Plugin) -> Judged:
    """Returns what makes an ADD of a plugin fail: the errors of its own parser alone."""
    judged = Judged()
    kind = kind_of(plugin.type)
    if kind == INTERFACE:
        _parse_interface(plugin.type, plugin.config, judged)
    elif kind == DELEGATING:
        parse_flannel(plugin.config, judged)
    elif kind == CHAINED:
        _judge_chained(plugin.type, plugin.config, judged, on_node=False)
    return judged


def _judge_keys(program: str, config: PluginConfig, judged: Judged) -> None:
    """Judges the keys that every plugin has, and those without effect."""
    fields = config.fields(judged)
    parse_calllog(fields)
    if fields.has("plugins"):
        judged.add("plugins", "is a key of a plugin list, a plugin has no list of its own")
    for key in FROM_RUNTIME:
        if fields.has(key):
            judged.add(key, "is set by the runtime, a file's value is lost")
    for path, key, known in unknown_keys(program, config):
        judged.add(path, notice(path, key, known).removeprefix(f"{path}: "))
    for path, message in _foreign_keys(program, config):
        judged.add(path, message)


def _call(program: str, config: PluginConfig, verb: str) -> Call:
    """Returns a call that reads the configuration and does nothing else: there is no host."""
    request = Request(verb, "", "", "", {}, (), netns_override=False, environment={})
    return Call(program, request, config, cast("Host", None), lambda _: "", lambda _: None, lambda _: None)


def _parse_interface(program: str, config: PluginConfig, judged: Judged) -> NetConf | None:
    try:
        judged.conf, _, _ = validate(_call(program, config, "STATUS"), judged)
    except CniError as error:
        judged.add("ipam", error.message)
    return judged.conf


def _judge_interface(program: str, config: PluginConfig, judged: Judged) -> None:
    conf = _parse_interface(program, config, judged)
    if conf is None:
        return
    ipam = config.fields(Collected()).raw("ipam")
    if not conf.ipam_type and ipam and not any(path == "ipam.type" for path, _ in judged.pairs):
        judged.add("ipam.type", "missing, so that the container gets no address (did you mean host-local?)")
    if conf.ipam_type == HOST_LOCAL:
        from ipam.config import read_settings

        judged.sets = read_settings(config, {}, Collected(), of_container=False).sets
        addresses = config.fields(Collected()).object("ipam")
        for key in OF_SUBNET if addresses.raw("subnet") is None else ():
            if addresses.raw(key) is not None:
                judged.add(f"ipam.{key}", "has no effect without ipam.subnet (put it into a range of ipam.ranges)")
    elif conf.ipam_type not in ALLOCATORS and (guess := nearest(conf.ipam_type, ALLOCATORS)):
        judged.add("ipam.type", f"{conf.ipam_type} is a program in CNI_PATH (did you mean {guess}?)")


def _judge_flannel(config: PluginConfig, judged: Judged) -> None:
    """Judges the delegate's configuration as well, as a node agent would have it made."""
    conf = parse_flannel(config, judged)
    kind = conf.delegate.get("type", "bridge")
    if not isinstance(kind, str) or kind_of(kind) != INTERFACE:
        return
    members = render(config, conf, SUBNET)
    inner = Judged()
    _judge_interface(kind, PluginConfig(config.name, config.version, members, dump(members).encode()), inner)
    for path, message in inner.pairs:
        judged.add(path if path.startswith("ipam") else f"delegate.{path}", message)
    judged.conf = inner.conf


def _judge_chained(program: str, config: PluginConfig, judged: Judged, *, on_node: bool) -> None:
    module = PROGRAMS[program][1]
    __import__(module)
    plugin: Any = sys.modules[module].PLUGIN  # as cni.plugins.chained loads it
    try:
        plugin(_call(program, config, "STATUS" if on_node else "CHECK"), judged)
    except CniError as error:
        judged.add("", error.message)


def _foreign_keys(program: str, config: PluginConfig) -> Iterator[tuple[str, str]]:
    """Yields keys that another plugin has and this one has not."""
    own = {key.casefold() for key in (*COMMON, *KEYS.get(program, EVERYWHERE))}
    if program == "loopback":
        return
    for key, value in config.members.items():
        owners = [name for name, keys in KEYS.items() if key.casefold() in {known.casefold() for known in keys}]
        if owners and key.casefold() not in own and value is not None:
            yield key, f"is a key of {', '.join(owners)}: {program} ignores it (move it there, or remove it)"
