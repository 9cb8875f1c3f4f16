"""What the follower was told, newest last: so much of it as programs may still ask for."""

from collections import deque
from collections.abc import Iterable
from typing import Final

from d2m_node.ports import UNTOLD, TakenBack
from protocol.events import RecordedEvent
from protocol.types import BlockNumber

KEPT_EVENTS: Final = 4_000
"""Of 800 bytes each: those of the last fifty jobs or so."""


class History:
    """`HistoryPort`, filled by the follower.

    What is added shows when it is published, together with the state that it led to.
    """

    def __init__(self, kept: int = KEPT_EVENTS) -> None:
        self._shown: deque[RecordedEvent | TakenBack] = deque(maxlen=kept)
        self._hidden: deque[RecordedEvent | TakenBack] = deque(maxlen=kept)
        self._hidden_count = 0
        self._end = 0

    @property
    def first(self) -> int:
        """Number of the oldest entry that is kept; `end` if there is none."""
        return self._end - len(self._shown)

    @property
    def end(self) -> int:
        """Number of the entry that comes next."""
        return self._end

    def read(self, number: int) -> RecordedEvent | TakenBack:
        """Return an entry from `first` to before `end`."""
        return self._shown[number - self.first]

    def add(self, events: Iterable[RecordedEvent]) -> None:
        """Add what was followed."""
        for recorded in events:
            if not isinstance(recorded.event, UNTOLD):
                self._append(recorded)

    def take_back(self, block_number: BlockNumber) -> None:
        """Note that the chain turned after a block."""
        self._append(TakenBack(block_number))

    def publish(self) -> None:
        """Show what was added."""
        self._shown.extend(self._hidden)
        self._end += self._hidden_count
        self._hidden.clear()
        self._hidden_count = 0

    def _append(self, entry: RecordedEvent | TakenBack) -> None:
        self._hidden.append(entry)
        self._hidden_count += 1
