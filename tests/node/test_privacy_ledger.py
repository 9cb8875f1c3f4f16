"""The ledger on a real store: what it refuses, what it remembers, and what a crash cannot hide."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from d2m_node.errors import PrivacyBudgetSpent, StoreCorrupted, UserError
from d2m_node.ports import JournalPort, PrivateTraining, Samples
from d2m_node.privacy_ledger import (
    TRAININGS,
    Books,
    PrivacyLedger,
    PrivacyPolicy,
    check_delta,
    compute_dataset_id,
    plan_steps,
    read_accounts,
)
from d2m_node.storage.database import open_store
from d2m_node.training import accounting
from protocol.hashing import Domain
from protocol.request import TrainingSpec
from protocol.types import Address, JobId

SPEC = TrainingSpec(learning_rate_micros=1000, batch_size=20, epochs=2)
COUNT = 1000
ROUNDS = 5
DATASET = "d" * 64
POLICY = PrivacyPolicy(epsilon_budget=8.0, delta=1e-5, max_grad_norm=0.5, noise_multiplier=1.0)
BOOKS = Books(
    dataset=DATASET, domain=Domain(1, Address(b"\x01" * 20)), account=Address(b"\x02" * 20)
)


class Accountant:
    """The sums of the training process, done here."""

    async def compute_epsilon(
        self, history: Sequence[tuple[PrivateTraining, int]], delta: float
    ) -> float:
        return accounting.compute_epsilon(history, delta)

    async def choose_noise(
        self, *, epsilon: float, delta: float, sample_rate: float, steps: int
    ) -> float:
        return accounting.choose_noise(
            epsilon=epsilon, delta=delta, sample_rate=sample_rate, steps=steps
        )


class Desk:
    """Opens ledgers over one journal, and knows which jobs are over."""

    def __init__(self, journal: JournalPort) -> None:
        self.journal = journal
        self.over: set[int] = set()

    def open(self, policy: PrivacyPolicy = POLICY, books: Books = BOOKS) -> PrivacyLedger:
        return PrivacyLedger(
            policy,
            books,
            self.journal,
            Accountant(),  # type: ignore[arg-type]  # it does not train
            is_over=lambda job: job in self.over,
        )

    async def promise(self, job: int, ledger: PrivacyLedger | None = None) -> PrivateTraining:
        ledger = self.open() if ledger is None else ledger
        return await ledger.promise(JobId(job), SPEC, sample_count=COUNT, rounds=ROUNDS)

    async def spend(self) -> float:
        (account,) = await read_accounts(self.journal)
        return account.epsilon


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_store(tmp_path) as store:
        yield Desk(store.journal)


def epsilon_of(trainings: int, private: PrivateTraining) -> float:
    return accounting.compute_epsilon([(private, trainings)], POLICY.delta)


def budget_for(jobs: int) -> PrivacyPolicy:
    """A budget for so many jobs and half of another."""
    rate, steps = plan_steps(SPEC, COUNT)
    one = PrivateTraining(noise_multiplier=1.0, max_grad_norm=0.5, sample_rate=rate, steps=steps)
    budget = epsilon_of(jobs * ROUNDS + ROUNDS // 2, one)
    return replace(POLICY, epsilon_budget=budget)


async def test_a_job_is_promised_its_training_and_keeps_it_whatever_the_settings_say_later(
    desk: Desk,
) -> None:
    private = await desk.promise(1)
    assert private == PrivateTraining(
        noise_multiplier=1.0, max_grad_norm=0.5, sample_rate=0.02, steps=100
    )
    quieter = desk.open(replace(POLICY, noise_multiplier=0.2))
    assert await desk.promise(1, quieter) == private
    assert await quieter.begin(JobId(1), 0) == private


async def test_a_job_whose_worst_case_exceeds_the_budget_is_refused_in_one_line(desk: Desk) -> None:
    policy = replace(POLICY, epsilon_budget=0.5)
    with pytest.raises(
        PrivacyBudgetSpent,
        match=r"^5 rounds would bring the dataset's epsilon to 3\.14, and "
        r"roles\.seller\.privacy\.epsilon_budget is 0\.5$",
    ):
        await desk.promise(1, desk.open(policy))
    assert await desk.journal.recall_all("privacy-job") == {}


async def test_jobs_at_once_share_the_budget_before_they_have_spent_anything(desk: Desk) -> None:
    ledger = desk.open(budget_for(2))
    await desk.promise(1, ledger)
    await desk.promise(2, ledger)
    with pytest.raises(PrivacyBudgetSpent):
        await desk.promise(3, ledger)


async def test_what_a_job_did_not_use_comes_back_when_it_is_over(desk: Desk) -> None:
    ledger = desk.open(budget_for(1))
    await desk.promise(1, ledger)
    await ledger.begin(JobId(1), 0)
    desk.over.add(1)
    with pytest.raises(PrivacyBudgetSpent):  # one training of job 1, five of this: 6 of 7 fit
        await ledger.promise(JobId(2), SPEC, sample_count=COUNT, rounds=ROUNDS + 2)
    await desk.promise(3, ledger)


async def test_what_was_spent_never_comes_back(desk: Desk) -> None:
    ledger = desk.open(budget_for(1))
    private = await desk.promise(1, ledger)
    for round_index in range(ROUNDS):
        await ledger.begin(JobId(1), round_index)
    desk.over.add(1)
    with pytest.raises(PrivacyBudgetSpent):
        await desk.promise(2, ledger)
    assert await desk.spend() == pytest.approx(epsilon_of(ROUNDS, private))


async def test_trainings_are_written_down_before_they_start_and_count_again_after_a_crash(
    desk: Desk,
) -> None:
    private = await desk.promise(1)
    spent = []
    for _ in range(3):  # a node that is killed in each training of round 0
        await desk.open().begin(JobId(1), 0)
        spent.append(await desk.spend())
    assert spent == pytest.approx([epsilon_of(count, private) for count in (1, 2, 3)])
    (account,) = await read_accounts(desk.journal)
    assert (account.trainings, account.jobs, account.delta) == (3, 1, POLICY.delta)


async def test_a_job_stops_when_its_crashes_have_used_the_budget_up(desk: Desk) -> None:
    ledger = desk.open(budget_for(1))
    await desk.promise(1, ledger)
    for _ in range(ROUNDS + ROUNDS // 2):
        await ledger.begin(JobId(1), 0)
    with pytest.raises(PrivacyBudgetSpent, match=r"^another round would bring"):
        await ledger.begin(JobId(1), 1)


async def test_the_account_goes_by_samples_not_by_market_or_owner(desk: Desk) -> None:
    ledger = desk.open(budget_for(1))
    await desk.promise(1, ledger)
    for round_index in range(ROUNDS):
        await ledger.begin(JobId(1), round_index)
    elsewhere = Books(
        dataset=DATASET, domain=Domain(2, Address(b"\x03" * 20)), account=Address(b"\x04" * 20)
    )
    with pytest.raises(PrivacyBudgetSpent):
        await desk.promise(1, desk.open(budget_for(1), elsewhere))
    other = replace(elsewhere, dataset="e" * 64)
    await desk.promise(1, desk.open(budget_for(1), other))


async def test_an_epsilon_per_job_chooses_the_noise_for_all_its_rounds(desk: Desk) -> None:
    policy = replace(POLICY, noise_multiplier=None, epsilon_per_job=1.0)
    private = await desk.promise(1, desk.open(policy))
    assert 0.98 <= epsilon_of(ROUNDS, private) <= 1.0


async def test_the_ledger_outlives_the_store_that_is_closed(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        desk = Desk(store.journal)
        private = await desk.promise(1)
        await desk.open().begin(JobId(1), 0)
    async with open_store(tmp_path) as store:
        assert await Desk(store.journal).spend() == pytest.approx(epsilon_of(1, private))


async def test_an_entry_that_is_none_is_a_corrupted_store(desk: Desk) -> None:
    await desk.journal.remember(TRAININGS, f"{DATASET}/x", b"\xc1")
    with pytest.raises(StoreCorrupted, match="privacy ledger"):
        await read_accounts(desk.journal)


def make_samples(order: Sequence[int]) -> Samples:
    inputs = np.arange(12, dtype=np.int16).reshape(4, 3) - 5
    return Samples(inputs=inputs[list(order)], labels=np.arange(4)[list(order)])


def test_a_dataset_is_known_by_its_samples_in_any_order() -> None:
    first = compute_dataset_id(make_samples([0, 1, 2, 3]))
    assert compute_dataset_id(make_samples([3, 1, 0, 2])) == first
    assert compute_dataset_id(make_samples([0, 1, 2])) != first
    assert compute_dataset_id(make_samples([0, 1, 2, 3, 3])) != first
    turned = make_samples([0, 1, 2, 3])
    assert compute_dataset_id(replace(turned, labels=turned.labels[::-1].copy())) != first


@pytest.mark.parametrize(
    ("count", "batch_size", "expected"),
    [(1000, 20, (0.02, 100)), (50, 20, (0.4, 6)), (5, 20, (1.0, 2))],
)
def test_a_private_training_takes_each_sample_about_once_per_epoch(
    count: int, batch_size: int, expected: tuple[float, int]
) -> None:
    spec = TrainingSpec(learning_rate_micros=1, batch_size=batch_size, epochs=2)
    assert plan_steps(spec, count) == expected


def test_a_delta_that_says_nothing_for_so_few_samples_is_refused() -> None:
    check_delta(POLICY, 99_999)
    with pytest.raises(UserError, match=r"privacy\.delta: 1e-05 must be below 1/100001"):
        check_delta(POLICY, 100_001)
