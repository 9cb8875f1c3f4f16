"""Refunds: what the senders of batches spent, as ballots note it and courses sum it up."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boa
import pytest
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from tests.contracts.scenarios import (
    WRONG,
    advance,
    appeal,
    decide_by,
    expire,
    honest,
    hostile,
    make_job,
    tally_pool,
)
from tests.contracts.support import pure_calls
from tests.contracts.world import HONEST_TRACE, STRANGER, Ballot, Job, World

GWEI = 10**9
UNIT_WEI = 10 * GWEI
GAS_PER_ENTRY = 8000
MOST = 2**32 - 1


@contextmanager
def prices(gas_price_wei: int, base_fee_wei: int) -> Iterator[None]:
    """Let calls pay this price in blocks with this base fee."""
    context = boa.env.evm.vm.state.execution_context
    before = boa.env._gas_price, context._base_fee_per_gas
    boa.env._gas_price, context._base_fee_per_gas = gas_price_wei, base_fee_wei
    try:
        yield
    finally:
        boa.env._gas_price, context._base_fee_per_gas = before


@pytest.fixture(autouse=True)
def usual_prices() -> Iterator[None]:
    with prices(21 * GWEI, 20 * GWEI):
        yield


def spent(entries: int, price_wei: int = 21 * GWEI) -> int:
    """What a batch is worth, in wei, rounded down to a unit."""
    return entries * GAS_PER_ENTRY * price_wei // UNIT_WEI * UNIT_WEI


def noted(*slots: tuple[int, int]) -> int:
    """The word of a ballot's marks: (index, units) of its senders."""
    return sum((index | units << 6) << (38 * slot) for slot, (index, units) in enumerate(slots))


def test_a_sender_is_noted_for_what_its_batch_recorded(packing: Any) -> None:
    units = spent(3) // UNIT_WEI
    assert packing.note_refund(0, 5, 3) == noted((5, units))
    assert packing.note_refund(noted((5, units)), 5, 3) == noted((5, 2 * units))


def test_a_second_sender_is_noted_and_a_third_is_not(packing: Any) -> None:
    units = spent(1) // UNIT_WEI
    word = packing.note_refund(packing.note_refund(0, 63, 1), 0, 1)
    assert word == noted((63, units), (0, units))
    assert packing.note_refund(word, 7, 1) == word
    assert packing.note_refund(word, 0, 2) == noted((63, units), (0, 3 * units))
    assert packing.note_refund(word, 63, 2) == noted((63, 3 * units), (0, units))


@pytest.mark.parametrize(
    ("gas_price", "base_fee", "paid"),
    [(21, 20, 21), (22, 20, 22), (23, 20, 22), (500, 20, 22), (1, 0, 1), (3, 0, 2), (0, 0, 0)],
)
def test_the_price_is_capped_a_little_above_the_base_fee(
    packing: Any, gas_price: int, base_fee: int, paid: int
) -> None:
    with prices(gas_price * GWEI, base_fee * GWEI):
        word = packing.note_refund(0, 2, 4)
    units = spent(4, paid * GWEI) // UNIT_WEI
    assert word == noted((2, units))
    if paid == 0:
        # A sender that is owed nothing keeps no other from a place.
        assert packing.note_refund(word, 3, 1) == noted((3, spent(1) // UNIT_WEI))


def test_what_is_noted_stops_at_its_bound(packing: Any) -> None:
    full = noted((1, MOST - 1), (2, 5))
    assert packing.note_refund(full, 1, 1) == noted((1, MOST), (2, 5))
    with prices(10**30, 10**30):
        assert packing.note_refund(0, 4, 64) == noted((4, MOST))


@pure_calls
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 64)), max_size=6), st.integers(0, 10**12)
)
def test_notes_are_those_of_a_plain_list(
    packing: Any, batches: list[tuple[int, int]], price_wei: int
) -> None:
    word, owed = 0, {}
    with prices(price_wei, 10**12):
        for index, entries in batches:
            word = packing.note_refund(word, index, entries)
            units = entries * GAS_PER_ENTRY * price_wei // UNIT_WEI
            known = [one for one, sum_units in owed.items() if sum_units > 0]
            if index in known or len(known) < 2:
                owed[index] = min(owed.get(index, 0) + units, MOST)
    sums = packing.collect_refunds([0] * 8, word)
    expected = [owed.get(index, 0) * UNIT_WEI for index in range(64)]
    assert packing.list_refunds(sums, 64) == expected


@pure_calls
@given(
    st.lists(
        st.tuples(
            st.integers(0, 63), st.integers(0, MOST), st.integers(0, 63), st.integers(0, MOST)
        ),
        max_size=5,
    ),
    st.integers(1, 64),
)
def test_sums_are_those_of_a_plain_loop(
    packing: Any, ballots: list[tuple[int, int, int, int]], cones: int
) -> None:
    sums, expected = [0] * 8, [0] * 64
    for first, first_units, second, second_units in ballots:
        sums = packing.collect_refunds(sums, noted((first, first_units), (second, second_units)))
        for index, units in ((first, first_units), (second, second_units)):
            expected[index] = min(expected[index] + units, MOST)
    assert packing.list_refunds(sums, cones) == [units * UNIT_WEI for units in expected[:cones]]


def refunds(job: Job) -> list[int]:
    return list(job.result.refunds_wei)


def test_senders_of_batches_are_refunded_from_the_course(world: World) -> None:
    job = make_job(world)
    header, vote = honest(job)
    votes = dict.fromkeys(range(5), vote)
    first = job.commit({0: vote, 1: vote}, sender=3)
    second = job.commit({2: vote, 3: vote, 4: vote}, sender=1)
    job.open(votes, first, batch_index=0, sender=3)
    job.open(votes, second, batch_index=1, sender=0)  # a third: too many
    assert refunds(job) == [0] * 5
    world.blocks.mine_past(job.ballot.open_end)
    job.tally([(0, vote)], header)
    assert refunds(job) == [0, spent(3), 0, 2 * spent(2), 0]
    advance(job, vote.digest)
    job.decide_round()  # sent by a stranger
    assert refunds(job) == [0, spent(3), 0, 2 * spent(2), 0]


def test_only_the_sender_itself_is_refunded(world: World) -> None:
    job = make_job(world)
    header, vote = honest(job)
    world.blocks.mine_past(job.ballot.seed_block)
    for sender_index in range(5):
        entry = job.signed_commit(sender_index, vote)
        account = job.cones[(sender_index + 1) % 5].address
        world.ballots.submit_commits(1, sender_index, 1 << sender_index, [entry], sender=account)
    for index in range(5):
        sender_index = STRANGER if index < 3 else 5 + index
        job.world.blocks.mine_past(job.ballot.commit_end)
        world.ballots.submit_openings(
            1, sender_index, index, 1 << index, [(0, job.element(index))],
            [(vote.digest, vote.trace)], job.seed_header, sender=job.cones[index].address,
        )  # fmt: skip
    world.blocks.mine_past(job.ballot.open_end)
    job.tally([(0, vote)], header)
    assert refunds(job) == [0] * 5


def test_entries_that_were_skipped_are_not_refunded(world: World) -> None:
    job = make_job(world)
    header, vote = honest(job)
    job.commit({0: vote, 1: vote}, sender=2)
    job.commit(dict.fromkeys(range(3), vote), sender=2)  # only one of them is new
    votes = dict.fromkeys(range(5), vote)
    job.open(votes, [0, 1], silent=[0], sender=2)
    job.open(votes, [0, 1], sender=2)
    job.open(votes, [2], batch_index=1, sender=2)
    world.blocks.mine_past(job.ballot.open_end)
    job.tally([(0, vote)], header)
    assert refunds(job) == [0, 0, spent(2) + 4 * spent(1), 0, 0]


def test_undecided_and_expired_ballots_are_refunded_too(world: World) -> None:
    job = make_job(world)
    _, vote = honest(job)
    votes = {0: vote, 1: vote, 2: WRONG, 3: WRONG}
    batch = job.commit(votes, sender=4)
    job.open(votes, batch, sender=4)
    world.blocks.mine_past(job.ballot.open_end)
    job.tally([(0, vote), (0, WRONG)])
    assert refunds(job) == [0, 0, 0, 0, 2 * spent(4)]
    job.commit({0: vote}, sender=0)
    expire(job)
    assert refunds(job) == [spent(1), 0, 0, 0, 2 * spent(4)]


def test_mini_rounds_of_an_attempt_are_refunded_once(world: World) -> None:
    job = Job(world, cone_count=8, changes={"first_set_size": 4, "lead": 5}).train()
    header = job.round_header()
    vote = Ballot(keccak(header), HONEST_TRACE)
    groups, entries = [], 0
    while job.ballot.ballot_number == 1:
        drawn = job.drawn()
        if drawn:
            groups.append((job.ballot.m, vote))
            votes = dict.fromkeys(drawn, vote)
            job.open(votes, job.commit(votes, sender=0), sender=0)
            entries += len(drawn)
        m = job.ballot.m
        world.blocks.mine_past(job.ballot.open_end)
        job.tally(groups, header)
    assert m > 0, "another seed is needed for this test"
    assert refunds(job)[0] == 2 * spent(entries)


@pytest.mark.parametrize("is_overturned", [False, True])
def test_a_pool_call_adds_its_own_batches_and_no_other_twice(
    world: World, is_overturned: bool
) -> None:
    job = make_job(world, 7)
    job.decide_round()
    header, vote = honest(job)
    decided_header = hostile(job) if is_overturned else header
    decided = Ballot(keccak(decided_header), HONEST_TRACE)
    votes = dict.fromkeys(range(3), decided)
    job.open(votes, job.commit(votes, sender=0), sender=0)
    world.blocks.mine_past(job.ballot.open_end)
    job.tally([(0, decided)], decided_header)
    assert refunds(job) == [2 * spent(3), *[0] * 6]
    appeal(job, 6)
    votes = dict.fromkeys(range(3, 7), vote)
    job.open(votes, job.commit(votes, sender=5), sender=5)
    world.blocks.mine_past(job.ballot.open_end)
    tally_pool(job, [(0, decided), (1, vote)], header if is_overturned else b"")
    assert refunds(job) == [2 * spent(3), *[0] * 4, 2 * spent(4), 0]


def test_a_pool_call_that_expires_refunds_the_decision_alone(world: World) -> None:
    job = make_job(world, 7)
    header, vote = honest(job)
    votes = dict.fromkeys(range(3), vote)
    job.open(votes, job.commit(votes, sender=0), sender=0)
    world.blocks.mine_past(job.ballot.open_end)
    job.tally([(0, vote)], header)
    appeal(job, 6)
    job.commit({3: vote}, sender=5)
    expire(job)
    assert refunds(job) == [2 * spent(3), *[0] * 6]


def test_a_decision_of_strangers_costs_the_job_nothing(world: World) -> None:
    job = make_job(world, 7)
    header, _ = honest(job)
    decide_by(job, range(3), header)
    assert refunds(job) == [0] * 7
