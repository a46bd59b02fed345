"""Versions of the specification, and the version that each verb needs (SPEC, "Version considerations")."""

from __future__ import annotations

from cni.protocol.errors import DecodingFailure, IncompatibleVersion

SUPPORTED = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
CURRENT = SUPPORTED[-1]
QUOTED = '","'.join(SUPPORTED)
# VERSION's answer as JSON: the encoder is in a library, and to load that takes a fifth of the call's instructions.
ANSWER = f'{{"cniVersion":"{CURRENT}","supportedVersions":["{QUOTED}"]}}'
DEFAULT_VERSION = "0.1.0"  # a configuration without cniVersion, as libcni reads it
MTU_SINCE = "1.1.0"  # of the result's interfaces
SHAPES = (("0.1.0", "0.2.0"), ("0.3.0", "0.3.1", "0.4.0"), ("1.0.0", "1.1.0"))  # versions whose results have one shape
SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")
    if len(parts) > 3 or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise DecodingFailure(f"cniVersion {version!r} is not a version (as in {CURRENT})")
    return tuple([int(part) for part in parts])


def at_least(version: str, floor: str) -> bool:
    return _numbers(version) >= _numbers(floor)


def same_shape(version: str, other: str) -> bool:
    return version == other or any(version in shape and other in shape for shape in SHAPES)


def require_supported(version: str, command: str) -> None:
    """Raises IncompatibleVersion (version unknown, or older than the verb) or DecodingFailure (not a version)."""
    _numbers(version)
    if version not in SUPPORTED:
        listed = ", ".join(SUPPORTED)
        raise IncompatibleVersion("incompatible CNI versions", f"config is {version!r}, plugin supports {listed}")
    floor = SINCE.get(command)
    if floor and not at_least(version, floor):
        raise IncompatibleVersion(
            f"config version does not allow {command}", f"config is {version!r}, {command} needs {floor}"
        )
