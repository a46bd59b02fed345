"""The file of a report: a tar archive, compressed, that only its owner can read."""

from __future__ import annotations

import io
import os
import tarfile
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

TOP = "podwire-report"
MODE = 0o600


def packed(files: Iterable[tuple[str, bytes]]) -> bytes:
    """Returns the archive of files by name."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, content in files:
            member = tarfile.TarInfo(f"{TOP}/{name}")
            member.size, member.mode, member.mtime = len(content), MODE, int(time.time())
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def write(path: str, data: bytes, *, replace: bool) -> None:
    """Writes a file, as a whole or not at all. Raises FileExistsError where there is one already and it is not to be
    replaced, OSError.
    """
    written = f"{path}.partial" if replace else path
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(written, flags, MODE)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        if replace:
            os.rename(written, path)
    except OSError:
        os.unlink(written)
        raise
