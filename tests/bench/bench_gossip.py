"""What it costs to simulate gossip: all nodes' deliveries by one task, beside a task for each."""

from itertools import count

import trio

from d2m_node.ports import Verdict
from d2m_node.simulation.network.courier import check_message
from d2m_node.simulation.network.fabric import open_fabric
from d2m_node.simulation.network.links import FabricOptions, Links
from d2m_node.simulation.network.port import FabricPort
from d2m_node.simulation.world.virtual_time import run_in_virtual_time
from protocol.wire.messages import GossipMessage
from tests.bench.rows import Plan, Row, measure_in_turn
from tests.support.network import Shelf, accept, build_bitmap

TOPIC = "d2m/1/31337/market/1/votes"
OPTIONS = FabricOptions(seed=1)
PAUSE_SECONDS = 0.01
"""Between the messages of different nodes."""


def run(plan: Plan) -> list[Row]:
    """Let each node say one thing, which all others hear."""
    rows = []
    for nodes in (50, 250):
        if plan.max_values is not None and nodes**2 > plan.max_values:
            continue
        ours, other = measure_in_turn(
            {
                "one task": lambda nodes=nodes: gossip(nodes),  # type: ignore[misc]
                "a task for each": lambda nodes=nodes: gossip_by_tasks(nodes),  # type: ignore[misc]
            },
            plan.repetitions,
        )
        deliveries = nodes * (nodes - 1)
        case = f"{nodes} nodes: {deliveries} deliveries, {deliveries / ours.median:.0f} a second"
        rows.append(Row(case=case, ours=ours, others=(other,)))
    return rows


def gossip(nodes: int) -> int:
    """Gossip over the fabric; return how often a message was heard."""
    return run_in_virtual_time(_gossip, nodes, seed=1)


async def _gossip(nodes: int) -> int:
    numbers = count()

    def judge(_: GossipMessage) -> Verdict:
        next(numbers)
        return Verdict.ACCEPT

    async with open_fabric(OPTIONS) as fabric, trio.open_nursery() as nursery:
        ports: list[FabricPort] = []

        async def listen(name: bytes, *, task_status: trio.TaskStatus[None]) -> None:
            async with (
                fabric.open_port(name, Shelf()) as port,
                port.join_topic(TOPIC, judge) as heard,
            ):
                ports.append(port)
                task_status.started()
                async for _ in heard:
                    pass

        for number in range(nodes):
            await nursery.start(listen, b"node %d" % number)
        for number, port in enumerate(ports):
            await port.publish(TOPIC, build_bitmap(number))
            await trio.sleep(PAUSE_SECONDS)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    return next(numbers)


def gossip_by_tasks(nodes: int) -> int:
    """Do the same in the simplest way that trio has."""
    return run_in_virtual_time(_gossip_by_tasks, nodes, seed=1)


async def _gossip_by_tasks(nodes: int) -> int:
    numbers = count()
    links = Links(OPTIONS)
    names = [b"node %d" % number for number in range(nodes)]
    async with trio.open_nursery() as nursery:
        channels = []

        async def listen(heard: trio.MemoryReceiveChannel[GossipMessage]) -> None:
            async for _ in heard:
                pass

        async def deliver(sender: int, reader: int, message: GossipMessage) -> None:
            await trio.sleep(links.find_delay(names[sender], names[reader]))
            next(numbers)
            if accept(message) is Verdict.ACCEPT:
                await channels[reader].send(message)

        for _ in names:
            send, receive = trio.open_memory_channel[GossipMessage](1024)
            channels.append(send)
            nursery.start_soon(listen, receive)
        for sender in range(nodes):
            message = check_message(build_bitmap(sender)).message
            assert message is not None
            for reader in range(nodes):
                if reader != sender:
                    nursery.start_soon(deliver, sender, reader, message)
            await trio.sleep(PAUSE_SECONDS)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    return next(numbers)
