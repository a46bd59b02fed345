"""What every plugin reads from stdin, whatever its type: name, version, earlier result, list of valid attachments."""

from __future__ import annotations

from cni.protocol.fields import NAME_LIMIT, ConfigErrors, Fields, objects_of
from cni.protocol.jsontext import parse_object
from cni.protocol.record import Record
from cni.protocol.request import is_identifier
from cni.protocol.result import Result, parse_result
from cni.protocol.versions import IMPLIED, have_one_shape, require

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.jsontext import JsonValue

# The name in SPEC's main branch, and that of the tag spec-v1.1.0; libcni sends both.
JUDGING = ("ADD", "CHECK", "STATUS")  # the verbs for which a configuration at fault is refused as a whole
VALID_ATTACHMENTS = ("cni.dev/valid-attachments", "cni.dev/attachments")


class PluginConfig(Record):
    """One network configuration: `members` as parsed, `data` as received, for plugins that are executed.

    `fault`: what is wrong with the name, which then is not to be used. The verbs in JUDGING tell it with all others.
    """

    name: str
    version: str
    members: dict[str, JsonValue]
    data: bytes
    error: str = ""

    def fields(self, errors: ConfigErrors) -> Fields:
        return Fields(self.members, "", errors)

    def judge(self) -> ConfigErrors:
        """Returns the faults of the keys that all plugins read."""
        errors = ConfigErrors()
        if self.error:
            errors.add("name", self.error)
        if self.fields(errors).has("plugins"):
            errors.add(
                "plugins", "is of a list of plugins (.conflist), a plugin is called with one configuration of it"
            )
        return errors


def _name_fault(name: str) -> str:
    if not name:
        return "missing network name"
    if not is_identifier(name):
        return f"invalid characters found in network name {name!r}"
    if len(name) > NAME_LIMIT:
        return f"{len(name)} characters are too many, a network's name is a file's too ({NAME_LIMIT})"
    return ""


def parse_plugin_config(data: bytes, command: str) -> PluginConfig:
    """Raises DecodingFailure (stdin is no JSON object), InvalidConfig (name), IncompatibleVersion (cniVersion)."""
    members = parse_object(data, "the network configuration on stdin")
    errors = ConfigErrors()
    fields = Fields(members, "", errors)
    name = fields.text("name")
    version = fields.text("cniVersion") or IMPLIED
    error = _name_fault(name)
    if error and command not in JUDGING:
        errors.add("name", error)
    errors.raise_if_any()
    require(version, command)
    return PluginConfig(name, version, members, data, error)


def previous_result(config: PluginConfig, errors: ConfigErrors) -> Result | None:
    """The result of the plugin before, or of the ADD that is now checked or deleted; None where there is none.

    A plugin may answer in another version than it was asked in: what has the same shape is read, as by the reference.
    """
    fields = config.fields(errors)
    if fields.raw("prevResult") is None:
        return None
    earlier = fields.object("prevResult")
    version = earlier.text("cniVersion") or config.version
    if not have_one_shape(version, config.version):
        earlier.error("cniVersion", f"{version} is not the configuration's {config.version}")
        return None
    return parse_result(earlier, version)


def valid_attachments(config: PluginConfig) -> set[tuple[str, str]] | None:
    """GC: the (container ID, interface name) pairs that live; None where the runtime did not say.

    null means that none is valid (CRI-O without pods). Raises InvalidConfig.
    """
    fields = config.fields(ConfigErrors())
    named = [key for key in VALID_ATTACHMENTS if fields.has(key)]
    if not named:
        return None
    valid = set()
    for key in named:
        for one in objects_of(fields.items(key), key, fields.errors):
            pair = (one.text("containerID"), one.text("ifname"))
            if not all(pair):
                one.error("containerID", "an attachment needs containerID and ifname")
            valid.add(pair)
    fields.errors.raise_if_any()
    return valid
