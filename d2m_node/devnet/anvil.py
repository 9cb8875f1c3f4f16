"""A local chain in a subprocess, for devnets and tests."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from d2m_node.chain.client import open_client
from d2m_node.chain.json_rpc import Request, RequestRefused, to_hex
from d2m_node.errors import ChainUnavailable, UserError
from protocol.types import Address, Wei

HOST = "127.0.0.1"
START_SECONDS = 20.0
STOP_SECONDS = 3.0
_POLL_SECONDS = 0.05
_BINARY_IN_ENVIRONMENT = "anvil/node_modules/@foundry-rs/anvil-*/bin/anvil"
"""Where scripts/devnet puts it; the star is the machine's kind."""


def find_anvil() -> Path:
    """Find the binary: ``D2M_ANVIL``, then this virtual environment, then PATH.

    Raises UserError that names the fix.
    """
    named = os.environ.get("D2M_ANVIL")
    if named is not None:
        if not os.access(named, os.X_OK):
            raise UserError(f"D2M_ANVIL names {named}, which is no program; correct or unset it")
        return Path(named)
    for installed in sorted(Path(sys.prefix).glob(_BINARY_IN_ENVIRONMENT)):
        if os.access(installed, os.X_OK):
            return installed
    on_path = shutil.which("anvil")
    if on_path is None:
        raise UserError(
            "anvil, the local chain, is not installed; run scripts/devnet once, "
            "or set D2M_ANVIL to its binary"
        )
    return Path(on_path)


@asynccontextmanager
async def open_anvil(
    *,
    port: int,
    chain_id: int,
    balances: Mapping[Address, Wei],
    block_seconds: float | None = 1.0,
) -> AsyncGenerator[str, None]:
    """Run a chain while the context is open; yield its url once the accounts are funded.

    Without ``block_seconds`` each transaction is mined at once, in a block of its own. Raises
    UserError if the binary is missing, the port is taken, or the chain does not start.
    """
    binary = find_anvil()
    _require_free_port(port)
    command = [str(binary), "--silent", "--host", HOST, "--port", str(port)]
    command += ["--chain-id", str(chain_id), "--accounts", "1"]
    if block_seconds is not None:
        command += ["--block-time", str(block_seconds)]
    # A session of its own: Ctrl-C in a terminal must stop the nodes before their chain.
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://{HOST}:{port}"
    try:
        await _wait_ready(process, url, balances)
        yield url
    finally:
        await _stop(process)


def _require_free_port(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port whose last connections are still closing is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as exc:
            raise UserError(
                f"port {port} for the local chain is taken; stop what uses it or choose another"
            ) from exc


async def _wait_ready(process: trio.Process, url: str, balances: Mapping[Address, Wei]) -> None:
    requests = [
        Request("anvil_setBalance", (to_hex(address), hex(amount_wei)))
        for address, amount_wei in balances.items()
    ]
    async with open_client([url]) as client:
        with trio.move_on_after(START_SECONDS):
            while process.poll() is None:
                try:
                    answers = await client.batch([Request("eth_chainId"), *requests])
                except ChainUnavailable:
                    await trio.sleep(_POLL_SECONDS)
                    continue
                for answer in answers:
                    if isinstance(answer, RequestRefused):
                        raise UserError(f"the program at {url} is no anvil: {answer}") from answer
                return
    raise UserError(f"anvil did not start (exit code {process.returncode}); run it by hand to see")


async def _stop(process: trio.Process) -> None:
    """End the process, whatever state this task is in: politely, then by force."""
    with trio.CancelScope(shield=True):
        process.terminate()
        with trio.move_on_after(STOP_SECONDS):
            await process.wait()
            return
        process.kill()
        await process.wait()
