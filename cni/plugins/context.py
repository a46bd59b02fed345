"""One call of a runtime, and what the verbs of all plugins share."""

from __future__ import annotations

from cni.effects.journal import FAILURES, error_text
from cni.protocol.errors import InvalidNetns, OperationFailed, PluginNotAvailable
from cni.protocol.owner import Owner
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.effects.host import Host
    from cni.protocol.plugin_config import PluginConfig
    from cni.protocol.request import Request
    from cni.protocol.result import Result


class Call(Record):
    """A call of a runtime.

    `program`: the plugin's name. `render` gives the text of a result; `answer` writes it to stdout, `warn` a line to
    stderr.
    """

    program: str
    request: Request
    config: PluginConfig
    host: Host
    render: Callable[[Result], str]
    answer: Callable[[str], None]
    warn: Callable[[str], None]


def owner_of(call: Call) -> Owner:
    return Owner(call.config.name, call.request.container_id, call.request.ifname)


def open_if_there(host: Host, request: Request) -> None:
    """Opens the container's namespace. If it is gone or invalid, the container's end is gone, too: not an error."""
    if not request.netns:
        return
    try:
        host.open_container(request.netns, request.netns_override)
    except InvalidNetns:
        return


def require_nft(call: Call, *, program: bool = False) -> None:
    """Raises PluginNotAvailable if the kernel has no nftables; with `program`, also if nft is missing."""
    if not call.host.nft.is_in_kernel:
        raise PluginNotAvailable("nftables: not supported by the kernel (load the module nf_tables)")
    if not program:
        return
    from cni import proc

    if proc.find_system("nft", call.request.environment) is None:
        raise PluginNotAvailable("the program nft is missing: conditionsV4 and conditionsV6 need it (install nftables)")


def collect_errors(failed: list[str], step: Callable[[], None]) -> None:
    """Runs `step` and appends its error, so that the steps after it run as well."""
    try:
        step()
    except FAILURES as error:
        failed.append(error_text(error))


def raise_collected(failed: list[str], summary: str) -> None:
    """Raises OperationFailed with all collected errors."""
    if failed:
        raise OperationFailed(f"{summary}: {'; '.join(failed)}")
