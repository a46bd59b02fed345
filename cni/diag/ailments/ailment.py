"""An ailment, and the view of the node in which it is found."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from cni import PODWIRE, proc
from cni.protocol.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.diag.node.attachments import Attached
    from cni.diag.node.conflists import Network
    from cni.diag.node.links import Link

    Json = dict[str, Any]


class Ailment(Record):
    """A cause of failures. `name` is stable, for programs; `subject` what is concerned; `proof` the command that shows
    the evidence; the others are sentences without an end.
    """

    name: str
    subject: str
    evidence: str
    consequence: str
    remedy: str
    proof: str


class NodeView(Record):
    """The state that the modules look at: attachments, interfaces, networks of the runtime's folder in its order, and
    podwired's status, None where none answers. `agent_gone` says why if this node has had one that runs no longer,
    `agent_silent` if it runs and does not answer.
    """

    attached: tuple[Attached, ...]
    links: tuple[Link, ...]
    networks: tuple[Network, ...]
    conf_dir: str
    bin_dirs: tuple[str, ...]
    agent: Json | None
    agent_gone: str
    agent_silent: str = ""

    def configs(self) -> Iterator[Json]:
        """Yields the configurations of all plugins that are in use: of the runtime's folder, then of attachments."""
        for network in self.networks:
            yield from network.configs
        for attached in self.attached:
            yield from attached.kept.configs if attached.kept is not None else ()

    def program_of(self, name: object) -> str | None:
        """Returns the program of a plugin's name in the folders where the runtime looks; None if there is none."""
        return proc.find(name, ":".join(self.bin_dirs)) if isinstance(name, str) and name else None


def is_podwire(program: str) -> bool:
    """Returns True for podwire, by whichever of its names."""
    return os.path.basename(os.path.realpath(program)) == PODWIRE
