"""Source of packets that policies have denied, as the kernel logs them: a thread of its own reads them."""

from __future__ import annotations

import os
import select
from errno import EBUSY, EPERM
from threading import Event, Thread
from typing import TYPE_CHECKING

from cni.agent.logs import error_text, log
from cni.agent.policy.basetable import LOG_GROUP
from cni.agent.policy.denials import PacketDenied
from cni.kernel.netlink import NetlinkError
from cni.kernel.nflog import PacketLog
from cni.protocol.errors import CniError

if TYPE_CHECKING:
    from collections.abc import Callable

REST_SECONDS = 0.25  # between two reads: what others log to the group is not let in without bounds
PACKETS = 64  # in one read
RETRY_SECONDS = 60.0
CLOSING_SECONDS = 1.0
TAKEN = f"another program reads group {LOG_GROUP} of nfnetlink_log"


class DeniedPackets:
    """Emits each packet. While another program reads the group there are none; that is said once."""

    def __init__(self) -> None:
        self._ending = Event()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread: Thread | None = None
        self._reported = ""

    def start(self, emit: Callable[[PacketDenied], None]) -> None:
        self._thread = Thread(target=self._run, args=(emit,), name="denied packets", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread."""
        self._ending.set()
        os.eventfd_write(self._wake, 1)
        if self._thread is not None:
            self._thread.join(CLOSING_SECONDS)

    def _run(self, emit: Callable[[PacketDenied], None]) -> None:
        while not self._ending.is_set():
            try:
                self._read(emit)
            except (NetlinkError, CniError, OSError) as error:
                self._tell(TAKEN if getattr(error, "errno", 0) in (EBUSY, EPERM) else error_text(error))
            self._ending.wait(RETRY_SECONDS)

    def _read(self, emit: Callable[[PacketDenied], None]) -> None:
        """Emits packets until the end. Raises NetlinkError, CniError, OSError."""
        packets = PacketLog(LOG_GROUP)
        try:
            self._reported = ""
            poll = select.poll()
            for source in (packets.fileno(), self._wake):
                poll.register(source, select.POLLIN)
            while not self._ending.is_set():
                poll.poll()
                for packet in packets.read()[:PACKETS]:
                    emit(PacketDenied(*packet))
                self._ending.wait(REST_SECONDS)
        finally:
            packets.close()

    def _tell(self, text: str) -> None:
        if text != self._reported:
            self._reported = text
            log.warning("denied packets are not logged: %s", text)
