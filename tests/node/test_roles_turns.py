"""Who sends a transaction that anyone may send."""

from collections.abc import Callable
from typing import TypeVar

import trio
import trio.testing

from d2m_node.errors import TransactionReverted
from d2m_node.roles.turns import Statement, Turn, Window, land, take_turn
from protocol.market import MarketState
from protocol.types import BlockNumber

Found = TypeVar("Found")


class GrowingChain:
    """A chain whose head moves only when the test says so."""

    def __init__(self) -> None:
        self.state = MarketState()
        self._grown = trio.Event()

    async def grow(self) -> None:
        self.state = MarketState(block_number=BlockNumber(self.state.block_number + 1))
        self._grown.set()
        self._grown = trio.Event()
        await trio.testing.wait_all_tasks_blocked()

    async def wait_for(self, find: Callable[[MarketState], Found | None]) -> Found:
        while (found := find(self.state)) is None:
            await self._grown.wait()
        return found


class Sender:
    """Records in which block it was asked to send."""

    def __init__(self, chain: GrowingChain, refusals: int = 0) -> None:
        self.chain = chain
        self.blocks: list[int] = []
        self.gathered: list[int] = []
        self.refusals = refusals
        self.is_done = False

    async def send(self) -> None:
        self.blocks.append(self.chain.state.block_number)
        if len(self.blocks) <= self.refusals:
            raise TransactionReverted("tally", "rounds: too early")
        self.is_done = True


async def drive(chain: GrowingChain, blocks: int) -> None:
    await trio.testing.wait_all_tasks_blocked()
    for _ in range(blocks):
        await chain.grow()


async def test_the_first_in_rank_sends_at_once_and_the_next_a_block_later() -> None:
    for rank, expected in ((0, 3), (1, 4)):
        chain = GrowingChain()
        sender = Sender(chain)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda sender=sender, chain=chain, rank=rank: take_turn(
                    chain, Turn(3, rank, 5), is_done=lambda: sender.is_done, act=sender.send
                )
            )
            await drive(chain, 8)
        assert sender.blocks == [expected]


async def test_nobody_sends_what_is_done() -> None:
    chain = GrowingChain()
    sender = Sender(chain)
    sender.is_done = True
    await take_turn(chain, Turn(3, 0, 5), is_done=lambda: sender.is_done, act=sender.send)
    assert sender.blocks == []


async def test_a_refused_sender_tries_again_when_its_turn_comes_round() -> None:
    chain = GrowingChain()
    sender = Sender(chain, refusals=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            lambda: take_turn(chain, Turn(2, 0, 3), is_done=lambda: sender.is_done, act=sender.send)
        )
        await drive(chain, 8)
    assert sender.blocks == [2, 5]


def make_statement(sender: Sender, rank: int) -> Statement:
    async def gather() -> None:
        sender.gathered.append(sender.chain.state.block_number)

    return Statement(
        is_recorded=lambda: sender.is_done, gather=gather, rank=lambda: rank, send=sender.send
    )


async def test_others_are_asked_at_each_block_before_anything_is_sent() -> None:
    chain = GrowingChain()
    sender = Sender(chain)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: land(chain, Window(2, 6), make_statement(sender, rank=1)))
        await drive(chain, 8)
    assert (sender.gathered, sender.blocks) == ([2, 3, 4], [4])


async def test_nobody_is_asked_for_what_is_recorded_already() -> None:
    chain = GrowingChain()
    sender = Sender(chain)
    sender.is_done = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: land(chain, Window(2, 6), make_statement(sender, rank=0)))
        await drive(chain, 8)
    assert (sender.gathered, sender.blocks) == ([], [])


async def test_nobody_is_asked_in_the_last_block() -> None:
    chain = GrowingChain()
    sender = Sender(chain)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: land(chain, Window(2, 4), make_statement(sender, rank=7)))
        await drive(chain, 8)
    assert (sender.gathered, sender.blocks) == ([2], [3])


async def test_whoever_is_not_recorded_sends_in_the_last_block_left() -> None:
    chain = GrowingChain()
    sender = Sender(chain)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            lambda: land(
                chain,
                Window(2, 6),
                make_statement(sender, rank=7),
            )
        )
        await drive(chain, 8)
    assert sender.blocks == [5], "a transaction sent after block 5 is in block 6, the last one"


async def test_the_lowest_rank_sends_for_all_at_the_first_block() -> None:
    chain = GrowingChain()
    sender = Sender(chain)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            lambda: land(
                chain,
                Window(2, 6),
                make_statement(sender, rank=0),
            )
        )
        await drive(chain, 8)
    assert sender.blocks == [2]


async def list_sends(window: Window, rank: int) -> list[int]:
    """Return after which blocks a node sends if every call of its is refused."""
    chain = GrowingChain()
    sender = Sender(chain, refusals=99)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: land(chain, window, make_statement(sender, rank)))
        await drive(chain, window.end_block)
    return sender.blocks


async def test_where_blocks_are_spared_all_send_so_many_earlier() -> None:
    assert await list_sends(Window(2, 10), 7) == [9]
    assert await list_sends(Window(2, 10, spare_blocks=2), 7) == [7, 8, 9]


async def test_even_then_the_first_sender_gets_its_time() -> None:
    assert await list_sends(Window(2, 6, spare_blocks=5), 7) == [3, 4, 5]
    assert await list_sends(Window(2, 4, spare_blocks=5), 7) == [3]
    assert await list_sends(Window(2, 2, spare_blocks=5), 7) == []
