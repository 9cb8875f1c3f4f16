"""Records of past jobs: encoded, kept, read, and thrown away with their process."""

import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2m_node.errors import StoreCorrupted
from d2m_node.past_jobs import OWN, Tie, find_tie
from d2m_node.storage.database import DATABASE_NAME, Store, open_store
from d2m_node.storage.job_codec import decode_job, encode_job
from d2m_node.storage.past_jobs import PAST_NAME
from protocol.job import JobState
from protocol.market import MarketState, apply_event
from protocol.types import Address, JobId, Wei
from tests.support.old_jobs import BUYER, CONES, LOSER, SELLERS, life_of, record, stake_events
from tests.support.settled_job import make_job_state, make_settled_job


def fold_job(number: int = 1) -> JobState:
    state = MarketState()
    for one in record([(0, event) for event in stake_events()], 1):
        state = apply_event(state, one)
    for count in range(1, number + 1):
        for one in record(life_of(count, 20 * count), 20 * count):
            state = apply_event(state, one)
    return state.jobs[JobId(number)]


JOB = fold_job()


@pytest.mark.parametrize("job", [JOB, make_job_state(make_settled_job())])
def test_a_job_is_what_it_was_when_it_comes_back(job: JobState) -> None:
    again = decode_job(encode_job(job))
    assert again == job
    assert encode_job(again) == encode_job(job)
    kinds = {type(one.event).__name__ for one in job.trail}
    assert {type(one.event).__name__ for one in again.trail} == kinds


@given(st.integers(0, 2**256 - 1), st.integers(-(2**255), 2**255))
def test_numbers_of_every_size_come_back(price: int, weight: int) -> None:
    job = replace(JOB, price_wei=Wei(price), receipts={0: weight})
    assert decode_job(encode_job(job)) == job


def test_a_record_of_ten_members_and_one_round_is_small() -> None:
    assert len(encode_job(JOB)) < 8_000


@given(st.data())
@settings(max_examples=300)
def test_damaged_records_are_told_as_such(data: st.DataObject) -> None:
    whole = encode_job(JOB)
    place = data.draw(st.integers(0, len(whole) - 1))
    damaged = data.draw(
        st.sampled_from(
            [whole[:place], whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]]
        )
    )
    with pytest.raises(ValueError, match="record"):
        decode_job(damaged)


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        [],
        [0],
        [1, 2],
        [2, 3],
        ["JobState"],
        ["Bid", b"", b"", 0, None, None, None, False],
        ["open", "/etc/passwd"],
        ["JobPhase", "settled"],
        ["JobPhase", "nowhere"],
        [{}],
        [[0], 1],
    ],
)
def test_other_values_are_no_records(value: Any) -> None:
    with pytest.raises(ValueError, match="record"):
        decode_job(zlib.compress(msgspec.msgpack.encode(value)))


def test_a_record_that_swells_is_not_unpacked() -> None:
    with pytest.raises(ValueError, match="too long"):
        decode_job(zlib.compress(bytes(1 << 27)))


async def keep_three(store: Store) -> None:
    jobs = [(replace(JOB, job_id=JobId(one)), tie) for one, tie in ((3, Tie.NONE), (1, Tie.BUYER))]
    await store.past.keep(jobs)
    await store.past.keep([(replace(JOB, job_id=JobId(2)), Tie.MEMBER)])


async def test_kept_jobs_are_found_and_listed_by_place_and_tie(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        assert store.past.newest == 0
        await keep_three(store)
        assert await store.past.find(JobId(2)) == replace(JOB, job_id=JobId(2))
        assert await store.past.find(JobId(4)) is None
        assert [one.job_id for one in await store.past.list_kept()] == [3, 1, 2]
        own = await store.past.list_kept(ties=OWN)
        assert [(one.place, one.job_id, one.tie) for one in own] == [
            (2, 1, Tie.BUYER),
            (3, 2, Tie.MEMBER),
        ]
        assert [one.job_id for one in await store.past.list_kept(after=2)] == [2]
        assert store.past.newest == 3


async def test_a_job_that_is_kept_again_has_a_new_place(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await keep_three(store)
        changed = replace(JOB, job_id=JobId(1), shares_swept=True)
        await store.past.keep([(changed, Tie.BIDDER)])
        assert await store.past.find(JobId(1)) == changed
        kept = await store.past.list_kept(after=3)
        assert [(one.place, one.job_id, one.tie) for one in kept] == [(4, 1, Tie.BIDDER)]
        assert len(await store.past.list_kept()) == 3


async def test_places_go_on_after_everything_was_dropped(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await keep_three(store)
        await store.past.drop_all()
        assert await store.past.list_kept() == []
        assert store.past.generation == 1
        await store.past.keep([(JOB, Tie.NONE)])
        assert store.past.newest == 4


async def test_the_next_process_begins_with_nothing_whatever_was_left(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await keep_three(store)
    (tmp_path / PAST_NAME).write_bytes(b"torn")
    (tmp_path / (PAST_NAME + "-journal")).write_bytes(b"left by a crash")
    async with open_store(tmp_path) as store:
        assert await store.past.list_kept() == []
        await keep_three(store)
    assert (tmp_path / PAST_NAME).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / DATABASE_NAME).exists()


async def test_a_record_that_is_none_is_reported_with_the_fix(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        await keep_three(store)
        run = store.past._run
        await run(lambda one: one.execute("UPDATE past_jobs SET record = x'00' WHERE job_id = 1"))
        with pytest.raises(StoreCorrupted, match=r"job 1: .*restart the node"):
            await store.past.find(JobId(1))


@pytest.mark.parametrize(
    ("account", "tie"),
    [
        (BUYER, Tie.BUYER),
        (LOSER, Tie.BIDDER),
        (SELLERS[4], Tie.MEMBER),
        (CONES[0], Tie.MEMBER),
        (Address(b"\xee" * 20), Tie.NONE),
    ],
)
def test_a_tie_is_what_an_account_had_to_do_with_a_job(account: Address, tie: Tie) -> None:
    assert find_tie(JOB, account) is tie
