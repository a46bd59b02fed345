"""The text of rules that a trace names by their number, as nft lists them, where that program is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni import proc

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cni.diag.path.tracing import Packet

HANDLE = "# handle "  # nft -a: the end of a rule's line


def rule_texts(packets: Sequence[Packet], environment: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """Returns the rules of verdicts as nft lists them, by family, table, chain and handle; none without nft."""
    program = proc.find_system("nft", environment)
    steps = [step for packet in packets for step in packet.steps if step.kind == "rule"]
    texts: dict[tuple[str, ...], str] = {}
    for chain in dict.fromkeys([(step.family, step.table, step.chain) for step in steps]) if program else ():
        assert program is not None
        try:
            listed = proc.run([program, "-a", "list", "chain", *chain], b"", environment, capture_stderr=True)
        except OSError:
            return texts
        for text, handle in _rules(listed.stdout.decode("utf-8", "replace")):
            texts[*chain, handle] = text
    return texts


def _rules(listed: str) -> Iterator[tuple[str, str]]:
    for line in listed.splitlines():
        text, mark, handle = line.strip().rpartition(HANDLE)
        if mark:
            yield text.strip(), handle
