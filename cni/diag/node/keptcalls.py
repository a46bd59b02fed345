"""The calls by which containers were attached, as they were kept: by podwire's ADD, and by the runtime.

libcni (containerd, CRI-O, cnitool) keeps the whole chain of plugins with the result of its last one, podwire the call
of one plugin. So a runtime's files are preferred.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from cni import DELEGATING, INTERFACE, kind_of
from cni.kernel import statefile
from cni.plugins.context import read_attachment_records
from cni.protocol.errors import IOFailure
from cni.protocol.owner import Owner
from cni.protocol.record import Record
from cni.protocol.request import split_args

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.effects.host import Host

    Json = dict[str, Any]

RESULTS = "/var/lib/cni/results"  # libcni, CacheDir
DAMAGED = (ValueError, TypeError, AttributeError, KeyError, RecursionError)  # a file of another shape
KIND = "cniCacheV1"  # libcni api.go, CNICacheV1


class KeptCall(Record):
    """The attachment of a container. `configs` are those of the chain's plugins, in order; `result` is the last one's,
    for a call that podwire has kept that of its only plugin. `args`: pairs of CNI_ARGS; `since`: seconds (time.time).
    `by_runtime`: a runtime has kept it, which forgets it at DEL;
    `by_podwire`: podwire's ADD has.
    """

    owner: Owner
    netns: str
    args: dict[str, str]
    path: str
    configs: tuple[Json, ...]
    result: Json
    since: float
    by_runtime: bool = False
    by_podwire: bool = False

    @property
    def pod(self) -> str:
        """Returns NAMESPACE/NAME; empty where the runtime named no pod."""
        name = self.args.get("K8S_POD_NAME", "")
        return f"{self.args.get('K8S_POD_NAMESPACE', '')}/{name}" if name else ""

    @property
    def program(self) -> str:
        """Returns the type of the plugin that created the interface."""
        types = [str(config.get("type", "")) for config in self.configs]
        return next((name for name in types if kind_of(name) == INTERFACE), types[0] if types else "")


def kept_calls(host: Host) -> dict[tuple[str, ...], KeptCall]:
    """Returns all calls by owner. A file that is damaged is left out: other traces tell of the attachment. Raises
    PermissionError where this user may not read them.
    """
    for folder in (os.path.dirname(host.attachment_record("")), RESULTS):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.listdir(folder)
    calls = {tuple(call.owner): call for call in _own(host)}
    for call in _of_runtimes():
        own = calls.get(tuple(call.owner))
        calls[tuple(call.owner)] = _with_own(call, own) if own is not None else call
    return calls


def _with_own(call: KeptCall, own: KeptCall) -> KeptCall:
    """Returns the runtime's call with what podwire alone knows: the namespace, and what flannel has delegated."""
    is_delegated = bool(call.configs) and kind_of(str(call.configs[0].get("type"))) == DELEGATING
    configs = (*own.configs, *call.configs[1:]) if is_delegated else call.configs
    return call._replace(netns=call.netns or own.netns, path=own.path, configs=configs, by_podwire=True)


def _own(host: Host) -> Iterator[KeptCall]:
    for path, record in read_attachment_records(host):
        try:
            config, result, since = json.loads(record.stdin), json.loads(record.answer), os.stat(path).st_mtime
        except (ValueError, OSError):
            continue
        args, _ = split_args(record.args)
        config = {**config, "type": record.program}
        yield KeptCall(record.owner, record.netns, args, record.path, (config,), result, since, by_podwire=True)


def _of_runtimes() -> Iterator[KeptCall]:
    try:
        names = statefile.names(RESULTS)
    except IOFailure:
        return
    for name in names:
        path = f"{RESULTS}/{name}"
        try:
            call = _parsed(json.loads(statefile.read(path) or b""), os.stat(path).st_mtime)
        except (*DAMAGED, OSError, IOFailure):
            continue
        if call is not None:
            yield call


def _parsed(kept: Json, since: float) -> KeptCall | None:
    """Returns None for another kind of file. Raises one of DAMAGED for a damaged one."""
    if kept.get("kind") != KIND:
        return None
    network: Json = json.loads(base64.b64decode(kept["config"]))
    owner = Owner(str(kept["networkName"]), str(kept["containerId"]), str(kept["ifName"]))
    capabilities = kept.get("capabilityArgs") or {}
    result = kept.get("result") or {}
    # Of several cniVersions libcni has chosen the one that the result has.
    common = {"name": owner.network, "cniVersion": result.get("cniVersion") or network.get("cniVersion", "")}
    configs = [
        {**plugin, **common, **_runtime_config(plugin, capabilities)} for plugin in network.get("plugins", [network])
    ]
    args = {str(key): str(value) for key, value in kept.get("cniArgs") or ()}
    netns = str(kept.get("netns", ""))
    if "\0" in netns:
        raise ValueError("netns: no path has a NUL")
    return KeptCall(owner, netns, args, "", tuple(configs), result, since, by_runtime=True)


def _runtime_config(plugin: Json, capabilities: Json) -> Json:
    """Returns runtimeConfig with what the plugin declares that it can do (libcni, injectRuntimeConfig)."""
    declared = plugin.get("capabilities") or {}
    given = {name: capabilities[name] for name, wanted in declared.items() if wanted and name in capabilities}
    return {"runtimeConfig": given} if given else {}
