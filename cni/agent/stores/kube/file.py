"""The network's configuration in a file, as Kubernetes mounts a ConfigMap: looked at once a second, and followed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.agent.model.network import parse_network_config
from cni.protocol import smallfile
from cni.protocol.errors import CniError

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

    from cni.agent.model.network import NetworkConfig

LOOK_SECONDS = 1.0


class NetworkFile:
    """Tells what the file says, or what is wrong with it, whenever it has changed."""

    def __init__(
        self, path: str, configured: Callable[[NetworkConfig], None], failed: Callable[[str], None], stop: Event
    ) -> None:
        self._path, self._configured, self._failed, self._stop = path, configured, failed, stop

    def run(self) -> None:
        seen: object = None
        while True:
            state = smallfile.state(self._path)
            if state != seen:
                seen = state if self._read() else None
            if self._stop.wait(LOOK_SECONDS):
                return

    def _read(self) -> bool:
        """False where it has to be read again, although it did not change."""
        try:
            config = parse_network_config(smallfile.read(self._path), self._path)
        except OSError as error:
            self._failed(f"the network's configuration, {self._path}: {error.strerror}")
            return False
        except CniError as error:
            self._failed(error.message if self._path in error.message else f"{self._path}: {error.message}")
            return True
        self._configured(config)
        return True
