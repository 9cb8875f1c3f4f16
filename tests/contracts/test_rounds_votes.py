"""Rounds: commitments and openings of votes."""

import boa
from eth_utils.crypto import keccak

from tests.contracts.blocks import beacon_value, header_of
from tests.contracts.scenarios import WRONG, event, honest, make_job
from tests.contracts.world import Job, World


def test_commitments_are_recorded_in_batches(world: World) -> None:
    job = make_job(world)
    _, vote = honest(job)
    first = job.commit({0: vote, 1: vote})
    recorded = event(world, "CommitsRecorded")
    assert (recorded.mini, recorded.batch_index) == (0, 0)
    assert [tuple(entry) for entry in recorded.entries] == first
    job.commit({4: vote})
    assert event(world, "CommitsRecorded").batch_index == 1
    assert job.ballot.committed == 0b10011
    assert job.ballot.batch_count == 2


def test_commitments_that_do_not_hold_are_skipped(world: World) -> None:
    job = make_job(world)
    _, vote = honest(job)
    job.commit({0: vote})
    _, commitment, signature = job.signed_commit(1, vote)
    entries = [
        job.signed_commit(0, vote),  # known
        (2, commitment, signature),  # of another node
        (5, commitment, signature),  # of no node
        (1, keccak(b"another"), signature),  # another commitment
        (3, commitment, b"\x00" * 65),  # no signature
        (1, commitment, signature),
        (1, commitment, signature),  # twice
    ]
    world.rounds.submit_commits(1, entries)
    recorded = event(world, "CommitsRecorded")
    assert [tuple(entry) for entry in recorded.entries] == [(1, commitment)]
    with boa.reverts("rounds: nothing recorded"):
        world.rounds.submit_commits(1, entries)


def test_commitments_are_taken_in_their_window_only(world: World, job: Job) -> None:
    with boa.reverts("rounds: not in training"):
        world.rounds.submit_commits(1, [])
    job = make_job(world)
    entries = [job.signed_commit(0, WRONG)]
    world.blocks.mine_to(job.ballot.seed_block)
    with boa.reverts("rounds: commits not open"):
        world.rounds.submit_commits(1, entries)
    world.blocks.mine_past(job.ballot.commit_end)
    with boa.reverts("rounds: commits closed"):
        world.rounds.submit_commits(1, entries)


def test_openings_capture_the_seed_from_the_block_header(world: World) -> None:
    job = make_job(world)
    _, vote = honest(job)
    batch = job.commit({0: vote, 1: vote})
    job.open({0: vote, 1: vote}, batch, silent=[1])
    captured = event(world, "SeedCaptured")
    assert captured.seed_block == job.ballot.seed_block
    assert captured.randomness == beacon_value(captured.seed_block)
    assert captured.es_seed == job.ballot.es_seed
    # Later openings need no header any more.
    opening = job.opening(1, 1, vote)
    world.rounds.submit_openings(1, job.terms_list, 0, batch, [opening], b"")
    assert job.ballot.opened == 0b11
    recorded = event(world, "OpeningsRecorded")
    assert [tuple(entry) for entry in recorded.entries] == [(1, vote.digest, vote.trace)]


def test_openings_need_the_header_of_the_seed_block(world: World) -> None:
    job = make_job(world)
    _, vote = honest(job)
    batch = job.commit({0: vote})
    world.blocks.mine_past(job.ballot.commit_end)
    arguments = (1, job.terms_list, 0, batch, [job.opening(0, 0, vote)])
    for header in (b"", header_of(job.ballot.seed_block + 1)):
        with boa.reverts("header: not of this block"):
            world.rounds.submit_openings(*arguments, header)


def test_openings_need_the_batch_as_recorded(world: World) -> None:
    job = make_job(world)
    _, vote = honest(job)
    batch = job.commit({0: vote, 1: vote})
    with boa.reverts("rounds: no such batch"):
        job.open({0: vote, 1: vote}, batch, batch_index=1)
    with boa.reverts("rounds: not this batch"):
        job.open({0: vote, 1: vote}, batch[::-1])
    with boa.reverts("rounds: wrong terms"):
        world.rounds.submit_openings(1, (7, *job.terms_list[1:]), 0, batch, [], b"")


def test_openings_that_do_not_hold_are_skipped(world: World) -> None:
    job = make_job(world)
    _, vote = honest(job)
    batch = job.commit(dict.fromkeys(range(5), vote))
    world.blocks.mine_past(job.ballot.commit_end)
    good = [job.opening(i, i, vote) for i in range(5)]
    salt, element = good[0][3:]
    openings = [
        (0, WRONG.digest, vote.trace, salt, element),  # another digest
        (0, vote.digest, WRONG.trace, salt, element),  # another trace
        (0, vote.digest, vote.trace, keccak(b"salt"), element),  # another salt
        (0, vote.digest, vote.trace, salt, job.chains[0][2]),  # another chain element
        (0, vote.digest, vote.trace, salt, job.chains[1][1]),  # another node's
        (1, *good[0][1:]),  # another position
        (5, *good[0][1:]),  # no position
        good[2],
        good[2],  # twice
    ]
    arguments = (1, job.terms_list, 0, batch, openings, job.seed_header)
    world.rounds.submit_openings(*arguments)
    assert job.ballot.opened == 0b100
    with boa.reverts("rounds: nothing recorded"):
        world.rounds.submit_openings(*arguments)


def test_only_drawn_nodes_open_in_a_small_set(world: World) -> None:
    job = Job(world, cone_count=8, changes={"first_set_size": 4}).train()
    _, vote = honest(job)
    drawn = job.drawn()
    assert 0 < len(drawn) < 8, "another seed is needed for this test"
    votes = dict.fromkeys(range(8), vote)
    job.open(votes, job.commit(votes))
    assert job.ballot.opened == sum(1 << index for index in drawn)


def test_who_was_drawn_in_an_earlier_mini_round_does_not_open_in_a_later_one(
    world: World,
) -> None:
    job = Job(world, cone_count=8, changes={"first_set_size": 6}).train()
    early = job.drawn()
    assert 0 < len(early) < 8, "another seed is needed for this test"
    job.vote({})
    job.tally([])
    assert job.ballot.m == 1
    assert not set(early) & set(job.drawn())
    _, vote = honest(job)
    votes = dict.fromkeys(range(8), vote)
    batch = job.commit(votes)
    openings = [job.opening(position, index, vote) for position, (index, _) in enumerate(batch)]
    world.blocks.mine_past(job.ballot.commit_end)
    arguments = (1, job.terms_list, 0, batch)
    with boa.reverts("rounds: nothing recorded"):
        world.rounds.submit_openings(
            *arguments, [openings[index] for index in early], job.seed_header
        )
    world.rounds.submit_openings(*arguments, openings, job.seed_header)
    assert job.ballot.opened == sum(1 << index for index in job.drawn())


def test_openings_are_taken_in_their_window_only(world: World) -> None:
    job = make_job(world)
    _, vote = honest(job)
    batch = job.commit({0: vote})
    arguments = (1, job.terms_list, 0, batch, [job.opening(0, 0, vote)], job.seed_header)
    with boa.reverts("rounds: openings not open"):
        world.rounds.submit_openings(*arguments)
    world.blocks.mine_past(job.ballot.open_end)
    with boa.reverts("rounds: openings closed"):
        world.rounds.submit_openings(*arguments)
