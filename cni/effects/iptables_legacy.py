"""iptables in its own part of the kernel, older than nftables: podwire adds no rules there, and says where it drops."""

from __future__ import annotations

from cni import proc
from cni.kernel import sysctl
from cni.plan.forward_accept import dropped, rejected
from cni.protocol.errors import PluginNotAvailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.effects.host import Host

PROGRAMS = {4: ("ip_tables_names", "iptables-legacy"), 6: ("ip6_tables_names", "ip6tables-legacy")}
CHAIN = "FORWARD"


def refuse_drops(host: Host, families: Iterable[int], interface: str, admin_chain: str = "") -> None:
    """Raises PluginNotAvailable where the chain drops what containers send to the host by `interface` (NAME* stands
    for a prefix), or where the administrator has a chain that nothing jumps to.
    """
    for family in families:
        if not (listed := _listed(host, family)):
            continue
        from cni.plan.forward_audit import drops, judge, read_iptables

        rules, table = read_iptables(listed), f"filter of {PROGRAMS[family][1]}"
        judgement = judge(rules, CHAIN, interface)
        if judgement.barred_by:
            raise PluginNotAvailable(rejected(CHAIN, table, judgement.barred_by))
        if drops(listed, CHAIN) and not judgement.may_pass:
            raise PluginNotAvailable(dropped(CHAIN, table))
        if (
            admin_chain
            and admin_chain in rules
            and not any(rule.target == admin_chain for rule in rules.get(CHAIN, []))
        ):
            raise PluginNotAvailable(
                f"chain {admin_chain} of table {table} has no effect: podwire leads to that of iptables-nft alone"
                f" ({PROGRAMS[family][1]} -I {CHAIN} -j {admin_chain})"
            )


def _listed(host: Host, family: int) -> str:
    """Returns the rules as the program lists them; empty if the kernel has no such table, or the host no program."""
    names, name = PROGRAMS[family]
    try:
        tables = sysctl.read_text(f"/proc/net/{names}") or ""
    except OSError:  # nobody's in a user namespace that was created together with this one: not an error of the host
        return ""
    if "filter" not in tables.split():
        return ""
    program = proc.find_system(name, host.environment)
    if program is None:
        return ""
    return proc.run([program, "-S"], b"", host.environment, capture_stderr=True).stdout.decode("utf-8", "replace")
