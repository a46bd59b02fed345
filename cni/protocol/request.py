"""The environment of a call as a value (SPEC, section 2: "CNI operations", parameters)."""

from __future__ import annotations

from cni.protocol.errors import InvalidConfig, InvalidEnvironment
from cni.protocol.fields import NAME_LIMIT
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

REQUIRED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "GC": (),
    "STATUS": (),
    "VERSION": (),
}
IFNAME_LIMIT = 15  # bytes: the kernel's IFNAMSIZ without its NUL
KNOWN_ARGS = (
    "IgnoreUnknown",
    "IP",
    "MAC",
    "GATEWAY",
    "K8S_POD_NAMESPACE",
    "K8S_POD_NAME",
    "K8S_POD_INFRA_CONTAINER_ID",
    "K8S_POD_UID",
)


class Request(Record):
    """A runtime's request; `netns`, `container_id` and `ifname` are empty for verbs that do not have them."""

    command: str
    container_id: str
    netns: str
    ifname: str
    args: dict[str, str]
    path: tuple[str, ...]
    netns_override: bool
    environment: Mapping[str, str]


def is_identifier(text: str) -> bool:
    """True for a network name or container ID of SPEC: a letter or digit, then letters, digits, `_`, `.`, `-`."""
    if text.isalnum():  # as runtimes name containers
        return text.isascii()
    rest = text.replace("_", "").replace(".", "").replace("-", "")
    return text.isascii() and text[:1].isalnum() and (not rest or rest.isalnum())


def is_plugin_name(text: str) -> bool:
    """True if the text names a file in a folder of CNI_PATH. A name that leads out of it is not searched for."""
    return text not in ("", ".", "..") and not any(character in "/\\\0" for character in text)


def ifname_error(name: str) -> str:
    """Returns the error of an interface name (kernel dev_valid_name); empty if it is valid."""
    if len(name.encode("utf-8", "surrogateescape")) > IFNAME_LIMIT:
        return "interface name is too long (it should be less than 16 characters)"
    if name in (".", ".."):
        return "interface name is . or .."
    if "/" in name or ":" in name or (name and name.split() != [name]):
        return "interface name contains / or : or whitespace characters"
    if "%" in name or "\0" in name:  # the kernel would replace %d by a number (dev_alloc_name)
        return "interface name contains % or a NUL character"
    return ""


def split_args(text: str) -> tuple[dict[str, str], list[str]]:
    """Returns the readable pairs of CNI_ARGS (`K=V;K=V`), and the errors of the text."""
    args: dict[str, str] = {}
    errors = []
    for pair in text.split(";") if text else []:
        key, equals, value = pair.partition("=")
        if not equals or "=" in value:
            errors.append(f"CNI_ARGS: {pair!r} is not one KEY=VALUE")
        else:
            args[key] = value
    ignore = args.get("IgnoreUnknown", "0")
    if ignore.lower() not in ("0", "1", "false", "true"):
        errors.append(f"CNI_ARGS: IgnoreUnknown={ignore} is neither true nor false")
    unknown = [key for key in args if key not in KNOWN_ARGS]
    if unknown and ignore.lower() in ("0", "false"):
        errors.append(f"CNI_ARGS: unknown keys {', '.join(unknown)} (set IgnoreUnknown=1 to allow them)")
    return args, errors


def _value_errors(command: str, environment: Mapping[str, str]) -> list[str]:
    if "CNI_CONTAINERID" not in REQUIRED[command]:
        return []
    errors = []
    container_id = environment.get("CNI_CONTAINERID", "")
    if container_id and not is_identifier(container_id):
        errors.append(f"invalid characters in containerID {container_id!r} (CNI_CONTAINERID)")
    ifname = environment.get("CNI_IFNAME", "")
    if error := ifname_error(ifname):
        errors.append(f"{error}: {ifname!r} (CNI_IFNAME)")
    return errors


def parse_request(environment: Mapping[str, str], *, reads_args: bool = True) -> Request:
    """Checks the variables that the verb needs, and reports all errors at once.

    `reads_args`: errors in CNI_ARGS count; otherwise only its readable pairs are used. Raises InvalidEnvironment, and
    InvalidConfig if the container's ID is too long for a file name.
    """
    command = environment.get("CNI_COMMAND", "")
    if command not in REQUIRED:
        raise InvalidEnvironment(f"unknown CNI_COMMAND: {command}")
    errors = _value_errors(command, environment)
    missing = [name for name in REQUIRED[command] if not environment.get(name)]
    if missing:
        errors.append(f"required env variables [{','.join(missing)}] missing")
    args, args_errors = split_args(environment.get("CNI_ARGS", "") if REQUIRED[command] else "")
    if reads_args and command != "DEL":  # an attachment that was never made with these must still be deleted
        errors += args_errors
    if errors:
        raise InvalidEnvironment("; ".join(errors))
    container_id = environment.get("CNI_CONTAINERID", "")
    if len(container_id) > NAME_LIMIT:
        length = f"containerID of {len(container_id)} characters"
        raise InvalidConfig(f"{length} is too long for a file name (CNI_CONTAINERID, {NAME_LIMIT} at most)")
    return Request(
        command=command,
        container_id=container_id,
        netns=environment.get("CNI_NETNS", ""),
        ifname=environment.get("CNI_IFNAME", ""),
        args=args,
        path=tuple([folder for folder in environment.get("CNI_PATH", "").split(":") if folder]),
        netns_override=environment.get("CNI_NETNS_OVERRIDE", "").lower() in ("1", "true"),
        environment=environment,
    )
