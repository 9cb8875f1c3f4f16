"""The seller: its deposit, and one commitment per round across crashes and attempts."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import trio
from structlog.testing import capture_logs

from d2m_node.calls import ApproveToken, EnrolSeller, RegisterDataset
from d2m_node.ports import Int32Array, PrivateTraining, Samples, TrainingTask
from d2m_node.privacy_ledger import (
    Books,
    PrivacyLedger,
    PrivacyPolicy,
    compute_dataset_id,
    read_accounts,
)
from d2m_node.roles.policies import JobLimits, SellerPolicy
from d2m_node.roles.seller import run_seller
from protocol.model import count_parameters
from protocol.types import Address, Wei
from protocol.wire import messages as wire
from tests.support.job import (
    BODY,
    DEPOSIT_WEI,
    JOB,
    OPENED,
    PRICE_WEI,
    SELLERS,
    TERMS,
    Cast,
    retried,
)
from tests.support.market import DOMAIN, SAMPLES, Node

TOKEN = Address(b"\x77" * 20)
POLICY = SellerPolicy(dataset_path="dataset.toml")


class Trainer:
    """Gives another update each time it is asked."""

    def __init__(self, value: int) -> None:
        self.value = value
        self.runs = 0

    async def train(self, *_arguments: object, **_options: object) -> Int32Array:
        self.runs += 1
        return np.full(count_parameters(BODY.model), self.value + self.runs, dtype=np.int32)


class PrivateTrainer(Trainer):
    """Counts one of epsilon for each training, and keeps what it was asked for."""

    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.asked: list[PrivateTraining | None] = []

    async def train(self, task: TrainingTask, **_options: object) -> Int32Array:  # type: ignore[override]
        self.asked.append(task.private)
        return await super().train(task)

    async def compute_epsilon(
        self, history: Sequence[tuple[PrivateTraining, int]], delta: float
    ) -> float:
        return float(sum(times for _, times in history))


def private_policy(epsilon_budget: float) -> SellerPolicy:
    privacy = PrivacyPolicy(
        epsilon_budget=epsilon_budget, delta=1e-5, max_grad_norm=0.5, noise_multiplier=2.0
    )
    return replace(POLICY, privacy=privacy)


async def sell(node: Node, trainer: Trainer, policy: SellerPolicy = POLICY) -> None:
    """Run a seller as a node does, until cancelled."""
    async with trio.open_nursery() as nursery:
        await run_seller(node.post("seller", nursery), policy, trainer)  # type: ignore[arg-type]


def commitments(cast: Cast) -> dict[int, list[bytes]]:
    """What each seller committed to, by what its own room holds and what a CONE node heard."""
    room = cast.cones[0].rooms[JOB]
    assert room.equivocations == {}
    heard = room.heard(wire.UpdateCommit, 0)
    return {index: one.commitment for index, one in heard.items()}


@pytest.fixture
def cast() -> Cast:
    return Cast()


async def test_a_seller_enrols_with_the_deposit_that_the_terms_ask_for(
    cast: Cast, nursery: trio.Nursery
) -> None:
    cast.open_enrolment()
    node = cast.sellers[2]
    nursery.start_soon(sell, node, Trainer(0))
    await cast.market.mine(1)
    (call,) = cast.market.sent(EnrolSeller)
    assert (call.dataset_id, call.value_wei) == (2, DEPOSIT_WEI)
    deposit = cast.market.state.jobs[JOB].deposits[node.signer.address]
    assert deposit.amount_wei == DEPOSIT_WEI


async def test_a_seller_without_room_for_a_job_does_not_enrol(
    cast: Cast, nursery: trio.Nursery
) -> None:
    cast.open_enrolment()
    node = cast.sellers[2]
    node.store.blobs.refusal = "no room"
    nursery.start_soon(sell, node, Trainer(0))
    with capture_logs() as logs:
        await cast.market.mine(2)
    assert cast.market.sent(EnrolSeller) == []
    (refusal,) = (one for one in logs if one["event"] == "job_refused")
    assert (refusal["code"], refusal["reason"]) == ("room", "no room")
    assert node.refusals() == [(JOB, "seller", "room")]


@pytest.mark.parametrize(("min_price_wei", "enrols"), [(PRICE_WEI, True), (PRICE_WEI + 1, False)])
async def test_a_seller_enrols_at_its_minimum_price_and_not_below(
    cast: Cast, nursery: trio.Nursery, min_price_wei: int, enrols: bool
) -> None:
    cast.open_enrolment()
    policy = SellerPolicy(
        dataset_path="dataset.toml",
        limits=JobLimits(min_price_wei=Wei(min_price_wei), min_price_token=Wei(PRICE_WEI + 2)),
    )
    nursery.start_soon(sell, cast.sellers[2], Trainer(0), policy)
    await cast.market.mine(3)
    (registered,) = cast.market.sent(RegisterDataset)
    assert (registered.min_price_wei, registered.min_price_token) == (min_price_wei, PRICE_WEI + 2)
    assert [call.dataset_id for call in cast.market.sent(EnrolSeller)] == [SELLERS] * enrols


async def test_a_seller_lets_the_deposits_take_its_token_and_sends_no_ether(
    cast: Cast, nursery: trio.Nursery
) -> None:
    cast.open_enrolment()
    state = cast.market.state
    job = replace(state.jobs[JOB], currency=TOKEN)
    cast.market.state = replace(state, jobs={JOB: job})
    nursery.start_soon(sell, cast.sellers[2], Trainer(0))
    await cast.market.mine(2)
    approved, enrolled = (call for _, call in cast.market.calls)
    assert approved == ApproveToken(spender="SellerDeposits", amount_wei=DEPOSIT_WEI)
    assert isinstance(enrolled, EnrolSeller)
    assert enrolled.value_wei == 0


async def test_a_restarted_seller_commits_to_the_same_update(
    cast: Cast, nursery: trio.Nursery
) -> None:
    cast.start()
    await cast.open_room(cast.cones[0], nursery)
    async with trio.open_nursery() as before_crash:
        trainers = [Trainer(100 * index) for index in range(len(cast.sellers))]
        for node, trainer in zip(cast.sellers, trainers, strict=True):
            before_crash.start_soon(sell, node, trainer)
        await cast.market.mine_to(OPENED.seller_seed_block + 1)
        before_crash.cancel_scope.cancel()
    first = commitments(cast)
    assert len(first) == 3, "three of four sellers are sampled"
    later = Trainer(7777)
    for node in cast.sellers:
        node.restart()
        nursery.start_soon(sell, node, later)
    await cast.market.mine_to(OPENED.update_commit_end + 1)
    assert commitments(cast) == first
    assert later.runs == 0
    openings = cast.cones[0].rooms[JOB].heard(wire.UpdateOpening, 0)
    assert openings.keys() == first.keys()
    assert all(cast.cones[0].rooms[JOB].opens_commitment(one) for one in openings.values())


async def test_a_retry_asks_a_seller_for_nothing_new(cast: Cast, nursery: trio.Nursery) -> None:
    cast.start()
    await cast.open_room(cast.cones[0], nursery)
    trainers = [Trainer(100 * index) for index in range(len(cast.sellers))]
    for node, trainer in zip(cast.sellers, trainers, strict=True):
        nursery.start_soon(sell, node, trainer)
    await cast.market.mine_to(OPENED.open_end)
    first = commitments(cast)
    cast.market.apply(retried())
    await cast.market.mine_to(retried().availability_end)
    assert commitments(cast) == first
    assert sorted(trainer.runs for trainer in trainers) == [0, 1, 1, 1]


# --- privacy --------------------------------------------------------------------------------------


async def test_a_seller_does_not_enrol_in_a_job_that_could_spend_more_than_its_budget(
    cast: Cast, nursery: trio.Nursery
) -> None:
    cast.open_enrolment()
    refused, enrolled = cast.sellers[1:3]
    worst = TERMS.rounds_max
    nursery.start_soon(sell, refused, PrivateTrainer(0), private_policy(worst - 1))
    nursery.start_soon(sell, enrolled, PrivateTrainer(0), private_policy(worst))
    await cast.market.mine(3)
    assert [call.dataset_id for call in cast.market.sent(EnrolSeller)] == [2]
    assert cast.market.state.jobs[JOB].deposits.keys() == {enrolled.signer.address}
    assert (refused.refusals(), enrolled.refusals()) == ([(JOB, "seller", "privacy")], [])
    (refusal,) = refused.store.refusals.kept
    assert refusal.reason.startswith("the privacy budget does not allow it: ")


async def test_private_trainings_are_in_the_ledger_before_they_start(
    cast: Cast, nursery: trio.Nursery
) -> None:
    cast.start()
    trainers = [PrivateTrainer(100 * index) for index in range(len(cast.sellers))]
    policy = private_policy(TERMS.rounds_max)
    for node, trainer in zip(cast.sellers, trainers, strict=True):
        nursery.start_soon(sell, node, trainer, policy)
    await cast.market.mine_to(OPENED.seller_seed_block + 1)
    assert sorted(trainer.runs for trainer in trainers) == [0, 1, 1, 1]
    for node, trainer in zip(cast.sellers, trainers, strict=True):
        accounts = await read_accounts(node.store.journal)
        assert [account.epsilon for account in accounts] == [1.0] * trainer.runs
        for private in trainer.asked:
            assert private is not None
            assert (private.noise_multiplier, private.max_grad_norm) == (2.0, 0.5)


async def test_a_seller_whose_budget_is_spent_offers_nothing_and_stays_in_the_job(
    cast: Cast, nursery: trio.Nursery
) -> None:
    cast.start()
    await cast.open_room(cast.cones[0], nursery)
    policy = private_policy(TERMS.rounds_max)
    trainers = [PrivateTrainer(100 * index) for index in range(len(cast.sellers))]
    for node, trainer in zip(cast.sellers, trainers, strict=True):
        dataset = compute_dataset_id(await node.ports.datasets.load_samples(""))
        books = Books(dataset=dataset, domain=DOMAIN, account=node.signer.address)
        ledger = PrivacyLedger(
            policy.privacy,  # type: ignore[arg-type]  # it is there
            books,
            node.store.journal,
            trainer,  # type: ignore[arg-type]
            is_over=lambda _: False,
        )
        await ledger.promise(JOB, BODY.training, sample_count=10, rounds=TERMS.rounds_max)
        for _ in range(TERMS.rounds_max):  # crashes, each in the middle of a training
            await ledger.begin(JOB, 0)
        nursery.start_soon(sell, node, trainer, policy)
    await cast.market.mine_to(OPENED.update_commit_end + 1)
    assert [trainer.runs for trainer in trainers] == [0] * len(trainers)
    assert commitments(cast) == {}
    assert all(JOB in node.rooms for node in cast.sellers)


async def test_data_that_do_not_fit_a_request_are_told_with_their_own_code(
    nursery: trio.Nursery,
) -> None:
    class Wide:
        async def load_samples(self, path: str) -> Samples:
            return replace(SAMPLES, inputs=np.zeros((4, 1, 3, 3), dtype=np.uint8))

        async def load_tags(self, path: str) -> tuple[str, ...]:
            return ("digits",)

    cast = Cast()
    cast.open_enrolment()
    seller = cast.sellers[0]
    seller.ports = replace(seller.ports, datasets=Wide())  # type: ignore[arg-type]
    nursery.start_soon(run_seller, seller.post("seller", nursery), POLICY, Trainer(1))
    await cast.market.mine(2)
    assert cast.market.sent(EnrolSeller) == []
    assert seller.refusals() == [(JOB, "seller", "data")]
    (refusal,) = seller.store.refusals.kept
    assert "dataset.toml does not fit the request" in refusal.reason
