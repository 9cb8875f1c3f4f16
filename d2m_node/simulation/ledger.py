"""The simulated chain: the real contracts in an in-process EVM, mined in virtual time.

One `Ledger` per run. Nodes see it through views (`chain_view.py`), each after its own delay. All
that happens on it follows from the calls, the order in which they came, and the seed.

A call is executed when it is sent, in the block that is being built, behind all calls that came
before it: so its sender hears at once if it would fail, as `eth_estimateGas` on the pending block
tells, and the block needs no second execution. What no longer fits into a block waits for the
next one.
"""

from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Final, NoReturn

import structlog
import trio

from d2m_node.chain.artifacts import CONTRACTS, load_artifact
from d2m_node.chain.bindings import Bindings, EncodedCall
from d2m_node.errors import ChainUnavailable
from d2m_node.ports import UNTOLD, ChainPort, TakenBack
from d2m_node.simulation.block_builder import BlockBuilder
from d2m_node.simulation.chain_blocks import MinedBlock
from d2m_node.simulation.chain_view import make_view
from d2m_node.simulation.deploying import encode_creations, predict_addresses
from d2m_node.simulation.evm import BLOCK_GAS, BLOCKHASH_REACH, BlockContext, Evm, Transaction
from d2m_node.simulation.pool import PooledCall, SentCalls
from d2m_node.simulation.screens import Outage, Screen, Tip
from protocol.events import RecordedEvent
from protocol.hashing import Domain, keccak
from protocol.market import MarketState, advance, apply_event
from protocol.params import ProtocolParams
from protocol.types import Address, BlockNumber, Wei

_DEPLOYER_WEI: Final = Wei(10**21)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checkpoint:
    """What stands after one block, besides the accounts."""

    state: MarketState
    balances: Mapping[bytes, int]
    burned_wei: int


class Ledger:
    """One chain with one market."""

    def __init__(
        self, params: ProtocolParams, balances: Mapping[Address, Wei], options: LedgerOptions
    ) -> None:
        """Deploy the contracts; more is mined while `run` does."""
        self._options = options
        self._params = params
        self._entropy = keccak(f"simulated chain {options.seed}".encode())
        self._proposer = Address(keccak(self._entropy + b"proposer")[12:])
        self._deployer = Address(keccak(self._entropy + b"deployer")[12:])
        addresses = predict_addresses(self._deployer, 0)
        self._bindings = Bindings({name: load_artifact(name) for name in CONTRACTS}, addresses)
        self._domain = Domain(options.chain_id, addresses["Market"])
        self._evm = Evm(blocks_kept=options.reorg_blocks)
        self._evm.set_balances({**balances, self._deployer: _DEPLOYER_WEI})
        self._builder = BlockBuilder(self._evm, self._bindings)
        self._blocks: list[MinedBlock] = []
        self._pooled: deque[Sequence[PooledCall]] = deque(maxlen=options.reorg_blocks)
        self._checkpoints = deque(
            [_Checkpoint(state=MarketState(), balances={}, burned_wei=0)],
            maxlen=options.reorg_blocks + 1,
        )
        self._history: list[RecordedEvent | TakenBack] = []
        self._branch = 0
        self._sent_count = 0
        self._started = self._due = trio.current_time()
        self._outages: dict[Address, Outage] = {}
        self._nursery: trio.Nursery | None = None
        self._begin()
        self._mine()
        for creation in encode_creations(addresses, params):
            self._begin()
            self.send(self._deployer, creation, key=creation.label)
            self._mine()
        self._tip = self._make_tip()
        self._screens = {0.0: Screen(self._tip, 0.0)}
        self._first_block = len(self._blocks)
        self._due += options.block_seconds
        self._begin()

    # --- what it is and holds --------------------------------------------------------------------

    @property
    def params(self) -> ProtocolParams:
        """What the contracts were deployed with."""
        return self._params

    @property
    def domain(self) -> Domain:
        """The chain id and the market."""
        return self._domain

    @property
    def options(self) -> LedgerOptions:
        """How the chain behaves."""
        return self._options

    @property
    def patience_seconds(self) -> float:
        """How long a call waits for a chain that cannot be reached."""
        return self._options.patience_seconds

    @property
    def bindings(self) -> Bindings:
        """The contracts of the deployment."""
        return self._bindings

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

    @property
    def pool_size(self) -> int:
        """How many calls are sent and not mined."""
        return self._builder.pool_size

    def balance(self, account: Address) -> Wei:
        """Return an account's ether as of the newest block."""
        return Wei(self._checkpoints[-1].balances.get(account, 0))

    def total_wei(self) -> Wei:
        """Return all ether as of the newest block, burned fees included: it never changes."""
        newest = self._checkpoints[-1]
        return Wei(sum(newest.balances.values()) + newest.burned_wei)

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
                b"".join(
                    (
                        self._entropy,
                        self._sent_count.to_bytes(8, "big"),
                        sender,
                        call.to or b"",
                        call.value_wei.to_bytes(32, "big"),
                        call.data,
                    )
                )
            ),
        )
        self._builder.offer(pooled)
        return pooled

    def set_reachable(self, account: Address, is_reachable: bool) -> None:
        """Cut an account off from the chain, or let it back."""
        if is_reachable:
            outage = self._outages.pop(account, None)
            if outage is not None:
                outage.over.set()
        elif account not in self._outages:
            tips = {screen: screen.tip for screen in self._screens.values()}
            self._outages[account] = Outage(tips)

    def find_outage(self, account: Address) -> Outage | None:
        """Return the outage that an account is in; None if it reaches the chain."""
        return self._outages.get(account)

    def delay_next_block(self, seconds: float) -> None:
        """Let the next block, and all after it, come so much later."""
        self._due += seconds
        self._rebuild()

    def reorganise(self, depth: int) -> None:
        """Replace the newest blocks by as many empty ones of another branch.

        Their calls go back to the pool, before all that came later; what failed in a way that its
        sender was told does not. Raises ValueError if the branch is not kept that deep, or reaches
        into the deployment.
        """
        deepest = min(len(self._pooled), len(self._blocks) - self._first_block)
        if not 1 <= depth <= deepest:
            raise ValueError(f"a reorganisation is 1 to {deepest} blocks deep here, not {depth}")
        pool = self._builder.abandon()
        dropped: list[MinedBlock] = []
        for _ in range(depth):
            self._evm.undo_block()
            self._checkpoints.pop()
            dropped.insert(0, self._blocks.pop())
            orphans = [call for call in self._pooled.pop() if not call.is_refused]
            pool = [*orphans, *pool]
        self._branch += 1
        self._history.append(TakenBack(self._blocks[-1].number))
        for block in dropped:
            self._begin(block.timestamp)
            self._mine()
        self._builder.restore(pool)
        self._begin()
        self._publish()

    async def wait_mined(self, number: int) -> None:
        """Return when a block is mined."""
        screen = self._screens[0.0]
        while self._blocks[-1].number < number:
            await screen.advanced.wait()

    # --- views -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def open_view(
        self, account: Address, sent: SentCalls, delay_seconds: float = 0.0
    ) -> AsyncGenerator[ChainPort, None]:
        """Show the chain to one account while the context is open.

        Blocks show ``delay_seconds`` after they are mined, and calls take as long to arrive.
        Raises ChainUnavailable if the account cannot reach the chain.
        """
        outage = self.find_outage(account)
        if outage is not None:
            with trio.move_on_after(self.patience_seconds):
                await outage.over.wait()
            if not outage.over.is_set():
                raise ChainUnavailable("no endpoint answers")
        await trio.lowlevel.checkpoint()
        yield make_view(self, account, sent, self._find_screen(delay_seconds))

    def _find_screen(self, delay_seconds: float) -> Screen:
        """Return what shows the chain after a delay."""
        screen = self._screens.get(delay_seconds)
        if screen is None:
            screen = self._screens[delay_seconds] = Screen(self._tip, delay_seconds)
            assert self._nursery is not None, "views are opened while the ledger runs"
            self._nursery.start_soon(screen.run)
        return screen

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> NoReturn:
        """Mine blocks in time until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            while True:
                await trio.sleep_until(self._due)
                if trio.current_time() < self._due:
                    continue  # it was put off meanwhile
                self._mine()
                self._due += self._options.block_seconds
                self._begin()
                self._publish()
                await trio.lowlevel.checkpoint()
        raise AssertionError("a chain is mined until its run is cancelled")

    # --- building blocks -------------------------------------------------------------------------

    def _begin(self, timestamp: int | None = None) -> None:
        """Start the next block, and execute what waits for it."""
        number = BlockNumber(len(self._blocks))
        parent = self._blocks[-1] if self._blocks else None
        newest_first = reversed(self._blocks)
        context = BlockContext(
            chain_id=self._options.chain_id,
            number=number,
            timestamp=self._plan_timestamp() if timestamp is None else timestamp,
            prevrandao=keccak(
                self._entropy + number.to_bytes(8, "big") + self._branch.to_bytes(8, "big")
            ),
            base_fee_wei=self._options.base_fee_wei,
            proposer=self._proposer,
            ancestors=[one.block_hash for one in islice(newest_first, BLOCKHASH_REACH)],
        )
        self._builder.begin(context, parent)

    def _plan_timestamp(self) -> int:
        """Say when the next block will be mined, in seconds since the epoch."""
        planned = self._options.first_timestamp + int(self._due - self._started)
        return max(planned, self._blocks[-1].timestamp + 1) if self._blocks else planned

    def _rebuild(self) -> None:
        """Start the next block anew, at another time."""
        self._builder.restore(self._builder.abandon())
        self._begin()

    def _mine(self) -> None:
        """End the block that is being built, and fold its events."""
        block, calls = self._builder.close()
        before = self._checkpoints[-1]
        state = before.state
        for recorded in block.events:
            state = apply_event(state, recorded)
        burned = sum(call.execution.burned_wei for call in calls if call.execution is not None)
        self._blocks.append(block)
        self._pooled.append(calls)
        self._checkpoints.append(
            _Checkpoint(
                state=advance(state, block.number),
                balances=self._evm.copy_balances(),
                burned_wei=before.burned_wei + burned,
            )
        )
        self._history += [one for one in block.events if not isinstance(one.event, UNTOLD)]
        for call in calls:
            if call.is_told and call.find_error() is not None:
                log.error("confirmed_call_lost", key=call.key, reason=str(call.find_error()))

    def _publish(self) -> None:
        """Show the newest block to all, each after its delay."""
        self._tip = self._make_tip()
        for screen in self._screens.values():
            screen.note(self._tip)

    def _make_tip(self) -> Tip:
        return Tip(
            block=self._blocks[-1],
            state=self.state,
            history_end=len(self._history),
            seconds=trio.current_time(),
        )


@asynccontextmanager
async def open_ledger(
    params: ProtocolParams, balances: Mapping[Address, Wei], options: LedgerOptions
) -> AsyncGenerator[Ledger, None]:
    """Deploy a market on a chain of its own, and mine while the context is open."""
    ledger = Ledger(params, balances, options)
    async with trio.open_nursery() as nursery:
        await nursery.start(ledger.run)
        yield ledger
        nursery.cancel_scope.cancel()
