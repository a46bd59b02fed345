"""Faults on demand: every effect that podwire has on a machine, and the one among them that goes wrong."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from errno import EIO, EPERM, EPROTONOSUPPORT
from signal import SIGTERM
from typing import TYPE_CHECKING, Any, NamedTuple

import ipam.store
from cni import proc
from cni.effects.engine import EFFECTS, FILES, effect_of
from cni.kernel import netlink, sysctl
from cni.kernel.netlink import NETLINK_NETFILTER, Netlink, NetlinkError
from cni.kernel.netns import EnteredNetns
from cni.protocol import folders
from cni.protocol.errors import InvalidNetns
from tests.netns.runtime import Answer, Attachment, Json, serve
from tests.netns.state import LEASES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Function = Callable[..., Any]
    Wrap = Callable[[str, Function], Function]
    Fault = Callable[[str, Function], Any]  # (the effect's name, the effect) -> what it returns or raises

INDEX = "/run/podwire"  # what the allocator remembers between calls
STORE = "leases: "
ENTER, CLOSE = "EnteredNetns.__enter__", f"{STORE}close"

# Whatever podwire does or asks passes one of these, new operations included.
EVERY_EFFECT: tuple[tuple[Any, str], ...] = (
    *((Netlink, name) for name in vars(Netlink) if not name.startswith("_") and name != "close"),
    (sysctl, "read"),
    (sysctl, "write"),
    (proc, "run"),
    (EnteredNetns, "__enter__"),
    (folders, "make"),
)


class Calls:
    """The module of system calls as the store of leases sees it, every function wrapped."""

    def __init__(self, module: Any, wrap: Wrap) -> None:
        self._module = module
        self._wrap = wrap

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        return self._wrap(f"{STORE}{name}", value) if callable(value) and not isinstance(value, type) else value


def wrap_effects(wrap: Wrap) -> None:
    """Puts a wrapper around everything that touches the machine, for the rest of this process."""
    for holder, name in EVERY_EFFECT:
        setattr(holder, name, wrap(f"{holder.__name__.rpartition('.')[2]}.{name}", getattr(holder, name)))
    vars(ipam.store)["os"] = Calls(vars(ipam.store)["os"], wrap)


def wrap_operations(wrap: Wrap) -> None:
    """Puts a wrapper around the application of every kind of operation, for the rest of this process."""
    for kind in FILES:
        effect = effect_of(kind)
        EFFECTS[kind] = effect._replace(apply=wrap(kind, effect.apply))


def refuse(name: str, effect: Function) -> object:
    """Nothing happens, and the caller is told."""
    if name == ENTER:
        raise InvalidNetns("as the test asks")
    if name == "Netlink.batch":
        return NetlinkError(EPERM, "as the test asks")
    if name.startswith("Netlink"):
        raise NetlinkError(EPERM, "as the test asks")
    if name == CLOSE:
        effect()  # close(2): the descriptor is gone in any case
    raise OSError(EIO, os.strerror(EIO))


def lose(name: str, effect: Function) -> object:
    """It happens, and the caller is told that something went wrong, as by the loss of an acknowledgement.

    A single system call fails or it does not. A refusal that the caller would put up with is lost as well.
    """
    if name == ENTER or name.startswith(STORE):
        return refuse(name, effect)
    with contextlib.suppress(NetlinkError):
        effect()
    raise OSError(EIO, os.strerror(EIO))


def terminate(name: str, effect: Function) -> object:
    """The runtime has lost its patience."""
    del name
    os.kill(os.getpid(), SIGTERM)
    return effect()


def crash(name: str, effect: Function) -> object:
    """The process ends on the spot, as by SIGKILL."""
    del name, effect
    os._exit(9)


class Saboteur:
    """Counts effects, and lets a fault happen at the one that it aims at."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.aim_at(-1)

    def aim_at(self, number: int) -> None:
        """Counts from zero; -1 aims at none."""
        self.target = number
        self.names: list[str] = []

    def wrap(self, name: str, function: Function) -> Function:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            self.names.append(name)
            if len(self.names) - 1 != self.target:
                return function(*arguments, **named)
            return self.fault(name, lambda: function(*arguments, **named))

        return wrapped

    @property
    def victim(self) -> str:
        """The effect that was aimed at, by name."""
        return self.names[self.target] if 0 <= self.target < len(self.names) else ""


class Case(NamedTuple):
    """One ADD with one fault."""

    number: int
    effect: str
    answer: Answer

    def __str__(self) -> str:
        return f"effect {self.number} ({self.effect}): {self.answer.stdout}{self.answer.stderr}"


def count(install: Callable[[Wrap], None], config: Json, attachment: Attachment) -> list[str]:
    """Returns the names of the effects of an ADD without fault. To be called in a machine."""
    saboteur = Saboteur(refuse)
    install(saboteur.wrap)
    serve(attachment.environment("ADD"), config).succeeded()
    return saboteur.names


def _forget_allocations() -> None:
    """Makes the allocator's place as new, but for leases."""
    shutil.rmtree(INDEX, ignore_errors=True)
    for folder, _, files in os.walk(LEASES, topdown=False):
        for name in files:
            if name == "lock" or name.startswith("last_reserved_ip"):
                os.unlink(f"{folder}/{name}")
        if folder != LEASES and not os.listdir(folder):
            os.rmdir(folder)


def sweep(
    install: Callable[[Wrap], None],
    fault: Fault,
    config: Json,
    netns: str,
    numbers: Iterable[int],
    clean_up: tuple[str, ...],
    fresh: bool,
) -> list[Case]:
    """Fails each of these effects in an ADD of its own. To be called in a machine.

    An ADD that got over the fault has to be whole; it is released, and what it shares cleaned up. `fresh`: none finds
    what an earlier one has left in the allocator's memory, so that the numbers stay those that were counted.
    """
    saboteur = Saboteur(fault)
    install(saboteur.wrap)
    cases = []
    for number in numbers:
        attachment = Attachment(f"container{number}", netns)
        if fresh:
            _forget_allocations()
        saboteur.aim_at(number)
        answer = serve(attachment.environment("ADD"), config)
        cases.append(Case(number, saboteur.victim, answer))
        if answer.status == 0:
            saboteur.aim_at(-1)
            result = {**config, "prevResult": answer.content}
            serve(attachment.environment("CHECK"), result).succeeded()
            serve(attachment.environment("DEL"), result).succeeded()
            for command in clean_up:
                subprocess.run(command.split(), check=True)
    return cases


def without_nfnetlink() -> None:
    """Makes this process meet a kernel without nfnetlink."""
    original = Netlink.__init__

    def refuse_netfilter(self: Netlink, protocol: int) -> None:
        if protocol == NETLINK_NETFILTER:
            raise OSError(EPROTONOSUPPORT, os.strerror(EPROTONOSUPPORT))
        original(self, protocol)

    vars(netlink)["Netlink"].__init__ = refuse_netfilter
