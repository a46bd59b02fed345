"""`type: flannel`: delegates to an interface plugin, with the subnet that the node agent wrote to subnet.env.

ADD saves the delegate's configuration in `<dataDir>/<container ID>`, the reference's file, so that the DEL of either
program finds it. If it is missing or of another network, DEL uses the configuration that an ADD would use now: podwire
finds an attachment by its owner.
"""

from __future__ import annotations

from cni import HOST_LOCAL, INTERFACE, kind_of
from cni.config.flannel import parse_flannel, parse_subnet_env, render
from cni.kernel import statefile
from cni.plugins.bridge import VERBS as ATTACHING
from cni.plugins.ipam_exec import clean_up, execute
from cni.protocol.errors import CniError, InvalidConfig, InvalidEnvironment, PluginNotAvailable, TryAgain
from cni.protocol.fields import ConfigErrors
from cni.protocol.jsontext import dump, parse_object
from cni.protocol.plugin_config import PluginConfig, previous_result, valid_attachments
from cni.protocol.request import is_plugin_name, split_args

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.config.flannel import FlannelConf
    from cni.plugins.context import Call
    from cni.protocol.jsontext import JsonValue

PASSED_THROUGH = ("prevResult", "cni.dev/valid-attachments", "cni.dev/attachments")


def add(call: Call) -> None:
    """Delegates ADD. Raises TryAgain if the node agent has not written subnet.env yet."""
    conf = _validated(call)
    delegate = _delegate_config(call, conf)
    path = _path(conf, call.request.container_id)
    earlier = statefile.read(path)  # of an existing attachment, which may make the delegate reject this ADD
    statefile.write(path, dump(delegate).encode("utf-8", "backslashreplace"))
    try:
        _delegate(call, delegate)
    except BaseException:
        if earlier is None:
            statefile.remove(path)
        else:
            statefile.write(path, earlier)
        raise


def check(call: Call) -> None:
    """Delegates CHECK."""
    call.config.validate().raise_if_any()
    conf = parse_flannel(call.config, ConfigErrors())
    _delegate(call, _saved(call, conf) or _delegate_config(call, conf))


def delete(call: Call) -> None:
    """Delegates DEL. Removes the saved configuration last, so that a DEL that failed can be repeated."""
    conf = parse_flannel(call.config, ConfigErrors())
    saved = _saved(call, conf)
    _delegate(call, saved or _fallback_config(call, conf))
    if saved is not None or _is_torn(conf, call.request.container_id):
        statefile.remove(_path(conf, call.request.container_id))


def collect(call: Call) -> None:
    """Delegates GC, then removes the saved configurations of containers that are not valid."""
    conf = parse_flannel(call.config, ConfigErrors())
    valid = valid_attachments(call.config)
    if valid is None:
        return
    _delegate(call, _fallback_config(call, conf))
    valid_ids = {container_id for container_id, _ in valid}
    for container_id in statefile.names(conf.data_dir):
        if container_id not in valid_ids and _read(conf, container_id, call.config.name) is not None:
            statefile.remove(_path(conf, container_id))


def status(call: Call) -> None:
    """Raises PluginNotAvailable if an ADD would fail."""
    conf = _validated(call)
    try:
        delegate = _delegate_config(call, conf)
    except TryAgain as error:
        raise PluginNotAvailable(error.message, error.details) from None
    _delegate(call, delegate)


VERBS = {"ADD": add, "CHECK": check, "DEL": delete, "GC": collect, "STATUS": status}


def delegate_of(call: Call) -> dict[str, JsonValue]:
    """Returns the configuration with which an ADD calls the delegate. Raises TryAgain, IOFailure, InvalidConfig."""
    return _delegate_config(call, _validated(call))


def _validated(call: Call) -> FlannelConf:
    """Returns the configuration. Raises InvalidConfig, also if the container's ID is too long for a file name."""
    errors = call.config.validate()
    conf = parse_flannel(call.config, errors)
    previous_result(call.config, errors)
    errors.raise_if_any()
    return conf


def _delegate_config(call: Call, conf: FlannelConf) -> dict[str, JsonValue]:
    """Returns the delegate's configuration. Raises TryAgain, IOFailure, InvalidConfig."""
    data = statefile.read(conf.subnet_file, links=True)
    if data is None:
        raise TryAgain(f"{conf.subnet_file}: not found (is the node agent, podwired or flanneld, running?)")
    try:
        return render(call.config, conf, parse_subnet_env(data.decode("utf-8", "replace"), conf.subnet_file))
    except ValueError as error:
        raise InvalidConfig(str(error)) from None


def _fallback_config(call: Call, conf: FlannelConf) -> dict[str, JsonValue]:
    """Returns a configuration for a release, which needs the owner alone: subnet.env may be missing."""
    try:
        return _delegate_config(call, conf)
    except CniError:
        kind = conf.delegate.get("type", "bridge")
        ipam: dict[str, JsonValue] = {"type": HOST_LOCAL, **conf.ipam}
        return {
            **conf.delegate,
            "type": kind,
            "name": call.config.name,
            "cniVersion": call.config.version,
            "ipam": ipam,
        }


def _delegate(call: Call, delegate: dict[str, JsonValue]) -> None:
    """Calls the delegate: in this process, or as a third-party plugin (SPEC, section 4)."""
    fields = call.config.fields(ConfigErrors())
    members = {**delegate, **{key: fields.raw(key) for key in PASSED_THROUGH if fields.has(key)}}
    data = dump(members).encode("utf-8", "backslashreplace")
    config = PluginConfig(call.config.name, call.config.version, members, data)
    kind = delegate["type"] if isinstance(delegate["type"], str) else ""
    if kind_of(kind) == INTERFACE:
        _refuse_args(call)
        ATTACHING[call.request.command](call._replace(program=kind, config=config))
        return
    if call.request.command != "ADD":
        execute(kind, call.request, config, call.request.command)
        return
    try:
        call.answer(execute(kind, call.request, config, "ADD").decode("utf-8", "replace").rstrip("\n"))
    except BaseException:
        clean_up(kind, call.request, config)
        raise


def _refuse_args(call: Call) -> None:
    """Validates CNI_ARGS, which the delegate reads and flannel does not. Raises InvalidEnvironment."""
    _, errors = split_args(call.request.environment.get("CNI_ARGS", ""))
    if errors and call.request.command in ("ADD", "CHECK"):
        raise InvalidEnvironment("; ".join(errors))


def _path(conf: FlannelConf, container_id: str) -> str:
    return f"{conf.data_dir}/{container_id}"


def _saved(call: Call, conf: FlannelConf) -> dict[str, JsonValue] | None:
    return _read(conf, call.request.container_id, call.config.name)


def _read(conf: FlannelConf, container_id: str, network: str) -> dict[str, JsonValue] | None:
    """Returns the saved configuration; None if there is none, or it is torn, without a type, or of another network."""
    try:
        members = parse_object(statefile.read(_path(conf, container_id)) or b"", "the saved configuration")
    except CniError:
        return None
    kind = members.get("type")
    return members if members.get("name") == network and isinstance(kind, str) and is_plugin_name(kind) else None


def _is_torn(conf: FlannelConf, container_id: str) -> bool:
    """Returns True for a file without a network's name, as a crash leaves it: it can be removed."""
    try:
        data = statefile.read(_path(conf, container_id))
    except CniError:
        return False
    try:
        return data is not None and not isinstance(parse_object(data, "the saved configuration").get("name"), str)
    except CniError:
        return True
