"""At the edge of a decision: one vote more or less, and who pays for it."""

import pytest
from eth_utils.crypto import keccak

from tests.contracts.scenarios import WRONG, honest, locked, make_job
from tests.contracts.world import HONEST_TRACE, NO_DATA, Ballot, Job, World

POOL = 8
LEAD = 3
OTHER_TRACE = max(keccak(bytes([i])) for i in range(20))
assert OTHER_TRACE > HONEST_TRACE, "so that the group of the honest trace is counted first"


def vote(world: World, agreeing: int, copying: int, wrong: int, lacking: int) -> Job:
    """A round in which everybody is drawn, and some do not vote."""
    job = make_job(world, cones=POOL, lead=LEAD)
    header, right = honest(job)
    copied = Ballot(right.digest, OTHER_TRACE)
    kinds = [right] * agreeing + [copied] * copying + [WRONG] * wrong + [NO_DATA] * lacking
    job.vote(dict(enumerate(kinds)))
    job.tally([(0, kind) for kind in set(kinds)], header)
    job.previous_digest = right.digest
    job.credits = [v + (1 if i < 2 else 0) for i, v in enumerate(job.credits)]
    return job


@pytest.mark.parametrize(
    ("agreeing", "copying", "wrong", "lacking"),
    [(3, 0, 0, 0), (5, 0, 2, 0), (5, 0, 0, 2), (5, 0, 3, 0), (5, 0, 0, 3), (0, 3, 0, 0)],
)
def test_a_lead_decides(
    world: World, agreeing: int, copying: int, wrong: int, lacking: int
) -> None:
    assert vote(world, agreeing, copying, wrong, lacking).ballot.round_index == 1


@pytest.mark.parametrize(
    ("agreeing", "copying", "wrong", "lacking"),
    [
        (2, 0, 0, 0),
        (4, 0, 2, 0),
        (4, 0, 0, 2),
        (4, 0, 4, 0),
        (2, 0, 2, 2),
        (1, 2, 0, 0),
        (2, 2, 0, 0),
    ],
)
def test_one_vote_less_decides_nothing(
    world: World, agreeing: int, copying: int, wrong: int, lacking: int
) -> None:
    job = vote(world, agreeing, copying, wrong, lacking)
    assert (job.ballot.round_index, job.ballot.attempt) == (0, 1)


def test_only_another_digest_is_slashed_as_wrong(world: World) -> None:
    job = vote(world, agreeing=5, copying=1, wrong=1, lacking=1)
    stake_wei = locked(job, 0)
    job.decide_round()
    assert [locked(job, index) for index in range(POOL)] == [
        stake_wei // 2 if index == 6 else stake_wei for index in range(POOL)
    ]
