"""A runtime as libcni makes it: what it writes on a plugin's stdin and into its environment, and nothing besides.

Unlike cnitool it can say what containerd, CRI-O and nerdctl say, and can have lost its memory.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from tests.system.plugins import Json, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.machine import Machine

PLUGIN_VARIABLES = ("CONTAINERID", "NETNS", "ARGS", "IFNAME", "PATH")
CURRENT = "1.1.0"


class Container(NamedTuple):
    """A container as a runtime knows it. `runtime_config`: the arguments of capabilities, by their names."""

    id: str
    netns: str
    ifname: str = "eth0"
    args: str = ""
    runtime_config: Json = {}  # noqa: RUF012  # never written to


NOBODY = Container("", "", "")


class Libcni(NamedTuple):
    """`environment`: what the runtime's own process has, which plugins inherit."""

    machine: Machine
    plugins: Path
    environment: tuple[str, ...] = ()

    def execute(self, plugin: str, command: str, request: Json, container: Container = NOBODY, path: str = "") -> Json:
        """Executes one plugin and returns its answer; or RefusedError."""
        values = (container.id, container.netns, container.args, container.ifname, path or str(self.plugins))
        variables = [f"CNI_{name}={value}" for name, value in zip(PLUGIN_VARIABLES, values, strict=True)]
        program = str(self.plugins / plugin)
        command_line = ("env", "-i", *self.environment, f"CNI_COMMAND={command}", *variables, program)
        done = self.machine.run(*command_line, stdin=json.dumps(request, sort_keys=True), check=False)
        answer: Json = json.loads(done.stdout or "{}")
        if done.returncode:
            raise RefusedError(answer["code"], f"{plugin} {command}: {answer['msg']} {done.stderr}")
        return answer

    def add(self, conflist: Json, container: Container, result: Json | None = None) -> Json:
        """Attaches by each plugin in turn, and returns the last one's answer. `result`: of what was there before."""
        result = result or {}
        for plugin in conflist["plugins"]:
            result = self.execute(plugin["type"], "ADD", _request(conflist, plugin, container, result), container)
        return result

    def check(self, conflist: Json, container: Container, result: Json) -> None:
        for plugin in conflist["plugins"]:
            self.execute(plugin["type"], "CHECK", _request(conflist, plugin, container, result), container)

    def delete(self, conflist: Json, container: Container, result: Json | None = None) -> None:
        """In reverse; `result` is what ADD answered, where it is still known, and old versions hand nothing on."""
        known = result if conflist["cniVersion"] >= "0.4.0" else None
        for plugin in reversed(conflist["plugins"]):
            self.execute(plugin["type"], "DEL", _request(conflist, plugin, container, known), container)

    def collect(self, conflist: Json, valid: Iterable[Container] | None) -> None:
        """GC. Of a network without containers, runtimes in Go say null."""
        listed = (
            None
            if valid is None
            else [{"containerID": container.id, "ifname": container.ifname} for container in valid]
        )
        for plugin in conflist["plugins"]:
            request = _request(conflist, plugin, NOBODY, None)
            self.execute(plugin["type"], "GC", {**request, **dict.fromkeys(VALID, listed)})

    def status(self, conflist: Json) -> None:
        for plugin in conflist["plugins"]:
            self.execute(plugin["type"], "STATUS", _request(conflist, plugin, NOBODY, None))

    def supported(self, plugin: str) -> list[str]:
        """Asks for the plugin's versions, as ValidateNetworkList does."""
        dummy = Container("", "dummy", "dummy")
        versions: list[str] = self.execute(plugin, "VERSION", {"cniVersion": CURRENT}, dummy, "dummy")[
            "supportedVersions"
        ]
        return versions


VALID = ("cni.dev/valid-attachments", "cni.dev/attachments")  # the second for what was written after a draft


def _request(conflist: Json, plugin: Json, container: Container, result: Json | None) -> Json:
    request = {**plugin, "name": conflist["name"], "cniVersion": conflist["cniVersion"]}
    if result:
        request["prevResult"] = result
    asked = [
        name for name, given in plugin.get("capabilities", {}).items() if given and name in container.runtime_config
    ]
    if asked:
        request["runtimeConfig"] = {name: container.runtime_config[name] for name in asked}
    return request
