"""Who sends a transaction that anyone may send.

All nodes that could send it agree on an order; the first one sends at once, the next ones only if
the chain stays silent. Nothing depends on one node, and the gas is paid once.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from d2m_node.errors import TransactionReverted
from d2m_node.ports import ChainPort
from protocol.types import BlockNumber

log = structlog.get_logger(__name__)

SILENCE_BLOCKS = 2
"""A batch's next sender waits this long for the one before it."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A node's place in the order of those who may send."""

    first_block: int
    """When the first one sends: once this block is followed."""
    rank: int
    """How many blocks after it this node does."""
    ranks: int
    """How many there are; with silence the turn comes round again after as many blocks."""


async def take_turn(
    chain: ChainPort,
    turn: Turn,
    *,
    is_done: Callable[[], bool],
    act: Callable[[], Awaitable[None]],
) -> None:
    """Act when it is this node's turn, unless it is done by then; return when it is done."""
    next_block = turn.first_block + turn.rank
    while not is_done():
        await wait_block_or(chain, next_block, is_done)
        if is_done():
            return
        try:
            await act()
        except TransactionReverted as refusal:
            log.info("transition_refused", call=refusal.call, reason=refusal.reason)
        next_block = chain.state.block_number + max(turn.ranks, 1)


@dataclass(frozen=True, slots=True)
class Window:
    """The followed blocks after which a statement can be sent."""

    first_block: int
    end_block: int
    """What is sent after this one is late."""
    spare_blocks: int = 0
    """So many before the end all that are not recorded send: a call may be taken back once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """An own signed statement that is to be on record, and how."""

    is_recorded: Callable[[], bool]
    gather: Callable[[], Awaitable[None]]
    """Asks for what others have said and gossip did not bring."""
    rank: Callable[[], int]
    """This node's place among those whose statements were heard and are not recorded."""
    send: Callable[[], Awaitable[None]]
    """Sends a batch of all of them."""
    asks_last: bool = False
    """Whether others are asked in the last block too: nothing is lost if that takes too long."""


async def land(chain: ChainPort, window: Window, statement: Statement) -> None:
    """Get a statement recorded within a window.

    Others are asked at each block but the last. Place 0 sends a batch for all at the first block,
    the next one after two blocks of silence. In the last block that is left, whoever is not
    recorded sends. Where blocks are spared it does so in each of them, but not before the first
    sender's call is mined: what that has recorded is refused before it costs anything.
    """
    last_block = window.end_block - 1
    second_block = min(window.first_block + 1, last_block)
    urgent_block = max(second_block, last_block - window.spare_blocks)
    for block in range(window.first_block, window.end_block):
        await wait_block_or(chain, block, statement.is_recorded)
        if not statement.is_recorded() and (statement.asks_last or block < urgent_block):
            await statement.gather()
        if statement.is_recorded():
            return
        turn = window.first_block + SILENCE_BLOCKS * statement.rank()
        if block >= min(turn, urgent_block):
            try:
                await statement.send()
            except TransactionReverted as refusal:
                log.info("batch_refused", call=refusal.call, reason=refusal.reason)


async def wait_block_or(chain: ChainPort, block: int, is_done: Callable[[], bool]) -> None:
    """Return when ``block`` is followed or ``is_done``."""
    await chain.wait_for(
        lambda state: True if state.block_number >= BlockNumber(block) or is_done() else None
    )
