"""A seller's privacy: the ledger of its data set, and what a job may tell of the data."""

from d2m_node.errors import PrivacyBudgetSpent
from d2m_node.offload import offload
from d2m_node.ports import Ports, Samples, TrainerPort
from d2m_node.privacy_ledger import (
    Books,
    PrivacyLedger,
    PrivacyPolicy,
    check_delta,
    compute_dataset_id,
)
from d2m_node.roles.jobs import terms_of
from d2m_node.roles.refusals import Objection
from d2m_node.roles.rooms import OVER
from protocol.job import JobState
from protocol.request import RequestBody
from protocol.types import JobId


async def open_ledger(
    ports: Ports, policy: PrivacyPolicy | None, trainer: TrainerPort, samples: Samples
) -> PrivacyLedger | None:
    """Open the dataset's privacy ledger, if its trainings are to be private."""
    if policy is None:
        return None
    chain, me = ports.chain, ports.signer.address

    def is_over(job_id: JobId) -> bool:
        job = chain.state.jobs.get(job_id)
        return job is None or job.phase in OVER or job.is_seller_left_out(me)

    dataset = await offload(compute_dataset_id, samples)
    books = Books(dataset=dataset, domain=chain.domain, account=me)
    check_delta(policy, len(samples.labels))
    # Load now what does the sums: it takes seconds, and an enrolment may last no longer.
    await trainer.compute_epsilon([], policy.delta)
    return PrivacyLedger(policy, books, ports.store.journal, trainer, is_over=is_over)


async def promise_privacy(
    ledger: PrivacyLedger, job: JobState, body: RequestBody, sample_count: int
) -> Objection | None:
    """Set aside what all rounds of a job may tell of the data.

    Says why not if the dataset's budget does not allow that: nothing may be signed then.
    """
    try:
        await ledger.promise(
            job.job_id, body.training, sample_count=sample_count, rounds=terms_of(job).rounds_max
        )
    except PrivacyBudgetSpent as error:
        return Objection("privacy", f"the privacy budget does not allow it: {error}")
    return None
