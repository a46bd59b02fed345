"""The journal of an ADD: undo steps in reverse order, own before shared, whatever fails or interrupts."""

from __future__ import annotations

from errno import EBUSY, EEXIST, ENOENT
from typing import TYPE_CHECKING, Any

import pytest

from cni import locks
from cni.effects.journal import Journal, error_text
from cni.kernel.netlink import Interrupted, NetlinkError
from cni.protocol.errors import OperationFailed, TryAgain

if TYPE_CHECKING:
    from collections.abc import Callable


class FakeHost:
    """A host whose shared objects are this attachment's alone, or not, or nobody can tell."""

    def __init__(self, *, sole_user: bool = True, error: Exception | None = None) -> None:
        self.sole_user = sole_user
        self.error = error

    def is_sole_user(self) -> bool:
        if self.error:
            raise self.error
        return self.sole_user


class Steps:
    """Records the steps that run, and raises the errors of those that fail."""

    def __init__(self) -> None:
        self.order: list[str] = []

    def __call__(self, name: str, error: BaseException | None = None) -> Callable[[], None]:
        def step() -> None:
            self.order.append(name)
            if error:
                raise error

        return step


@pytest.fixture
def steps() -> Steps:
    return Steps()


def journal(host: FakeHost | None = None, *, shared_stays: bool = False) -> Journal:
    anything: Any = host or FakeHost()
    return Journal(anything, shared_stays=shared_stays)


def fail(error: BaseException, *undo: Callable[[], object]) -> None:
    """Raises the error within a journal that has these undo steps."""
    with journal() as undone:
        for step in undo:
            undone.add(step)
        raise error


def test_undo_steps_run_in_reverse_order_own_before_shared(steps: Steps) -> None:
    undone = journal()
    undone.add_shared(steps("bridge"))
    undone.run(steps("+veth"), steps("veth"))
    undone.run(steps("+table"), steps("table"), shared=True)
    undone.add(steps("address"))
    assert undone.roll_back() == []
    assert steps.order == ["+veth", "+table", "address", "veth", "table", "bridge"]


def test_an_undo_step_runs_once(steps: Steps) -> None:
    undone = journal()
    undone.add(steps("veth"))
    undone.add_shared(steps("bridge"))
    undone.roll_back()
    undone.roll_back()
    assert steps.order == ["veth", "bridge"]


@pytest.mark.parametrize("shared", [False, True])
def test_a_step_that_the_kernel_rejected_is_not_undone(steps: Steps, *, shared: bool) -> None:
    """The existing object is not this attachment's; the same undo of an earlier step stays."""
    undone = journal()
    undone.run(steps("+first"), steps("first"), shared=shared)
    with pytest.raises(NetlinkError):
        undone.run(steps("+second", NetlinkError(EEXIST, "")), steps("second"), shared=shared)
    undone.roll_back()
    assert steps.order == ["+first", "+second", "first"]


@pytest.mark.parametrize("error", [OSError(EBUSY, "busy"), Interrupted(), OperationFailed("x"), KeyboardInterrupt()])
def test_a_step_with_an_unknown_end_is_undone(steps: Steps, error: BaseException) -> None:
    undone = journal()
    with pytest.raises(type(error)):
        undone.run(steps("+veth", error), steps("veth"))
    undone.roll_back()
    assert steps.order == ["+veth", "veth"]


@pytest.mark.parametrize(
    ("host", "shared_stays"),
    [(FakeHost(sole_user=False), False), (FakeHost(), True), (FakeHost(sole_user=False), True)],
)
def test_shared_objects_stay_if_others_may_use_them(steps: Steps, host: FakeHost, *, shared_stays: bool) -> None:
    undone = journal(host, shared_stays=shared_stays)
    undone.add_shared(steps("bridge"))
    undone.add(steps("veth"))
    assert undone.roll_back() == []
    assert steps.order == ["veth"]


def test_the_host_is_not_asked_who_uses_it_without_shared_steps() -> None:
    assert journal(FakeHost(error=TryAgain("lock"))).roll_back() == []


def test_shared_objects_stay_if_nobody_can_tell_who_uses_them(steps: Steps) -> None:
    undone = journal(FakeHost(error=TryAgain("lock /run/x: not free")))
    undone.add_shared(steps("bridge"))
    assert undone.roll_back() == ["lock /run/x: not free"]
    assert steps.order == []


def test_a_failure_stops_no_other_undo_step(steps: Steps) -> None:
    undone = journal()
    undone.add_shared(steps("bridge", OSError(EBUSY, "Device or resource busy")))
    undone.add_shared(steps("table"))
    undone.add(steps("veth"))
    undone.add(steps("address", NetlinkError(ENOENT, "")))
    undone.add(steps("route", OSError(ENOENT, "No such file or directory", "/run/x")))
    failed = undone.roll_back()
    assert steps.order == ["route", "address", "veth", "table", "bridge"]
    assert failed == ["/run/x: No such file or directory", str(NetlinkError(ENOENT, "")), "Device or resource busy"]


def test_a_success_is_not_rolled_back(steps: Steps) -> None:
    with journal() as undone:
        undone.run(steps("+veth"), steps("veth"))
    assert steps.order == ["+veth"]


@pytest.mark.parametrize("error", [OperationFailed("no room"), KeyboardInterrupt(), ValueError("a defect")])
def test_any_exception_is_rolled_back_and_stays_the_same(steps: Steps, error: BaseException) -> None:
    with pytest.raises(type(error)) as raised:
        fail(error, steps("veth"))
    assert raised.value is error
    assert steps.order == ["veth"]


def test_an_error_names_what_could_not_be_undone(steps: Steps) -> None:
    error = OSError(EBUSY, "Device or resource busy")
    undo = [steps(name, OperationFailed(f"{name}: in use")) for name in ("veth", "address")]
    with pytest.raises(OperationFailed) as raised:
        fail(error, *undo)
    text = "Device or resource busy; and not all of it could be undone: address: in use; veth: in use"
    assert str(raised.value) == text
    assert raised.value.__cause__ is error


def test_a_defect_in_an_undo_step_is_not_hidden(steps: Steps) -> None:
    undone = journal()
    undone.add(steps("veth", ValueError("a defect")))
    with pytest.raises(ValueError, match="a defect"):
        undone.roll_back()


def test_a_signal_that_interrupted_the_add_does_not_interrupt_its_rollback() -> None:
    """Waits for locks end by the signal in an ADD, and by their bound alone in its rollback."""
    locks.set_interrupts(lambda: True)
    heeded: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        fail(KeyboardInterrupt(), lambda: heeded.append(len(locks._interrupted)))
    assert heeded == [0]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(EBUSY, "Device or resource busy"), "Device or resource busy"),
        (OSError(ENOENT, "No such file or directory", "/run/x"), "/run/x: No such file or directory"),
        (OperationFailed("no room"), "no room"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_an_error_is_reported_without_numbers(error: BaseException, text: str) -> None:
    assert error_text(error) == text
