"""The simulated chain without its time: blocks are mined and undone when its owner says so.

A call is executed when it is sent, in the block that is being built, behind all calls that came
before it. So its sender hears at once if it would fail, as `eth_estimateGas` on the pending block
tells, and mining needs no second execution.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import structlog

from d2m_node.chain.bindings import EncodedCall
from d2m_node.ports import UNTOLD, TakenBack
from d2m_node.simulation.chain.block_builder import BlockBuilder
from d2m_node.simulation.chain.blocks import MinedBlock
from d2m_node.simulation.chain.deploying import load_token, plan_market
from d2m_node.simulation.chain.evm import (
    BLOCK_GAS,
    BLOCKHASH_REACH,
    BlockContext,
    Evm,
    Execution,
    Transaction,
)
from d2m_node.simulation.chain.pool import PooledCall
from protocol.events import RecordedEvent
from protocol.hashing import keccak
from protocol.market import MarketState, advance, apply_event
from protocol.params import ProtocolParams
from protocol.types import NO_ACCOUNT, Address, BlockNumber, Wei

_DEPLOYER_WEI: Final = Wei(10**24)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerOptions:
    """How the simulated chain behaves."""

    seed: int
    chain_id: int = 31337
    block_seconds: float = 1.0
    base_fee_wei: Wei = Wei(10**9)
    """Of every block: gas has one price, so that runs can be compared."""
    tip_wei: Wei = Wei(10**9)
    patience_seconds: float = 60.0
    """How long a call waits for a chain that cannot be reached."""
    reorg_blocks: int = 64
    """How deep a reorganisation may be."""
    first_timestamp: int = 1_800_000_000
    """Of the genesis, in seconds since the epoch."""
    tokens: Mapping[Address, int] = field(default_factory=dict)
    """By account, what it has of an ERC-20 token; without any there is no token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checkpoint:
    """What stands after one block, besides the accounts."""

    state: MarketState
    balances: Mapping[bytes, int]
    tokens: Mapping[bytes, int]
    burned_wei: int
    history_end: int
    """How many entries of the history led to it."""


_NOTHING = _Checkpoint(state=MarketState(), balances={}, tokens={}, burned_wei=0, history_end=0)


class Blockchain:
    """One chain with one market. There is always a block being built."""

    def __init__(
        self, params: ProtocolParams, balances: Mapping[Address, Wei], options: LedgerOptions
    ) -> None:
        """Deploy the contracts, in the chain's first blocks."""
        self._options = options
        self._entropy = keccak(f"simulated chain {options.seed}".encode())
        self._proposer = Address(keccak(self._entropy + b"proposer")[12:])
        deployer = Address(keccak(self._entropy + b"deployer")[12:])
        plan = plan_market(deployer, params, options.tokens)
        self.params = plan.params
        self.bindings = plan.bindings
        self._evm = Evm(blocks_kept=options.reorg_blocks)
        self._evm.set_balances({**balances, deployer: _DEPLOYER_WEI})
        self._builder = BlockBuilder(self._evm, plan.bindings)
        self._blocks: list[MinedBlock] = []
        self._pooled: deque[Sequence[PooledCall]] = deque(maxlen=options.reorg_blocks)
        self._checkpoints = deque([_NOTHING], maxlen=options.reorg_blocks + 1)
        self._history: list[RecordedEvent | TakenBack] = []
        self._branch = 0
        self._sent_count = 0
        self._begin(options.first_timestamp)
        self.mine()
        for call in plan.calls:
            self.send(deployer, call, key=call.label)
            self.mine()
        self._first_block = len(self._blocks)

    # --- what it holds ---------------------------------------------------------------------------

    @property
    def state(self) -> MarketState:
        """The fold of all events up to the newest block."""
        return self._checkpoints[-1].state

    @property
    def blocks(self) -> Sequence[MinedBlock]:
        """All blocks of the branch that holds: a block's place is its number."""
        return self._blocks

    @property
    def history(self) -> Sequence[RecordedEvent | TakenBack]:
        """All that nodes are told, in the order in which it was mined."""
        return self._history

    def look_back(self, depth: int) -> tuple[MarketState, int]:
        """Return the state so many blocks ago, and how many entries of the history led to it."""
        checkpoint = self._checkpoints[-1 - depth]
        return checkpoint.state, checkpoint.history_end

    @property
    def balances(self) -> Mapping[bytes, int]:
        """Each account's ether in wei, as of the newest block."""
        return self._checkpoints[-1].balances

    @property
    def tokens(self) -> Mapping[bytes, int]:
        """What each account has of the token, as of the newest block."""
        return self._checkpoints[-1].tokens

    @property
    def burned_wei(self) -> int:
        """What was paid in base fees, which nobody gets, up to the newest block."""
        return self._checkpoints[-1].burned_wei

    @property
    def pool_size(self) -> int:
        """How many calls are sent and not mined."""
        return self._builder.pool_size

    @property
    def deepest_reorganisation(self) -> int:
        """How many blocks can be replaced: none of the deployment, and no more than are kept."""
        return min(len(self._pooled), len(self._blocks) - self._first_block)

    # --- what happens to it ----------------------------------------------------------------------

    def send(self, sender: Address, call: EncodedCall, *, key: str) -> PooledCall:
        """Put a call into the pool; it is mined whatever becomes of its sender.

        Raises TransactionReverted if it would fail behind all calls that came before it.
        """
        self._sent_count += 1
        pooled = PooledCall(
            key=key,
            label=call.label,
            transaction=Transaction(
                sender=sender,
                to=call.to,
                value_wei=call.value_wei,
                data=call.data,
                gas=BLOCK_GAS,
                tip_wei=self._options.tip_wei,
            ),
            transaction_hash=keccak(
                self._entropy + self._sent_count.to_bytes(8, "big") + sender + call.data
            ),
        )
        self._builder.offer(pooled)
        return pooled

    def mine(self, next_timestamp: int = 0) -> None:
        """End the block that is being built, fold its events, and begin the next one.

        That has the time ``next_timestamp``, or one that is later than its parent's.
        """
        block, calls = self._builder.close()
        before = self._checkpoints[-1]
        state = before.state
        for recorded in block.events:
            state = apply_event(state, recorded)
        executions = [call.execution for call in calls if call.execution is not None]
        self._history += [one for one in block.events if not isinstance(one.event, UNTOLD)]
        checkpoint = _Checkpoint(
            state=advance(state, block.number),
            balances=self._evm.copy_balances(),
            tokens=_move_tokens(before.tokens, self.params.token, executions),
            burned_wei=before.burned_wei + sum(one.burned_wei for one in executions),
            history_end=len(self._history),
        )
        self._blocks.append(block)
        self._pooled.append(calls)
        self._checkpoints.append(checkpoint)
        for call in calls:
            if call.is_refused:
                log.error("confirmed_call_lost", key=call.key, reason=str(call.find_error()))
        self._begin(max(next_timestamp, block.timestamp + 1))

    def retime(self, timestamp: int) -> None:
        """Let the block that is being built have another time, later than its parent's."""
        timestamp = max(timestamp, self._blocks[-1].timestamp + 1)
        if timestamp != self._builder.context.timestamp:
            self._builder.restore(self._builder.abandon())
            self._begin(timestamp)

    def reorganise(self, depth: int) -> None:
        """Replace the newest blocks by as many empty ones of another branch.

        Their calls go back to the pool, before all that came later. What failed, and whose sender
        was told so, does not. Raises ValueError if there are too few blocks since the deployment,
        or the chain does not keep as many.
        """
        deepest = self.deepest_reorganisation
        if not 1 <= depth <= deepest:
            raise ValueError(f"a reorganisation is 1 to {deepest} blocks deep here, not {depth}")
        timestamp = self._builder.context.timestamp
        pool = self._builder.abandon()
        dropped: list[MinedBlock] = []
        for _ in range(depth):
            self._evm.undo_block()
            self._checkpoints.pop()
            dropped.append(self._blocks.pop())
            pool = [call for call in self._pooled.pop() if not call.is_refused] + pool
        self._branch += 1
        self._history.append(TakenBack(self._blocks[-1].number))
        for block in reversed(dropped):
            self._begin(block.timestamp)
            self.mine()
            self._builder.abandon()
        self._builder.restore(pool)
        self._begin(timestamp)

    def _begin(self, timestamp: int) -> None:
        """Start the next block, and execute what waits for it."""
        number = BlockNumber(len(self._blocks))
        place = number.to_bytes(8, "big") + self._branch.to_bytes(8, "big")
        context = BlockContext(
            chain_id=self._options.chain_id,
            number=number,
            timestamp=timestamp,
            prevrandao=keccak(self._entropy + place),
            base_fee_wei=self._options.base_fee_wei,
            proposer=self._proposer,
            ancestors=[one.block_hash for one in islice(reversed(self._blocks), BLOCKHASH_REACH)],
        )
        self._builder.begin(context, self._blocks[-1] if self._blocks else None)


def _move_tokens(
    tokens: Mapping[bytes, int], token: Address, executions: Iterable[Execution]
) -> Mapping[bytes, int]:
    """Follow a token's transfers; the empty account is where tokens come from, and burn."""
    topic = load_token().events["Transfer"].topic
    transfers = [
        log
        for execution in executions
        for log in execution.logs
        if log.address == token and log.topics[0] == topic
    ]
    if not transfers:
        return tokens
    after = dict(tokens)
    for one in transfers:
        amount = int.from_bytes(one.data, "big")
        for party, change in ((one.topics[1][12:], -amount), (one.topics[2][12:], amount)):
            if party != NO_ACCOUNT:
                after[party] = after.get(party, 0) + change
    return after
