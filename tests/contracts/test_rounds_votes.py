"""Ballots: commitments and openings of votes."""

from collections.abc import Mapping
from typing import Any

import boa
import pytest
from eth_utils.crypto import keccak

from tests.contracts import reference
from tests.contracts.blocks import header_of
from tests.contracts.scenarios import WRONG, event, honest, make_job, split
from tests.contracts.world import CHAIN, STRANGER, Job, World

HISTORY_ACCOUNT = "0x0000F90827F1C53a10cb7A02335B175320002935"
NOTHING = (bytes(32), bytes(32), bytes(32))
OTHER_VOTE = keccak(b"another")


def bits(*indices: int) -> int:
    return sum(1 << index for index in indices)


def submit_openings(
    job: Job,
    batch: dict[int, tuple[int, bytes]],
    votes: list[tuple[bytes, bytes]],
    header: bytes | None = None,
    batch_index: int = 0,
) -> None:
    """Send openings as they are given: node -> (place of its vote, element or commitment)."""
    job.world.ballots.submit_openings(
        job.number, STRANGER, batch_index, bits(*batch), [batch[i] for i in sorted(batch)], votes,
        job.seed_header if header is None else header, sender=job.world.stranger.address,
    )  # fmt: skip


def test_commitments_are_recorded_in_batches(world: World) -> None:
    job = make_job(world)
    _, vote = honest(job)
    job.commit({0: vote, 1: vote})
    recorded = event(world.ballots, "CommitsRecorded")
    assert (recorded.ballot_number, recorded.mini, recorded.batch_index) == (1, 0, 0)
    assert recorded.members == 0b11
    assert recorded.commitments == [job.commitment(0, vote), job.commitment(1, vote)]
    job.commit({4: vote})
    assert event(world.ballots, "CommitsRecorded").batch_index == 1
    assert job.ballot.committed == 0b10011
    assert job.ballot.batch_count == 2


def test_commitments_that_do_not_hold_are_skipped(world: World) -> None:
    job = make_job(world)
    _, vote = honest(job)
    job.commit({0: vote})
    commitment, r, vs = job.signed_commit(1, vote)
    entries = [
        job.signed_commit(0, vote),  # known
        (commitment, r, vs),
        (commitment, r, vs),  # of another node
        NOTHING,  # no signature
        (OTHER_VOTE, r, vs),  # another commitment
        (commitment, r, vs),  # of no node
    ]
    world.ballots.submit_commits(1, STRANGER, 0b111111, entries)
    recorded = event(world.ballots, "CommitsRecorded")
    assert (recorded.members, recorded.commitments) == (0b10, [commitment])
    with boa.reverts("ballots: nothing recorded"):
        world.ballots.submit_commits(1, STRANGER, 0b111111, entries)
    with boa.reverts("ballots: nothing recorded"):
        world.ballots.submit_commits(1, STRANGER, 0, [])
    with boa.reverts("ballots: not one entry per node"):
        world.ballots.submit_commits(1, STRANGER, 1 << 200, entries)
    with boa.reverts("ballots: not one entry per node"):
        world.ballots.submit_commits(1, STRANGER, 0b111111, entries[:5])


def test_a_signature_with_a_flipped_recovery_bit_is_skipped(world: World) -> None:
    job = make_job(world)
    commitment, r, vs = job.signed_commit(2, WRONG)
    flipped = (int.from_bytes(vs) ^ (1 << 255)).to_bytes(32)
    world.blocks.mine_past(job.ballot.seed_block)
    with boa.reverts("ballots: nothing recorded"):
        world.ballots.submit_commits(1, STRANGER, 0b100, [(commitment, r, flipped)])


@pytest.mark.parametrize("place", ["job", "chain", "market", "mini", "round"])
def test_a_commitment_signed_for_another_place_is_skipped(world: World, place: str) -> None:
    job = make_job(world)
    commitment = job.commitment(0, WRONG)
    fields = {
        "chain": CHAIN,
        "market": world.market_raw,
        "job": 1,
        "round": 0,
        "mini": 0,
        "commitment": commitment,
    }
    other = {"chain": 1, "market": bytes(20), "job": 2, "round": 1, "mini": 1 << 16}
    world.blocks.mine_past(job.ballot.seed_block)
    message = reference.vote_message(*{**fields, place: other[place]}.values())
    entry = (commitment, *reference.sign_compact(job.cones[0].key, message))
    with boa.reverts("ballots: nothing recorded"):
        world.ballots.submit_commits(1, STRANGER, 1, [entry])
    message = reference.vote_message(*fields.values())
    entry = (commitment, *reference.sign_compact(job.cones[0].key, message))
    world.ballots.submit_commits(1, STRANGER, 1, [entry])
    assert job.ballot.committed == 1


def test_commitments_are_taken_in_their_window_only(world: World, job: Job) -> None:
    with boa.reverts("ballots: not in training"):
        world.ballots.submit_commits(1, STRANGER, 0, [])
    job = make_job(world)
    entries = [job.signed_commit(0, WRONG)]
    world.blocks.mine_to(job.ballot.seed_block)
    with boa.reverts("ballots: commits not open"):
        world.ballots.submit_commits(1, STRANGER, 1, entries)
    world.blocks.mine_past(job.ballot.commit_end)
    with boa.reverts("ballots: commits closed"):
        world.ballots.submit_commits(1, STRANGER, 1, entries)
    world.blocks.mine_to(job.ballot.commit_end)
    world.ballots.submit_commits(1, STRANGER, 1, entries)


def test_every_openings_call_brings_the_header_of_the_seed_block(world: World) -> None:
    job = make_job(world)
    _, vote = honest(job)
    batch = job.commit({0: vote, 1: vote})
    assert job.seed_header == header_of(job.ballot.seed_block)
    world.blocks.mine_past(job.ballot.commit_end)
    entries = {0: (0, job.element(0)), 1: (1, job.commitment(1, vote))}
    votes = [(vote.digest, vote.trace)]
    wrong = [b"", header_of(job.ballot.seed_block + 1), job.seed_header + b"\x00"]
    for header in wrong:
        with boa.reverts("header: not of this block"):
            submit_openings(job, entries, votes, header)
    submit_openings(job, entries, votes)
    for header in wrong:
        with boa.reverts("header: not of this block"):
            submit_openings(job, entries, votes, header)
    job.open({0: vote, 1: vote}, batch)
    assert job.ballot.opened == 0b11


def test_a_batch_is_opened_in_parts(world: World) -> None:
    job = make_job(world)
    _, vote = honest(job)
    votes = {0: vote, 1: vote, 2: WRONG}
    batch = job.commit(votes)
    job.open(votes, batch, silent=[1, 2], sender=3)
    recorded = event(world.ballots, "OpeningsRecorded")
    assert (recorded.ballot_number, recorded.mini) == (1, 0)
    assert [tuple(group) for group in recorded.groups] == [(vote.digest, vote.trace, 0b1)]
    job.open(votes, batch, sender=4)
    recorded = event(world.ballots, "OpeningsRecorded")
    assert sorted(tuple(group) for group in recorded.groups) == sorted(
        [(vote.digest, vote.trace, 0b10), (WRONG.digest, WRONG.trace, 0b100)]
    )
    assert (job.ballot.opened, job.ballot.group_count) == (0b111, 2)
    with boa.reverts("ballots: nothing recorded"):
        job.open(votes, batch)


def test_openings_bring_one_entry_for_each_node_of_the_batch(world: World) -> None:
    job = make_job(world)
    _, vote = honest(job)
    job.commit({0: vote, 1: vote})
    world.blocks.mine_past(job.ballot.commit_end)
    entries = [(0, job.element(0)), (0, job.element(1))]
    kinds = [(vote.digest, vote.trace)]
    for brought in (entries[:1], [*entries, entries[0]]):
        with boa.reverts("ballots: not one entry per node"):
            world.ballots.submit_openings(1, STRANGER, 0, 0b11, brought, kinds, job.seed_header)
    world.ballots.submit_openings(1, STRANGER, 0, 0b11, entries, kinds, job.seed_header)
    assert job.ballot.opened == 0b11


def test_openings_need_the_batch_as_recorded(world: World) -> None:
    job = make_job(world)
    _, vote = honest(job)
    votes = dict.fromkeys(range(4), vote)
    batch = job.commit({0: vote, 1: vote})
    job.commit({2: vote, 3: vote})
    with boa.reverts("ballots: no such batch"):
        job.open(votes, batch, batch_index=2)
    with boa.reverts("ballots: not this batch"):
        job.open(votes, batch, batch_index=1)
    for others in ([0], [1], [0, 1, 2], [2, 3]):
        with boa.reverts("ballots: not this batch"):
            job.open(votes, others)
    job.open(votes, [2, 3], batch_index=1)
    assert job.ballot.opened == 0b1100


@pytest.mark.parametrize(
    "wrong",
    ["digest", "trace", "element", "place", "commitment"],
)
def test_an_opening_that_does_not_fit_stops_its_batch(world: World, wrong: str) -> None:
    job = make_job(world)
    _, vote = honest(job)
    batch = job.commit(dict.fromkeys(range(3), vote))
    world.blocks.mine_past(job.ballot.commit_end)
    votes = [(vote.digest, vote.trace), (WRONG.digest, vote.trace), (vote.digest, WRONG.trace)]
    good = {index: (0, job.element(index)) for index in batch}
    bad = {
        "digest": (1, job.element(1)),
        "trace": (2, job.element(1)),
        "element": (0, job.chains[1][2]),
        "place": (0, job.element(2)),  # another node's
        "commitment": (3, job.element(1)),
    }
    with boa.reverts("ballots: not this batch"):
        submit_openings(job, {**good, 1: bad[wrong]}, votes)
    assert job.ballot.opened == 0
    submit_openings(job, good, votes)
    assert job.ballot.opened == 0b111


def test_an_element_that_is_not_of_the_nodes_chain_does_not_vote(world: World) -> None:
    # The commitment holds, so the batch does; but nobody draws lots with made-up elements.
    job = make_job(world)
    _, vote = honest(job)
    number = job.ballot.ballot_number
    made_up = keccak(b"made up")
    for index, element in ((0, made_up), (1, job.chains[1][2]), (2, job.chains[3][number])):
        job.chains[index] = [*job.chains[index][:number], element, *job.chains[index][number + 1 :]]
    votes = dict.fromkeys(range(5), vote)
    job.open(votes, job.commit(votes))
    assert job.ballot.opened == 0b11000
    # Whoever committed and did not vote did not open.
    assert job.ballot.committed == 0b11111


def test_only_drawn_nodes_open_in_a_small_set(world: World) -> None:
    job = Job(world, cone_count=8, changes={"first_set_size": 4}).train()
    _, vote = honest(job)
    drawn = job.drawn()
    assert 0 < len(drawn) < 8, "another seed is needed for this test"
    votes = dict.fromkeys(range(8), vote)
    job.open(votes, job.commit(votes))
    assert job.ballot.opened == bits(*drawn)


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
    late = [index for index in batch if index not in early]
    with boa.reverts("ballots: nothing recorded"):
        job.open(votes, batch, silent=late)
    job.open(votes, batch)
    assert job.ballot.opened == bits(*job.drawn())


def test_openings_are_taken_in_their_window_only(world: World) -> None:
    with boa.reverts("ballots: not in training"):
        world.ballots.submit_openings(1, STRANGER, 0, 0, [], [], b"")
    job = make_job(world)
    _, vote = honest(job)
    job.commit({0: vote})
    entries, votes = {0: (0, job.element(0))}, [(vote.digest, vote.trace)]
    world.blocks.mine_to(job.ballot.commit_end)
    with boa.reverts("ballots: openings not open"):
        submit_openings(job, entries, votes)
    world.blocks.mine_past(job.ballot.open_end)
    with boa.reverts("ballots: openings closed"):
        submit_openings(job, entries, votes)
    world.blocks.mine_to(job.ballot.open_end)
    submit_openings(job, entries, votes)
    assert job.ballot.opened == 1


def test_commitments_of_another_ballot_are_not_taken_again(world: World) -> None:
    job = make_job(world)
    votes = dict.fromkeys(range(5), WRONG)
    entries = [job.signed_commit(index, WRONG) for index in range(5)]
    split(job)
    assert (job.ballot.attempt, job.ballot.committed, job.ballot.opened) == (1, 0, 0)
    world.blocks.mine_past(job.ballot.seed_block)
    with boa.reverts("ballots: nothing recorded"):
        world.ballots.submit_commits(1, STRANGER, 0b11111, entries)
    job.open(votes, job.commit(votes))
    # What the first attempt had taken is of no use in the second.
    assert (job.ballot.opened, job.ballot.group_count) == (0b11111, 1)


def test_a_batch_of_another_ballot_is_not_opened_again(world: World) -> None:
    job = make_job(world)
    split(job)
    world.blocks.mine_past(job.ballot.commit_end)
    assert job.ballot.batch_count == 0
    with boa.reverts("ballots: no such batch"):
        submit_openings(job, {0: (0, job.element(0))}, [(WRONG.digest, WRONG.trace)])


def test_nobody_commits_twice_in_an_attempt(world: World) -> None:
    job = Job(world, cone_count=8, changes={"first_set_size": 6}).train()
    silent = job.drawn()[0]
    job.commit({silent: WRONG})
    world.blocks.mine_past(job.ballot.open_end)
    job.tally([])
    assert (job.ballot.m, job.ballot.batch_count) == (1, 0)
    assert job.ballot.committed == bits(silent)
    with boa.reverts("ballots: nothing recorded"):
        job.commit({silent: WRONG})


@pytest.mark.parametrize(("excess", "is_taken"), [(0, True), (1, False)])
def test_nobody_is_bound_to_open_what_no_header_can_prove(
    deployers: Mapping[str, Any], excess: int, is_taken: bool
) -> None:
    # From the seed block on, the last opening is as far as the history account remembers.
    windows = {"vote_commit_blocks": 4000, "vote_open_blocks": 4191 + excess}
    world = World(deployers, max_window_blocks=5000)
    job = Job(world, changes={"first_set_size": 5, **windows}).train()
    seed_block, open_end = job.ballot.seed_block, job.ballot.open_end
    assert open_end - seed_block == 8191 + excess
    if not is_taken:
        with boa.reverts("ballots: seed out of reach"):
            job.commit({0: WRONG})
        return
    batch = job.commit({0: WRONG})
    world.blocks.mine_to(open_end)
    deployers["BlockHistory"].deploy(
        seed_block, keccak(header_of(seed_block)), override_address=HISTORY_ACCOUNT
    )
    job.open({0: WRONG}, batch)
    assert job.ballot.opened == 1


def test_who_is_called_too_late_to_open_is_not_bound_either(deployers: Mapping[str, Any]) -> None:
    world = World(deployers, max_window_blocks=5000)
    windows = {"vote_commit_blocks": 3000, "vote_open_blocks": 3000}
    job = Job(world, changes={"first_set_size": 4, **windows}).train()
    job.vote({})
    job.tally([])
    assert job.ballot.m == 1
    with boa.reverts("ballots: seed out of reach"):
        job.commit(dict.fromkeys(job.drawn(), WRONG))
    # The attempt ends without them, and the next one has a seed of its own.
    job.vote({})
    job.tally([])
    assert (job.ballot.attempt, job.ballot.m) == (1, 0)
    assert job.commit({0: WRONG}) == [0]
