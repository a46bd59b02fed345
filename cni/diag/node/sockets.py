"""Sockets of this network namespace that listen, and the processes that have them (proc(5))."""

from __future__ import annotations

import os

LISTENING = {"tcp": "0A", "udp": "07"}  # kernel include/net/tcp_states.h
ANY_ADDRESS = ("00000000", "0" * 32)


def listening(protocol: str, *, any_address: bool = True) -> dict[int, str]:
    """Returns the inode of a socket by port, of those on any address alone, or of all; 0 for one of the kernel's."""
    sockets = {}
    for suffix in ("", "6"):
        try:
            with open(f"/proc/net/{protocol}{suffix}", encoding="ascii") as file:
                lines = [line.split() for line in file][1:]
        except OSError:
            continue
        for fields in lines:
            address, _, port = fields[1].partition(":")
            if fields[3] == LISTENING[protocol] and (address in ANY_ADDRESS or not any_address):
                sockets[int(port, 16)] = fields[9]
    return sockets


def holder(inode: str) -> tuple[int, str] | None:
    """Returns number and name of the process that has a socket; None where it cannot be seen."""
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            sockets = [os.readlink(f"/proc/{name}/fd/{number}") for number in os.listdir(f"/proc/{name}/fd")]
            if f"socket:[{inode}]" in sockets:
                with open(f"/proc/{name}/comm", encoding="utf-8", errors="replace") as file:
                    return int(name), file.read().strip()
        except OSError:
            continue
    return None
