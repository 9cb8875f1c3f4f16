"""Whether a job can do without one node of its pool.

A node's stake stays locked until its job is settled, whether it votes or not. Silence costs it no
stake, only pay; but a job that cannot decide any more loses everybody's money. So a node that
wants to leave stops voting only where others have shown that they can decide without it.
"""

from protocol.job import JobState
from protocol.types import Address


def is_vote_needed(job: JobState, account: Address) -> bool:
    """Tell whether a job's next ballot may fail if one node of its pool stays silent.

    It may if nothing was decided yet, if an attempt or a round failed before, or if fewer nodes
    than a decision takes agreed with the last decision, this one left out: those who voted for
    anything else may do so again. A failed attempt calls every node that has left back, for the
    rest of the job: several may have left at once.

    Parameters
    ----------
    job :
        In training.
    account :
        A node of its pool.
    """
    assert job.terms is not None, "a job in training has terms"
    if not job.decided or job.undecided or job.voided:
        return True
    last = job.decided[-1]
    index = job.cone_index(account)
    others = {
        one.cone_index
        for one in last.ballot.openings
        if one.digest == last.decision.digest and one.cone_index != index
    }
    against = sum(one.digest != last.decision.digest for one in last.ballot.openings)
    return len(others) < min(job.terms.lead + against, len(job.cones) // 2 + 1)
