"""Programs that run in a machine until they are told to end, and one of them: etcd, the store of node agents."""

from __future__ import annotations

import http.client
import json
from base64 import b64decode, b64encode
from signal import SIGCONT
from typing import TYPE_CHECKING

from tests.machine import SECONDS, MachineError, until

if TYPE_CHECKING:
    from tests.machine import Machine
    from tests.system.plugins import Json

PORT = 2379
PREFIX = "/coreos.com/network"


class Program:
    """A process whose output goes to a file, which those of the same name share."""

    def __init__(self, where: Machine, name: str, *command: str) -> None:
        self._where, self._log = where, f"/run/{name}.log"
        # What Machine starts is a process outside, to which a signal would go; the number is that of the one inside.
        shell = 'echo $$; log=$1; shift; exec "$@" >>"$log" 2>&1'
        self._process = where.start("sh", "-c", shell, "sh", self._log, *command)
        assert self._process.stdout
        self._number = self._process.stdout.readline().strip()
        if not self._number:
            raise MachineError(f"{name} could not be started")

    @property
    def log(self) -> str:
        return self._where.run("cat", self._log, check=False).stdout

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def signal(self, name: str) -> None:
        self._where.run("kill", f"-{name}", self._number)
        if name == "CONT":
            self._process.send_signal(SIGCONT)  # nsenter stops when its child does

    def end(self, signal: str = "TERM") -> int:
        """Returns the exit code, or the signal's number below 0."""
        self.signal(signal)
        return self._process.wait(SECONDS)


class Etcd:
    """One member at an address of the machine; its data outlive it."""

    def __init__(self, machine: Machine, address: str) -> None:
        self._machine = machine
        self._address = self._usual = address
        self._program: Program | None = None

    @property
    def endpoint(self) -> str:
        return f"http://{self._usual}:{PORT}"

    def start(self, address: str = "") -> None:
        """Serves, perhaps at another address than all others know."""
        self._address = address or self._usual
        url = f"http://{self._address}:{PORT}"
        where = [f"--listen-client-urls={url}", f"--advertise-client-urls={url}", "--data-dir=/run/etcd"]
        alone = ["--heartbeat-interval=20", "--election-timeout=100"]  # nobody else is to be waited for
        self._program = Program(self._machine, "etcd", "etcd", "--log-level=error", *where, *alone)
        until(self._answers, "etcd answers")

    def stop(self) -> None:
        assert self._program
        self._program.end("KILL")

    def put(self, key: str, value: object) -> None:
        """Writes a text, or anything else as JSON; keys are those below the network's prefix."""
        text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        self._ask("kv/put", key=_encoded(f"{PREFIX}/{key}"), value=_encoded(text))

    def delete(self, key: str) -> None:
        self._ask("kv/deleterange", key=_encoded(f"{PREFIX}/{key}"))

    def clear(self) -> None:
        """Deletes all that is below the network's prefix."""
        self._ask("kv/deleterange", key=_encoded(f"{PREFIX}/"), range_end=_encoded(f"{PREFIX}0"))

    def leases(self) -> dict[str, str]:
        """Returns the values by their keys, these without `subnets/`."""
        start = f"{PREFIX}/subnets/"
        answer = self._ask("kv/range", key=_encoded(start), range_end=_encoded(f"{start[:-1]}0")).get("kvs", [])
        return {_decoded(entry["key"]).removeprefix(start): _decoded(entry["value"]) for entry in answer}

    def lives(self, key: str) -> int:
        """Returns the seconds until a lease's key expires, 0 for never."""
        kept = self._ask("kv/range", key=_encoded(f"{PREFIX}/subnets/{key}"))["kvs"][0].get("lease", "0")
        return int(self._ask("lease/timetolive", ID=kept)["TTL"]) if kept != "0" else 0

    def compact(self) -> None:
        """Forgets all that was before the newest change."""
        revision = self._ask("kv/range", key=_encoded(PREFIX))["header"]["revision"]
        self._ask("kv/compaction", revision=revision, physical=True)

    def _answers(self) -> bool:
        try:
            self._ask("kv/range", key=_encoded(PREFIX))
        except (OSError, MachineError, http.client.HTTPException):
            return False
        return True

    def _ask(self, path: str, **body: object) -> Json:
        answer: Json = self._machine.call(_post, self._address, path, json.dumps(body))
        return answer


def _post(address: str, path: str, body: str) -> Json:
    connection = http.client.HTTPConnection(address, PORT, timeout=SECONDS)
    connection.request("POST", f"/v3/{path}", body)
    answer = connection.getresponse()
    text = answer.read().decode()
    if answer.status != http.client.OK:
        raise MachineError(f"etcd {path}: {text}")
    parsed: Json = json.loads(text)
    return parsed


def _encoded(text: str) -> str:
    return b64encode(text.encode()).decode()


def _decoded(text: str) -> str:
    return b64decode(text).decode()
