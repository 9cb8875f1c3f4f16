"""Calls on their way into a block, and what a node remembers of those it sent."""

from dataclasses import dataclass, field

from d2m_node.chain.reverts import decode_revert
from d2m_node.errors import TransactionReverted
from d2m_node.simulation.chain.blocks import MinedBlock
from d2m_node.simulation.chain.evm import Execution, Transaction
from protocol.types import Address

_NO_REASON = "execution reverted"
"""What chains say of a revert without data."""


@dataclass(slots=True, eq=False, kw_only=True)
class PooledCall:
    """A call that was sent; a reorganisation may mine it again in another block."""

    key: str
    label: str
    """Contract.function."""
    transaction: Transaction
    transaction_hash: bytes
    execution: Execution | None = None
    """What it came to in the block that it is in, mined or still being built."""
    block: MinedBlock | None = None
    """Where it is mined."""
    is_told: bool = False
    """Its sender was told what became of it."""

    @property
    def sender(self) -> Address:
        """The account that sent it."""
        return self.transaction.sender

    @property
    def is_refused(self) -> bool:
        """Whether it failed and its sender knows: it must not happen any more."""
        return self.is_told and self.find_error() is not None

    def find_error(self) -> TransactionReverted | None:
        """Say why it failed in its block; None if it did not, or is in none."""
        if self.execution is None:
            return None
        return explain_failure(self.label, self.execution)


def explain_failure(label: str, execution: Execution) -> TransactionReverted | None:
    """Say why an execution failed, in the contract's own word; None if it did not."""
    if execution.has_succeeded:
        return None
    reason = execution.failure or decode_revert(execution.output) or _NO_REASON
    return TransactionReverted(label, reason)


@dataclass(slots=True)
class SentCalls:
    """A node's memory of the keys it sent calls for. It outlives a crash of the node."""

    _by_key: dict[str, PooledCall] = field(default_factory=dict)

    def find(self, key: str) -> PooledCall | None:
        """Return what was sent for a key and has not failed."""
        return self._by_key.get(key)

    def add(self, sent: PooledCall) -> None:
        """Remember a call."""
        self._by_key[sent.key] = sent

    def free(self, sent: PooledCall) -> None:
        """Forget a call that the contract refused: its key may be used again."""
        if self._by_key.get(sent.key) is sent:
            del self._by_key[sent.key]
