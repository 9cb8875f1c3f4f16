"""Whole jobs at random: honest and hostile actors, ether and a token, and time.

The steps are guided: each one looks for a job that it fits, so that jobs come to their ends. After
each step the books must balance, and after each run time alone must empty every contract.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import boa
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

from tests.contracts.earnings import check_earnings
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
RUNS, STEPS = 20, 20
choices = st.integers(min_value=0, max_value=11)
behaviours = st.lists(st.sampled_from(BEHAVIOURS), min_size=MOST_CONES, max_size=MOST_CONES)
few = st.integers(3, 5).map(lambda count: ["honest"] * count + ["absent"] * (MOST_CONES - count))
"""Enough for a decision, and some of the pool is left to be called."""
called = st.one_of(behaviours, *(st.just([one] * MOST_CONES) for one in ("honest", "wrong")))

MUST_HAPPEN = {
    "AttemptUndecided",
    "BidReclaimed",
    "DecisionOverturned",
    "DecisionUpheld",
    "DepositForfeited",
    "DepositReturned",
    "EscrowReclaimed",
    "FinalDecided",
    "JobCancelled",
    "JobSettled",
    "MiniRoundOpened",
    "PayoutClaimed",
    "RoundDecided",
    "RoundVoided",
    "StakeReleased",
    "StakeSlashed",
    "StakeWithdrawn",
}
"""What a walk must have led to at least once: else it proves nothing."""


class MarketMachine(RuleBasedStateMachine):
    """One chain with up to three jobs."""

    deployers: dict[str, Any]
    happened: set[str]

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

    @initialize(mode=st.integers(0, 2), is_token=st.booleans(), is_small_set=st.booleans())
    def first_job(self, mode: int, is_token: bool, is_small_set: bool) -> None:
        """Most runs are about what happens in training and after it."""
        self.open_job(mode, is_token, MOST_CONES, is_small_set, 4)

    @precondition(lambda self: len(self.jobs) < MOST_JOBS)
    @rule(
        mode=st.integers(0, 2),
        is_token=st.booleans(),
        cones=st.integers(5, MOST_CONES),
        is_small_set=st.booleans(),
        steps=st.integers(0, 4),
    )
    def open_job(
        self, mode: int, is_token: bool, cones: int, is_small_set: bool, steps: int
    ) -> None:
        job = MachineJob(
            self.world,
            seller_count=MOST_SELLERS,
            cone_count=cones,
            changes={"first_set_size": 3 if is_small_set else cones},
        )
        job.begin(mode, self.world.currencies[is_token])
        self.jobs[job.number] = job
        for _ in range(steps):
            self._advance(job, ["honest"] * MOST_CONES)

    @rule(choice=choices, steps=st.integers(1, 8))
    def go_on(self, choice: int, steps: int) -> None:
        """Everybody does what a job needs."""
        for _ in range(steps):
            self._with_open(choice, lambda job: self._advance(job, ["honest"] * MOST_CONES))

    @rule(choice=choices, told=st.lists(behaviours, min_size=1, max_size=3))
    def go_on_with_faults(self, choice: int, told: list[list[str]]) -> None:
        """Nodes vote as they like."""
        for one in told:
            self._with_open(choice, lambda job, one=one: self._advance(job, one))

    @rule(choice=choices, is_short_of_sellers=st.booleans())
    def fail_to_start(self, choice: int, is_short_of_sellers: bool) -> None:
        """Too few enrol, or the buyer does not serve its validation data."""

        def fail(job: MachineJob) -> None:
            if job.status == ENROLMENT and is_short_of_sellers:
                self._enrol(job, 4)
            elif job.status == RUNNING and not job.is_voting and job.outcome == 0:
                job.start_training()

        self._with_open(choice, fail)

    @rule(choice=choices, told=st.one_of(few, behaviours), is_appealed=st.booleans(), later=called)
    def check_decision(
        self, choice: int, told: list[str], is_appealed: bool, later: list[str]
    ) -> None:
        """Vote; if that decides something, call the whole pool by an appeal or by an audit."""

        def call(job: MachineJob) -> None:
            if not self._can_vote(job) or job.is_called:
                return
            self._serve_final(job)
            number, open_end = int(job.ballot.ballot_number), int(job.ballot.open_end)
            job.vote_as(told)
            self._look()
            if is_appealed:
                self._appeal(job, number)
            else:
                self.world.blocks.mine()  # so that the block of the seed is known
                job.audit_if_drawn(open_end)
            if job.is_called:
                job.vote_as(later)

        self._with_open(choice, call)

    @rule(choice=choices)
    def overturn(self, choice: int) -> None:
        """Few decide, and the rest of the pool, which is called, decides otherwise."""
        others = MOST_CONES - 3
        told = ["honest"] * 3 + ["absent"] * others
        self.check_decision(choice, told, True, ["wrong"] * MOST_CONES)

    def _advance(self, job: MachineJob, told: list[str]) -> None:
        """Take the next step of a job, whatever its stage; nodes vote as they are told."""
        if job.status == AUCTION:
            job.close_bidding()
        elif job.status == ENROLMENT:
            self._enrol(job, MOST_SELLERS - job.number % 2)
        elif job.is_voting and self._can_vote(job):
            self._serve_final(job)
            job.vote_as(told)
        elif job.is_voting:
            job.wait_out()
        elif job.outcome != 0:
            job.settle()
            assert job.status == SETTLED
        else:
            if self.world.blocks.number <= self.world.ballots.receipts_end(job.number, 0):
                job.submit_receipts(0)
            job.start_training()
        self._look()

    def _enrol(self, job: MachineJob, sellers: int) -> None:
        if self.world.blocks.number <= self.world.market.job_of(job.number).enrolment_end:
            job.apply(sellers)
        job.end_enrolment()
        is_enough = (
            job.has_applicants
            and job.seller_count >= job.terms["sellers_min"]
            and job.cone_count >= job.terms["cones_min"]
        )
        assert job.status == (RUNNING if is_enough else CANCELLED)

    def _can_vote(self, job: MachineJob) -> bool:
        return job.is_voting and self.world.blocks.number <= job.ballot.commit_end

    def _appeal(self, job: MachineJob, number: int) -> None:
        seller = job.sellers[0]
        value = 0
        if job.currency == self.world.currencies[0]:
            missing = job.cone_count - len(job.played[number].opened)
            value = self.world.appeals.bond_of(job.number, job.terms_list, missing)
        succeeds(
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

    @rule(choice=choices)
    def neglect(self, choice: int) -> None:
        """Nobody does anything, and a stranger takes the exit."""
        self._with_open(choice, MachineJob.wait_out)

    @rule(choice=choices)
    def take_own_money(self, choice: int) -> None:
        for actor, take in self._choose(choice).exits():
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
        job = self._choose(choice)
        for intrusion in self._intrusions(job, amount):
            assert not succeeds(intrusion, self.world.stranger)

    def _intrusions(self, job: MachineJob, amount: int) -> list[Callable[..., Any]]:
        world, number, terms = self.world, job.number, job.terms_list
        accounts = [actor.address for actor in world.actors[:5]]
        intrusions: list[Callable[..., Any]] = [
            partial(world.market.release_escrow, number),
            partial(world.market.start_job, number),
            partial(world.market.cancel_job, number),
            partial(world.market.reclaim_escrow, number),
            partial(world.market.reclaim_bid, number),
            partial(world.stakes.lock, number, accounts[0], amount),
            partial(world.stakes.slash, number, accounts, 1, accounts),
            partial(world.deposits.forfeit, number, accounts),
            partial(world.deposits.reclaim, number),
            partial(world.ballots.bar, number, amount),
            partial(world.ballots.open_ballot, number, amount),
            partial(world.appeals.resolve, number, True, accounts),
            partial(world.settlement.claim, job.currency),
        ]
        if number in world.courses:
            course, is_seller = job.course, amount % 2 == 0
            intrusions += [
                partial(world.rounds.call_pool, number, terms, course),
                partial(world.rounds.close_job, number, course),
                partial(world.appeals.appeal, number, terms, course, is_seller, amount % 8, ()),
            ]
        return intrusions

    @rule(count=st.integers(1, 4))
    def pass_time(self, count: int) -> None:
        self.world.blocks.mine(count)

    # --- what must hold ----------------------------------------------------------------------

    @invariant()
    def books_balance(self) -> None:
        self._look()
        check_books(self.world, list(self.jobs.values()))

    def _look(self) -> None:
        self.happened.update(type(entry).__name__ for entry in self.world.seen)
        check_announcements(self.world, self.jobs)

    def _choose(self, choice: int) -> MachineJob:
        jobs = list(self.jobs.values())
        return jobs[choice % len(jobs)]

    def _with_open(self, choice: int, step: Callable[[MachineJob], None]) -> None:
        """Do something with a job that is not closed, if there is one."""
        fitting = [job for job in self.jobs.values() if job.status not in (CANCELLED, SETTLED)]
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
                    self._take(actor, lambda keeper=keeper, c=currency, **to: keeper(c, **to))

    def _drain(self) -> None:
        for job in self.jobs.values():
            while job.status not in (CANCELLED, SETTLED):
                job.wait_out()
                self._look()
            for actor, take in job.exits():
                self._take(actor, take)
        self._take_credits()
        self._look()
        stakes = self.world.stakes
        for actor in self.world.actors:
            free_wei = stakes.holding_of(actor.address).free_wei
            if free_wei > 0:
                stakes.request_unbond(free_wei, sender=actor.address)
        self.world.blocks.mine(self.world.params["unbonding_blocks"] + 1)
        for actor in self.world.actors:
            self._take(actor, stakes.withdraw)
        self._look()
        for currency in self.world.currencies:
            for keeper in self.world.keepers:
                assert self.world.held(keeper.address, currency) == 0, "money is stranded"
            assert self.world.total(currency) == self.world.totals[currency]
        check_earnings(self.world)


def test_no_walk_through_whole_jobs_loses_or_strands_money(deployers: dict[str, Any]) -> None:
    happened: set[str] = set()
    machine = type("Machine", (MarketMachine,), {"deployers": deployers, "happened": happened})
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
    assert happened >= MUST_HAPPEN, f"never happened: {sorted(MUST_HAPPEN - happened)}"
