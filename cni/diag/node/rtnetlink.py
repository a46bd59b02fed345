"""rtnetlink by pyroute2, whose errors become those that all commands expect."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyroute2.iproute.linux import IPRoute


@contextmanager
def opened_rtnetlink() -> Iterator[IPRoute]:
    """Yields a socket in this network namespace. Raises OSError, also inside for what the kernel refuses: one without
    IPv6, say, has no rules of it.
    """
    from pyroute2.iproute.linux import IPRoute  # and not of the package, which imports all of the library
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as route:
            yield route
    except NetlinkError as error:
        raise OSError(error.code, os.strerror(error.code)) from None
