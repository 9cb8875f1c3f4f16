"""Rounds, until the votes: receipts, the first round, availability, who may call."""

import boa

from tests.contracts.scenarios import event
from tests.contracts.world import Job, World

UNSERVED = 4


def enrolled(job: Job) -> Job:
    return job.prepare().open_auction().close_auction().enrol().close_enrolment()


def test_receipts_of_pool_members_are_recorded_once(world: World, job: Job) -> None:
    enrolled(job).submit_receipts(0, [0, 3])
    assert event(world.statements, "ReceiptsRecorded").bitmap == 0b1001
    job.submit_receipts(0, [3, 1])
    assert event(world.statements, "ReceiptsRecorded").bitmap == 0b1011
    with boa.reverts("statements: nothing recorded"):
        job.submit_receipts(0, [0, 1, 3])


def test_receipts_that_do_not_hold_are_skipped(world: World, job: Job) -> None:
    enrolled(job)
    foreign = job.receipt(1, 0)[1:]
    other_part = job.receipt(2, 1)[1:]
    nothing = (bytes(32), bytes(32))
    entries = [
        (0, *foreign), (2, *other_part), (9, *foreign), (3, *nothing), job.receipt(4, 0),
    ]  # fmt: skip
    world.statements.submit_receipts(1, 0, entries)
    assert world.statements.receipts(1, 0) == 0b10000


def test_receipts_are_taken_in_their_windows_only(world: World, job: Job) -> None:
    with boa.reverts("statements: receipts not open"):
        world.statements.submit_receipts(1, 0, [])
    enrolled(job)
    with boa.reverts("statements: receipts not open"):
        job.submit_receipts(1)
    job.submit_receipts(0, [0, 1, 2])
    with boa.reverts("rounds: validation still open"):
        world.rounds.start_training(1, job.terms_list, job.course)
    world.blocks.mine_past(job.validation_end + 1)
    with boa.reverts("statements: receipts not open"):
        job.submit_receipts(0, [3])
    with boa.reverts("rounds: wrong terms"):
        world.rounds.start_training(1, (7, *job.terms_list[1:]), job.course)
    job.start_training()
    with boa.reverts("statements: receipts not open"):
        job.submit_receipts(1)
    with boa.reverts("rounds: not in validation"):
        world.rounds.start_training(1, job.terms_list, job.course)


def test_without_receipts_of_more_than_half_the_job_ends_unserved(world: World) -> None:
    job = enrolled(Job(world, cone_count=6)).submit_receipts(0, [0, 1, 2]).start_training()
    ended = event(world.rounds, "TrainingEnded")
    assert (ended.outcome, ended.rounds_done) == (UNSERVED, 0)
    assert job.outcome == UNSERVED


def test_the_first_round_follows_from_the_end_of_validation(world: World, job: Job) -> None:
    job.train()
    opened = event(world.rounds, "AttemptOpened")
    assert (opened.ballot_number, opened.round_index, opened.kind, opened.attempt) == (1, 0, 0, 0)
    assert opened.seller_seed_block == job.validation_end + 1
    assert opened.update_commit_end == world.blocks.number + 4
    assert opened.update_open_end == opened.update_commit_end + 2
    assert opened.availability_end == opened.update_open_end + 3
    assert opened.seed_block == opened.availability_end + 1
    assert opened.commit_end == opened.seed_block + 3
    assert opened.open_end == opened.commit_end + 3


def test_only_the_enrolment_opens_jobs(world: World) -> None:
    with boa.reverts("rounds: only the enrolment"):
        world.rounds.open_job(1, bytes(32), 0, world.stranger.address, 1)


def test_only_rounds_fills_pools_and_opens_ballots(world: World) -> None:
    with boa.reverts("ballots: only rounds"):
        world.ballots.open_pool(1, world.stranger.address, 1)
    with boa.reverts("ballots: only rounds"):
        world.ballots.open_ballot(1, 1)
    with boa.reverts("ballots: only rounds"):
        world.ballots.bar(1, 1)


def test_only_the_settlement_closes_jobs_and_only_appeals_calls_pools(
    world: World, job: Job
) -> None:
    job.train()
    with boa.reverts("rounds: only the settlement"):
        world.rounds.close_job(1, job.course)
    with boa.reverts("rounds: only appeals"):
        world.rounds.call_pool(1, job.terms_list, job.course)
    with boa.reverts("appeals: only rounds"):
        world.appeals.resolve(1, False, [])


def test_a_job_is_driven_with_its_own_current_course_only(world: World, job: Job) -> None:
    enrolled(job).submit_receipts(0)
    waiting = job.course
    job.start_training()
    for stale in (waiting, (*job.course[:2], b"\x01" * 32, *job.course[3:])):
        with boa.reverts("rounds: wrong course"):
            world.rounds.start_training(1, job.terms_list, stale)
        with boa.reverts("rounds: wrong course"):
            world.rounds.tally(1, job.terms_list, stale, [], b"")
        with boa.reverts("rounds: wrong course"):
            world.rounds.tally_pool(1, job.terms_list, stale, stale, [], b"")
        with boa.reverts("rounds: wrong course"):
            world.rounds.expire(1, job.terms_list, stale)
        with boa.reverts("rounds: wrong course"):
            world.rounds.audit(1, job.terms_list, stale, b"")
        with boa.reverts("rounds: wrong course"):
            world.rounds.execute_slashes(1, stale)
        with boa.reverts("rounds: wrong course"):
            world.rounds.training_result(1, stale)
    for other_job in (0, 2):
        with boa.reverts("rounds: wrong course"):
            world.rounds.expire(other_job, job.terms_list, job.course)


def test_a_job_is_driven_with_its_own_terms_only(world: World, job: Job) -> None:
    job.train()
    other = (7, *job.terms_list[1:])
    with boa.reverts("rounds: wrong terms"):
        world.rounds.tally(1, other, job.course, [], b"")
    with boa.reverts("rounds: wrong terms"):
        world.rounds.tally_pool(1, other, job.course, job.course, [], b"")
    with boa.reverts("rounds: wrong terms"):
        world.rounds.expire(1, other, job.course)
    with boa.reverts("rounds: wrong terms"):
        world.rounds.audit(1, other, job.course, b"")
