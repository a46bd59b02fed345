"""One call of a runtime, and what the verbs of all plugins share."""

from __future__ import annotations

import posix as os  # see cni/__init__.py

from cni.effects.journal import FAILURES, error_text
from cni.protocol.errors import InvalidNetns, IOFailure, OperationFailed, PluginNotAvailable
from cni.protocol.owner import Owner
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.effects.host import Host
    from cni.plan.operations import Operation
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


class Expected(Record):
    """The operations whose effects an ADD left, and a check of its leases, which raises CheckFailed."""

    operations: tuple[Operation, ...]
    check_leases: Callable[[], None]


RECORD_VERSION = "1"
SHARED_WRITE = 0o022  # permissions of the group and of others
RECORD_LIMIT = 1 << 16  # bytes: a larger one is not written, since /run is memory


class AttachmentRecord(Record):
    """The call that has attached a container and its answer, for the command line alone: no verb needs it.

    `stdin` and `answer` are JSON; `args` and `path` are CNI_ARGS and CNI_PATH.
    """

    program: str
    network: str
    container_id: str
    ifname: str
    netns: str
    args: str
    path: str
    stdin: str
    answer: str

    @property
    def owner(self) -> Owner:
        return Owner(self.network, self.container_id, self.ifname)

    @property
    def data(self) -> bytes:
        return "\0".join((RECORD_VERSION, *self)).encode("utf-8", "surrogateescape")


def parse_attachment_record(data: bytes) -> AttachmentRecord | None:
    """Returns None for what this version has not written, or not to its end."""
    version, *fields = data.decode("utf-8", "surrogateescape").split("\0")
    is_whole = version == RECORD_VERSION and len(fields) == len(AttachmentRecord._fields)
    return AttachmentRecord(*fields) if is_whole else None


def record_attachment(call: Call, answer: str) -> None:
    """Writes the attachment's record, with four system calls.

    Where /run/podwire cannot be written to, the command line makes do with less: no error.
    """
    request, environment = call.request, call.request.environment
    record = AttachmentRecord(
        call.program,
        *owner_of(call),
        request.netns,
        environment.get("CNI_ARGS", ""),
        environment.get("CNI_PATH", ""),
        call.config.data.decode("utf-8", "surrogateescape"),
        answer,
    )
    data = record.data
    if len(data) > RECORD_LIMIT:
        return
    try:
        descriptor = _create_record(call.host.attachment_record(record.owner.key))
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)
    except OSError:
        return


def _create_record(path: str) -> int:
    """Opens a new file, so that nothing is written through an old one. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError:  # of an attachment whose DEL was never called
        os.unlink(path)
    return os.open(path, flags, 0o600)


def forget_attachment(call: Call) -> None:
    """Removes the attachment's record, if there is one."""
    try:
        os.unlink(call.host.attachment_record(owner_of(call).key))
    except OSError:
        return


def forget_stale(call: Call, valid: set[tuple[str, str]]) -> None:
    """Removes the records of the network's attachments that are not valid."""
    from cni.kernel import statefile

    for path, record in read_attachment_records(call.host):
        if record.network == call.config.name and (record.container_id, record.ifname) not in valid:
            statefile.remove(path)


def read_attachment_records(host: Host) -> list[tuple[str, AttachmentRecord]]:
    """Returns the records of this host's attachments, each with its path; none from a folder that others may write to.

    What cannot be read is left out.
    """
    from cni.kernel import statefile

    folder, _, start = host.attachment_record("").rpartition("/")
    records = []
    try:
        status = os.stat(folder, follow_symlinks=False)
        if status.st_uid != os.geteuid() or status.st_mode & SHARED_WRITE:
            return []
        for name in os.listdir(folder):
            data = statefile.read(f"{folder}/{name}") if name.startswith(start) else None
            record = parse_attachment_record(data) if data is not None else None
            if record is not None:
                records.append((f"{folder}/{name}", record))
    except (OSError, IOFailure):
        return records
    return records


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
