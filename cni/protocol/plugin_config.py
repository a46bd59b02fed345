"""The keys of stdin that every plugin reads: name, cniVersion, prevResult, the list of valid attachments."""

from __future__ import annotations

from cni.protocol.fields import NAME_LIMIT, ConfigErrors, Fields, objects_of
from cni.protocol.jsontext import parse_object
from cni.protocol.record import Record
from cni.protocol.request import is_identifier
from cni.protocol.result import Result, parse_result
from cni.protocol.versions import DEFAULT_VERSION, require_supported, same_shape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.protocol.jsontext import JsonValue

VALIDATED_VERBS = ("ADD", "CHECK", "STATUS")  # the verbs for which an invalid configuration is an error as a whole
# The name in SPEC's main branch, and that of the tag spec-v1.1.0; libcni sends both.
VALID_ATTACHMENTS = ("cni.dev/valid-attachments", "cni.dev/attachments")


class PluginConfig(Record):
    """A network configuration: `members` as parsed, `data` as received, for plugins that are executed.

    `error`: an error of the name, which must not be used then. `validate` reports it with all others.
    """

    name: str
    version: str
    members: dict[str, JsonValue]
    data: bytes
    error: str = ""

    def fields(self, errors: ConfigErrors) -> Fields:
        return Fields(self.members, "", errors)

    def validate(self) -> ConfigErrors:
        """Returns the errors of the keys that all plugins read."""
        errors = ConfigErrors()
        if self.error:
            errors.add("name", self.error)
        if self.fields(errors).has("plugins"):
            errors.add("plugins", "is a key of a plugin list (.conflist), a plugin gets one configuration of the list")
        return errors


def _name_error(name: str) -> str:
    if not name:
        return "missing network name"
    if not is_identifier(name):
        return f"invalid characters found in network name {name!r}"
    if len(name) > NAME_LIMIT:
        return f"network name of {len(name)} characters is too long for a file name ({NAME_LIMIT} at most)"
    return ""


def parse_plugin_config(data: bytes, command: str) -> PluginConfig:
    """Parses stdin.

    Raises DecodingFailure (not a JSON object), InvalidConfig (name), IncompatibleVersion (cniVersion).
    """
    members = parse_object(data, "the network configuration on stdin")
    errors = ConfigErrors()
    fields = Fields(members, "", errors)
    name = fields.text("name")
    version = fields.text("cniVersion") or DEFAULT_VERSION
    error = _name_error(name)
    if error and command not in VALIDATED_VERBS:
        errors.add("name", error)
    errors.raise_if_any()
    require_supported(version, command)
    return PluginConfig(name, version, members, data, error)


def previous_result(config: PluginConfig, errors: ConfigErrors) -> Result | None:
    """Returns prevResult: of the plugin before, or of the ADD that is now checked or deleted; None if it is absent.

    A plugin may answer in another version than the request's: a result of the same shape is read, as in the reference.
    """
    fields = config.fields(errors)
    if fields.raw("prevResult") is None:
        return None
    previous = fields.object("prevResult")
    version = previous.text("cniVersion") or config.version
    if not same_shape(version, config.version):
        previous.error("cniVersion", f"{version} is not the configuration's {config.version}")
        return None
    return parse_result(previous, version)


def valid_attachments(config: PluginConfig) -> set[tuple[str, str]] | None:
    """Returns GC's valid (container ID, interface name) pairs; None if the runtime sent no list.

    null means that none is valid (CRI-O without pods). Raises InvalidConfig.
    """
    fields = config.fields(ConfigErrors())
    keys = [key for key in VALID_ATTACHMENTS if fields.has(key)]
    if not keys:
        return None
    valid = set()
    for key in keys:
        for attachment in objects_of(fields.items(key), key, fields.errors):
            pair = (attachment.text("containerID"), attachment.text("ifname"))
            if not all(pair):
                attachment.error("containerID", "an attachment needs containerID and ifname")
            valid.add(pair)
    fields.errors.raise_if_any()
    return valid
