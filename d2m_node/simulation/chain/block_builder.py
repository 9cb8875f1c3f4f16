"""The block that is being built: calls are executed as they come, and wait where it is full."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from d2m_node.chain.bindings import Bindings
from d2m_node.chain.json_rpc import to_hex
from d2m_node.errors import TransactionReverted
from d2m_node.simulation.chain.blocks import BlockContent, MinedBlock, MinedCall, encode_header
from d2m_node.simulation.chain.evm import BLOCK_GAS, BlockContext, Evm, Execution
from d2m_node.simulation.chain.pool import PooledCall, explain_failure
from protocol.events import RecordedEvent
from protocol.hashing import keccak

_GAS_HEADROOM: Final = (3, 2)
"""What the chain adapter lets a call use, above what it needed when it was simulated."""
_BASE_FEE_HEADROOM: Final = 2
"""What it lets the base fee grow by, when it asks whether the account can pay."""


@dataclass(slots=True)
class _Open:
    """One block before it is closed."""

    context: BlockContext
    parent: MinedBlock | None
    calls: list[PooledCall]
    gas_used: int = 0
    is_full: bool = False


class BlockBuilder:
    """Builds one block after another.

    A call is executed when it is offered, behind all calls that came before it. What no longer
    fits into the block, and what comes after that, waits for the next one.
    """

    def __init__(self, evm: Evm, bindings: Bindings) -> None:
        self._evm = evm
        self._bindings = bindings
        self._followed = frozenset(bindings.addresses)
        self._open: _Open | None = None
        self._waiting: list[PooledCall] = []

    @property
    def context(self) -> BlockContext:
        """What calls see of the block that is being built."""
        return self._block.context

    @property
    def pool_size(self) -> int:
        """How many calls were offered and are in no closed block."""
        return len(self._block.calls) + len(self._waiting)

    @property
    def _block(self) -> _Open:
        assert self._open is not None, "there is always a block being built"
        return self._open

    def begin(self, context: BlockContext, parent: MinedBlock | None) -> None:
        """Start a block, and execute what waits."""
        self._evm.begin_block(context)
        self._open = _Open(context, parent, [])
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            self._include(call)

    def offer(self, call: PooledCall) -> None:
        """Take a call into the pool.

        Raises TransactionReverted if it would fail behind all that is in the block, or its account
        cannot pay.
        """
        checkpoint = self._evm.record()
        try:
            execution = self._simulate(call)
        except TransactionReverted:
            self._evm.discard(checkpoint)
            raise
        numerator, denominator = _GAS_HEADROOM
        gas = min(execution.gas_needed * numerator // denominator, BLOCK_GAS)
        call.transaction = replace(call.transaction, gas=gas)
        if self._has_room(call):
            self._add(call, execution)
        else:
            self._evm.discard(checkpoint)
            self._waiting.append(call)

    def close(self) -> tuple[MinedBlock, Sequence[PooledCall]]:
        """End the block; return it, and the calls in it."""
        block, self._open = self._block, None
        writes = self._evm.close_block()
        executions = [call.execution for call in block.calls]
        content = BlockContent(
            transaction_hashes=[call.transaction_hash for call in block.calls],
            logs=[log for one in executions if one is not None for log in one.logs],
            writes=writes,
            gas_used=block.gas_used,
        )
        header = encode_header(block.parent, block.context, content)
        mined = MinedBlock(
            number=block.context.number,
            block_hash=keccak(header),
            timestamp=block.context.timestamp,
            header=header,
            prevrandao=block.context.prevrandao,
            parent=block.parent,
            calls=tuple(_describe(call) for call in block.calls),
            events=self._decode(block),
        )
        for call in block.calls:
            call.block = mined
        return mined, block.calls

    def abandon(self) -> list[PooledCall]:
        """Take the block back; return the calls of the pool in their order."""
        calls = [*self._block.calls, *self._waiting]
        self._evm.drop_block()
        self._open = None
        self._waiting = []
        return calls

    def restore(self, calls: Iterable[PooledCall]) -> None:
        """Let calls that were sent before wait for the next block."""
        for call in calls:
            call.execution = call.block = None
            self._waiting.append(call)

    def _simulate(self, call: PooledCall) -> Execution:
        """Execute a call with all the gas of a block. Raises TransactionReverted."""
        transaction, context = call.transaction, self._block.context
        balance = self._evm.read_balance(transaction.sender)
        if balance < transaction.value_wei:
            raise _too_poor(call, balance, transaction.value_wei)
        execution = self._evm.execute(transaction)
        error = explain_failure(call.label, execution)
        if error is not None:
            raise error
        numerator, denominator = _GAS_HEADROOM
        price = _BASE_FEE_HEADROOM * context.base_fee_wei + transaction.tip_wei
        cost = transaction.value_wei + execution.gas_needed * numerator // denominator * price
        if balance < cost:
            raise _too_poor(call, balance, cost)
        return execution

    def _include(self, call: PooledCall) -> None:
        """Execute a call that was sent before; it may fail now, or wait for another block."""
        transaction = call.transaction
        price = self._block.context.base_fee_wei + transaction.tip_wei
        cost = transaction.value_wei + transaction.gas * price
        balance = self._evm.read_balance(transaction.sender)
        if balance >= cost and self._has_room(call):
            self._add(call, self._evm.execute(transaction))
        else:
            self._waiting.append(call)

    def _has_room(self, call: PooledCall) -> bool:
        """Tell whether a call fits; once one does not, the block is full."""
        block = self._block
        if block.gas_used + call.transaction.gas > BLOCK_GAS:
            block.is_full = True
        return not block.is_full

    def _add(self, call: PooledCall, execution: Execution) -> None:
        call.execution = execution
        self._block.calls.append(call)
        self._block.gas_used += execution.gas_used

    def _decode(self, block: _Open) -> tuple[RecordedEvent, ...]:
        """Read the events of a block out of its logs."""
        places = [
            (call, log)
            for call in block.calls
            if call.execution is not None
            for log in call.execution.logs
        ]
        return tuple(
            self._bindings.decode_log(
                {
                    "address": to_hex(log.address),
                    "topics": [to_hex(topic) for topic in log.topics],
                    "data": to_hex(log.data),
                    "blockNumber": hex(block.context.number),
                    "logIndex": hex(index),
                    "transactionHash": to_hex(call.transaction_hash),
                }
            )
            for index, (call, log) in enumerate(places)
            if log.address in self._followed
        )


def _describe(call: PooledCall) -> MinedCall:
    execution = call.execution
    assert execution is not None, "what is in a block was executed"
    return MinedCall(
        sender=call.sender,
        name=call.label,
        key=call.key,
        transaction_hash=call.transaction_hash,
        data_bytes=len(call.transaction.data),
        gas_used=execution.gas_used,
        fee_wei=execution.fee_wei,
        is_reverted=not execution.has_succeeded,
    )


def _too_poor(call: PooledCall, balance: int, cost: int) -> TransactionReverted:
    return TransactionReverted(
        call.label, f"the account holds {balance} wei and may need {cost}; send it some"
    )
