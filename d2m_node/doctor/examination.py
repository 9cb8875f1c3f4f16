"""All checks, in the order in which an operator mends things."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import trio

from d2m_node.client import (
    NODE_PEERS,
    NODE_STATUS,
    AsyncRpcClient,
    CallRefused,
    NodeStatus,
    NodeUnreachable,
    NoParams,
    PeerView,
)
from d2m_node.doctor.chain import check_chain
from d2m_node.doctor.check import Check, fail, ok
from d2m_node.doctor.files import check_files
from d2m_node.doctor.machine import check_machine
from d2m_node.doctor.network import check_network
from d2m_node.errors import KeyUnavailable, UserError
from d2m_node.keystore import read_keystore
from d2m_node.settings import NodeSettings, load_settings
from protocol.types import Address

ASK_SECONDS: Final = 5.0


class _Running(msgspec.Struct, frozen=True, kw_only=True):
    """What a running node says of itself."""

    status: NodeStatus
    peers: list[PeerView]


async def examine(data_dir: Path, flags: Mapping[str, str]) -> list[Check]:
    """Check everything that can be checked; what the settings lack leaves only that."""
    try:
        settings = load_settings(data_dir, flags=flags)
    except UserError as exc:
        return [fail("settings", str(exc), "see d2m-node config show --origin")]
    checks = [ok("settings", f"complete; {data_dir}")]
    running = await _ask_node(settings)
    if isinstance(running, Check):
        checks.append(running)
        running = None
    else:
        checks.append(ok("node", "stopped" if running is None else "runs, and answers"))
    is_running = running is not None
    files = await trio.to_thread.run_sync(
        lambda: list(check_files(settings, is_running=is_running))
    )
    pid = _read_pid(data_dir) if is_running else None
    machine = await trio.to_thread.run_sync(lambda: list(check_machine(settings, pid)))
    return [
        *checks,
        *files,
        *await check_chain(settings, _find_account(settings)),
        *await check_network(
            settings.network,
            None if running is None else running.peers,
            None if running is None else running.status.reach,
        ),
        *machine,
    ]


async def _ask_node(settings: NodeSettings) -> _Running | Check | None:
    """Ask the node about itself; None if there is none."""
    try:
        with trio.fail_after(ASK_SECONDS):
            async with AsyncRpcClient(settings.rpc.socket) as client:
                status = await client.call(NODE_STATUS, NoParams())
                return _Running(status=status, peers=await client.call(NODE_PEERS, NoParams()))
    except NodeUnreachable:
        return None
    except trio.TooSlowError:
        detail = f"no answer on {settings.rpc.socket} within {ASK_SECONDS:g} seconds"
        return fail("node", detail, "see d2m-node logs; restart it")
    except CallRefused as exc:
        return fail("node", str(exc), "see d2m-node logs; restart it")


def _find_account(settings: NodeSettings) -> Address | None:
    try:
        return read_keystore(settings.keys.account_file).address
    except KeyUnavailable:
        return None  # the files' check says so


def _read_pid(data_dir: Path) -> int | None:
    """Return the process that holds the data directory's lock, by its own note."""
    try:
        text = (data_dir / "lock").read_text(encoding="utf-8")[:20].strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
