"""The record that an ADD leaves for the command line: the call and its answer, until the attachment is gone."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from cni.plugins.context import RECORD_LIMIT, parse_attachment_record
from tests.netns.runtime import PLAIN, RICH, attachment

if TYPE_CHECKING:
    from cni.plugins.context import AttachmentRecord
    from tests.machine import Machine
    from tests.netns.runtime import Node

RUN = "/run/podwire"
ARGS = {"CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web"}


def records(machine: Machine) -> dict[str, AttachmentRecord | None]:
    """Returns the machine's records by the name of their file; None for one that is not whole."""
    return {name: parse_attachment_record(data) for name, data in machine.call(_files).items()}


def _files() -> dict[str, bytes]:
    names = [name for name in os.listdir(RUN) if name.startswith("attachment-")]
    seen = {}
    for name in names:
        with open(f"{RUN}/{name}", "rb") as file:
            assert os.fstat(file.fileno()).st_mode & 0o777 == 0o600
            seen[name] = file.read()
    return seen


def test_an_add_leaves_its_call_and_its_answer(machine: Machine, node: Node) -> None:
    web = attachment(machine.pod("web"))
    answer = node.call("ADD", RICH, web, extra=ARGS).succeeded()
    [record] = records(machine).values()
    assert record is not None
    assert tuple(record.owner) == (RICH["name"], web.container, web.interface)
    assert (record.program, record.netns, record.args) == ("podwire", web.netns, ARGS["CNI_ARGS"])
    assert json.loads(record.stdin) == RICH
    assert json.loads(record.answer) == answer.content


def test_del_removes_it(machine: Machine, node: Node) -> None:
    web = attachment(machine.pod("web"))
    node.add(PLAIN, web)
    node.call("DEL", PLAIN, web).succeeded()
    assert records(machine) == {}


def test_a_failed_add_leaves_none(machine: Machine, node: Node) -> None:
    web = attachment(machine.pod("web"))
    assert node.call("ADD", {**PLAIN, "bridge": "lo"}, web).status
    assert records(machine) == {}


def test_gc_removes_those_of_attachments_that_are_not_valid(machine: Machine, node: Node) -> None:
    for name in ("living", "dead"):
        node.add(PLAIN, attachment(machine.pod(name)))
    node.add({**PLAIN, "name": "other", "bridge": "cni1"}, attachment(machine.pod("beyond")))
    valid = {"cni.dev/valid-attachments": [{"containerID": "living", "ifname": "eth0"}]}
    node.call("GC", {**PLAIN, **valid}).succeeded()
    assert {record.container_id for record in records(machine).values() if record} == {"living", "beyond"}


def test_an_old_one_is_replaced_and_never_written_through(machine: Machine, node: Node) -> None:
    """Its DEL was never called; a link in its place leads to a file that is not podwire's."""
    web = attachment(machine.pod("web"))
    node.add(PLAIN, web)
    [name] = records(machine)
    node.call("DEL", PLAIN, web).succeeded()
    machine.run("sh", "-c", f"echo precious >/run/precious; ln -s /run/precious {RUN}/{name}")
    node.add(PLAIN, web)
    assert machine.run("cat", "/run/precious").stdout == "precious\n"
    assert records(machine)[name] is not None


def test_a_call_that_is_too_long_is_not_recorded(machine: Machine, node: Node) -> None:
    node.add({**PLAIN, "x-comment": "y" * RECORD_LIMIT}, attachment(machine.pod("web")))
    assert records(machine) == {}


def test_a_folder_that_cannot_be_written_to_fails_no_add(machine: Machine, node: Node) -> None:
    node.add(PLAIN, attachment(machine.pod("first")))
    machine.run("mount", "-t", "tmpfs", "-o", "ro", "none", RUN)
    node.add(PLAIN, attachment(machine.pod("web")))
    assert records(machine) == {}


def test_a_record_that_is_not_whole_is_none() -> None:
    for data in (b"", b"1", b"1\0podwire\0net", b"2" + b"\0x" * 9, b"1" + b"\0x" * 10):
        assert parse_attachment_record(data) is None
    assert parse_attachment_record(b"1" + b"\0x" * 9) is not None
