"""Traffic control messages (rtnetlink; kernel include/uapi/linux/pkt_sched.h, pkt_cls.h), built and read.

As in cni.kernel.rtnl, nothing here opens a socket.
"""

from __future__ import annotations

from _struct import Struct

from cni.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, attribute, attributes, nest, text, u32, unpacked
from cni.kernel.rtnl import AF_UNSPEC
from cni.protocol.fields import UINT32
from cni.protocol.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.kernel.rtnl import Message

RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
RTM_NEWTFILTER, RTM_DELTFILTER, RTM_GETTFILTER = 44, 45, 46
TC_H_ROOT, TC_H_INGRESS = 0xFFFFFFFF, 0xFFFFFFF1
ARRIVING = 0xFFFFFFF2  # filters of received packets, of qdisc ingress or clsact
ROOT_HANDLE, INGRESS_HANDLE, FILTER_CLASS = 1 << 16, 0xFFFF << 16, 1 << 16 | 1
TCA_KIND, TCA_OPTIONS = 1, 2
TCA_TBF_PARMS, TCA_TBF_RATE64, TCA_TBF_BURST = 1, 4, 6
TCA_U32_CLASSID, TCA_U32_SEL, TCA_U32_ACT = 1, 5, 7
TCA_ACT_KIND, TCA_ACT_OPTIONS, TCA_MIRRED_PARMS = 1, 2, 2
TC_U32_TERMINAL, TC_ACT_STOLEN, TCA_EGRESS_REDIR = 1, 4, 1
ETH_P_ALL_NETWORK = 0x0300  # in network order, as tcm_info holds it
ETH_P_IP_NETWORK = 0x0008
FIRST_PRIORITY, SECOND_PRIORITY = 1 << 16, 2 << 16
TCA_BPF_OPS_LEN, TCA_BPF_OPS, TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT = 4, 5, 8, 1
GUARD_HANDLE = 0x706F6477  # "podw"

TCMSG = Struct("=BxxxiIII")  # family, index, handle, parent, info
RATE64 = Struct("=Q")
# struct tc_tbf_qopt: two of tc_ratespec (cell_log, linklayer, overhead, cell_align, mpu, rate), limit, buffer, mtu
TBF = Struct("=BBHhHI BBHhHI III")
U32_SELECTOR = Struct("=BBBxHHhhI IIii")  # struct tc_u32_sel with one key that matches everything
U16 = Struct("=H")
BPF = Struct("=HBBI")  # struct sock_filter (linux/filter.h): code, jump if true, if false, operand
LOAD_WORD, AND, JUMP_EQUAL, JUMP_SET, RETURN = 0x20, 0x54, 0x15, 0x45, 0x06
NETWORK_HEADER, MARK = UINT32 + 1 - 0x100000, UINT32 + 1 - 0x1000 + 20  # SKF_NET_OFF; SKF_AD_OFF + SKF_AD_MARK
TC_ACT_UNSPEC, TC_ACT_SHOT = UINT32, 2
MIRRED = Struct("=IIiiiiI")  # index, capab, action, refcnt, bindcnt, eaction, ifindex
NO_LINK = -1


class Bucket(Record):
    """A token bucket: bytes a second, bytes that may wait."""

    rate: int
    limit: int


def new_token_bucket(index: int, rate: int, burst: int, limit: int) -> Message:
    """Adds tbf as the link's root qdisc: `rate` in bytes a second, `burst` and `limit` in bytes."""
    short = min(rate, UINT32)
    options = [
        attribute(TCA_TBF_PARMS, TBF.pack(0, 0, 0, 0, 0, short, 0, 0, 0, 0, 0, 0, limit, 0, 0)),
        u32(TCA_TBF_BURST, burst),
    ]
    if rate > short:
        options.append(attribute(TCA_TBF_RATE64, RATE64.pack(rate)))
    payload = TCMSG.pack(AF_UNSPEC, index, ROOT_HANDLE, TC_H_ROOT, 0) + text(TCA_KIND, "tbf")
    return RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, payload + nest(TCA_OPTIONS, *options)


def new_ingress(index: int) -> Message:
    """Adds the qdisc for filters of packets that the link receives."""
    payload = TCMSG.pack(AF_UNSPEC, index, INGRESS_HANDLE, TC_H_INGRESS, 0) + text(TCA_KIND, "ingress")
    return RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, payload


def delete_token_bucket(index: int) -> Message:
    return RTM_DELQDISC, 0, TCMSG.pack(AF_UNSPEC, index, ROOT_HANDLE, TC_H_ROOT, 0)


def delete_root(index: int) -> Message:
    """Deletes the root qdisc, whoever has added it; ENOENT if it is the kernel's own."""
    return RTM_DELQDISC, 0, TCMSG.pack(AF_UNSPEC, index, 0, TC_H_ROOT, 0)


def delete_ingress(index: int) -> Message:
    """Deletes the qdisc with its filters."""
    return RTM_DELQDISC, 0, TCMSG.pack(AF_UNSPEC, index, INGRESS_HANDLE, TC_H_INGRESS, 0)


def new_redirect(index: int, to: int) -> Message:
    """Adds a filter: all packets that the link receives are sent by the link `to` instead."""
    head = TCMSG.pack(AF_UNSPEC, index, 0, INGRESS_HANDLE, SECOND_PRIORITY | ETH_P_ALL_NETWORK)
    mirred = attribute(TCA_MIRRED_PARMS, MIRRED.pack(0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, to))
    action = nest(1, text(TCA_ACT_KIND, "mirred"), nest(TCA_ACT_OPTIONS, mirred))
    options = nest(
        TCA_OPTIONS,
        u32(TCA_U32_CLASSID, FILTER_CLASS),
        attribute(TCA_U32_SEL, U32_SELECTOR.pack(TC_U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)),
        nest(TCA_U32_ACT, action),
    )
    return RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, head + text(TCA_KIND, "u32") + options


def new_loopback_guard(index: int, mark: int) -> Message:
    """Adds a filter that drops packets received for 127.0.0.0/8, unless a rule set the mark: replies that br_netfilter
    has passed on.

    It comes before all other filters. On a bridge, it sees the packets that the bridge delivers to the host.
    """
    head = TCMSG.pack(AF_UNSPEC, index, GUARD_HANDLE, ARRIVING, FIRST_PRIORITY | ETH_P_IP_NETWORK)
    program = b"".join([
        BPF.pack(LOAD_WORD, 0, 0, NETWORK_HEADER + 16),  # the destination
        BPF.pack(AND, 0, 0, 0xFF000000),
        BPF.pack(JUMP_EQUAL, 0, 3, 127 << 24),
        BPF.pack(LOAD_WORD, 0, 0, MARK),
        BPF.pack(JUMP_SET, 1, 0, mark),
        BPF.pack(RETURN, 0, 0, TC_ACT_SHOT),
        BPF.pack(RETURN, 0, 0, TC_ACT_UNSPEC),
    ])  # fmt: skip
    options = nest(
        TCA_OPTIONS,
        attribute(TCA_BPF_OPS_LEN, U16.pack(len(program) // BPF.size)),
        attribute(TCA_BPF_OPS, program),
        u32(TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT),
    )
    return RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, head + text(TCA_KIND, "bpf") + options


def delete_loopback_guard(index: int) -> Message:
    head = TCMSG.pack(AF_UNSPEC, index, GUARD_HANDLE, ARRIVING, FIRST_PRIORITY | ETH_P_IP_NETWORK)
    return RTM_DELTFILTER, 0, head + text(TCA_KIND, "bpf")


def delete_redirect(index: int) -> Message:
    return RTM_DELTFILTER, 0, TCMSG.pack(AF_UNSPEC, index, 0, INGRESS_HANDLE, SECOND_PRIORITY | ETH_P_ALL_NETWORK)


def is_loopback_guard(data: bytes) -> bool:
    return unpacked(TCMSG, data)[2] == GUARD_HANDLE and attributes(data, TCMSG.size).get(TCA_KIND) == b"bpf\0"


def is_ingress(data: bytes, index: int) -> bool:
    """True if the queueing discipline is the link's `ingress`."""
    return unpacked(TCMSG, data)[1] == index and attributes(data, TCMSG.size).get(TCA_KIND) == b"ingress\0"


def all_qdiscs(index: int) -> tuple[int, bytes]:
    return RTM_GETQDISC, TCMSG.pack(AF_UNSPEC, index, 0, 0, 0)


def ingress_filters(index: int) -> tuple[int, bytes]:
    return RTM_GETTFILTER, TCMSG.pack(AF_UNSPEC, index, 0, ARRIVING, 0)


def parse_token_bucket(data: bytes, index: int) -> Bucket | None:
    """Returns None for another queueing discipline, or another link's."""
    attrs = attributes(data, TCMSG.size)
    if unpacked(TCMSG, data)[1] != index or attrs.get(TCA_KIND) != b"tbf\0":
        return None
    options = attributes(attrs.get(TCA_OPTIONS, b""))
    parameters = unpacked(TBF, options.get(TCA_TBF_PARMS, b""))
    long = options.get(TCA_TBF_RATE64)
    return Bucket(unpacked(RATE64, long)[0] if long else parameters[5], parameters[12])


def redirects_to(data: bytes) -> int:
    """Returns the index of the link that a filter redirects to, NO_LINK if that is gone; 0 for another filter."""
    options = attributes(attributes(data, TCMSG.size).get(TCA_OPTIONS, b""))
    action = attributes(attributes(options.get(TCA_U32_ACT, b"")).get(1, b""))
    mirred = attributes(action.get(TCA_ACT_OPTIONS, b"")).get(TCA_MIRRED_PARMS, b"")
    return int(MIRRED.unpack_from(mirred)[6]) or NO_LINK if len(mirred) >= MIRRED.size else 0
