"""The node processes of a devnet: started, watched, stopped."""

import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import trio

from d2m_node.devnet.layout import NodePlan
from d2m_node.errors import NodeError

STOP_SECONDS = 8.0
OUTPUT_NAME = "output.log"
"""What a node writes to standard error, that which comes before and after its log too."""
TAIL_BYTES = 600

# A node's numpy and torch would each take every core.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@asynccontextmanager
async def open_processes(plans: Sequence[NodePlan]) -> AsyncGenerator[None, None]:
    """Run every node while the context is open. Raises NodeError if one of them ends."""
    async with trio.open_nursery() as nursery:
        processes = []
        try:
            for plan in plans:
                process = await _start(plan)
                processes.append(process)
                nursery.start_soon(_watch, plan, process)
            yield
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await _stop_all(processes)


async def _start(plan: NodePlan) -> trio.Process:
    command = [sys.executable, "-m"]
    if plan.hostile is None:
        command += ["d2m_node", "--data-dir", str(plan.folder), "run"]
    else:
        command += ["d2m_node.simulation.adversaries", str(plan.folder), plan.hostile]
    output = (plan.folder / OUTPUT_NAME).open("ab")
    try:
        return await trio.lowlevel.open_process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **_ONE_THREAD},
            # Ctrl-C in a terminal goes to the launcher alone, which stops the nodes in order.
            start_new_session=True,
        )
    finally:
        output.close()


async def _watch(plan: NodePlan, process: trio.Process) -> None:
    status = await process.wait()
    text = (plan.folder / OUTPUT_NAME).read_bytes()[-TAIL_BYTES:].decode(errors="replace")
    last = text.strip().splitlines()[-1:] or ["it printed nothing"]
    raise NodeError(f"{plan.name} ended with status {status}: {last[0]}")


async def _stop_all(processes: Sequence[trio.Process]) -> None:
    for process in processes:
        process.terminate()
    with trio.move_on_after(STOP_SECONDS):
        for process in processes:
            await process.wait()
    for process in processes:
        if process.returncode is None:
            process.kill()
            await process.wait()
