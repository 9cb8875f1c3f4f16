"""What a role turned down or could not go on with, and why: logged, and kept for the operator.

One reason per job is noted once, not once per block, across restarts too.
"""

from dataclasses import dataclass

import structlog

from d2m_node.ports import Refusal, RefusalPort
from protocol.types import BlockNumber, JobId

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a role does not take a job."""

    code: str
    """Names the rule: a job has one refusal per code and role."""
    reason: str
    """For the operator: what was asked, and what the limit is."""


class Refusals:
    """One role's part of what the node turned down."""

    def __init__(self, role: str, kept: RefusalPort) -> None:
        self.role = role
        self._kept = kept

    async def note(self, job_id: JobId, objection: Objection, block: BlockNumber) -> None:
        """Keep a refusal, and log it if it is new."""
        if await self.keep(job_id, objection, block):
            fields = {"code": objection.code, "reason": objection.reason}
            log.info("job_refused", job=job_id, role=self.role, **fields)

    async def keep(self, job_id: JobId, objection: Objection, block: BlockNumber) -> bool:
        """Keep a refusal; tell whether it is new."""
        return await self._kept.add(
            Refusal(
                job_id=job_id,
                role=self.role,
                code=objection.code,
                reason=objection.reason,
                block_number=block,
            )
        )
