"""Whole jobs at random: honest and hostile actors, ether and a token, and time.

The steps are guided: each one looks for a job that it fits, so that jobs come to their ends. After
each step the books must balance, and after each run time alone must empty every contract.
"""

from collections.abc import Callable
from typing import Any

import boa
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.contracts.machine import (
    AUCTION,
    BEHAVIOURS,
    CANCELLED,
    ENROLMENT,
    MOST_CONES,
    MOST_SELLERS,
    RUNNING,
    SETTLED,
    MachineJob,
    MachineWorld,
    check_announcements,
    check_books,
    succeeds,
)
from tests.contracts.world import ONE_ETHER

MOST_JOBS = 3
RUNS, STEPS = 25, 30
choices = st.integers(min_value=0, max_value=11)
behaviours = st.lists(st.sampled_from(BEHAVIOURS), min_size=MOST_CONES, max_size=MOST_CONES)


class MarketMachine(RuleBasedStateMachine):
    """One chain with up to three jobs."""

    deployers: dict[str, Any]

    def __init__(self) -> None:
        super().__init__()
        boa.env.sstore_trace.clear()
        self._anchor = boa.env.anchor()
        self._anchor.__enter__()
        self.world = MachineWorld(self.deployers)
        self.jobs: dict[int, MachineJob] = {}

    def teardown(self) -> None:
        """Only time passes, and everybody takes what is its own: nothing may be left."""
        try:
            self._drain()
        finally:
            self._anchor.__exit__(None, None, None)

    # --- what actors do ----------------------------------------------------------------------

    @initialize(mode=st.integers(0, 2), is_token=st.booleans())
    def first_job(self, mode: int, is_token: bool) -> None:
        self.open_job(mode, is_token, 5, False)

    @precondition(lambda self: len(self.jobs) < MOST_JOBS)
    @rule(
        mode=st.integers(0, 2),
        is_token=st.booleans(),
        cones=st.integers(5, MOST_CONES),
        is_small_set=st.booleans(),
    )
    def open_job(self, mode: int, is_token: bool, cones: int, is_small_set: bool) -> None:
        job = MachineJob(
            self.world,
            seller_count=MOST_SELLERS,
            cone_count=cones,
            changes={"first_set_size": 3 if is_small_set else cones},
        )
        job.begin(mode, self.world.currencies[is_token])
        self.jobs[job.number] = job

    @rule(choice=choices)
    def close_auction(self, choice: int) -> None:
        self._with(choice, AUCTION, MachineJob.close_bidding)

    @rule(choice=choices, is_enough=st.sampled_from((True, True, True, False)))
    def enrol(self, choice: int, is_enough: bool) -> None:
        def fill(job: MachineJob) -> None:
            end = self.world.market.job_of(job.number).enrolment_end
            if self.world.blocks.number > end:
                return
            job.apply(5 + choice % 2 if is_enough else 4, job.cone_count)
            job.end_enrolment()
            assert job.status == (RUNNING if is_enough else CANCELLED)

        self._with(choice, ENROLMENT, fill)

    @rule(choice=choices, is_served=st.sampled_from((True, True, True, False)))
    def start_training(self, choice: int, is_served: bool) -> None:
        def start(job: MachineJob) -> None:
            if job.is_voting or job.outcome != 0:
                return
            receipts_end = self.world.ballots.receipts_end(job.number, 0)
            if is_served and self.world.blocks.number <= receipts_end:
                job.submit_receipts(0)
            job.start_training()

        self._with(choice, RUNNING, start)

    @rule(choice=choices, told=behaviours)
    def vote(self, choice: int, told: list[str]) -> None:
        """One mini-round in which nodes do as they like."""
        self._with_voting(choice, lambda job: job.vote_as(told))

    @rule(choice=choices, count=st.integers(1, 4))
    def vote_honestly(self, choice: int, count: int) -> None:
        """Some mini-rounds without a fault, so that jobs get on."""

        def go_on(job: MachineJob) -> None:
            for _ in range(count):
                if job.is_voting:
                    self._serve_final(job)
                    job.vote_as(["honest"] * MOST_CONES)
                    self._look()

        self._with_voting(choice, go_on)

    @rule(choice=choices, told=behaviours, is_appealed=st.booleans(), later=behaviours)
    def check_decision(
        self, choice: int, told: list[str], is_appealed: bool, later: list[str]
    ) -> None:
        """Vote; if that decides something, call the whole pool by an appeal or by an audit."""

        def call(job: MachineJob) -> None:
            if job.is_called:
                return
            self._serve_final(job)
            open_end = int(job.ballot.open_end)
            job.vote_as(told)
            self._look()
            called = self._appeal(job) if is_appealed else job.audit_if_drawn(open_end)
            if called:
                job.vote_as(later)

        self._with_voting(choice, call)

    def _appeal(self, job: MachineJob) -> bool:
        seller = job.sellers[0]
        value = 0
        if job.currency == self.world.currencies[0]:
            missing = job.cone_count - len(job.played[int(job.ballot.ballot_number) - 1].opened)
            value = self.world.appeals.bond_of(job.number, job.terms_list, missing)
        return succeeds(
            lambda **to: self.world.appeals.appeal(
                job.number, job.terms_list, job.course, True, 0, (), value=value, **to
            ),
            seller,
        )

    @staticmethod
    def _serve_final(job: MachineJob) -> None:
        """Record that the final data are there, if they are asked for."""
        end = job.world.ballots.receipts_end(job.number, 1)
        if job.world.blocks.number <= end and not job.world.statements.receipts(job.number, 1):
            job.submit_receipts(1)

    @rule(choice=choices, steps=st.integers(1, 3))
    def wait_out(self, choice: int, steps: int) -> None:
        """Nobody does anything, and a stranger takes the exits."""
        for _ in range(steps):
            for job in self._choose(choice):
                if job.status not in (CANCELLED, SETTLED):
                    job.wait_out()
                    self._look()

    @rule(choice=choices)
    def settle(self, choice: int) -> None:
        def end(job: MachineJob) -> None:
            if job.outcome != 0 and not job.is_voting:
                job.settle()
                assert job.status == SETTLED

        self._with(choice, RUNNING, end)

    @rule(choice=choices)
    def take_own_money(self, choice: int) -> None:
        for job in self._choose(choice):
            for actor, take in job.exits():
                self._take(actor, take)
        self._take_credits()

    @rule(choice=choices, amount=st.integers(1, 4))
    def move_stake(self, choice: int, amount: int) -> None:
        cone = self.world.actors[3 + MOST_SELLERS + choice % MOST_CONES]
        stakes = self.world.stakes
        if choice % 2:
            stakes.deposit(value=amount * ONE_ETHER, sender=cone.address)
        else:
            succeeds(lambda **to: stakes.request_unbond(amount * ONE_ETHER, **to), cone)

    @rule(choice=choices, amount=st.integers(0, 2**64))
    def intrude(self, choice: int, amount: int) -> None:
        """A stranger calls what only contracts, buyers or members may call."""
        world, stranger = self.world, self.world.stranger
        accounts = [actor.address for actor in world.actors[:5]]
        for job in self._choose(choice):
            number, terms = job.number, job.terms_list
            course = world.courses[number][-1] if number in world.courses else None
            intrusions: list[Callable[..., Any]] = [
                lambda **to: world.market.release_escrow(number, **to),
                lambda **to: world.market.start_job(number, **to),
                lambda **to: world.market.cancel_job(number, **to),
                lambda **to: world.market.reclaim_escrow(number, **to),
                lambda **to: world.market.reclaim_bid(number, **to),
                lambda **to: world.stakes.lock(number, stranger.address, amount, **to),
                lambda **to: world.stakes.slash(number, accounts, 1, accounts, **to),
                lambda **to: world.deposits.forfeit(number, accounts, **to),
                lambda **to: world.deposits.reclaim(number, **to),
                lambda **to: world.ballots.bar(number, amount, **to),
                lambda **to: world.ballots.open_ballot(number, amount, **to),
                lambda **to: world.appeals.resolve(number, True, accounts, **to),
                lambda **to: world.settlement.claim(job.currency, **to),
            ]
            if course is not None:
                intrusions += [
                    lambda **to: world.rounds.call_pool(number, terms, course, **to),
                    lambda **to: world.rounds.close_job(number, course, **to),
                    lambda **to: world.appeals.appeal(
                        number, terms, course, bool(choice % 2), amount % 8, (), **to
                    ),
                ]
            for intrusion in intrusions:
                assert not succeeds(intrusion, stranger)

    @rule(count=st.integers(1, 30))
    def pass_time(self, count: int) -> None:
        self.world.blocks.mine(count)

    # --- what must hold ----------------------------------------------------------------------

    @invariant()
    def books_balance(self) -> None:
        self._look()
        check_books(self.world, list(self.jobs.values()))

    def _look(self) -> None:
        check_announcements(self.world, self.jobs)

    def _choose(self, choice: int) -> list[MachineJob]:
        jobs = list(self.jobs.values())
        return jobs[choice % len(jobs) :][:1] if jobs else []

    def _with(self, choice: int, status: int, step: Callable[[MachineJob], None]) -> None:
        fitting = [job for job in self.jobs.values() if job.status == status]
        if fitting:
            step(fitting[choice % len(fitting)])

    def _with_voting(self, choice: int, step: Callable[[MachineJob], None]) -> None:
        fitting = [job for job in self.jobs.values() if job.is_voting]
        fitting = [job for job in fitting if self.world.blocks.number <= job.ballot.commit_end]
        if fitting:
            step(fitting[choice % len(fitting)])

    def _take(self, actor: Any, take: Callable[..., Any]) -> None:
        if succeeds(take, actor):
            assert not succeeds(take, actor), "paid twice"

    def _take_credits(self) -> None:
        world = self.world
        for actor in world.actors:
            for currency in world.currencies:
                for keeper in (world.settlement.claim, world.appeals.withdraw):
                    self._take(
                        actor, lambda keeper=keeper, c=currency, **to: keeper(c, **to)
                    )

    def _drain(self) -> None:
        for job in self.jobs.values():
            while job.status not in (CANCELLED, SETTLED):
                job.wait_out()
                self._look()
            for actor, take in job.exits():
                self._take(actor, take)
        self._take_credits()
        stakes = self.world.stakes
        for actor in self.world.actors:
            free_wei = stakes.holding_of(actor.address).free_wei
            if free_wei > 0:
                stakes.request_unbond(free_wei, sender=actor.address)
        self.world.blocks.mine(self.world.params["unbonding_blocks"] + 1)
        for actor in self.world.actors:
            self._take(actor, stakes.withdraw)
        for currency in self.world.currencies:
            for keeper in self.world.keepers:
                assert self.world.held(keeper.address, currency) == 0, "money is stranded"
            assert self.world.total(currency) == self.world.totals[currency]


@pytest.mark.integration
def test_no_walk_through_whole_jobs_loses_or_strands_money(deployers: dict[str, Any]) -> None:
    machine = type("Machine", (MarketMachine,), {"deployers": deployers})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=RUNS,
            stateful_step_count=STEPS,
            derandomize=True,
            deadline=None,
            # A walk of whole jobs shrinks for hours.
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
        ),
    )
