"""What this run's own transactions came to."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from d2m_node.chain.bindings import Bindings
from d2m_node.chain.receipts import Receipt
from d2m_node.chain.signing import Transaction
from d2m_node.measures import CallTotals, FeeTotal
from d2m_node.transaction_store import PaidFee
from protocol.types import Address, JobId, Wei

OTHER = "other"
"""Transactions that call no contract of the deployment: they only use a nonce up."""


@dataclass(slots=True)
class _Total:
    confirmed: int = 0
    reverted: int = 0
    gas: int = 0
    fees_wei: int = 0


@dataclass(slots=True)
class TransactionCounts:
    """Counts mined transactions by what they call."""

    _totals: defaultdict[tuple[Address | None, bytes], _Total] = field(
        default_factory=lambda: defaultdict(_Total)
    )

    def add(self, transaction: Transaction, receipt: Receipt) -> None:
        """Count a mined transaction; the caller counts each nonce once."""
        total = self._totals[transaction.to, transaction.data[:4]]
        if receipt.has_succeeded:
            total.confirmed += 1
        else:
            total.reverted += 1
        total.gas += receipt.gas_used
        total.fees_wei += receipt.fee_wei

    def read(self, bindings: Bindings) -> Mapping[str, CallTotals]:
        """Return the totals by "Contract.function"; what is none of ours is one entry."""
        named: defaultdict[str, _Total] = defaultdict(_Total)
        for (to, selector), total in self._totals.items():
            name = bindings.name_call(to, selector) or OTHER
            _add(named[name], total)
        return dict(_freeze(named))


def add_fees(fees: Iterable[PaidFee], bindings: Bindings) -> list[FeeTotal]:
    """Add up what nonces cost by job and function; calls of no job come first."""
    sums: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
    for fee in fees:
        job_id = bindings.name_job(fee.callee, fee.call_head)
        call = bindings.name_call(fee.callee, fee.call_head[:4]) or OTHER
        sums[job_id or 0, call].append(fee.fee_wei)
    return [
        FeeTotal(
            job_id=JobId(number) if number else None,
            call=call,
            count=len(paid),
            fees_wei=Wei(sum(paid)),
        )
        for (number, call), paid in sorted(sums.items())
    ]


def _add(total: _Total, more: _Total) -> None:
    total.confirmed += more.confirmed
    total.reverted += more.reverted
    total.gas += more.gas
    total.fees_wei += more.fees_wei


def _freeze(named: Mapping[str, _Total]) -> Iterator[tuple[str, CallTotals]]:
    for name, total in sorted(named.items()):
        yield (
            name,
            CallTotals(
                confirmed=total.confirmed,
                reverted=total.reverted,
                gas=total.gas,
                fees_wei=Wei(total.fees_wei),
            ),
        )
