"""The bundle with input that no runtime should send: one result or error for each call, never a defect."""

from __future__ import annotations

import json
from itertools import cycle, islice
from typing import TYPE_CHECKING

import pytest

from tests.calls import NETWORK
from tests.frozen.calls import call, run, run_all

if TYPE_CHECKING:
    from pathlib import Path

WHOLE = json.dumps(NETWORK | {"x": {"a": [1, 2.5, "b\\n\u00e9", None, True]}, "ipam": {"type": "host-local"}}).encode()
BROKEN = [
    b'{"name":"n","cniVersion":"1.1.0","x":"',
    b'{"name":"n"',
    b'{"name" 5}',
    b'{"a":1,}',
    b'{"a":"\\x"}',
    b'{"a":"\\u12"}',
    b'{"a":"\n"}',
    b'{"a":[1 2]}',
    b'{"a":[1,]}',
    b"{",
    b"[",
    b'"',
    b'{"a":01}',
    b"{5:1}",
    b'{"a":nul}',
    b'{"a":NaN}',
    b'{"a":-Infinity}',
    b'{"a":1e999}',
    b'{"a":-1e999}',
    b'{"a":' + b"9" * 5000 + b"}",
    b'{"a":' + b"[" * 100_000,
    b'{"a":' * 600 + b"1" + b"}" * 600,
    b"[" * 990 + b"]" * 990,
    b"\xef\xbb\xbf{}",
    b"\0",
    b"{}\0",
    b"{} {}",
    b"",
    b" \n",
    b"[]",
    b"null",
]


@pytest.mark.parametrize(("command", "first"), [("ADD", 0), ("DEL", 1), ("CHECK", 0), ("GC", 1), ("STATUS", 0)])
def test_what_is_not_json_is_refused_as_that(bundle: Path, command: str, first: int) -> None:
    """Each document by each verb, and by either program in turn: both meet all documents, and all verbs."""
    programs = islice(cycle(("podwire", "host-local")), first, None)
    calls = [call(data, {"CNI_COMMAND": command}, program) for data, program in zip(BROKEN, programs, strict=False)]
    for request, ended in zip(calls, run_all(bundle, calls), strict=True):
        code, message = ended.error
        assert (code, ended.stderr) == (6, b""), request
        assert message.startswith("the network configuration on stdin is "), request
        assert "sys." not in message
        assert "<" not in message


@pytest.mark.parametrize("program", ["podwire", "flannel"])
def test_a_document_cut_anywhere_is_refused(bundle: Path, program: str) -> None:
    for ended in run_all(bundle, [call(WHOLE[:length], program=program) for length in range(0, len(WHOLE), 3)]):
        assert ended.error[0] == 6
        assert ended.stderr == b""


READABLE = [
    b'{"a":"\\ud800"}',
    b'{"a":"\\udc00\\ud800"}',
    b'{"a":"\xed\xa0\x80\xff"}',
    b'{"a":"\\u0000"}',
    b'{"a":' + b"9" * 4000 + b"}",
    b'{"a":1e308,"b":5e-324}',
    b'{"a":' * 400 + b"1" + b"}" * 400,
    b'{"a":' + b"[" * 490 + b"]" * 490 + b"}",
    b'{"a":"' + b"x" * 5_000_000 + b'"}',
    b'{"a":[' + b"0," * 500_000 + b"0]}",
    b'{"a":1,"a":2,"A":3}',
]


@pytest.mark.parametrize("data", READABLE, ids=lambda data: data[:30].decode("ascii", "backslashreplace"))
def test_what_is_read_is_written_again(bundle: Path, tmp_path: Path, data: bytes) -> None:
    """Flannel writes its input to a file, and passes it to the delegate."""
    spy = tmp_path / "spy"
    spy.write_text(f'#!/bin/sh\ncat >{tmp_path}/seen\necho \'{{"cniVersion": "1.1.0"}}\'\n')
    spy.chmod(0o755)
    agent = tmp_path / "subnet.env"
    agent.write_text("FLANNEL_NETWORK=10.9.0.0/16\nFLANNEL_SUBNET=10.9.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n")
    members = {"type": "flannel", "subnetFile": str(agent), "dataDir": f"{tmp_path}/saved"}
    stdin = json.dumps(NETWORK | members | {"delegate": {"type": "spy", "given": "HERE"}}).encode()
    stdin = stdin.replace(b'"HERE"', data)
    ended = run(bundle, call(stdin, {"CNI_PATH": str(tmp_path)}, "flannel"))
    assert (ended.status, ended.stdout, ended.stderr) == (0, b'{"cniVersion": "1.1.0"}\n', b"")
    seen = json.loads((tmp_path / "seen").read_bytes())
    assert seen["given"].keys() == json.loads(data.decode("utf-8", "replace")).keys()
    json.dumps(seen, ensure_ascii=False).encode()
    for command in ("CHECK", "DEL"):
        done = run(bundle, call(stdin, {"CNI_PATH": str(tmp_path), "CNI_COMMAND": command}, "flannel"))
        assert (done.status, done.stderr) == (0, b"")
    assert not (tmp_path / "saved" / "c1").exists()


@pytest.mark.parametrize("size", [0, 1, 5, 33, 70, 110])
def test_a_saved_file_that_is_torn_stands_in_nobodys_way(bundle: Path, tmp_path: Path, size: int) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    network = NETWORK | {"prevResult": {"cniVersion": "1.1.0"}, "dataDir": str(folder), "cni.dev/valid-attachments": []}
    whole = json.dumps(NETWORK | {"type": "bridge", "ipam": {"type": "host-local", "dataDir": str(tmp_path)}})
    for program, name in (("flannel", "c1"), ("tuning", "c1_eth0.json")):
        for command in ("DEL", "GC"):
            (folder / name).write_text(whole[:size])
            ended = run(bundle, call(network, {"CNI_COMMAND": command}, program))
            assert (ended.status, ended.stdout, ended.stderr) == (0, b"", b""), (program, command)
