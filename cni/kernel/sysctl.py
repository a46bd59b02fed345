"""Kernel settings under /proc/sys, those of the network namespace that the calling thread is in."""

from __future__ import annotations

import os

ROOT = "/proc/sys/"


def read(key: str) -> str | None:
    """None where the kernel has no such key. Raises OSError."""
    try:
        descriptor = os.open(ROOT + key, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return os.read(descriptor, 256).decode().strip()
    finally:
        os.close(descriptor)


def write(key: str, value: str) -> None:
    """Raises OSError."""
    descriptor = os.open(ROOT + key, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)
