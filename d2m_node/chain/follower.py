"""Confirmed blocks, folded into the state of the market; survives reorganisations.

The follower asks for the newest block. Near the tip it walks block by block, checks that each
names its parent, and asks for the logs of a block by its hash, and only if the block's bloom says
that there may be some: what it folds then belongs to one chain, whatever the endpoint does
between two answers. Far from the tip it asks for logs in ranges.

When the chain turns, the follower goes back to the last block that both branches share, and folds
the new branch. Whoever reads the state sees the old one until the new branch is as high, or ends:
what both branches say is never gone in between.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NoReturn, TypeVar

import structlog
import trio

from d2m_node.chain.archivist import Archivist
from d2m_node.chain.bindings import Bindings
from d2m_node.chain.blocks import (
    Block,
    Header,
    compute_bloom_masks,
    may_hold_logs,
    parse_block,
    parse_header,
)
from d2m_node.chain.client import RpcClient
from d2m_node.chain.endpoint import AnswerTooLarge
from d2m_node.chain.history import History
from d2m_node.chain.json_rpc import Json, Request, RequestRefused, to_hex
from d2m_node.errors import ChainUnavailable
from d2m_node.retry import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS
from d2m_node.settings import ChainSettings
from d2m_node.transaction_store import BlockId
from protocol.events import RecordedEvent
from protocol.market import MarketState, advance, apply_event
from protocol.types import BlockNumber

Found = TypeVar("Found")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Checkpoint:
    """The market after one block."""

    number: BlockNumber
    block_hash: bytes | None
    """None before the first block that was followed."""
    state: MarketState


class Follower:
    """Follows one market."""

    def __init__(
        self,
        client: RpcClient,
        bindings: Bindings,
        settings: ChainSettings,
        archivist: Archivist | None = None,
    ) -> None:
        """Start before the block of the deployment. Without an archivist no job leaves the state.

        What it has kept must be dropped before.
        """
        self._client = client
        self._bindings = bindings
        self._settings = settings
        self._archivist = archivist
        before = BlockNumber(max(settings.deployment_block - 1, 0))
        self._origin = _Checkpoint(before, None, advance(MarketState(), before))
        self._checkpoints = deque([self._origin], maxlen=settings.reorg_blocks + 1)
        self._shown = self._origin.state
        self._history = History()
        self._shown_hashes: dict[int, bytes] = {}
        self._range_blocks = settings.range_blocks
        self._masks = compute_bloom_masks(bindings.addresses)
        self._advanced = trio.Event()
        self.head_number = before
        """The newest block that an endpoint named."""
        self.reorganisations = 0
        """How often the chain turned since the start."""

    @property
    def state(self) -> MarketState:
        """The fold of all events up to its ``block_number``."""
        return self._shown

    @property
    def history(self) -> History:
        """The newest events that led to the state."""
        return self._history

    def is_followed(self, block: BlockId) -> bool | None:
        """Tell whether the state includes a block; None if it is too old to be remembered."""
        if block.number > self._shown.block_number:
            return False
        if block.number not in self._shown_hashes:
            return None
        return self._shown_hashes[block.number] == block.block_hash

    async def run(self) -> NoReturn:
        """Follow the chain until cancelled; while it is unavailable, keep asking.

        Raises FatalError if the jobs that are over cannot be kept.
        """
        if self._archivist is not None:
            self._archivist.watch()
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                while await self.follow():
                    pass
            except ChainUnavailable as exc:
                log.warning("chain_unavailable", reason=str(exc))
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            else:
                pause = FIRST_PAUSE_SECONDS
                await trio.sleep(self._settings.poll_seconds)

    async def follow(self) -> bool:
        """Follow a bounded number of new blocks; return whether there may be more.

        Raises ChainUnavailable; what was followed so far stays.
        """
        head = parse_block(await self._client.call("eth_getBlockByNumber", "latest", False))
        self.head_number = head.number
        cursor = self._checkpoints[-1]
        target = head.number - self._settings.confirmations
        if target - cursor.number > 2 * self._settings.reorg_blocks:
            await self._follow_range(target - self._settings.reorg_blocks)
            return True
        if target > cursor.number:
            is_more = await self._follow_tip(head, target)
        else:
            is_more = await self._check_tip(head)
        if not is_more and self._checkpoints[-1].state is not self._shown:
            await self._show()  # the branch that the chain turned to ends below the old one
        return is_more

    async def wait_block(self, number: int) -> None:
        """Return when block ``number`` has been followed."""
        await self.wait_for(lambda state: True if state.block_number >= number else None)

    async def wait_for(self, find: Callable[[MarketState], Found | None]) -> Found:
        """Return the first result of ``find`` that is not None, asked after every block."""
        while True:
            # Taken before asking: a block that comes meanwhile is not missed.
            advanced = self._advanced
            found = find(self.state)
            if found is not None:
                return found
            await advanced.wait()

    async def read_header(self, number: int) -> Header:
        """Read the header of a followed block. Raises ChainUnavailable."""
        if number > self.state.block_number:
            raise ChainUnavailable(f"block {number} has not been followed yet")
        header = parse_header(await self._client.call("eth_getBlockByNumber", hex(number), False))
        if self.is_followed(BlockId(BlockNumber(number), header.block_hash)) is False:
            raise ChainUnavailable(f"block {number} is no longer the one that was followed")
        return header

    async def _follow_range(self, target: int) -> None:
        """Fold the logs of a range, up to ``target`` at most: too deep to be reorganised."""
        cursor = self._checkpoints[-1]
        first, last = cursor.number + 1, min(cursor.number + self._range_blocks, target)
        log_filter = {
            "address": [to_hex(address) for address in self._bindings.addresses],
            "fromBlock": hex(first),
            "toBlock": hex(last),
        }
        try:
            cursor_answer, last_answer, logs = await self._ask(
                Request("eth_getBlockByNumber", (hex(cursor.number), False)),
                Request("eth_getBlockByNumber", (hex(last), False)),
                Request("eth_getLogs", (log_filter,)),
            )
        except (RequestRefused, AnswerTooLarge) as exc:
            self._narrow_range(last - first + 1, exc)
            return
        # While this node or its endpoint was away, the chain may have turned below the cursor.
        if cursor.block_hash not in (None, parse_block(cursor_answer).block_hash):
            await self._rewind()
            return
        end, events = _parse_numbered(last_answer, last), self._decode(logs, first, last)
        while len(self._checkpoints) > 1:  # all that lies below the cursor is too deep, too
            self._checkpoints.popleft()
        await self._extend(end, events)
        self._range_blocks = min(
            self._settings.range_blocks, self._range_blocks + self._range_blocks // 8 + 1
        )
        log.info("chain_history_read", block=last, target=target)

    def _narrow_range(self, refused: int, refusal: RequestRefused | AnswerTooLarge) -> None:
        """Ask for half as many blocks; raise the refusal if it was for one block only.

        Endpoints limit ranges and answers, each in its own words: any refusal may mean that.
        """
        if refused == 1:
            raise refusal
        self._range_blocks = refused // 2
        log.info("log_range_narrowed", blocks=self._range_blocks, reason=str(refusal))

    async def _follow_tip(self, head: Block, target: int) -> bool:
        """Follow block by block up to ``target``; rewind if the chain turned elsewhere."""
        cursor = self._checkpoints[-1]
        blocks = await self._read_blocks(cursor.number + 1, target, head)
        if cursor.block_hash not in (None, blocks[0].parent_hash):
            await self._rewind()
            return True
        for parent, child in pairwise(blocks):
            if child.parent_hash != parent.block_hash:
                raise ChainUnavailable("the chain turned while it was read")
        candidates = [block for block in blocks if may_hold_logs(block, self._masks)]
        answers = await self._ask(*(self._request_logs(block) for block in candidates))
        logs = {block.number: logs for block, logs in zip(candidates, answers, strict=True)}
        for block in blocks:
            events = self._decode(logs.get(block.number, []), block.number, block.number)
            await self._extend(block, events)
        return False

    async def _check_tip(self, head: Block) -> bool:
        """Look for a reorganisation that made the chain no longer.

        An endpoint that lags behind shows a block that we have followed; that is no turn.
        """
        for checkpoint in self._checkpoints:
            if checkpoint.number != head.number or checkpoint.block_hash is None:
                continue
            if checkpoint.block_hash != head.block_hash:
                await self._rewind()
                return True
        return False

    async def _rewind(self) -> None:
        """Go back to the last block that is still on the chain, or to the beginning."""
        kept = [one for one in self._checkpoints if one.block_hash is not None]
        answers = await self._client.batch(
            [Request("eth_getBlockByNumber", (hex(one.number), False)) for one in kept]
        )
        survivors = [
            checkpoint
            for checkpoint, answer in zip(kept, answers, strict=True)
            if isinstance(answer, dict) and answer.get("hash") == _hash_of(checkpoint)
        ]
        if len(survivors) == len(kept):
            raise ChainUnavailable("the endpoint contradicts itself about the chain's last blocks")
        if not survivors:
            await self._drop_past()
        last = survivors[-1] if survivors else self._origin
        self.reorganisations += 1
        log.warning("chain_reorganised", from_block=kept[-1].number, to_block=last.number)
        self._checkpoints.clear()
        self._checkpoints.extend(survivors or [self._origin])
        self._history.take_back(last.number)

    async def _read_blocks(self, first: int, last: int, head: Block) -> list[Block]:
        """Read a short stretch of blocks; the head is at hand already."""
        numbers = [number for number in range(first, last + 1) if number != head.number]
        answers = await self._ask(
            *(Request("eth_getBlockByNumber", (hex(number), False)) for number in numbers)
        )
        blocks = [
            _parse_numbered(answer, number) for number, answer in zip(numbers, answers, strict=True)
        ]
        return [*blocks, head] if last == head.number else blocks

    def _request_logs(self, block: Block) -> Request:
        addresses = [to_hex(address) for address in self._bindings.addresses]
        return Request(
            "eth_getLogs", ({"address": addresses, "blockHash": to_hex(block.block_hash)},)
        )

    async def _ask(self, *batch: Request) -> list[Json]:
        """Make several requests none of which may be refused."""
        if not batch:
            return []
        answers = await self._client.batch(batch)
        for answer in answers:
            if isinstance(answer, RequestRefused):
                raise answer
        return answers

    def _decode(self, logs: Json, first: int, last: int) -> Sequence[RecordedEvent]:
        """Decode logs into events in the order of the chain."""
        if not isinstance(logs, list):
            raise ChainUnavailable("the answer to eth_getLogs is no list")
        events = [self._bindings.decode_log(entry) for entry in logs]
        if not all(first <= recorded.block_number <= last for recorded in events):
            raise ChainUnavailable("the endpoint gave logs of blocks that were not asked for")
        events.sort(key=_place_of)
        if any(_place_of(one) == _place_of(after) for one, after in pairwise(events)):
            raise ChainUnavailable("the endpoint gave a log twice")
        return events

    async def _extend(self, block: Block, events: Sequence[RecordedEvent]) -> None:
        """Fold events and step to ``block``; show it unless the state is of a higher one."""
        state = self._checkpoints[-1].state
        if self._archivist is not None:
            state = await self._archivist.bring_back_late(state, events)
        try:
            for recorded in events:
                state = apply_event(state, recorded)
        except (AssertionError, KeyError, ValueError) as exc:
            # The contracts write no such history: the endpoint left something out, now or before.
            await self._drop_past()
            self._checkpoints.clear()
            self._checkpoints.append(self._origin)
            self._history.take_back(self._origin.number)
            self._client.distrust_endpoint()
            raise ChainUnavailable(f"the logs of block {block.number} do not fit: {exc!r}") from exc
        state = advance(state, block.number)
        if self._archivist is not None:
            deepest = self._checkpoints[0].number
            state = await self._archivist.let_go_of_past(state, deepest)
        self._checkpoints.append(_Checkpoint(block.number, block.block_hash, state))
        self._history.add(events)
        if block.number >= self._shown.block_number:
            await self._show()

    async def _drop_past(self) -> None:
        """Forget the jobs that were let go of, before the chain is followed from the beginning."""
        if self._archivist is not None:
            await self._archivist.drop_all()

    async def _show(self) -> None:
        """Let those who wait look at the newest state."""
        self._shown = self._checkpoints[-1].state
        if self._archivist is not None:
            self._archivist.note_shown(self._shown)
        self._history.publish()
        self._shown_hashes = {
            one.number: one.block_hash for one in self._checkpoints if one.block_hash is not None
        }
        self._advanced.set()
        self._advanced = trio.Event()
        # Twice: after one, this task might run before those that it has just woken.
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()


def _parse_numbered(answer: Json, number: int) -> Block:
    """Read the block that was asked for. Raises ChainUnavailable if it is another."""
    block = parse_block(answer)
    if block.number != number:
        raise ChainUnavailable(f"the endpoint gave block {block.number} instead of {number}")
    return block


def _place_of(recorded: RecordedEvent) -> tuple[int, int]:
    return recorded.block_number, recorded.log_index


def _hash_of(checkpoint: _Checkpoint) -> str | None:
    return None if checkpoint.block_hash is None else to_hex(checkpoint.block_hash)
