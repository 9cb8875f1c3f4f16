"""Small scenarios that several test files start from."""

from typing import Any

from eth_utils.crypto import keccak

from tests.contracts.world import HONEST_TRACE, Ballot, Job, World

REACHED = 996_147
"""A utility at the target of the test jobs."""

WRONG = Ballot(keccak(b"wrong"), keccak(b"wrong trace"))


def event(world: World, name: str) -> Any:
    """The only event of this name in the last call to Rounds."""
    (found,) = [log for log in world.rounds.get_logs() if type(log).__name__ == name]
    return found


def make_job(world: World, cones: int = 5, **changes: int) -> Job:
    """A job in its first round in which the first execution set is the whole pool."""
    return Job(world, cone_count=cones, changes={"first_set_size": cones, **changes}).train()


def honest(job: Job, **changes: Any) -> tuple[bytes, Ballot]:
    header = job.round_header(**changes)
    return header, Ballot(keccak(header), HONEST_TRACE)


def locked(job: Job, index: int) -> int:
    lock = job.world.stakes.lock_of(job.number, job.cones[index].address)
    return int(lock.remaining_wei)


def decide_against(job: Job, hostile: int, silent: int) -> None:
    header, vote = honest(job)
    votes = {index: WRONG if index == hostile else vote for index in range(7)}
    job.vote(votes, silent=[silent])
    job.tally([(0, vote), (0, WRONG)], header)
    job.previous_digest = vote.digest
    job.credits = [v + (1 if i < 2 else 0) for i, v in enumerate(job.credits)]


def reach(job: Job) -> Job:
    """Two rounds in a row at the target."""
    job.decide_round(REACHED)
    assert job.ballot.kind == 0
    job.decide_round(REACHED)
    return job


def split(job: Job) -> None:
    """A ballot of five with nodes 0 and 1 against 2 and 3: nobody leads."""
    _, vote = honest(job)
    job.vote({0: vote, 1: vote, 2: WRONG, 3: WRONG})
    job.tally([(0, vote), (0, WRONG)])
