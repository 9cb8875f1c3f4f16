"""Where a subscriber stands: after one event of the chain, and after one fact of the node.

    1234.7.9f86d081.42

reads: after log 7 of block 1234, which a transaction recorded whose hash begins with 9f86d081, and
after the node's fact 42. The hash tells whether that event is still on the chain. Programs keep
cursors as they are and look into none.
"""

import re
from dataclasses import dataclass, replace
from typing import Self

from d2m_node.errors import UserError
from protocol.events import RecordedEvent

_CURSOR = re.compile(r"([0-9]{1,18})\.([0-9]{1,9})\.([0-9a-f]{8})\.([0-9]{1,18})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What was told already."""

    block: int = 0
    log_index: int = 0
    mark: str = "00000000"
    fact: int = 0
    """Number of the node's last fact."""

    @property
    def is_before_chain(self) -> bool:
        """Tell whether no event of the chain was told."""
        return self.block == 0

    def write(self) -> str:
        """Return the cursor."""
        return f"{self.block}.{self.log_index}.{self.mark}.{self.fact}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a cursor. Raises UserError."""
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise UserError("after: this is no cursor of an event")
        block, log_index, mark, fact = match.groups()
        return cls(block=int(block), log_index=int(log_index), mark=mark, fact=int(fact))

    def after_event(self, recorded: RecordedEvent) -> "Place":
        """Return the place after an event of the chain."""
        return replace(
            self,
            block=recorded.block_number,
            log_index=recorded.log_index,
            mark=mark_of(recorded),
        )

    def is_at(self, recorded: RecordedEvent) -> bool:
        """Tell whether this event of the chain was the last one told."""
        return (self.block, self.log_index, self.mark) == (
            recorded.block_number,
            recorded.log_index,
            mark_of(recorded),
        )


def mark_of(recorded: RecordedEvent) -> str:
    """Return what tells an event from one at its place on another branch."""
    return recorded.transaction_hash[:4].hex()
