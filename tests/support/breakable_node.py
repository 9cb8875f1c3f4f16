"""An ordinary node whose network stack fails at each SIGUSR1, as if by a bug in the library.

``python -m tests.support.breakable_node --data-dir DIR run``
"""

import signal

import trio

from d2m_node.cli import main
from d2m_node.network.adapter import Libp2pNetwork

_stock_run = Libp2pNetwork.run


async def _run(self: Libp2pNetwork, *, task_status: trio.TaskStatus[None]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_break_when_told, self)
        await _stock_run(self, task_status=task_status)
        nursery.cancel_scope.cancel()


async def _break_when_told(network: Libp2pNetwork) -> None:
    with trio.open_signal_receiver(signal.SIGUSR1) as signals:
        async for _ in signals:
            if network._stack is not None:
                network._stack.tasks.start_soon(_fail)


async def _fail() -> None:
    raise KeyError("a bug inside the library")


if __name__ == "__main__":
    Libp2pNetwork.run = _run  # type: ignore[method-assign]
    main()
