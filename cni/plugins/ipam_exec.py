"""Executes third-party plugins (SPEC, section 4): IPAM plugins, and delegates of flannel."""

from __future__ import annotations

from cni.protocol.errors import CniError, DecodingFailure, Delegated, InvalidConfig, InvalidEnvironment, OperationFailed
from cni.protocol.fields import ConfigErrors, Fields
from cni.protocol.jsontext import parse_object
from cni.protocol.request import is_plugin_name
from cni.protocol.result import parse_result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni import proc
    from cni.plugins.ipam import Alive
    from cni.protocol.address import IP
    from cni.protocol.plugin_config import PluginConfig
    from cni.protocol.request import Request
    from cni.protocol.result import Result


class ExecIpam:
    """An IPAM plugin in CNI_PATH. It gets our environment and the complete configuration."""

    def __init__(self, name: str, request: Request) -> None:
        self.name = name
        self.request = request

    def validate(self, request: Request, config: PluginConfig, errors: ConfigErrors) -> set[int]:
        """Adds no errors: the plugin validates its configuration itself."""
        del request, config, errors
        return set()

    def add(self, request: Request, config: PluginConfig, alive: Alive) -> Result:
        """Returns the plugin's result. Raises Delegated, InvalidEnvironment, OperationFailed, DecodingFailure; then the
        plugin has had a DEL.
        """
        del request, alive
        try:
            output = self._run(config, "ADD")
            return self._result(output, config)
        except Exception:
            clean_up(self.name, self.request, config)
            raise

    def _result(self, output: bytes, config: PluginConfig) -> Result:
        errors = ConfigErrors()
        fields = Fields(parse_object(output, f"the answer of {self.name}"), self.name, errors)
        result = parse_result(fields, fields.text("cniVersion") or config.version)
        if errors.count:
            raise DecodingFailure(f"the answer of {self.name} is no result: {errors.summary}")
        return result

    def delete(self, request: Request, config: PluginConfig, alive: Alive) -> None:
        del request, alive
        self._run(config, "DEL")

    def check(self, request: Request, config: PluginConfig, previous: Result | None) -> None:
        del request, previous
        self._run(config, "CHECK")

    def collect(self, config: PluginConfig, valid: set[tuple[str, str]] | None, alive: Alive) -> None:
        del valid, alive
        self._run(config, "GC")

    def status(self, config: PluginConfig, alive: Alive) -> None:
        del alive
        self._run(config, "STATUS")

    def leased(self, request: Request, config: PluginConfig) -> tuple[IP, ...]:
        """Returns none: only the plugin knows its leases."""
        del request, config
        return ()

    def _run(self, config: PluginConfig, command: str) -> bytes:
        return execute(self.name, self.request, config, command)


def execute(name: str, request: Request, config: PluginConfig, command: str) -> bytes:
    """Executes a plugin in CNI_PATH and returns what it prints on stdout (SPEC, section 4).

    Raises InvalidConfig (a name that leads out of CNI_PATH), InvalidEnvironment (no CNI_PATH), OperationFailed (no such
    program), Delegated (its own error).
    """
    from cni import proc

    if not is_plugin_name(name):
        raise InvalidConfig(f"invalid plugin name {name!r}: it names a program in CNI_PATH, without a folder")
    if not request.path:
        raise InvalidEnvironment(f"required env variables [CNI_PATH] missing: the plugin {name} is executed")
    program = proc.find(name, ":".join(request.path))
    if program is None:
        raise OperationFailed(f"failed to find plugin {name!r} in path {list(request.path)}: install it there")
    environment = {**request.environment, "CNI_COMMAND": command}
    try:
        process = proc.run([program], config.data, environment, capture_stderr=False)
    except OSError as error:
        raise OperationFailed(f"cannot execute {program}: {error.strerror}") from None
    if process.status != 0:
        raise _failure(name, process)
    return process.stdout


def clean_up(name: str, request: Request, config: PluginConfig) -> None:
    """Sends DEL to a plugin whose ADD failed (SPEC, section 4); an error of the DEL is ignored."""
    try:
        execute(name, request, config, "DEL")
    except CniError:
        return


def _failure(name: str, process: proc.CompletedProcess) -> Delegated | OperationFailed:
    """Returns the plugin's own error; OperationFailed if it printed none."""
    try:
        fields = Fields(parse_object(process.stdout, "its answer"), name, ConfigErrors())
    except DecodingFailure as error:
        return OperationFailed(f"{name} ended with status {process.status}: {error.message}")
    code = fields.integer("code", 0, (1 << 32) - 1, 999)
    return Delegated(code, f"{name}: {fields.text('msg')}", fields.text("details"))
