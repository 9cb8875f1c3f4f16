"""An in-process EVM of the Prague fork for the simulated chain: py-evm's rules, our own tables.

Transactions are not signed: whoever calls `Evm.execute` says who sends. Their cost is a
chain's: the base, the data with its floor (EIP-7623), execution from a cold start, refunds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from eth.abc import ComputationAPI
from eth.constants import CREATE_CONTRACT_ADDRESS
from eth.db.atomic import AtomicDB
from eth.exceptions import Revert, VMError
from eth.typing import JournalDBCheckpoint
from eth.vm.execution_context import ExecutionContext
from eth.vm.forks.cancun.transaction_context import CancunTransactionContext
from eth.vm.forks.prague.constants import (
    HISTORY_SERVE_WINDOW,
    HISTORY_STORAGE_ADDRESS,
    HISTORY_STORAGE_CONTRACT_CODE,
)
from eth.vm.forks.prague.state import PragueState
from eth.vm.message import Message
from eth_typing import Address as EthAddress
from eth_typing import BlockNumber as EthBlockNumber
from eth_typing import Hash32

from d2m_node.chain.deployment import predict_address
from d2m_node.simulation.chain.accounts import Accounts
from protocol.types import Address, BlockNumber, Wei

BLOCK_GAS: Final = 30_000_000
BLOCKHASH_REACH: Final = 256
_BASE_GAS: Final = 21_000
_CREATION_GAS: Final = 32_000
_ZERO_BYTE_GAS: Final = 4
_OTHER_BYTE_GAS: Final = 16
_FLOOR_PER_TOKEN: Final = 10
_REFUND_QUOTIENT: Final = 5
_EMPTY_BLOB_GAS: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockContext:
    """What a transaction can see of its block."""

    chain_id: int
    number: BlockNumber
    timestamp: int
    prevrandao: bytes
    base_fee_wei: Wei
    proposer: Address
    """Gets the tips."""
    ancestors: Sequence[bytes]
    """Hashes of the blocks before it, the parent's first, `BLOCKHASH_REACH` at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """What an account asks of the chain."""

    sender: Address
    to: Address | None
    """None where the data creates a contract."""
    value_wei: Wei
    data: bytes
    gas: int
    """Most that it may use."""
    tip_wei: Wei
    """What the proposer gets per gas, on top of the base fee."""


@dataclass(frozen=True, slots=True)
class Log:
    """What a contract said in a transaction."""

    address: Address
    topics: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """What a transaction came to."""

    gas_used: int
    """Less refunds: what is paid for."""
    gas_needed: int
    """What it must be allowed to use, refunds not counted."""
    fee_wei: Wei
    burned_wei: Wei
    """The part of the fee that nobody gets."""
    has_succeeded: bool
    output: bytes
    """What it returned; of a refusal, the revert's data."""
    failure: str | None
    """Why it failed, if the contract did not say so itself."""
    logs: tuple[Log, ...]


class _State(PragueState):
    """py-evm's state over our own tables."""

    def __init__(self, context: ExecutionContext, accounts: Accounts) -> None:
        self._db = AtomicDB()
        self.execution_context = context
        self._account_db = accounts
        self._accounts = accounts

    def snapshot(self) -> tuple[Hash32, JournalDBCheckpoint]:
        return self._accounts.state_root, self._accounts.record()

    def revert(self, snapshot: tuple[Hash32, JournalDBCheckpoint]) -> None:
        self._accounts.discard(snapshot[1])

    def commit(self, snapshot: tuple[Hash32, JournalDBCheckpoint]) -> None:
        """Keep the changes: there is nothing to do."""

    def get_transient_storage(self, address: EthAddress, slot: int) -> bytes:
        return self._accounts.get_transient(address, slot)

    def set_transient_storage(self, address: EthAddress, slot: int, value: bytes) -> None:
        self._accounts.set_transient(address, slot, value)


class Evm:
    """One chain's accounts, and the block that is being built on them."""

    def __init__(self, *, blocks_kept: int) -> None:
        """Start empty; the last ``blocks_kept`` blocks can be undone."""
        self._accounts = Accounts(blocks_kept)
        self._accounts.set_code(HISTORY_STORAGE_ADDRESS, HISTORY_STORAGE_CONTRACT_CODE)
        self._accounts.set_nonce(HISTORY_STORAGE_ADDRESS, 1)
        self._state: _State | None = None
        self._context: BlockContext | None = None

    def set_balances(self, balances: Mapping[Address, Wei]) -> None:
        """Give accounts their first ether."""
        for account, amount_wei in balances.items():
            self._accounts.set_balance(EthAddress(account), amount_wei)

    def read_balance(self, account: Address) -> Wei:
        """Return an account's ether, as of what was executed so far."""
        return Wei(self._accounts.get_balance(EthAddress(account)))

    def copy_balances(self) -> Mapping[bytes, int]:
        """Return all accounts' ether, as of now."""
        return self._accounts.copy_balances()

    def begin_block(self, context: BlockContext) -> None:
        """Start a block on top of the last closed one."""
        assert self._state is None, "a block ends before another one begins"
        self._context = context
        self._state = _State(
            ExecutionContext(
                coinbase=EthAddress(context.proposer),
                timestamp=context.timestamp,
                block_number=EthBlockNumber(context.number),
                difficulty=0,
                mix_hash=Hash32(context.prevrandao),
                gas_limit=BLOCK_GAS,
                prev_hashes=[Hash32(one) for one in context.ancestors],
                chain_id=context.chain_id,
                base_fee_per_gas=context.base_fee_wei,
                excess_blob_gas=_EMPTY_BLOB_GAS,
            ),
            self._accounts,
        )
        if context.ancestors:
            self._accounts.set_storage(
                HISTORY_STORAGE_ADDRESS,
                (context.number - 1) % HISTORY_SERVE_WINDOW,
                int.from_bytes(context.ancestors[0], "big"),
            )

    def close_block(self) -> bytes:
        """End the block; return a hash of all that it wrote."""
        self._state = self._context = None
        return self._accounts.close_block()

    def drop_block(self) -> None:
        """Take back all that was done since the last closed block."""
        self._state = self._context = None
        self._accounts.discard(JournalDBCheckpoint(0))

    def undo_block(self) -> None:
        """Take back the last closed block; none is open."""
        assert self._state is None, "a block is being built"
        self._accounts.undo_block()

    def record(self) -> JournalDBCheckpoint:
        """Return a place to which `discard` can go back within the block."""
        return self._accounts.record()

    def discard(self, checkpoint: JournalDBCheckpoint) -> None:
        """Take back all that was done in the block since a place."""
        self._accounts.discard(checkpoint)

    def execute(self, transaction: Transaction) -> Execution:
        """Execute a transaction in the open block, and charge for it.

        Its sender must hold what it sends and what it may pay for gas; `check_balance` tells.
        """
        assert self._state is not None, "transactions need a block"
        assert self._context is not None, "a block has a context"
        self._accounts.begin_transaction()
        price_wei = self._context.base_fee_wei + transaction.tip_wei
        sender = EthAddress(transaction.sender)
        self._state.increment_nonce(sender)
        computation = self._compute(transaction, price_wei)
        remaining = computation.get_gas_remaining()
        needed = transaction.gas - remaining
        refund = min(computation.get_gas_refund(), needed // _REFUND_QUOTIENT)
        floor = compute_floor(transaction.data)
        used = max(needed - refund, floor)
        self._state.delta_balance(sender, -used * price_wei)
        self._state.delta_balance(EthAddress(self._context.proposer), used * transaction.tip_wei)
        return Execution(
            gas_used=used,
            gas_needed=max(needed, floor),
            fee_wei=Wei(used * price_wei),
            burned_wei=Wei(used * self._context.base_fee_wei),
            has_succeeded=computation.is_success,
            output=bytes(computation.output),
            failure=_describe_failure(computation),
            logs=tuple(
                Log(Address(address), tuple(topic.to_bytes(32, "big") for topic in topics), data)
                for address, topics, data in computation.get_log_entries()
            ),
        )

    def _compute(self, transaction: Transaction, price_wei: int) -> ComputationAPI:
        """Run the code; what it changed stays if it succeeds."""
        state = self._state
        assert state is not None, "transactions need a block"
        sender, is_creation = EthAddress(transaction.sender), transaction.to is None
        nonce = state.get_nonce(sender) - 1
        callee = EthAddress(transaction.to or predict_address(transaction.sender, nonce))
        message = Message(
            gas=transaction.gas - compute_intrinsic_gas(transaction),
            to=CREATE_CONTRACT_ADDRESS if is_creation else callee,
            sender=sender,
            value=transaction.value_wei,
            data=b"" if is_creation else transaction.data,
            code=transaction.data if is_creation else state.get_code(callee),
            create_address=callee,
        )
        context = CancunTransactionContext(gas_price=price_wei, origin=sender)
        state.mark_address_warm(sender)
        state.mark_address_warm(callee)
        run = state.computation_class
        if is_creation:
            return run.apply_create_message(state, message, context)
        return run.apply_message(state, message, context)


def compute_intrinsic_gas(transaction: Transaction) -> int:
    """Return what a transaction costs before anything runs."""
    data = transaction.data
    zeros = data.count(0)
    gas = _BASE_GAS + _ZERO_BYTE_GAS * zeros + _OTHER_BYTE_GAS * (len(data) - zeros)
    return gas if transaction.to else gas + _CREATION_GAS


def compute_floor(data: bytes) -> int:
    """Return the least that a transaction with this data costs (EIP-7623)."""
    zeros = data.count(0)
    return _BASE_GAS + _FLOOR_PER_TOKEN * (zeros + 4 * (len(data) - zeros))


def _describe_failure(computation: ComputationAPI) -> str | None:
    if computation.is_success or isinstance(computation.error, Revert):
        return None
    assert isinstance(computation.error, VMError), "only the machine's own errors are caught"
    return f"{type(computation.error).__name__}: {computation.error}"
