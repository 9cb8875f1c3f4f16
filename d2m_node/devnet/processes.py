"""The node processes of a devnet: started, watched, stopped."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
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

CommandOf = Callable[[NodePlan], list[str]]


def node_command(plan: NodePlan) -> list[str]:
    """Return what runs a node of a devnet."""
    if plan.hostile is None:
        return ["-m", "d2m_node", "--data-dir", str(plan.folder), "run"]
    return ["-m", "d2m_node.simulation.adversaries", str(plan.folder), plan.hostile]


class Processes:
    """The nodes' processes. One that ends unasked ends the devnet, with NodeError."""

    def __init__(self, command_of: CommandOf, nursery: trio.Nursery) -> None:
        self._command_of = command_of
        self._nursery = nursery
        self._running: dict[str, trio.Process] = {}
        self._asked: set[int] = set()

    async def start(self, plan: NodePlan) -> None:
        """Start a node; it may have run, and ended, before."""
        process = await _start(plan, self._command_of(plan))
        self._running[plan.name] = process
        self._nursery.start_soon(self._watch, plan, process)

    def pid(self, name: str) -> int:
        """Return the process id of a node, as it was started last."""
        return self._running[name].pid

    def end(self, name: str, signal_number: signal.Signals) -> None:
        """Send a signal that ends a node: it is expected to end."""
        process = self._running[name]
        self._asked.add(process.pid)
        process.send_signal(signal_number)

    async def wait_ended(self, name: str) -> int:
        """Return the exit status of a node once it has ended."""
        return await self._running[name].wait()

    async def stop_all(self) -> None:
        """End every process: politely, then by force."""
        processes = list(self._running.values())
        for process in processes:
            process.terminate()
        with trio.move_on_after(STOP_SECONDS):
            for process in processes:
                await process.wait()
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def _watch(self, plan: NodePlan, process: trio.Process) -> None:
        status = await process.wait()
        if process.pid in self._asked:
            return
        text = (plan.folder / OUTPUT_NAME).read_bytes()[-TAIL_BYTES:].decode(errors="replace")
        last = text.strip().splitlines()[-1:] or ["it printed nothing"]
        raise NodeError(f"{plan.name} ended with status {status}: {last[0]}")


@asynccontextmanager
async def open_processes(
    plans: Sequence[NodePlan], command_of: CommandOf = node_command
) -> AsyncGenerator[Processes, None]:
    """Run every node while the context is open. Raises NodeError if one of them ends unasked."""
    async with trio.open_nursery() as nursery:
        processes = Processes(command_of, nursery)
        try:
            for plan in plans:
                await processes.start(plan)
            yield processes
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await processes.stop_all()


async def _start(plan: NodePlan, command: list[str]) -> trio.Process:
    output = (plan.folder / OUTPUT_NAME).open("ab")
    try:
        return await trio.lowlevel.open_process(
            [sys.executable, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **_ONE_THREAD},
            # Ctrl-C in a terminal goes to the launcher alone, which stops the nodes in order.
            start_new_session=True,
        )
    finally:
        output.close()
