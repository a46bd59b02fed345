"""The log of peers: each by name, or of many their number."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from cni.agent import logs
from cni.agent.controllers.peerlog import ONE_BY_ONE, log_changes, log_errors
from cni.agent.model.lease import Endpoint, Lease
from cni.protocol.address import parse_ip, parse_net

if TYPE_CHECKING:
    from collections.abc import Iterator


class Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        assert record.levelno >= logging.INFO
        self.texts.append(record.getMessage())


@pytest.fixture
def heard() -> Iterator[list[str]]:
    handler, level = Heard(), logs.log.level
    logs.log.addHandler(handler)
    logs.log.setLevel(logging.INFO)
    yield handler.texts
    logs.log.removeHandler(handler)
    logs.log.setLevel(level)


def lease(number: int, ip: str = "192.0.2.2") -> Lease:
    return Lease((Endpoint(parse_net(f"10.5.{number}.0/24"), parse_ip(ip)),), "host-gw")


def test_peers_that_come_change_and_go_are_named(heard: list[str]) -> None:
    both = Lease((*lease(4).endpoints, Endpoint(parse_net("fd00:5::/64"), parse_ip("2001:db8::4"))), "host-gw")
    log_changes({"a": lease(1), "b": lease(2), "c": lease(3)}, {"a": lease(1), "b": lease(2, "192.0.2.9"), "d": both})
    assert heard == [
        "changed peer subnet=10.5.2.0/24 public_ip=192.0.2.9 (was subnet=10.5.2.0/24 public_ip=192.0.2.2)",
        "removed peer subnet=10.5.3.0/24 public_ip=192.0.2.2",
        "added peer subnet=10.5.4.0/24,fd00:5::/64 public_ip=192.0.2.2,2001:db8::4",
    ]


def test_a_peer_that_was_not_served_and_is_not_is_not_reported(heard: list[str]) -> None:
    log_changes({"a": None, "b": None}, {"a": None, "b": lease(2)})
    assert heard == ["added peer subnet=10.5.2.0/24 public_ip=192.0.2.2"]


def test_of_many_the_numbers_are_reported(heard: list[str]) -> None:
    before = {str(number): lease(number) for number in range(ONE_BY_ONE)}
    after = {str(number): lease(number, "192.0.2.9") for number in range(5, ONE_BY_ONE + 40)}
    log_changes(before, after)
    assert heard == ["added 40 peers, changed 15, removed 5"]


def test_leases_that_are_not_served_are_reported_with_the_reason(heard: list[str]) -> None:
    log_errors({"a": "bad", "b" * 500: "worse"}, ["a", "c", "b" * 500])
    assert heard == ["lease a is ignored: bad", f"lease {'b' * 200} is ignored: worse"]
    heard.clear()
    errors = {str(number): "bad" for number in range(100)}
    log_errors(errors, errors)
    assert (len(heard), heard[-1]) == (ONE_BY_ONE + 1, "100 leases are ignored")
