"""What happens at this node, told to whoever subscribed: roles switched, jobs refused."""

from collections import deque
from typing import Final, Self

import trio

from d2m_node.ports import FactPort, HeraldPort, NodeFact, Refusal, RefusalPort
from protocol.types import JobId

KEPT_FACTS: Final = 1000


class Herald:
    """`HeraldPort`, and what was told, for subscribers to read in their own time."""

    def __init__(self, kept: FactPort) -> None:
        self._kept = kept
        self._facts: deque[NodeFact] = deque(maxlen=KEPT_FACTS)
        self._told = trio.Event()
        self._lock = trio.Lock()

    @classmethod
    async def open(cls, kept: FactPort) -> Self:
        """Remember what was told before a restart."""
        herald = cls(kept)
        herald._facts.extend(await kept.latest())
        return herald

    @property
    def first(self) -> int:
        """Number of the oldest fact that is kept; `end` if there is none."""
        return self._facts[0].number if self._facts else self.end

    @property
    def end(self) -> int:
        """Number of the fact that comes next."""
        return self._facts[-1].number + 1 if self._facts else 1

    def read(self, number: int) -> NodeFact:
        """Return a fact from `first` to before `end`."""
        return self._facts[number - self.first]

    async def tell(self, kind: str, job_id: JobId | None = None, /, **details: str) -> None:
        """Keep a fact, then show it to subscribers; it waits for none of them."""
        async with self._lock:  # facts are shown in the order of their numbers
            fact = await self._kept.add(kind, details, job_id)
            self._facts.append(fact)
        self._told.set()
        self._told = trio.Event()

    async def wait(self) -> None:
        """Return when something is told."""
        await self._told.wait()


class ToldRefusals:
    """`RefusalPort` that tells of each new refusal."""

    def __init__(self, kept: RefusalPort, herald: HeraldPort) -> None:
        self._kept = kept
        self._herald = herald

    async def add(self, refusal: Refusal) -> bool:
        """Keep a refusal; tell of it if it is new for its job, role and code."""
        is_new = await self._kept.add(refusal)
        if is_new:
            details = {"role": refusal.role, "code": refusal.code, "reason": refusal.reason}
            await self._herald.tell("job.refused", refusal.job_id, **details)
        return is_new

    async def latest(self, count: int, job_id: JobId | None = None) -> tuple[Refusal, ...]:
        """Return the latest refusals, newest first."""
        return await self._kept.latest(count, job_id)
