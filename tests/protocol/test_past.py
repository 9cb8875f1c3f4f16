"""Jobs that leave the state and come back: what is asked later has the same answers."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.events import BitmapsLogged, RecordedEvent
from protocol.job import OVER, JobPhase, JobState
from protocol.market import MarketState, advance, apply_event
from protocol.past import bring_back, let_go, list_late, list_quiet
from protocol.types import BlockNumber, JobId
from tests.support.old_jobs import (
    BLOCKS,
    cancelled_life_of,
    late_reclaim,
    life_of,
    record,
    stake_events,
)

START = record([(0, one) for one in stake_events()], 1)


class Compacted:
    """A fold that lets jobs go whenever it is told to, as a follower with an archive does."""

    def __init__(self) -> None:
        self.state = MarketState()
        self.kept: dict[JobId, JobState] = {}

    def apply(self, recorded: RecordedEvent) -> None:
        for job_id in list_late(self.state, [recorded]):
            self.state = bring_back(self.state, self.kept[job_id])
        self.state = apply_event(self.state, recorded)

    def let_go(self, last_block: int) -> None:
        quiet = list_quiet(self.state, BlockNumber(last_block))
        self.kept.update({job.job_id: job for job in quiet})
        self.state = let_go(self.state, quiet)

    def find(self, job_id: JobId) -> JobState:
        return self.state.jobs.get(job_id) or self.kept[job_id]


def fold(events: Sequence[RecordedEvent]) -> MarketState:
    state = MarketState()
    for one in events:
        state = apply_event(state, one)
    return state


def interleave(starts: Sequence[int], lives: Sequence[str]) -> list[RecordedEvent]:
    """Jobs side by side, each from its own block; numbers go by the order of their auctions."""
    told = []
    for number, (start, life) in enumerate(zip(sorted(starts), lives, strict=True), 1):
        if life == "cancelled":
            told += record(cancelled_life_of(number, start), start)
        else:
            told += record(life_of(number, start, is_bid_left=life != "settled"), start)
        if life == "late":
            told += record([(40, late_reclaim(number))], start)
    # A place on a chain is had by one event only.
    told.sort(key=lambda one: one.block_number)
    return [replace(one, log_index=index) for index, one in enumerate([*START, *told])]


lives = st.sampled_from(["settled", "cancelled", "late", "left"])


@given(
    st.lists(st.tuples(st.integers(2, 60), lives), min_size=1, max_size=6),
    st.sets(st.integers(0, 500), max_size=40),
    st.integers(0, 20),
)
@settings(max_examples=60)
def test_a_fold_that_lets_jobs_go_tells_the_same_as_one_that_keeps_them(
    jobs: list[tuple[int, str]], pauses: set[int], quiet_blocks: int
) -> None:
    events = interleave([start for start, _ in jobs], [life for _, life in jobs])
    compacted = Compacted()
    for index, one in enumerate(events):
        compacted.apply(one)
        if index in pauses:
            compacted.let_go(one.block_number - quiet_blocks)
    whole = fold(events)
    compacted.state = advance(compacted.state, whole.block_number)
    assert compacted.state.job_count == len(whole.jobs)
    for job_id, job in whole.jobs.items():
        assert compacted.find(job_id) == job
        assert compacted.state.is_past(job_id) is (job_id not in compacted.state.jobs)
    phases = [job.phase for job in compacted.state.jobs.values()]
    for phase in JobPhase:
        counted = phases.count(phase) + compacted.state.past.get(phase, 0)
        assert counted == [job.phase for job in whole.jobs.values()].count(phase)
    rest = replace(compacted.state, jobs={}, past={})
    assert rest == replace(whole, jobs={}, past={})


@given(st.permutations([1, 2, 3, 4]))
def test_jobs_come_back_in_the_order_of_their_numbers(order: list[int]) -> None:
    state = fold(interleave([2, 4, 6, 8], ["settled"] * 4))
    jobs = dict(state.jobs)
    state = let_go(state, list(jobs.values()))
    assert (len(state.jobs), state.past) == (0, {JobPhase.SETTLED: 4})
    for number in order:
        state = bring_back(state, jobs[JobId(number)])
    assert list(state.jobs.items()) == list(jobs.items())


def test_only_jobs_that_are_over_are_quiet() -> None:
    events = interleave([2, 50], ["settled", "settled"])
    running = fold([one for one in events if one.block_number < 50 + BLOCKS - 2])
    assert [job.job_id for job in list_quiet(running, BlockNumber(1000))] == [1]
    last = 2 + BLOCKS
    assert list_quiet(running, BlockNumber(last - 1)) == []
    with pytest.raises(AssertionError, match="over"):
        let_go(running, list(running.jobs.values()))


@pytest.mark.parametrize("make", [life_of, cancelled_life_of])
def test_the_block_of_the_last_change_is_that_of_the_last_event(
    make: Callable[[int, int], list[tuple[int, object]]],
) -> None:
    told = make(1, 2)
    (job,) = fold([*START, *record(told, 2)]).jobs.values()  # type: ignore[arg-type]
    assert job.changed_block == 2 + max(blocks for blocks, _ in told)
    assert job.phase in OVER


def test_bitmaps_bring_no_job_back_and_keep_none() -> None:
    state = fold(interleave([2], ["settled"]))
    noise = BitmapsLogged(job=JobId(1), ballot_number=1, groups=(), signatures=())
    recorded = record([(90, noise)], 2)
    changed = apply_event(state, recorded[0]).jobs[JobId(1)].changed_block
    assert changed == state.jobs[JobId(1)].changed_block
    gone = let_go(state, list(state.jobs.values()))
    assert list_late(gone, recorded) == []
    assert apply_event(gone, recorded[0]) == gone


def test_an_event_of_a_job_that_was_let_go_of_does_not_fold_without_it() -> None:
    state = fold(interleave([2], ["left"]))
    gone = let_go(state, list(state.jobs.values()))
    late = record([(90, late_reclaim(1))], 2)
    assert list_late(gone, late) == [JobId(1)]
    with pytest.raises(KeyError):
        apply_event(gone, late[0])


def test_stake_that_is_released_leaves_no_trace_of_its_job() -> None:
    state = fold(interleave([2, 4], ["settled", "settled"]))
    assert all(stake.locked_wei == {} for stake in state.stakes.values())
