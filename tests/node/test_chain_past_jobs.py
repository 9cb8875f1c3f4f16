"""A follower that lets jobs go: memory stays flat, and nothing is lost on any branch."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from d2m_node.chain.archivist import QUIET_BLOCKS, Archivist
from d2m_node.chain.follower import Follower
from d2m_node.past_jobs import PastJobs, Tie
from d2m_node.storage.database import open_store
from protocol.events import Event, RecordedEvent
from protocol.job import JobPhase, JobState
from protocol.market import MarketState, apply_event
from protocol.types import Address, JobId
from tests.support.chain import SETTINGS, ScriptedChain, make_bindings, make_log
from tests.support.old_jobs import (
    BUYER,
    CONES,
    LOSER,
    SELLERS,
    Told,
    late_reclaim,
    life_of,
    stake_events,
)
from tests.support.sizes import measure_bytes

STRANGER = Address(b"\xee" * 20)
REORG = SETTINGS.reorg_blocks
LONG = QUIET_BLOCKS + REORG + 5
"""So many blocks after its last event a job is out of the state."""


@dataclass
class World:
    """A scripted chain, and a follower with its archive."""

    past: PastJobs
    account: Address = STRANGER

    def __post_init__(self) -> None:
        self.chain = ScriptedChain()
        self.archivist = Archivist(self.past, self.account)
        self.follower = Follower(
            self.chain,  # type: ignore[arg-type]
            make_bindings(),
            replace(SETTINGS, range_blocks=100),
            self.archivist,
        )
        self.folded = MarketState()
        """What the whole fold makes of the same branch."""
        self.mine(*stake_events())

    @property
    def state(self) -> MarketState:
        return self.follower.state

    def mine(self, *events: Event) -> None:
        self.chain.mine(*map(make_log, events))
        for index, event in enumerate(events):
            recorded = RecordedEvent(
                block_number=self.chain.height,  # type: ignore[arg-type]
                log_index=index,
                transaction_hash=bytes(32),
                event=event,
            )
            self.folded = apply_event(self.folded, recorded)

    def live(self, told: Sequence[Told]) -> None:
        """Mine a job's life, block by block."""
        for blocks in range(max(at for at, _ in told) + 1):
            self.mine(*(event for at, event in told if at == blocks))

    def live_one(self, number: int, *, is_bid_left: bool = False) -> None:
        self.live(life_of(number, self.chain.height + 1, is_bid_left=is_bid_left))

    async def follow(self) -> None:
        while await self.follower.follow():
            pass

    async def find(self, number: int) -> JobState | None:
        job_id = JobId(number)
        return self.state.jobs.get(job_id) or await self.past.find(job_id)

    async def follow_each(self, blocks: int) -> None:
        """Let so many empty blocks come, one by one, as they do near the tip."""
        for _ in range(blocks):
            self.chain.mine()
            await self.follow()


@asynccontextmanager
async def open_world(folder: Path, account: Address = STRANGER) -> AsyncIterator[World]:
    async with open_store(folder) as store:
        yield World(store.past, account)


async def test_a_job_that_is_long_over_leaves_the_state_and_can_be_read(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        world.live_one(1)
        await world.follow()
        assert list(world.state.jobs) == [1]
        await world.follow_each(LONG)
        assert dict(world.state.jobs) == {}
        assert world.state.past == {JobPhase.SETTLED: 1}
        assert world.state.job_count == 1
        assert await world.find(1) == world.folded.jobs[JobId(1)]


async def test_memory_is_flat_however_many_jobs_there_were(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        # What is kept for subscribers has a bound of its own: so many events.
        others = (world.chain, world.past, world.follower.history)
        sizes = {}
        for number in range(1, 361):
            world.live_one(number)
            if number % 10 == 0:
                world.chain.mine_many(LONG)
                await world.follow()
                sizes[number] = measure_bytes(world.follower, leave_out=others)
        assert world.state.job_count == 360
        assert len(world.state.jobs) <= 10
        # From 257 on numbers of jobs are objects of their own.
        assert sizes[360] - sizes[270] < 90 * 10
        # What a job takes as long as it is in the state, for comparison.
        assert measure_bytes(world.folded.jobs[JobId(360)]) > 10_000
        for number in (1, 100, 200, 340):
            assert await world.find(number) == world.folded.jobs[JobId(number)]


async def test_an_event_that_comes_late_brings_its_job_back(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        world.live_one(1, is_bid_left=True)
        world.live_one(2)
        world.chain.mine_many(LONG)
        await world.follow()
        await world.follow_each(LONG)
        assert dict(world.state.jobs) == {}
        world.mine(late_reclaim(1))
        await world.follow()
        assert list(world.state.jobs) == [1]
        assert world.state.jobs[JobId(1)].bids[LOSER].reclaimed
        assert world.state.job_count == 2
        await world.follow_each(LONG)
        assert dict(world.state.jobs) == {}
        assert await world.find(1) == world.folded.jobs[JobId(1)]


async def test_a_reorganisation_takes_a_late_event_back(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        world.live_one(1, is_bid_left=True)
        await world.follow()
        await world.follow_each(LONG)
        before = await world.find(1)
        world.mine(late_reclaim(1))
        await world.follow()
        await world.follow_each(REORG - 1)
        world.chain.drop(REORG)
        await world.follow_each(REORG + 1)
        assert dict(world.state.jobs) == {}
        assert await world.find(1) == before
        assert before is not None
        assert not before.bids[LOSER].reclaimed


async def test_a_reorganisation_across_the_block_in_which_a_job_left_changes_nothing(
    tmp_path: Path,
) -> None:
    async with open_world(tmp_path) as world:
        world.live_one(1)
        await world.follow()
        while world.state.jobs:
            await world.follow_each(1)
        world.chain.drop(REORG)
        await world.follow_each(REORG + 1)
        assert world.state.job_count == 1
        assert await world.find(1) == world.folded.jobs[JobId(1)]
        await world.follow_each(LONG)
        assert dict(world.state.jobs) == {}


async def test_a_reorganisation_deeper_than_all_that_is_kept_forgets_the_jobs(
    tmp_path: Path,
) -> None:
    async with open_world(tmp_path) as world:
        world.live_one(1)
        await world.follow()
        await world.follow_each(LONG)
        assert await world.past.find(JobId(1)) is not None
        world.chain.drop(world.chain.height)
        world.folded = MarketState()
        world.mine(*stake_events())
        world.chain.mine_many(2 * LONG)
        await world.follow()
        assert world.state.job_count == 0
        assert await world.find(1) is None
        assert await world.past.list_kept() == []
        assert world.past.generation == 1


async def test_old_jobs_are_let_go_of_while_the_history_is_read(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        for number in range(1, 41):
            world.live_one(number)
        world.chain.mine_many(LONG)
        most = 0
        while await world.follower.follow():
            most = max(most, len(world.state.jobs))
        assert most < 40
        assert world.state.job_count == 40


async def test_a_job_that_holds_money_of_the_account_stays(tmp_path: Path) -> None:
    async with open_world(tmp_path, LOSER) as world:
        world.live_one(1, is_bid_left=True)
        await world.follow()
        await world.follow_each(LONG)
        assert list(world.state.jobs) == [1]
        world.mine(late_reclaim(1))
        await world.follow()
        await world.follow_each(LONG)
        assert dict(world.state.jobs) == {}
        (kept,) = await world.past.list_kept()
        assert kept.tie is Tie.BIDDER


async def test_roles_see_their_job_over_for_a_while_before_it_leaves(tmp_path: Path) -> None:
    """An endpoint that was away for days brings the end of a job and all that follows at once."""
    async with open_world(tmp_path, CONES[0]) as world:
        told = life_of(1, world.chain.height + 1)
        world.live([one for one in told if one[0] < 11])
        await world.follow()
        world.archivist.watch()
        world.live([(at - 11, event) for at, event in told if at >= 11])
        world.chain.mine_many(2 * LONG)
        await world.follow()
        assert world.state.jobs[JobId(1)].phase is JobPhase.SETTLED
        await world.follow_each(QUIET_BLOCKS - 100)
        assert list(world.state.jobs) == [1]
        await world.follow_each(100)
        assert dict(world.state.jobs) == {}


async def test_jobs_are_kept_with_what_the_account_had_to_do_with_them(tmp_path: Path) -> None:
    ties = {}
    accounts = (BUYER, LOSER, SELLERS[0], CONES[1], STRANGER)
    for position, account in enumerate(accounts):
        async with open_world(tmp_path / str(position), account) as world:
            world.live_one(1)
            await world.follow()
            await world.follow_each(LONG)
            (kept,) = await world.past.list_kept()
            ties[account] = kept.tie
    assert list(ties.values()) == [Tie.BUYER, Tie.BIDDER, Tie.MEMBER, Tie.MEMBER, Tie.NONE]


async def test_a_follower_without_an_archive_keeps_every_job() -> None:
    chain = ScriptedChain()
    follower = Follower(chain, make_bindings(), SETTINGS)  # type: ignore[arg-type]
    told = [*((0, one) for one in stake_events()), *life_of(1, 1)]
    for blocks in range(20):
        chain.mine(*(make_log(event) for at, event in told if at == blocks))
    chain.mine_many(2 * LONG)
    with trio.fail_after(60):
        while await follower.follow():
            pass
    assert list(follower.state.jobs) == [1]
