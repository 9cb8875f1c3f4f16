"""Ballots: groups of equal votes, many of them, and what ballots leave to the next ones."""

import boa
import pytest
from eth_utils.crypto import keccak

from tests.contracts.scenarios import (
    WRONG,
    appeal,
    event,
    execute_slashes,
    honest,
    hostile,
    locked,
    make_job,
    split,
    tally_pool,
)
from tests.contracts.world import HONEST_TRACE, NO_DATA, ONE_ETHER, STRANGER, Ballot, Job, World

ROUNDS_GAS = 16_000_000
"""What one call may cost at most, far below a block."""


def numbered(number: int) -> Ballot:
    return Ballot(keccak(b"digest %d" % number), keccak(b"trace %d" % number))


def count(job: Job, groups: list[tuple[int, Ballot]], digest: bytes = bytes(32)) -> tuple:
    keys = sorted((m, vote.digest, vote.trace) for m, vote in groups)
    return job.world.ballots.count(job.number, keys, digest)


def test_equal_votes_of_several_batches_are_one_group(world: World) -> None:
    job = make_job(world)
    header, vote = honest(job)
    votes = {**dict.fromkeys(range(4), vote), 4: WRONG}
    batches = [job.commit({i: votes[i] for i in part}) for part in ((0, 1), (2, 4), (3,))]
    for batch_index in (2, 0, 1):
        job.open(votes, batches[batch_index], batch_index=batch_index)
    assert (job.ballot.opened, job.ballot.group_count) == (0b11111, 2)
    got = count(job, [(0, vote), (0, WRONG)])
    assert (got.votes, got.voters, got.wrong) == (4, 0b1111, 0b10000)
    world.blocks.mine_past(job.ballot.open_end)
    job.tally([(0, vote), (0, WRONG)], header)
    assert event(world.rounds, "RoundDecided").voters == 0b1111


def test_a_vote_that_is_listed_twice_is_one_group(world: World) -> None:
    job = make_job(world)
    _, vote = honest(job)
    job.commit(dict.fromkeys(range(3), vote))
    world.blocks.mine_past(job.ballot.commit_end)
    listed = [(WRONG.digest, WRONG.trace), *[(vote.digest, vote.trace)] * 2]
    entries = [(1, job.element(0)), (2, job.element(1)), (1, job.element(2))]
    world.ballots.submit_openings(1, STRANGER, 0, 0b111, entries, listed, job.seed_header)
    assert job.ballot.group_count == 1
    assert count(job, [(0, vote)]).voters == 0b111


def test_equal_votes_of_different_mini_rounds_are_two_groups(world: World) -> None:
    job = Job(world, cone_count=8, changes={"first_set_size": 5, "lead": 7}).train()
    header = job.round_header()
    vote = Ballot(keccak(header), HONEST_TRACE)
    early = job.drawn()[:2]
    job.vote(dict.fromkeys(early, vote))
    job.tally([(0, vote)], header)
    late = job.drawn()
    assert len(early) == 2, "another seed is needed for this test"
    assert len(late) > 0, "another seed is needed for this test"
    job.vote(dict.fromkeys(late, vote))
    assert job.ballot.group_count == 2
    for part in ([(0, vote)], [(1, vote)], [(0, vote), (2, vote)]):
        with boa.reverts("ballots: votes missing"):
            count(job, part)
    got = count(job, [(0, vote), (1, vote)])
    assert got.votes == len(early) + len(late)
    assert got.newcomers == sum(1 << index for index in late)


def test_groups_that_nobody_voted_for_change_nothing(world: World) -> None:
    job = make_job(world)
    header, vote = honest(job)
    votes = {**dict.fromkeys(range(4), vote), 4: WRONG}
    job.vote(votes)
    true = [(0, vote), (0, WRONG)]
    made_up = [
        (0, Ballot(vote.digest, keccak(b"foreign"))),
        (1, vote),
        (0, NO_DATA),
        *((m, numbered(i)) for m in (0, 5) for i in range(25)),
        (2**200, WRONG),
    ]
    assert count(job, [*true, *made_up], WRONG.digest) == count(job, true, WRONG.digest)
    job.tally([*true, *made_up], header)
    decided = event(world.rounds, "RoundDecided")
    assert (decided.votes, decided.voters, decided.wrong) == (4, 0b1111, 0b10000)


def test_made_up_groups_decide_nothing_where_nobody_voted(world: World) -> None:
    job = make_job(world)
    job.vote({})
    job.tally([(0, numbered(0)), (0, NO_DATA)], b"")
    assert event(world.rounds, "AttemptUndecided").unopened == 0


def test_votes_of_an_earlier_ballot_are_never_counted_again(world: World) -> None:
    job = make_job(world)
    split(job)
    _, vote = honest(job)
    old = [(0, vote), (0, WRONG)]
    assert count(job, old).opened == 0
    assert count(job, old).votes == 0
    job.vote({0: vote, 4: WRONG})
    got = count(job, old, WRONG.digest)
    assert (got.opened, got.votes, got.upheld_voters) == (0b10001, 1, 0b10000)


def test_a_new_ballot_starts_without_marks(world: World) -> None:
    job = make_job(world)
    _, vote = honest(job)
    votes = {0: vote, 1: vote, 2: WRONG, 3: WRONG}
    job.open(votes, job.commit(votes, sender=2), silent=[3], sender=2)
    world.blocks.mine_past(job.ballot.open_end)
    job.tally([(0, vote), (0, WRONG)])
    ballot = job.ballot
    assert (ballot.ballot_number, ballot.attempt) == (2, 1)
    assert (ballot.committed, ballot.opened, ballot.batch_count, ballot.group_count) == (0,) * 4
    assert count(job, []).refunds == 0
    # A single vote wipes what the first attempt left.
    job.commit({4: vote})
    assert job.ballot.committed == 0b10000
    world.blocks.mine_past(job.ballot.open_end)
    job.tally([])
    assert event(world.rounds, "AttemptUndecided").unopened == 0b10000


def test_marks_of_the_last_ballot_are_shown_until_the_next_one_has_votes(world: World) -> None:
    job = make_job(world, 7)
    header, vote = honest(job)
    job.vote(dict.fromkeys(range(3), vote))
    decided = world.ballots.current(1)
    job.tally([(0, vote)], header)
    assert world.ballots.marks(1, decided).opened == 0b111
    assert world.ballots.marks(1, world.ballots.current(1)).opened == 0
    job.commit({5: WRONG})
    assert world.ballots.marks(1, decided).opened == 0
    assert world.ballots.marks(1, world.ballots.current(1)).committed == 0b100000


def test_two_jobs_do_not_share_their_votes(world: World) -> None:
    job = make_job(world)
    job.decide_round()
    assert world.ballots.current(2) == 0
    assert world.ballots.ballot(2).committed == 0
    for other in (0, 2):
        with boa.reverts("ballots: not in training"):
            world.ballots.submit_commits(other, STRANGER, 1, [job.signed_commit(0, WRONG)])


@pytest.fixture
def crowd(world: World) -> Job:
    """A job with as many nodes as there can be."""
    return make_job(world, 64)


def gas_of(job: Job) -> int:
    return int(job.world.rounds.unwrapped._computation.get_gas_used())


def test_sixty_four_nodes_agree(crowd: Job) -> None:
    header, vote = honest(crowd)
    crowd.vote(dict.fromkeys(range(64), vote))
    assert crowd.ballot.opened == 2**64 - 1
    crowd.tally([(0, vote)], header)
    decided = event(crowd.world.rounds, "RoundDecided")
    assert (decided.votes, decided.voters, decided.wrong) == (64, 2**64 - 1, 0)
    assert crowd.result.participation == [1] * 64


def test_sixty_four_nodes_vote_for_as_many_digests(crowd: Job) -> None:
    votes = {index: numbered(index) for index in range(64)}
    crowd.vote(votes)
    assert (crowd.ballot.opened, crowd.ballot.group_count) == (2**64 - 1, 64)
    crowd.tally([(0, vote) for vote in votes.values()])
    assert event(crowd.world.rounds, "AttemptUndecided").unopened == 0
    assert gas_of(crowd) < ROUNDS_GAS


def test_sixty_four_nodes_open_one_by_one(crowd: Job) -> None:
    header, vote = honest(crowd)
    for index in range(64):
        assert crowd.commit({index: vote}) == [index]
    assert crowd.ballot.batch_count == 64
    for index in range(64):
        crowd.world.blocks.mine_past(crowd.ballot.commit_end)
        crowd.open({index: vote}, [index], batch_index=index)
    crowd.world.blocks.mine_past(crowd.ballot.open_end)
    crowd.tally([(0, vote)], header)
    assert event(crowd.world.rounds, "RoundDecided").voters == 2**64 - 1


def test_half_of_sixty_four_nodes_are_slashed_in_one_call(crowd: Job) -> None:
    header, vote = honest(crowd)
    votes = {i: WRONG if i >= 34 else vote for i in range(64)}
    crowd.vote(votes, silent=range(49, 64))
    crowd.tally([(0, vote), (0, WRONG)], header)
    crowd.world.blocks.mine(3)
    execute_slashes(crowd)
    assert gas_of(crowd) < ROUNDS_GAS
    remaining = [locked(crowd, index) for index in range(64)]
    assert remaining == [4 * ONE_ETHER] * 34 + [2 * ONE_ETHER] * 30


def test_sixty_one_nodes_are_called_against_three(crowd: Job) -> None:
    header, vote = honest(crowd)
    lie_header = hostile(crowd)
    lie = Ballot(keccak(lie_header), HONEST_TRACE)
    crowd.vote(dict.fromkeys(range(3), lie))
    crowd.tally([(0, lie)], lie_header)
    appeal(crowd, 63)
    crowd.vote(dict.fromkeys(range(3, 64), vote))
    tally_pool(crowd, [(0, lie), (1, vote)], header)
    assert gas_of(crowd) < ROUNDS_GAS
    decided = event(crowd.world.rounds, "RoundDecided")
    assert (decided.votes, decided.wrong) == (61, 0b111)
    assert crowd.result.participation == [0] * 3 + [1] * 61


def test_a_bond_is_shared_among_sixty_one_nodes(crowd: Job) -> None:
    header, vote = honest(crowd)
    crowd.vote(dict.fromkeys(range(3), vote))
    crowd.tally([(0, vote)], header)
    bond_wei = appeal(crowd, 63)
    crowd.vote(dict.fromkeys(range(3, 64), vote))
    tally_pool(crowd, [(0, vote), (1, vote)])
    assert gas_of(crowd) < ROUNDS_GAS
    resolved = event(crowd.world.rounds, "AppealResolved")
    assert len(resolved.beneficiaries) == 61
    assert resolved.reward_each_wei == bond_wei // 61
    assert crowd.result.participation == [1] * 3 + [0] * 61
