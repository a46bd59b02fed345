"""The JSON schema of configurations and the plugins' parsers agree: on keys, on types, and on what people are shown."""

from __future__ import annotations

import copy
import json
import tempfile
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("click", reason="the command line is made with it (pip install click)")
pytest.importorskip("jsonschema", reason="it judges by the schema (pip install jsonschema)")

import jsonschema

from cni import CHAINED, HOST_LOCAL, INTERFACE, kind_of
from cni.config import keys
from cni.diag.conflint import documents
from cni.diag.lint import judge
from tests.docs.documents import ALL, ROOT
from tests.unit.test_lint import CLEAN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Json = dict[str, Any]

FILE = ROOT / "conf/schema/podwire.schema.json"
SCHEMA: Json = json.loads(FILE.read_text(encoding="utf-8"))
DEFS: Json = SCHEMA["$defs"]
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
PROGRAMS = list(keys.KEYS)
DELEGATES = DEFS["delegate"]["allOf"]
EXAMPLES = sorted((ROOT / "conf").glob("*.conflist"))
SHOWN = [block for block in ALL if block.kind == "ADD"]
OF_RUNTIMES = {"nerdctlID", "nerdctlLabels", "args"}  # nerdctl's and podman's own
OF_LIST = {
    "cniVersion", "cniVersions", "name", "disableCheck", "disableGC", "loadOnlyInlinedPlugins", "plugins", *OF_RUNTIMES,
}  # fmt: skip
ADDRESSES = {"type": HOST_LOCAL, "ranges": [[{"subnet": "10.1.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}
SCALARS: tuple[Any, ...] = (True, 7, -1, 1 << 70, 1.5, "x", "")
VALUES = (*SCALARS, [], [3], ["x"], [[]], [{}], {}, {"x": 1}, {"x": {}}, [[{"x": 1}]])


def is_valid(document: Any) -> bool:
    valid: bool = VALIDATOR.is_valid(document)
    return valid


def findings(document: Any) -> list[tuple[str, str]]:
    """Returns the path and the cause of what `podwire lint` finds."""
    with tempfile.NamedTemporaryFile("w", suffix=".draft") as file:
        json.dump(document, file)
        file.flush()
        return [(finding.path, finding.cause) for finding in judge([documents.read(file.name)], on_node=False)]


def network(program: str) -> Json:
    """Returns the least of a network with this plugin, and its own part, which a test may change."""
    plugin: Json = {"type": program}
    if kind_of(program) == INTERFACE:
        plugin["ipam"] = copy.deepcopy(ADDRESSES)
    before = [{"type": "macvlan"}] if kind_of(program) == CHAINED else []
    return {"cniVersion": "1.1.0", "name": "net", "plugins": [*before, plugin]}


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_program_has_the_keys_that_are_known_and_no_others(program: str) -> None:
    own = {*DEFS[program]["properties"]}
    assert own - set(keys.COMMON) == set(keys.KEYS[program]) - set(keys.COMMON)
    assert {*DEFS["common"]["properties"]} == set(keys.COMMON)


def test_the_objects_inside_have_the_keys_that_are_known_and_no_others() -> None:
    inner = keys.HOST_LOCAL
    assert {*DEFS["host-local"]["properties"]} == set(inner)
    assert {*DEFS["range"]["properties"]} == set(inner["ranges"] or ())
    assert {*DEFS["route"]["properties"]} == set(inner["routes"] or ())
    assert {*DEFS["dns"]["properties"]} == set(keys.DNS)
    trunk = DEFS["bridge"]["properties"]["vlanTrunk"]["items"]["properties"]
    assert {*trunk} == set(keys.BRIDGE["vlanTrunk"] or ())
    assert {*DEFS["list"]["properties"]} == set(documents.LIST_KEYS) == OF_LIST
    delegates = [(part["if"]["properties"]["type"]["const"], {*part["then"]["properties"]}) for part in DELEGATES]
    assert dict(delegates) == {name: set(keys.KEYS[name]) - {"backend"} for name in ("bridge", "ptp", "podwire")}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_are_valid_and_have_no_findings(path: Path) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    assert [error.message for error in VALIDATOR.iter_errors(document)] == []
    assert findings(document) == []


@pytest.mark.parametrize("block", SHOWN, ids=lambda block: block.place)
def test_what_the_documents_show_is_valid_unless_an_error_is_shown(block: Any) -> None:
    document = json.loads(block.text)
    errors = [path for path, _ in findings(document) if path != "runtimeConfig"]  # it is that of a container
    assert is_valid(document) is (errors == [])


@pytest.mark.parametrize("document", CLEAN.values(), ids=CLEAN)
def test_configurations_of_other_projects_are_valid_in_the_usual_case(document: Json) -> None:
    usual = {key: value for key, value in document.items() if not key.startswith("nerdctl")}
    assert is_valid(usual) is ("IPAM" not in usual)


def places(program: str) -> Iterator[tuple[str, ...]]:
    """Yields the paths of all keys of a program's part that the schema names, those in objects included."""
    properties = DEFS["common"]["properties"] | DEFS[program]["properties"]
    for key in properties:
        if key not in ("type", "name", "cniVersion"):  # those of the list count
            yield (key,)
    if kind_of(program) == INTERFACE:
        yield from (("ipam", key) for key in DEFS["host-local"]["properties"] if key != "type")
        yield from (("ipam", "ranges", "0", "0", key) for key in DEFS["range"]["properties"])
        yield from (("ipam", "routes", "0", key) for key in DEFS["route"]["properties"])
        yield from (("dns", key) for key in DEFS["dns"]["properties"])
    if program == "flannel":
        yield from (("delegate", key) for key in keys.BRIDGE)


def with_value(program: str, place: tuple[str, ...], value: Any) -> Json:
    document = network(program)
    target: Any = document["plugins"][-1]
    for key in place[:-1]:
        target = target[int(key)] if isinstance(target, list) else target.setdefault(key, {})
    target[place[-1]] = value
    return document


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_least_of_a_network_is_valid(program: str) -> None:
    assert findings(network(program)) == []
    assert is_valid(network(program))


@pytest.mark.parametrize(("program", "place"), [(name, place) for name in PROGRAMS for place in places(name)], ids=str)
def test_the_schema_and_the_parser_agree_on_types(program: str, place: tuple[str, ...]) -> None:
    """The schema says no where the parser expects another type, and lint has a finding where the schema says no."""
    wrong = []
    for value in VALUES:
        document = with_value(program, place, value)
        found = findings(document)
        valid = is_valid(document)
        if valid and any(cause.startswith("expected ") for _, cause in found):
            wrong.append(f"{value!r}: the schema says yes, the parser {found}")
        if not valid and not found:
            wrong.append(f"{value!r}: the schema alone says no")
    assert wrong == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_unknown_key_is_an_error_and_a_comment_is_none(program: str) -> None:
    assert not is_valid(with_value(program, ("bogus",), 1))
    assert is_valid(with_value(program, ("_bogus",), 1))
    assert is_valid(with_value(program, ("example.org/bogus",), 1))


def test_plugins_of_others_are_not_judged() -> None:
    assert is_valid({"cniVersion": "1.0.0", "name": "net", "type": "macvlan", "master": "eth0", "mtu": "x"})
