"""One call of a plugin and the strict reader of its answer, shared by the unit tests and the tests of the bundle."""

from __future__ import annotations

import json
from typing import Any

NOWHERE = "/nowhere/netns"
ENVIRONMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": NOWHERE,
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/nowhere",
}
NETWORK = {"cniVersion": "1.1.0", "name": "net", "type": "podwire"}
SILENT = ("DEL", "GC", "CHECK", "STATUS")  # verbs whose success has no answer


def encode(document: object) -> bytes:
    """Returns a document as stdin carries it; bytes stay as they are."""
    return document if isinstance(document, bytes) else json.dumps(document).encode()


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def parse_answer(output: bytes) -> dict[str, Any]:
    """Returns the one object on stdout: a line of ASCII that the strictest reader takes.

    Raises AssertionError or ValueError.
    """
    assert output.isascii()
    assert output.endswith(b"\n")
    answer = json.loads(output, parse_constant=_refuse_constant)
    json.dumps(answer, ensure_ascii=False).encode()  # fails on half a surrogate pair
    assert isinstance(answer, dict)
    return answer


def error_object(status: int, answer: dict[str, Any]) -> tuple[int, str]:
    """Returns (code, message) of a failure."""
    assert status == 1
    assert answer["cniVersion"] == "1.1.0"
    return answer["code"], answer["msg"]


def defect(verb: str, status: int, stdout: bytes, stderr: bytes) -> str:
    """Returns the reason why the end of a call breaks the protocol, empty if it does not."""
    if b"Traceback" in stderr or b"internal error" in stdout:
        return "a defect"
    if status == 0 and (verb in SILENT or not verb):
        return "output of a success without result" if stdout else ""
    try:
        answer = parse_answer(stdout)
    except (AssertionError, ValueError) as error:
        return f"no answer ({error})"
    if status == 0:
        return "" if answer.get("cniVersion") and "code" not in answer else "no result"
    is_error = status == 1 and isinstance(answer.get("code"), int) and answer["code"] != 999 and answer.get("msg")
    return "" if is_error else "no error object"
