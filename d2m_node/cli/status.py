"""What the running node says of itself, and of its peers."""

from collections.abc import Iterator
from typing import Final

import click
import msgspec

from d2m_node import client as api
from d2m_node.cli.options import data_dir_option, json_of
from d2m_node.cli.output import print_facts, print_result, print_table, round_wei
from d2m_node.cli.refusals import show_refusals
from d2m_node.cli.remote import ask

GIB = 2**30
MIB = 2**20


@click.command()
@data_dir_option()
@json_of(api.NodeStatus)
def status(*, as_json: bool) -> None:
    """Say who and where the running node is, and what it does."""
    node = ask(api.NODE_STATUS, api.NoParams())
    if as_json:
        print_result(node)
        return
    print_facts(_list_facts(node))
    if node.open_jobs:
        click.echo()
        rows = [[str(one.job), ", ".join(one.roles), one.doing] for one in node.open_jobs]
        print_table(("job", "as", "now"), rows)
    if node.privacy is not None and node.privacy.datasets:
        click.echo()
        print_table(("dataset", "epsilon spent", "trainings", "jobs"), _list_privacy(node.privacy))
    if node.peers_missed:
        click.echo()
        missed = [[one.last_error or "", _tell_next_dial(one)] for one in node.peers_missed]
        print_table(("peer dialled in vain", "again"), missed)
    if node.transfers:
        click.echo()
        fetched = [[one.digest, _tell_progress(one), str(one.sources)] for one in node.transfers]
        print_table(("fetching", "received", "peers"), fetched)
    show_refusals(node.refusals)


def _list_facts(node: api.NodeStatus) -> Iterator[tuple[str, object]]:
    yield "version", f"{node.version}, up for {_format_seconds(node.uptime_seconds)}"
    yield "account", node.account
    yield "balance", "unknown" if node.balance_wei is None else round_wei(node.balance_wei)
    if stake := _tell_stake(node.stake):
        yield "stake", stake
    if not node.is_backed_up:
        yield "key backup", "none yet; run d2m-node key export -o FILE"
    yield "chain", f"{node.chain_id}, block {node.block_number}, {_tell_sync(node.sync)}"
    if node.clock_fault is not None:
        yield "clock", node.clock_fault
    yield "market", node.market
    yield "peers", _tell_peers(node)
    if turned_away := _tell_turned_away(node.turned_away):
        yield "turned away", turned_away
    if node.reach.advice is not None:
        yield "reach", node.reach.advice
    yield "roles", _join_roles(node.roles)
    yield from sorted(node.role_notes.items())
    counts = (f"{count} {phase}" for phase, count in node.jobs.items())
    yield "jobs", ", ".join(counts) or "none"
    pending = node.pending
    if pending.transactions:
        sent = f"the oldest for {pending.oldest_blocks} blocks"
        yield "waiting", f"{pending.transactions} transactions, {sent}"
    if node.privacy is not None:
        spent = "see below" if node.privacy.datasets else "nothing spent yet"
        yield "privacy", f"epsilon {node.privacy.epsilon_budget:g} for each dataset, {spent}"
    disk = node.disk
    blobs = f"{disk.blob_bytes / GIB:.2f} of {disk.quota_bytes / GIB:.1f} GiB"
    yield "disk", f"blobs {blobs}, {disk.free_bytes / GIB:.1f} GiB free"


def _tell_peers(node: api.NodeStatus) -> str:
    words: dict[api.ReachName, str] = {
        "unknown": "",
        "reachable": "; others reach this node",
        "unreachable": "; others cannot reach this node",
        "relayed": "; others reach this node through a relay",
    }
    reach = words[node.reach.state]
    banned = f", {node.peers_banned} banned" if node.peers_banned else ""
    return f"{node.peers_connected} connected of {node.peers_known} known{banned}{reach}"


_TURNED_AWAY: Final = {
    "handshakes": "connections that said nothing",
    "strangers": "strangers",
    "streams": "streams too many",
    "slow": "slow readers",
    "flood": "messages too many",
    "outside": "messages out of place",
    "denied": "blobs denied",
}


def _tell_turned_away(turned_away: api.TurnedAwayView) -> str:
    counts = msgspec.structs.asdict(turned_away)
    return ", ".join(
        f"{counts[name]} {word}" for name, word in _TURNED_AWAY.items() if counts[name]
    )


def _tell_conduct(peer: api.PeerView) -> str:
    """Say how a peer stands, and what it was refused, as short as it goes."""
    told = ["connected" if peer.connected else peer.last_error or "not connected"]
    if peer.penalty:
        told.append(f"penalty {peer.penalty:.1f}")
    if turned_away := _tell_turned_away(peer.turned_away):
        told.append(turned_away)
    return "; ".join(told)


def _tell_next_dial(peer: api.PeerView) -> str:
    if peer.connected:
        return "-"
    wait = peer.next_dial_seconds
    return "when needed" if wait is None else f"in {_format_seconds(wait)}"


def _tell_progress(transfer: api.TransferView) -> str:
    received = f"{transfer.received_bytes / MIB:.1f}"
    if not transfer.size_bytes:
        return f"{received} MiB"
    share = transfer.received_bytes / transfer.size_bytes
    return f"{received} of {transfer.size_bytes / MIB:.1f} MiB, {share:.0%}"


def _list_privacy(privacy: api.PrivacyView) -> list[list[str]]:
    return [
        [
            f"0x{one.dataset}",
            f"{one.epsilon:.3g} of {privacy.epsilon_budget:g} at delta {one.delta:g}",
            str(one.trainings),
            str(one.jobs),
        ]
        for one in privacy.datasets
    ]


def _join_roles(roles: dict[str, api.RoleStateName]) -> str:
    """Write which roles are not off, and where each stands."""
    named = [
        role if state == "on" else f"{role} ({state})"
        for role, state in roles.items()
        if state != "off"
    ]
    return ", ".join(named) or "none (observer)"


def _tell_stake(stake: api.StakeView) -> str:
    parts = {
        "free": stake.free_wei,
        "locked": stake.locked_wei,
        "unbonding": stake.unbonding_wei,
        "rewards": stake.reward_wei,
    }
    return ", ".join(f"{round_wei(amount)} {name}" for name, amount in parts.items() if amount)


def _tell_sync(sync: api.SyncView) -> str:
    if sync.is_synced:
        return "up to date"
    silence = f", endpoints silent for {_format_seconds(sync.silent_seconds)}"
    return f"{sync.lag_blocks} blocks behind{silence if sync.silent_seconds > 60 else ''}"


def _format_seconds(seconds: float) -> str:
    whole = int(seconds)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if whole >= length:
            return f"{whole // length} {unit} {_format_rest(whole % length, length)}".rstrip()
    return f"{whole} s"


def _format_rest(seconds: int, length: int) -> str:
    smaller = {86400: ("h", 3600), 3600: ("min", 60), 60: ("s", 1)}[length]
    count = seconds // smaller[1]
    return f"{count} {smaller[0]}" if count else ""


@click.command()
@data_dir_option()
@json_of(list[api.PeerView])
def peers(*, as_json: bool) -> None:
    """List the peers that the node knows."""
    found = ask(api.NODE_PEERS, api.NoParams())
    if as_json:
        print_result(found)
        return
    rows = [
        [
            peer.multiaddr or peer.peer_id,
            _tell_conduct(peer),
            _tell_next_dial(peer),
            ", ".join(peer.accounts) or "-",
        ]
        for peer in sorted(found, key=lambda one: (not one.connected, one.multiaddr))
    ]
    print_table(("address", "state", "again", "accounts"), rows)
