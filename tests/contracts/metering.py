"""What each transaction costs, counted as a chain counts it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boa

BASE = 21_000
ZERO_BYTE, OTHER_BYTE = 4, 16
FLOOR_PER_TOKEN = 10
"""EIP-7623: calldata costs at least this much per token; a byte other than zero is four."""
REFUND_QUOTIENT = 5
PRECOMPILES = [number.to_bytes(20, "big") for number in range(1, 18)]


def transaction_gas(data: bytes, executed: int, refund: int) -> int:
    """Gas of a whole transaction: its base, its data, and what it executed, less refunds."""
    zeros = data.count(0)
    others = len(data) - zeros
    spent = BASE + ZERO_BYTE * zeros + OTHER_BYTE * others + executed
    spent -= min(refund, spent // REFUND_QUOTIENT)
    floor = BASE + FLOOR_PER_TOKEN * (zeros + 4 * others)
    return max(spent, floor)


class Meter:
    """Counts the transactions sent through boa, each one from a cold start.

    Boa runs all calls as if they were one transaction: what one has read is warm for the next, and
    what a slot held before is what it held at the start. So changes are locked before each call.
    They cannot be taken back then: a meter is for a process of its own, never inside an anchor.
    """

    def __init__(self) -> None:
        self.counted: dict[str, int] = {}
        self._names: list[str] = []

    @contextmanager
    def installed(self) -> Iterator["Meter"]:
        """Watch all calls while the block runs."""
        evm = boa.env.evm
        original = evm.execute_code

        def execute(**call: Any) -> Any:
            if call["is_static"]:
                return original(**call)
            self._begin(evm.vm.state, call)
            computation = original(**call)
            self._add(call["data"], computation)
            return computation

        evm.execute_code = execute
        try:
            yield self
        finally:
            del evm.execute_code

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add up the transactions of the block under a name; within another block, under both."""
        self._names.append(name)
        self.counted.setdefault(name, 0)
        try:
            yield
        finally:
            self._names.pop()

    def _begin(self, state: Any, call: Any) -> None:
        state.lock_changes()
        for account in (
            call["sender"].canonical_address,
            call["to"].canonical_address,
            state.coinbase,
            *PRECOMPILES,
        ):
            state.mark_address_warm(account)

    def _add(self, data: bytes, computation: Any) -> None:
        if computation.is_error:
            return
        spent = transaction_gas(data, computation.get_gas_used(), computation.get_gas_refund())
        for name in self._names:
            self.counted[name] += spent
