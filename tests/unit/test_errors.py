"""The codes that runtimes read, and the chain of causes."""

from __future__ import annotations

import pytest

from cni.protocol import errors
from cni.protocol.errors import CniError, Delegated, chain

CODES = {
    "IncompatibleVersion": 1,
    "InvalidEnvironment": 4,
    "IOFailure": 5,
    "DecodingFailure": 6,
    "InvalidConfig": 7,
    "InvalidNetns": 8,
    "TryAgain": 11,
    "PluginNotAvailable": 50,
    "OperationFailed": 100,
    "CheckFailed": 101,
    "CniError": 999,
}


@pytest.mark.parametrize(("name", "code"), CODES.items())
def test_an_error_has_the_code_of_the_specification(name: str, code: int) -> None:
    error = getattr(errors, name)("what", "why")
    assert isinstance(error, CniError)
    assert (error.code, error.message, error.details, str(error)) == (code, "what", "why", "what")


def test_every_error_has_a_code_of_its_own() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, CniError)]
    assert {kind.__name__ for kind in kinds} == {*CODES, "Delegated"}
    assert len({kind.code for kind in kinds if kind is not Delegated}) == len(CODES)


def test_another_plugins_answer_keeps_its_code() -> None:
    error = Delegated(123, "dhcp: no server")
    assert (error.code, error.message, error.details) == (123, "dhcp: no server", "")


def test_a_chain_names_every_cause() -> None:
    inner = ValueError()
    middle = OSError("disk")
    middle.__cause__ = inner
    outer = CniError("no lease")
    outer.__cause__ = middle
    assert chain(outer) == "no lease: disk: ValueError"
