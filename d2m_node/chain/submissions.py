"""What is to happen on the chain once, by key, and those who wait for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog
import trio

from d2m_node.chain.bindings import EncodedCall
from d2m_node.errors import NodeError
from d2m_node.logs import current_log_scope

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Submission:
    """One key on its way."""

    key: str
    call: EncodedCall
    is_owed: bool = False
    """Somebody was told that it happened, and a reorganisation took it back."""
    waiters: int = 0
    scope: Mapping[str, object] = field(default_factory=dict)
    """What its asker's log lines are about; so are those about its transactions."""
    done: trio.Event = field(default_factory=trio.Event)
    error: NodeError | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether to sign for it."""
        return self.is_owed or self.waiters > 0


class Submissions:
    """All submissions that are not done."""

    def __init__(self) -> None:
        self._by_key: dict[str, Submission] = {}
        self._unsigned: list[Submission] = []

    def find(self, key: str) -> Submission | None:
        """Return the submission of a key, if there is one on its way."""
        return self._by_key.get(key)

    def add(self, key: str, call: EncodedCall, *, is_owed: bool = False) -> Submission:
        """Return the submission of a key: the one on its way, or a new one for ``call``."""
        fresh = Submission(key, call, scope=current_log_scope())
        submission = self._by_key.setdefault(key, fresh)
        submission.is_owed = submission.is_owed or is_owed
        return submission

    def finish(self, submission: Submission, error: NodeError | None = None) -> None:
        """Tell those who wait that it happened, or why it did not."""
        if self._by_key.get(submission.key) is submission:
            del self._by_key[submission.key]
        submission.error = error
        submission.done.set()
        if submission.is_owed and error is not None:
            log.error("confirmed_call_lost", key=submission.key, reason=str(error))

    def start_over(self, submission: Submission) -> None:
        """Let a submission be signed anew: nothing that was signed for it can be mined."""
        self._unsigned.append(submission)

    def take_unsigned(self) -> list[Submission]:
        """Return what was to start over since this was last asked."""
        unsigned, self._unsigned = self._unsigned, []
        return unsigned
