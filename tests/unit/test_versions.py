"""The versions that have each verb."""

from __future__ import annotations

import pytest

from cni.protocol.errors import DecodingFailure, IncompatibleVersion
from cni.protocol.versions import CURRENT, DEFAULT_VERSION, SUPPORTED, at_least, require_supported

ALL = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
ALLOWED = {
    "ADD": ALL,
    "DEL": ALL,
    "CHECK": ("0.4.0", "1.0.0", "1.1.0"),
    "GC": ("1.1.0",),
    "STATUS": ("1.1.0",),
}


def test_all_seven_versions_are_supported() -> None:
    assert SUPPORTED == ALL
    assert (CURRENT, DEFAULT_VERSION) == ("1.1.0", "0.1.0")


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize("command", ALLOWED)
def test_a_verb_is_served_from_its_version_on(command: str, version: str) -> None:
    if version in ALLOWED[command]:
        require_supported(version, command)
        return
    with pytest.raises(IncompatibleVersion, match=rf"^config version does not allow {command}$") as refusal:
        require_supported(version, command)
    assert refusal.value.details == f"config is {version!r}, {command} needs {ALLOWED[command][0]}"


@pytest.mark.parametrize("version", ["1.2.0", "9.9.9", "0.0.1", "1", "1.1", "1.01.0", "999999999.0.0"])
def test_an_unknown_version_is_told_the_known_ones(version: str) -> None:
    with pytest.raises(IncompatibleVersion, match=r"^incompatible CNI versions$") as refusal:
        require_supported(version, "ADD")
    assert refusal.value.details == f"config is {version!r}, plugin supports {', '.join(ALL)}"


@pytest.mark.parametrize(
    "version", ["", ".", "1.", "1.x", "v1.0.0", "1.0.0.0", " 1.0.0", "1.0.0\n", "-1", "²", "1" * 10]
)
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(DecodingFailure, match=r"is not a version \(as in 1\.1\.0\)$"):
        require_supported(version, "ADD")


def test_versions_are_compared_by_number() -> None:
    assert at_least("1.10.0", "1.9.0")
    assert not at_least("0.3.1", "0.4.0")
    assert at_least("0.3.0", "0.3.0")
