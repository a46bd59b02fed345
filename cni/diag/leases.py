"""`podwire leases`: pools of addresses, who holds them, and what has leaked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click import style

from cni.diag.asking import NoAnswer
from cni.diag.node import sight
from cni.diag.node.attachments import attachments
from cni.diag.node.conflists import FOLDER, networks
from cni.diag.node.here import opened_host
from cni.diag.node.pools import LEAKED, pools, reclaim, unleased
from cni.diag.output import FINDING, FINE, UNANSWERED, Outcome, age, outcome, printable, table
from cni.protocol.owner import SHORT_ID_LENGTH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.diag.node.attachments import Attached
    from cni.diag.node.pools import Pool

HELP = f"""List pools of addresses of host-local and their leases.

A pool is a range set of a network in {FOLDER} or of an attachment. A lease has leaked if no network namespace of this
host has its address, nothing else of its container is left, and it is older than a minute: its DEL was never called.

\b
Examples:
  podwire leases
  podwire leases --reclaim --dry-run
"""
STATUSES = f"""\b
Exit status: {FINE} nothing is wrong; {FINDING} leases have leaked, attachments
have none, or a pool is exhausted; 2 usage; {UNANSWERED} leases cannot be read."""
RECLAIM_HELP = "Release the leases that have leaked; as root in the host's namespaces."
POOL_COLUMNS = ("NETWORK", "RANGES", "SIZE", "USED", "FREE", "NEXT", "FOLDER")
LEASE_COLUMNS = ("ADDRESS", "HOLDER", "CONTAINER", "IF", "NETWORK", "AGE", "STATE")


@click.command("leases", help=HELP, epilog=STATUSES)
@click.option("--conf-dir", default=FOLDER, metavar="DIR", help=f"The runtime's networks (default: {FOLDER}).")
@click.option("--reclaim", "wanted", is_flag=True, help=RECLAIM_HELP)
@click.option("--dry-run", is_flag=True, help="With --reclaim: show what would be released, and release nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (version 1: lists `pools`, `reclaimed`).")
def leases(conf_dir: str, wanted: bool, dry_run: bool, as_json: bool) -> Outcome:
    if dry_run and not wanted:
        raise click.UsageError("--dry-run is for --reclaim")
    with opened_host() as host:
        attached = attachments(host)
    configs = [config for network in networks(conf_dir) for config in network.configs]
    configs += [config for each in attached if each.kept is not None for config in each.kept.configs]
    seen = pools(configs, attached, seeing := sight.look())
    if wanted and seeing.hidden:
        raise NoAnswer(f"no lease is released: {seeing.hidden}")
    leaked = [each.lease.ip.text for pool in seen for each in pool.leases if each.state == LEAKED]
    reclaimed = [address for pool in seen for address in reclaim(pool)] if wanted and not dry_run else []
    if reclaimed:
        seen = pools(configs, attached, sight.look())
    remaining = any(each.state == LEAKED for pool in seen for each in pool.leases)
    lacking = [(pool, *each) for pool in seen for each in unleased(pool, attached)]
    is_full = any(pool.is_full for pool in seen)
    members: dict[str, object] = {"pools": [pool_members(pool, attached) for pool in seen], "reclaimed": reclaimed}
    status = FINDING if remaining or lacking or is_full else FINE

    def text() -> str:
        return "\n".join(_text(seen, lacking, reclaimed, leaked if wanted and dry_run else []))

    return outcome(status, as_json, members, text)


def _text(
    seen: list[Pool], lacking: list[tuple[Pool, str, str]], reclaimed: list[str], to_reclaim: list[str]
) -> Iterator[str]:
    if not seen:
        yield "no network of this node has host-local as its ipam"
        return
    yield table(POOL_COLUMNS, map(_pool_row, seen))
    rows = [row for pool in seen for row in _lease_rows(pool)]
    if rows:
        yield ""
        yield table(LEASE_COLUMNS, rows)
    for pool, address, name in lacking:
        text = f"{address} is not leased to {name} in {pool.folder}: another container may get it, or has it"
        yield style(printable(text), fg="red")
    if to_reclaim:
        yield f"would be released: {', '.join(to_reclaim)}"
    if reclaimed:
        yield f"released: {', '.join(reclaimed)}"


def _pool_row(pool: Pool) -> tuple[str, ...]:
    used, next_ip = len(pool.leases), "- (exhausted)" if pool.is_full else pool.next_ip.text if pool.next_ip else "-"
    return (pool.network, pool.ranges or "-", str(pool.size), str(used), str(pool.free), next_ip, pool.folder)


def _lease_rows(pool: Pool) -> Iterator[tuple[str, ...]]:
    for each in pool.leases:
        ip, container_id, ifname = each.lease
        holder = each.holder if each.holder != container_id else "-"
        yield (ip.text, holder, container_id[:SHORT_ID_LENGTH], ifname, pool.network, age(each.since), each.state)


def pool_members(pool: Pool, attached: list[Attached]) -> dict[str, Any]:
    """Returns what --json prints of a pool."""
    shown: dict[str, Any] = {name: getattr(pool, name) for name in ("network", "folder", "ranges", "size")}
    shown["used"], shown["free"] = len(pool.leases), pool.free
    shown["next"] = pool.next_ip.text if pool.next_ip is not None else None
    shown["leases"] = [
        {
            "address": each.lease.ip.text,
            "holder": each.holder,
            "containerID": each.lease.container_id,
            "ifname": each.lease.ifname,
            "state": each.state,
            "since": each.since,
        }
        for each in pool.leases
    ]
    shown["unleased"] = [{"address": address, "holder": name} for address, name in unleased(pool, attached)]
    return shown
