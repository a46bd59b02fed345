"""The examples of conf/README.md: the built podwire answers to each configuration what is printed below it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.docs.conftest import new_node
from tests.docs.documents import Block, blocks
from tests.golden.cases import planned
from tests.system.libcni import Container, Libcni
from tests.system.plugins import RefusedError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.machine import Machine

Json = dict[str, Any]

DOCUMENT = "conf/README.md"
EXAMPLE = Container("example", "/run/netns/example")
NO_VLANS = "vlan_filtering 1: Operation not supported"  # the kernel is built without them


class Example(NamedTuple):
    """A configuration and its answer: a result, or an error if `refused`. `files` are those that it reads."""

    line: int
    config: Json
    answer: Json
    refused: bool
    files: tuple[Block, ...]


def examples() -> list[Example]:
    found, files, config = [], [], None
    for block in blocks(DOCUMENT):
        if block.kind == "file":
            files.append(block)
        elif block.kind == "ADD":
            assert config is None, f"{block.place}: the example before it has no answer"
            config = block
        elif block.kind in ("prints", "refuses"):
            assert config is not None, f"{block.place}: an answer to nothing"
            answer = json.loads(block.text)
            found.append(Example(config.line, json.loads(config.text), answer, block.kind == "refuses", tuple(files)))
            files, config = [], None
    assert config is None
    return found


EXAMPLES = examples()


def plugins_of(config: Json) -> Json:
    """Returns the list of a configuration, which may be one plugin's."""
    if "plugins" in config:
        return config
    plugin = {key: value for key, value in config.items() if key not in ("cniVersion", "name")}
    return {"cniVersion": config["cniVersion"], "name": config["name"], "plugins": [plugin]}


def comparable(result: Json) -> Json:
    """Returns a result without the MAC addresses of the bridge and its VLAN's gateway, which depend on the node."""
    interfaces = [
        {key: value for key, value in interface.items() if key != "mac" or not of_node(interface["name"])}
        for interface in result["interfaces"]
    ]
    return {**result, "interfaces": interfaces}


def of_node(interface: str) -> bool:
    return interface.partition(".")[0] in ("cni0", "br0")


def without_mtu(result: Json) -> Json:
    """Returns a result without what is read from the kernel: the MTU of each interface."""
    interfaces = [
        {key: value for key, value in interface.items() if key != "mtu"} for interface in result["interfaces"]
    ]
    return {**result, "interfaces": interfaces}


def test_every_complete_json_document_is_an_example() -> None:
    marks = ("ADD", "prints", "refuses")
    assert [block.place for block in blocks(DOCUMENT) if block.language == "json" and block.kind not in marks] == []
    assert len(EXAMPLES) >= 8


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"line {example.line}")
def test_the_answer_is_the_one_that_is_printed(example: Example, plugins: Path) -> None:
    with new_node() as machine:
        for file in example.files:
            machine.run("install", "-D", "/dev/stdin", file.mark, stdin=file.text)
        machine.pod("example")
        runtime, config = Libcni(machine, plugins), plugins_of(example.config)
        if example.refused:
            with pytest.raises(RefusedError) as refused:
                runtime.add(config, EXAMPLE)
            assert refused.value.code == example.answer["code"]
            assert example.answer["msg"] in str(refused.value)
            return
        try:
            result = runtime.add(config, EXAMPLE)
        except RefusedError as error:
            if NO_VLANS not in str(error):
                raise
            result = planned_result(machine, runtime, config)
            assert without_mtu(comparable(result)) == without_mtu(comparable(example.answer))
            return
        assert comparable(result) == comparable(example.answer)
        runtime.check(config, EXAMPLE, result)
        runtime.delete(config, EXAMPLE, result)
        assert machine.run("ip", "-br", "link", "show", "type", "veth").stdout == ""


def planned_result(machine: Machine, runtime: Libcni, config: Json) -> Json:
    """Returns the result that is planned where the kernel cannot have it, with a lease of host-local."""
    (plugin,) = config["plugins"]
    stdin = {**plugin, "name": config["name"], "cniVersion": config["cniVersion"]}
    machine.run("rm", "-r", f"/var/lib/cni/networks/{config['name']}")  # the address of the ADD that failed
    lease = runtime.execute("host-local", "ADD", stdin, EXAMPLE)
    environment = {"CNI_CONTAINERID": EXAMPLE.id, "CNI_NETNS": EXAMPLE.netns, "CNI_IFNAME": EXAMPLE.ifname}
    facts = {"node": machine.run("hostname").stdout.strip(), "bridge_mac": None, "ipv6": True}
    data = {"environment": {**environment, "CNI_PATH": "/"}, "stdin": stdin, "facts": facts, "lease": lease}
    result = planned(data).result
    assert isinstance(result, dict)
    return result
