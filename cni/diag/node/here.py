"""The host that a command looks at: the network namespace that it runs in."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from cni.effects.host import Host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def opened_host(warn: Callable[[str], None] = lambda _: None) -> Iterator[Host]:
    """Yields this host with open sockets. Notices, which ADD would print, go to `warn`."""
    host = Host(os.environ, warn)
    try:
        yield host
    finally:
        host.close()
