"""The verbs of chained plugins (portmap, bandwidth, firewall, tuning) and of loopback.

Each plugin is a small class with one protocol: operations and a result, both from the result of the plugin before.
"""

from __future__ import annotations

from sys import modules

from cni import PROGRAMS
from cni.effects.engine import apply, differences, release
from cni.effects.journal import Journal
from cni.plugins.context import Expected, collect_errors, open_if_there, owner_of, raise_collected
from cni.protocol.errors import CheckFailed, InvalidConfig
from cni.protocol.fields import ConfigErrors
from cni.protocol.owner import stale_labels
from cni.protocol.plugin_config import previous_result, valid_attachments
from cni.protocol.result import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol, TypeAlias

    from cni.plan.operations import Operation
    from cni.plugins.context import Call

    # What DEL releases, and True if that is all that the attachment can have. If not, its label is searched for.
    Released: TypeAlias = tuple[tuple[Operation, ...], bool]

    class Plugin(Protocol):
        """One plugin in one call. The constructor adds errors of the configuration to `errors`.

        `needs_netns`: the verbs open the container's namespace. `prev_result_optional`: the plugin may be the first of
        a chain. `keeps_shared`: a failed ADD keeps what attachments share, as nothing records which containers use it.
        """

        needs_netns: bool
        prev_result_optional: bool
        keeps_shared: bool

        def __init__(self, call: Call, errors: ConfigErrors) -> None: ...

        def operations(self, previous: Result) -> tuple[Operation, ...]:
            """Returns what ADD applies and CHECK compares, given the result of the plugin before."""

        def answer(self, previous: Result) -> Result:
            """Returns ADD's result, once all operations are applied."""

        def released(self, previous: Result) -> Released:
            """Returns what DEL releases; `previous` is as much of ADD's result as the runtime passes."""

        def release_labelled(self, matches: Callable[[str], bool]) -> None:
            """Releases all whose label matches: for GC, and for a DEL that does not know all of the attachment."""

        def status(self) -> None:
            """Raises PluginNotAvailable if an ADD would fail."""


def _plugin(call: Call, errors: ConfigErrors) -> Plugin:
    """Loads the one plugin that the call is for."""
    _, module, _ = PROGRAMS[call.program]
    __import__(module)
    plugin: Plugin = modules[module].PLUGIN(call, errors)
    return plugin


def _prepared(call: Call) -> tuple[Plugin, Result]:
    """Returns the plugin and the result of the plugin before it, for ADD and CHECK. Raises InvalidConfig."""
    errors = call.config.validate()
    plugin = _plugin(call, errors)
    previous = previous_result(call.config, errors)
    errors.raise_if_any()
    if previous is None and not plugin.prev_result_optional:
        raise InvalidConfig(f"prevResult: missing, {call.program} must be called as chained plugin, after another")
    if plugin.needs_netns:
        call.host.open_container(call.request.netns, call.request.netns_override)
    return plugin, previous or Result()


def add(call: Call) -> None:
    """Adds to the result of the plugin before; rolls back its own changes on any failure."""
    plugin, previous = _prepared(call)
    host = call.host
    with Journal(host, shared_stays=plugin.keeps_shared) as journal:
        host.lock.lock_shared()
        apply(host, plugin.operations(previous), journal)
        call.answer(call.render(plugin.answer(previous)))


def check(call: Call) -> None:
    """Raises CheckFailed with every difference from what ADD made."""
    failures = differences(call.host, expected(call).operations)
    if failures:
        raise CheckFailed("the container's network is not as ADD made it: " + "; ".join(failures))


def expected(call: Call) -> Expected:
    """Returns what ADD made, by the configuration and prevResult of a CHECK. Opens the container's namespace."""
    plugin, previous = _prepared(call)
    return Expected(tuple(plugin.operations(previous)), lambda: None)


def planned(call: Call) -> tuple[tuple[Operation, ...], Result]:
    """Returns what ADD would do, and its result. Opens no namespace. Raises InvalidConfig."""
    errors = call.config.validate()
    plugin = _plugin(call, errors)
    previous = previous_result(call.config, errors) or Result()
    errors.raise_if_any()
    return tuple(plugin.operations(previous)), plugin.answer(previous)


def delete(call: Call) -> None:
    """Releases all that exists. Missing objects and errors of the configuration do not stop it."""
    plugin = _plugin(call, ConfigErrors())
    previous = previous_result(call.config, ConfigErrors()) or Result()
    if plugin.needs_netns:
        open_if_there(call.host, call.request)
    call.host.lock.lock_shared()
    operations, is_complete = plugin.released(previous)
    failed = release(call.host, reversed(operations))
    if not is_complete:
        collect_errors(failed, lambda: plugin.release_labelled(owner_of(call).owns))
    raise_collected(failed, "not everything of the attachment could be released")


def collect(call: Call) -> None:
    """GC: releases all attachments of the network that are not in the runtime's list of valid ones."""
    valid = valid_attachments(call.config)
    if valid is None:
        return
    plugin = _plugin(call, ConfigErrors())
    call.host.lock.lock_shared()
    plugin.release_labelled(stale_labels(call.config.name, valid))


def status(call: Call) -> None:
    """Raises PluginNotAvailable if an ADD would fail, InvalidConfig with the errors of the configuration."""
    errors = call.config.validate()
    plugin = _plugin(call, errors)
    errors.raise_if_any()
    plugin.status()


VERBS = {"ADD": add, "CHECK": check, "DEL": delete, "GC": collect, "STATUS": status}
