"""Where a job's failure stops: it ends the job at this node, never the node."""

from collections.abc import Awaitable, Callable, Iterator

import structlog

from d2m_node.errors import JobFailed, TransactionReverted, TransientError
from protocol.errors import ProtocolError
from protocol.types import JobId

log = structlog.get_logger(__name__)


async def run_to_failure(role: str, job_id: JobId, work: Callable[[], Awaitable[None]]) -> None:
    """Do a role's work in one job; log why if it cannot go on. Bugs pass through."""
    try:
        await work()
    except* (JobFailed, TransientError, TransactionReverted, ProtocolError) as failures:
        for failure in _list_leaves(failures):
            log.warning("job_failed", job=job_id, role=role, error=str(failure))


def _list_leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for one in group.exceptions:
        if isinstance(one, BaseExceptionGroup):
            yield from _list_leaves(one)
        else:
            yield one
