"""Small files that outlive a call. They are replaced atomically, and a missing one is not an error.

All functions except `replace` raise IOFailure for errors of the file system, with the path and a remedy.
"""

from __future__ import annotations

import posix as os  # see cni/__init__.py
from errno import EFBIG, EINVAL, EISDIR, ELOOP, ENAMETOOLONG, ENOSPC, ENXIO

from cni.protocol.errors import InvalidConfig, IOFailure
from cni.protocol.fields import NAME_LIMIT

PIECE = 1 << 16  # bytes
PIECES = 1 << 8  # of a file of ours, at most
KIND, FOLDER, REGULAR = 0o170000, 0o040000, 0o100000  # inode(7)
SHARED = 0o077  # permissions of the group and of others
NO_SUCH_FILE = (FileNotFoundError, NotADirectoryError)
NO_FILE = (EINVAL, EISDIR, ELOOP, ENXIO)  # of open(2) for links and sockets; of _content for pipes, folders and devices


def _error(path: str, error: OSError) -> IOFailure | InvalidConfig:
    """Returns an error with a remedy. Names consist of the container's ID and its interface, both from the runtime."""
    name = _beside(path).rpartition("/")[2]
    if error.errno == ENAMETOOLONG and len(name) > NAME_LIMIT:
        return InvalidConfig(f"containerID is too long for the name of a file: {name} (CNI_CONTAINERID)")
    remedy = "dataDir must name a folder on a writable disk, which this user may write to"
    return IOFailure(f"{path}: {error.strerror}", remedy)


def read(path: str, *, links: bool = False) -> bytes | None:
    """Returns the content; None if there is no such file. `links`: the path is a user's, and may be a symbolic link.

    podwire makes no links in its own folders, so none is followed there; a pipe does not block.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
        try:
            return _content(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if _is_absent(error) or (error.errno in NO_FILE and not links):
            return None
        raise _error(path, error) from None


def _is_absent(error: OSError) -> bool:
    """True if there is no such file; none can have a name that is too long."""
    return isinstance(error, NO_SUCH_FILE) or error.errno == ENAMETOOLONG


def _content(descriptor: int) -> bytes:
    """Returns the content. Raises OSError, with one of NO_FILE if it is not a regular file."""
    kind = os.fstat(descriptor).st_mode & KIND
    if kind != REGULAR:
        raise OSError(EISDIR, os.strerror(EISDIR)) if kind == FOLDER else OSError(EINVAL, "not a regular file")
    parts: list[bytes] = []
    while len(parts) < PIECES and (part := os.read(descriptor, PIECE)):
        parts.append(part)
    if len(parts) == PIECES:
        raise OSError(EFBIG, os.strerror(EFBIG))
    return b"".join(parts)


def _beside(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/.{name}.new"


def write(path: str, data: bytes) -> None:
    """Replaces the file; it is readable by its owner alone, as is the folder if it is missing. Raises IOFailure."""
    try:
        replace(path, data, 0o600, 0o700)
    except OSError as error:
        raise _error(path, error) from None


def replace(path: str, data: bytes, mode: int, folder_mode: int) -> None:
    """Writes a new file beside `path`, which is absolute, and renames it. Makes the folder if it is missing.

    Raises OSError; the old file is kept then.
    """
    new = _beside(path)
    try:
        descriptor = _create(new, mode, folder_mode)
        try:
            if mode & SHARED:
                os.fchmod(descriptor, mode)  # a umask narrows what open(2) sets
            if os.write(descriptor, data) != len(data):
                raise OSError(ENOSPC, os.strerror(ENOSPC))  # as the next attempt to write would
        finally:
            os.close(descriptor)
        os.rename(new, path)
    except OSError:
        _try_to_unlink(new)
        raise


def _create(path: str, mode: int, folder_mode: int) -> int:
    """Opens a new file. Other users may write to the folder, so that an existing file is not written through."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, mode)
    except FileExistsError:  # of a writer that was killed
        os.unlink(path)
    except FileNotFoundError:
        from cni.protocol import folders  # once in a host's life

        folders.make(path.rpartition("/")[0], folder_mode)
    return os.open(path, flags, mode)


def _try_to_unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return


def remove(path: str) -> None:
    """Removes the file, and the temporary file of a writer that was killed."""
    for file in (path, _beside(path)):
        try:
            os.unlink(file)
        except OSError as error:
            if _is_absent(error):
                continue
            raise _error(file, error) from None


def names(folder: str) -> list[str]:
    """Returns the names of a folder's files without temporary ones; a folder that does not exist has none."""
    try:
        return [name for name in os.listdir(folder) if not name.startswith(".")]
    except NO_SUCH_FILE:
        return []
    except OSError as error:
        raise _error(folder, error) from None
