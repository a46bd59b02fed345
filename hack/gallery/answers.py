"""Takes again what podwire's commands print in a document: below a mark, each line that begins with PROMPT is typed.

`<!-- taken: STAGE -->` stands above a block, which is taken at that stage of the node: `healthy` or `damaged`. Times
and the random parts of addresses are those of the document.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

PROMPT = "# podwire "
BLOCK = re.compile(r"(<!-- taken: (\w+) -->\n```\n)(.*?)^```$", re.DOTALL | re.MULTILINE)
# What is another at each run, and what stands for it.
VARYING = (
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:]{8}Z"), "2026-11-29T03:07:12Z"),
    (re.compile(r"(?<=tunnel: flannel\.1 )[\da-f:]{17}"), "3a:f7:cb:30:f3:97"),
    # Of the bridge, which the machine's identity decides:
    (re.compile(r"(?<=link add cni0 up address )[\da-f:]{17}"), "02:45:14:46:3b:84"),
    (re.compile(r'(?<="cni0",\n      "mac": ")[\da-f:]{17}'), "02:45:14:46:3b:84"),
    (re.compile(r"(?<=10\.244\.1\.1/24, )fe80::[\da-f:]+"), "fe80::45:14ff:fe46:3b84"),
    (re.compile(r"(?<=Z  )\d+[sm](?= )"), "2s"),
)


def retaken(document: str, stage: str, typed: Callable[[list[str]], str]) -> str:
    """Returns a document with the blocks of a stage as `typed` answers now to the arguments of each command."""
    return BLOCK.sub(
        lambda block: f"{block[1]}{_answered(block[3], typed)}```" if block[2] == stage else block[0], document
    )


def _answered(block: str, typed: Callable[[list[str]], str]) -> str:
    lines = []
    for command in [line for line in block.splitlines() if line.startswith(PROMPT)]:
        lines += [command, *typed(shlex.split(command.removeprefix(PROMPT))).splitlines()]
    text = "".join([f"{line.rstrip()}\n" for line in lines])
    for varying, fixed in VARYING:
        text = varying.sub(fixed, text)
    return text
