"""Where a job's failure stops: it ends the job at this node, never the node."""

from collections.abc import Awaitable, Callable, Iterator

import structlog
import trio

from d2m_node.errors import JobFailed, TransactionReverted, TransientError, UserError
from d2m_node.logs import log_scope
from d2m_node.roles.post import Post
from d2m_node.roles.refusals import Objection
from protocol.errors import ProtocolError
from protocol.types import JobId

log = structlog.get_logger(__name__)

PAUSE_SECONDS = 5.0


async def run_to_failure(post: Post, job_id: JobId, work: Callable[[], Awaitable[None]]) -> None:
    """Do a role's work in one job; log and keep why if it cannot go on. Bugs pass through.

    All that is logged meanwhile says which role and job it is about. After a transient failure
    the work starts again: every step finds what it did before.
    """
    with log_scope(role=post.shift.role, job=job_id):
        while True:
            is_transient = False
            try:
                await work()
            except* TransientError as failures:
                is_transient = True
                _log_failures("job_interrupted", failures)
            except* (JobFailed, TransactionReverted, UserError, ProtocolError) as failures:
                _log_failures("job_failed", failures)
                await _keep_failures(post, job_id, failures)
            if not is_transient:
                return
            await trio.sleep(PAUSE_SECONDS)


async def _keep_failures(
    post: Post, job_id: JobId, failures: BaseExceptionGroup[BaseException]
) -> None:
    """Keep why a job failed: of each code only the first failure."""
    for failure in _list_leaves(failures):
        code = failure.code if isinstance(failure, JobFailed) else JobFailed.code
        objection = Objection(code, str(failure))
        await post.refusals.keep(job_id, objection, post.ports.chain.state.block_number)


def _log_failures(event: str, failures: BaseExceptionGroup[BaseException]) -> None:
    for failure in _list_leaves(failures):
        log.warning(event, error=str(failure))


def _list_leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for one in group.exceptions:
        if isinstance(one, BaseExceptionGroup):
            yield from _list_leaves(one)
        else:
            yield one
