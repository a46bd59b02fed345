"""Calling plugins as runtimes do: one by one through the protocol, and a list of them through cnitool."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.machine import Machine, Pod

Json = dict[str, Any]


class RefusedError(Exception):
    """A plugin answered with an error; `code` is the protocol's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Attachment(NamedTuple):
    """A container as a runtime names it in the environment."""

    container: str = "container-1"
    netns: str = "/run/netns/none"
    interface: str = "eth0"
    arguments: str = ""
    others: Path | None = None  # where programs lie that the called one executes, besides its own folder

    def environment(self, verb: str, program: Path) -> list[str]:
        """Returns the CNI_* variables, and PATH as the only other one: runtimes promise no more."""
        return [
            f"CNI_COMMAND={verb}",
            f"CNI_CONTAINERID={self.container}",
            f"CNI_NETNS={self.netns}",
            f"CNI_IFNAME={self.interface}",
            f"CNI_ARGS={self.arguments}",
            f"CNI_PATH={program.parent}:{self.others or ''}".rstrip(":"),
            f"PATH={os.environ['PATH']}",
        ]


def call(machine: Machine, program: Path, verb: str, config: Json, attachment: Attachment) -> Json:
    """Executes a plugin for one verb and returns its answer, an empty one if it printed nothing; or RefusedError."""
    environment = attachment.environment(verb, program)
    done = machine.run("env", "-i", *environment, str(program), stdin=json.dumps(config), check=False)
    try:
        answer: Json = json.loads(done.stdout or "{}")
    except ValueError:
        raise AssertionError(f"{program} {verb}: {done.stdout}{done.stderr}") from None
    if done.returncode:
        raise RefusedError(answer.get("code", 0), f"{answer.get('msg')} {answer.get('details', '')}{done.stderr}")
    return answer


class CniTool(NamedTuple):
    """cnitool, the protocol authors' own runtime, for the network of one configuration folder."""

    machine: Machine
    program: Path
    plugins: Path
    config: Path
    network: str

    @classmethod
    def with_network(cls, machine: Machine, program: Path, plugins: Path, conflist: Json, config: Path) -> CniTool:
        """Writes the network into a folder of its own, and returns cnitool for it."""
        config.mkdir(exist_ok=True)
        (config / "10-network.conflist").write_text(json.dumps(conflist))
        return cls(machine, program, plugins, config, conflist["name"])

    def command(self, verb: str, pod: Pod, capability_args: Json | None = None) -> tuple[str, ...]:
        """Returns the whole command line, to be run in the machine. `capability_args`: the capabilities' arguments."""
        where = [f"CNI_PATH={self.plugins}", f"NETCONFPATH={self.config}"]
        capabilities = [f"CAP_ARGS={json.dumps(capability_args)}"] if capability_args else []
        return ("env", *where, *capabilities, str(self.program), verb, self.network, pod.path)

    def __call__(self, verb: str, pod: Pod, capability_args: Json | None = None) -> Json:
        """Runs one verb and returns what it printed; MachineError when it fails."""
        printed = self.machine.run(*self.command(verb, pod, capability_args)).stdout
        answer: Json = json.loads(printed) if printed.startswith("{") else {}
        return answer


def address_of(answer: Mapping[str, Any], index: int = 0) -> str:
    """Returns the address in a result, without its prefix length."""
    text: str = answer["ips"][index]["address"]
    return text.partition("/")[0]
