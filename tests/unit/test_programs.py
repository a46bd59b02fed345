"""The table of programs: every name has its plugin, its keys and its link."""

from __future__ import annotations

from importlib import import_module

import pytest

from cni import CHAINED, DELEGATING, HOST_LOCAL, INTERFACE, IPAM, PODWIRE, PROGRAMS, kind_of, reference_of
from cni.config.keys import KEYS
from cni.diag.install import NAMES

COMMANDS = {"ADD", "CHECK", "DEL", "GC", "STATUS"}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_has_a_module_of_its_kind(name: str) -> None:
    kind, module, _ = PROGRAMS[name]
    names = vars(import_module(module))
    if kind in (INTERFACE, DELEGATING):
        assert set(names["VERBS"]) == COMMANDS
    elif kind == CHAINED:
        assert callable(names["PLUGIN"])
    else:
        assert (kind, name) == (IPAM, HOST_LOCAL)
        assert callable(names["add"])


def test_the_keys_of_every_plugin_are_known() -> None:
    """The keys of host-local are those inside `ipam`."""
    assert set(KEYS) == set(PROGRAMS) - {HOST_LOCAL}


def test_every_name_but_podwire_is_a_link() -> None:
    assert (PODWIRE, *NAMES) == tuple(PROGRAMS)


@pytest.mark.parametrize("name", ["", "podwired", "dhcp", "Bridge"])
def test_a_name_that_is_not_in_the_table_has_no_kind_and_no_reference(name: str) -> None:
    assert (kind_of(name), reference_of(name)) == ("", "")
