"""Looks at each block of a simulation: on record, against the invariants, for whoever watches."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from d2m_node.simulation.chain.ledger import Ledger
from d2m_node.simulation.checks.invariants import Referee
from d2m_node.simulation.network.fabric import Fabric
from d2m_node.simulation.nodes.memory import BlobPool
from d2m_node.simulation.report.gauge import Thermometer
from d2m_node.simulation.report.progress import Progress
from d2m_node.simulation.report.record import Record
from protocol.digest import RoundHeader
from protocol.job import JobState
from protocol.market import MarketState
from protocol.types import BlockNumber, JobId

Found = TypeVar("Found")


@dataclass(slots=True, kw_only=True)
class Observer:
    """Follows the chain block by block; nothing in the simulation depends on it."""

    ledger: Ledger
    fabric: Fabric
    record: Record
    referee: Referee
    thermometer: Thermometer
    blobs: BlobPool
    on_progress: Callable[[Progress], None]
    job_id: JobId
    bytes_at: dict[int, int] = field(default_factory=dict)
    """What nodes had sent to each other by each block."""
    seen: int = -1
    """The last block that was looked at."""

    async def follow(
        self, find: Callable[[MarketState], Found | None], *, blocks_max: int | None = None
    ) -> Found | None:
        """Look at blocks until ``find`` has an answer, or so many have come; then None.

        Raises InvariantViolated.
        """
        last_block = None if blocks_max is None else self.ledger.state.block_number + blocks_max
        while True:
            self._look()
            found = find(self.ledger.state)
            if found is not None:
                return found
            if last_block is not None and self.seen >= last_block:
                return None
            await self.ledger.wait_mined(BlockNumber(self.seen + 1))

    def _look(self) -> None:
        """Look at what was mined since the last look."""
        for block in list(self.ledger.blocks[self.seen + 1 :]):
            self.record.note_block(block)
            self.bytes_at[block.number] = sum(self.fabric.traffic.bytes.values())
            self.referee.check_block(block)
            self.seen = block.number
            self.on_progress(self._tell(self.ledger.state.jobs.get(self.job_id)))

    def _tell(self, job: JobState | None) -> Progress:
        if job is None:
            return Progress(
                block=self.seen, phase="joining", rounds_done=0, rounds_max=0, accuracy=None
            )
        rounds = job.decided_rounds
        accuracy = None
        if rounds:
            header = RoundHeader.decode(rounds[-1].header)
            accuracy = self.thermometer.measure_blob(header.model_digest)
        return Progress(
            block=self.seen,
            phase=job.phase.value,
            rounds_done=len(rounds),
            rounds_max=0 if job.terms is None else job.terms.rounds_max,
            accuracy=accuracy,
        )
