"""Removal of flanneld's rules when podwired takes its place, in nftables and by both kinds of iptables."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from cni.agent.node import flannel_rules
from cni.effects import host as kernel
from cni.protocol.address import parse_net
from tests.netns.forwarding import need_iptables_legacy, rules

if TYPE_CHECKING:
    from tests.machine import Machine

NETWORKS = [parse_net("10.244.0.0/16"), parse_net("fd00:244::/56")]
OTHERS = [parse_net("10.99.0.0/16"), parse_net("fd00:99::/56")]
SPACES = {
    4: [("ip", "10.244.0.0/16", "10.244.4.0/24", "224.0.0.0/4"), ("ip", "10.99.0.0/16", "10.99.4.0/24", "224.0.0.0/4")],
    6: [
        ("ip6", "fd00:244::/56", "fd00:244:0:44::/64", "ff00::/8"),
        ("ip6", "fd00:99::/56", "fd00:99:0:44::/64", "ff00::/8"),
    ],
}
IPTABLES = ["iptables-nft", "iptables-legacy"]
FOREIGN = "add table inet theirs; add chain inet theirs mine; add rule inet theirs mine ip saddr 10.244.0.0/16 accept"


def flannel_table(family: int, *spaces: tuple[str, str, str, str]) -> str:
    """As flanneld 0.28 makes it."""
    name = f"flannel-ipv{family}"
    masquerades, forwards = ["meta mark 0x4000 return"], []
    for ip, net, own, multicast in spaces:
        masquerades += [
            f"{ip} saddr {own} {ip} daddr {net} return",
            f"{ip} saddr {net} {ip} daddr {own} return",
            f"{ip} saddr != {own} {ip} daddr {net} return",
            f"{ip} saddr {net} {ip} daddr != {multicast} masquerade fully-random",
            f"{ip} saddr != {net} {ip} daddr {net} masquerade fully-random",
        ]
        forwards += [f"{ip} saddr {net} accept", f"{ip} daddr {net} accept"]
    handler = {"postrtg": "nat hook postrouting priority srcnat", "forward": "filter hook forward priority filter"}
    lines = [f"table {'ip' if family == 4 else 'ip6'} {name} {{"]
    for chain, listed in (("postrtg", masquerades), ("forward", forwards)):
        lines += [f"chain {chain} {{", f"type {handler[chain]};", *listed, "}"]
    return "\n".join([*lines, "}", ""])


def flannel_chains(machine: Machine, program: str, *spaces: tuple[str, str, str, str]) -> None:
    """As flanneld makes them by iptables-restore."""
    lines = [
        "*nat",
        ":FLANNEL-POSTRTG - [0:0]",
        '-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG',
    ]
    note = '-m comment --comment "flanneld masq" -j'
    lines.append(f"-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 {note} RETURN")
    for _, net, own, multicast in spaces:
        lines += [
            f"-A FLANNEL-POSTRTG -s {own} -d {net} {note} RETURN",
            f"-A FLANNEL-POSTRTG -s {net} -d {own} {note} RETURN",
            f"-A FLANNEL-POSTRTG ! -s {net} -d {own} {note} RETURN",
            f"-A FLANNEL-POSTRTG -s {net} ! -d {multicast} {note} MASQUERADE --random-fully",
            f"-A FLANNEL-POSTRTG ! -s {net} -d {net} {note} MASQUERADE --random-fully",
        ]
    note = '-m comment --comment "flanneld forward" -j'
    lines += ["COMMIT", "*filter", ":FLANNEL-FWD - [0:0]", f"-A FORWARD {note} FLANNEL-FWD"]
    for _, net, _, _ in spaces:
        lines += [f"-A FLANNEL-FWD -{letters} {net} {note} ACCEPT" for letters in "sd"]
    text = "\n".join([*lines, "COMMIT", ""])
    machine.run("sh", "-ec", f"{program}-restore --noflush <<'END'\n{text}\nEND")


def listed(machine: Machine, program: str) -> str:
    tables = [machine.run(program, "-t", table, "-S").stdout for table in ("nat", "filter")]
    return "".join(tables)


def removed(machine: Machine) -> list[str]:
    def act() -> list[str]:
        host = kernel.Host(os.environ, print)
        try:
            return flannel_rules.remove(host, NETWORKS)
        finally:
            host.close()

    return machine.call(act)


def by(machine: Machine, family: int, program: str) -> str:
    if "legacy" in program:
        need_iptables_legacy(machine)
    name = program if family == 4 else program.replace("ip", "ip6", 1)
    if shutil.which(name) is None:
        pytest.skip(f"not installed: {name}")
    return name


def test_its_tables_go_and_those_of_others_stay(machine: Machine) -> None:
    machine.run("nft", FOREIGN)
    before = rules(machine)
    for family in (4, 6):
        machine.run("nft", flannel_table(family, SPACES[family][0]))
    assert len(removed(machine)) == 2
    assert rules(machine) == before
    assert removed(machine) == []


def test_the_table_of_the_other_family_goes_even_if_it_is_empty(machine: Machine) -> None:
    machine.run("nft", flannel_table(4, SPACES[4][0]))
    machine.run("nft", "add table ip6 flannel-ipv6")
    removed(machine)
    assert rules(machine) == ""


def test_what_is_of_another_network_alone_is_left_to_its_flanneld(machine: Machine) -> None:
    for family in (4, 6):
        machine.run("nft", flannel_table(family, SPACES[family][1]))
    before = rules(machine)
    assert removed(machine) == []
    assert rules(machine) == before


def test_of_two_networks_in_one_table_the_other_keeps_its_rules(machine: Machine) -> None:
    machine.run("nft", flannel_table(4, *SPACES[4]))
    removed(machine)
    assert "10.244." not in rules(machine)
    assert rules(machine).count("10.99.0.0/16") == 8


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("program", IPTABLES)
def test_its_chains_go_with_the_jumps_and_rules_of_others_stay(machine: Machine, family: int, program: str) -> None:
    name = by(machine, family, program)
    machine.run(name, "-A", "FORWARD", "-p", "tcp", "-j", "ACCEPT")
    machine.run(name, "-t", "nat", "-A", "POSTROUTING", "-p", "udp", "-j", "MASQUERADE")
    before = listed(machine, name)
    flannel_chains(machine, name, SPACES[family][0])
    assert "FLANNEL-POSTRTG" in listed(machine, name)
    assert len(removed(machine)) == 2
    assert listed(machine, name) == before
    assert removed(machine) == []


@pytest.mark.parametrize("program", IPTABLES)
def test_chains_of_another_network_alone_are_left_to_its_flanneld(machine: Machine, program: str) -> None:
    name = by(machine, 4, program)
    flannel_chains(machine, name, SPACES[4][1])
    before = listed(machine, name)
    assert removed(machine) == []
    assert listed(machine, name) == before


def test_of_two_networks_in_one_chain_the_other_keeps_its_rules(machine: Machine) -> None:
    name = by(machine, 4, IPTABLES[0])
    flannel_chains(machine, name, *SPACES[4])
    removed(machine)
    left = listed(machine, name)
    assert "10.244." not in left
    assert left.count("10.99.0.0/16") == 8
    assert "-j FLANNEL-POSTRTG" in left


def test_on_a_node_without_flanneld_nothing_happens(machine: Machine) -> None:
    assert removed(machine) == []
