"""Rounds, until the votes: receipts, the first round, availability, who may call."""

import boa

from tests.contracts.scenarios import event
from tests.contracts.world import Job, World

UNSERVED = 4


def enrolled(job: Job) -> Job:
    return job.prepare().open_auction().close_auction().enrol().close_enrolment()


def test_receipts_of_pool_members_are_recorded_once(world: World, job: Job) -> None:
    enrolled(job).submit_receipts(0, [0, 3])
    assert event(world, "ReceiptsRecorded").bitmap == 0b1001
    job.submit_receipts(0, [3, 1])
    assert event(world, "ReceiptsRecorded").bitmap == 0b1011
    with boa.reverts("rounds: nothing recorded"):
        job.submit_receipts(0, [0, 1, 3])


def test_receipts_that_do_not_hold_are_skipped(world: World, job: Job) -> None:
    enrolled(job)
    _, foreign = job.receipt(1, 0)
    _, other_part = job.receipt(2, 1)
    entries = [(0, foreign), (2, other_part), (9, foreign), (3, b""), job.receipt(4, 0)]
    world.rounds.submit_receipts(1, 0, entries)
    assert world.rounds.receipts(1, 0) == 0b10000


def test_receipts_are_taken_in_their_windows_only(world: World, job: Job) -> None:
    with boa.reverts("rounds: not in validation"):
        world.rounds.submit_receipts(1, 0, [])
    enrolled(job)
    with boa.reverts("rounds: not in training"):
        job.submit_receipts(1)
    job.submit_receipts(0, [0, 1, 2])
    with boa.reverts("rounds: validation still open"):
        world.rounds.start_training(1, job.terms_list)
    world.blocks.mine_past(job.validation_end + 1)
    with boa.reverts("rounds: receipts closed"):
        job.submit_receipts(0, [3])
    with boa.reverts("rounds: wrong terms"):
        world.rounds.start_training(1, (7, *job.terms_list[1:]))
    job.start_training()
    with boa.reverts("rounds: not in a final"):
        job.submit_receipts(1)
    with boa.reverts("rounds: not in validation"):
        world.rounds.start_training(1, job.terms_list)


def test_without_receipts_of_more_than_half_the_job_ends_unserved(world: World) -> None:
    job = enrolled(Job(world, cone_count=6)).submit_receipts(0, [0, 1, 2]).start_training()
    ended = event(world, "TrainingEnded")
    assert (ended.outcome, ended.rounds_done) == (UNSERVED, 0)
    assert job.outcome == UNSERVED


def test_the_first_round_follows_from_the_end_of_validation(world: World, job: Job) -> None:
    job.train()
    opened = event(world, "AttemptOpened")
    base = job.validation_end + 1 - 1
    assert (opened.ballot_number, opened.round_index, opened.kind, opened.attempt) == (1, 0, 0, 0)
    assert opened.seller_seed_block in (base + 1, base + 2)
    assert opened.update_commit_end == world.blocks.number + 4
    assert opened.update_open_end == opened.update_commit_end + 2
    assert opened.availability_end == opened.update_open_end + 3
    assert opened.seed_block == opened.availability_end + 1
    assert opened.commit_end == opened.seed_block + 3
    assert opened.open_end == opened.commit_end + 3


def test_bitmaps_are_logged_until_the_end_of_availability(world: World, job: Job) -> None:
    job.train()
    entries = [(0, 0b11111, b"\x01" * 65), (3, 0b111, b"")]
    world.rounds.log_bitmaps(1, entries)
    logged = event(world, "BitmapsLogged")
    assert (logged.ballot_number, [tuple(entry) for entry in logged.entries]) == (1, entries)
    world.blocks.mine_past(job.ballot.availability_end)
    with boa.reverts("rounds: availability closed"):
        world.rounds.log_bitmaps(1, entries)


def test_only_the_market_fills_pools_and_opens_jobs(world: World) -> None:
    with boa.reverts("rounds: only the market"):
        world.rounds.register_cone(1, world.stranger.address, bytes(32))
    with boa.reverts("rounds: only the market"):
        world.rounds.open_job(1, bytes(32), 0)
