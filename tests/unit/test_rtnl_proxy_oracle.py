"""rtnetlink messages of proxy neighbours, held byte for byte to pyroute2's, and its answers read alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.kernel import rtnl_proxy
from cni.kernel.rtnl_proxy import Proxy
from cni.protocol.address import parse_ip
from tests.unit.oracle import AF_INET6, Attributes, answer, encoded, framed, normal
from tests.unit.test_rtnl_overlay_oracle import dump_of, ndmsg

if TYPE_CHECKING:
    from cni.kernel.rtnl import Message

CREATE, PROXY = 0x400, 0x08
ONE = Proxy(7, parse_ip("fd00::2"), 80)
FIELDS = {"family": AF_INET6, "ifindex": 7, "flags": PROXY}
TARGET: Attributes = [("NDA_DST", "fd00::2")]
PROTOCOL = ("NDA_PROTOCOL", 80)


@pytest.mark.parametrize(
    ("message", "header", "fields", "attrs"),
    [
        (rtnl_proxy.add_proxy(ONE), (28, CREATE), FIELDS, [*TARGET, PROTOCOL]),
        (rtnl_proxy.delete_proxy(ONE), (29, 0), FIELDS, TARGET),
        (dump_of(rtnl_proxy.all_proxies(6)), (30, 0), {"family": AF_INET6, "flags": PROXY}, []),
    ],
    ids=["add", "delete", "all"],
)
def test_a_message_is_what_pyroute2_would_send(
    message: Message, header: tuple[int, int], fields: dict[str, int], attrs: Attributes
) -> None:
    assert normal(ndmsg, framed(message)) == normal(ndmsg, encoded(ndmsg, header, fields, attrs))


@pytest.mark.parametrize(("attrs", "protocol"), [([*TARGET, PROTOCOL], 80), (TARGET, 0)])
def test_a_proxy_is_read_as_pyroute2_writes_it(attrs: Attributes, protocol: int) -> None:
    """Older kernels tell no protocol."""
    assert rtnl_proxy.parse_proxy(answer(ndmsg, FIELDS, attrs)) == ONE._replace(protocol=protocol)
