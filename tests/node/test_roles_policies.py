"""What a role takes on, what it turns down, and that each refusal is kept once with its reason."""

from dataclasses import replace
from typing import Any

import pytest
import trio

from d2m_node.calls import EnrolCone, EnrolSeller, RegisterDataset
from d2m_node.errors import UserError
from d2m_node.ports import Purpose, Reference
from d2m_node.roles.cone import run_cone
from d2m_node.roles.executor import HonestExecutor
from d2m_node.roles.policies import ConePolicy, JobLimits, SellerPolicy, format_ether
from d2m_node.roles.seller import run_seller
from protocol.events import StakeDeposited
from protocol.hashing import keccak
from protocol.job import JobState
from protocol.model import count_parameters
from protocol.request import compute_tag_hashes
from protocol.terms import Metric
from protocol.types import NO_ACCOUNT, Address, BlockNumber, JobId, Wei
from tests.support.job import BODY, JOB, PRICE_WEI, TERMS, Cast
from tests.support.market import Node

TOKEN = Address(b"\x77" * 20)
PARAMETERS = count_parameters(BODY.model)
SAMPLES = BODY.validation.sample_count
STAKE = ConePolicy(stake_wei=Wei(1))
SELLER = SellerPolicy(dataset_path="dataset.toml")


@pytest.fixture
def cast() -> Cast:
    """A job in its enrolment, which everybody may join."""
    opened = Cast()
    opened.open_enrolment()
    for node in opened.cones:
        restake(opened, node, free_wei=1)
    return opened


def restake(cast: Cast, node: Node, *, free_wei: int, since_block: int = -1) -> None:
    cast.market.apply(
        StakeDeposited(
            account=node.signer.address,
            amount_wei=Wei(free_wei),
            free_wei=Wei(free_wei),
            since_block=BlockNumber(since_block),
        )
    )


def change_job(cast: Cast, **fields: Any) -> JobState:
    """Let the job be another one."""
    job = replace(cast.market.state.jobs[JOB], **fields)
    cast.market.state = replace(cast.market.state, jobs={JOB: job})
    return job


async def work_as_cone(cast: Cast, policy: ConePolicy, nursery: trio.Nursery) -> Node:
    node = cast.cones[0]
    nursery.start_soon(run_cone, node.post("cone", nursery), policy, HonestExecutor())
    await cast.market.mine()
    return node


async def sell(cast: Cast, policy: SellerPolicy, nursery: trio.Nursery) -> Node:
    node = cast.sellers[0]
    nursery.start_soon(run_seller, node.post("seller", nursery), policy, None)
    await cast.market.mine(2)
    return node


# --- CONE nodes


@pytest.mark.parametrize(
    "policy",
    [
        STAKE,
        replace(STAKE, job_stake_min_wei=Wei(1), job_stake_max_wei=Wei(1)),
        replace(STAKE, model_parameters_max=PARAMETERS, validation_samples_max=SAMPLES),
        replace(STAKE, limits=JobLimits(jobs_max=1, min_price_wei=PRICE_WEI)),
        replace(STAKE, limits=JobLimits(min_price_token=Wei(PRICE_WEI + 1))),
        replace(STAKE, limits=JobLimits(least_window_blocks=4)),
    ],
)
async def test_a_cone_takes_a_job_at_its_limits(
    cast: Cast, nursery: trio.Nursery, policy: ConePolicy
) -> None:
    node = await work_as_cone(cast, policy, nursery)
    assert len(cast.market.sent(EnrolCone)) == 1
    assert node.refusals() == []


@pytest.mark.parametrize(
    ("policy", "code", "reason"),
    [
        (replace(STAKE, job_stake_min_wei=Wei(2)), "stake", "less than 0.000000000000000002 ether"),
        (replace(STAKE, job_stake_max_wei=Wei(0)), "stake", "more than 0 ether"),
        (
            replace(STAKE, model_parameters_max=PARAMETERS - 1),
            "model",
            f"its model has {PARAMETERS} parameters, more than {PARAMETERS - 1}",
        ),
        (
            replace(STAKE, validation_samples_max=SAMPLES - 1),
            "validation",
            f"it has {SAMPLES} validation samples, more than {SAMPLES - 1}",
        ),
        (
            replace(STAKE, limits=JobLimits(min_price_wei=Wei(PRICE_WEI + 1))),
            "price",
            f"pays {PRICE_WEI}, less than {PRICE_WEI + 1}",
        ),
        (replace(STAKE, limits=JobLimits(least_window_blocks=5)), "windows", "at least 5"),
        (replace(STAKE, limits=JobLimits(lag_blocks=1)), "windows", "validation_blocks: is 4"),
        (replace(STAKE, limits=JobLimits(lag_blocks=3)), "windows", "enrolment_blocks: is 4"),
    ],
)
async def test_a_cone_turns_a_job_down_once_and_says_why(
    cast: Cast, nursery: trio.Nursery, policy: ConePolicy, code: str, reason: str
) -> None:
    node = await work_as_cone(cast, policy, nursery)
    await cast.market.mine_to(cast.market.state.jobs[JOB].enrolment_end - 1)
    assert cast.market.sent(EnrolCone) == []
    (kept,) = node.store.refusals.kept
    assert (kept.job_id, kept.role, kept.code) == (JOB, "cone", code)
    assert reason in kept.reason


async def test_a_cone_without_room_for_a_job_says_so(cast: Cast, nursery: trio.Nursery) -> None:
    cast.cones[0].store.blobs.refusal = "no room"
    node = await work_as_cone(cast, STAKE, nursery)
    assert cast.market.sent(EnrolCone) == []
    assert node.refusals() == [(JOB, "cone", "room")]


async def test_a_cone_without_enough_free_stake_says_so(cast: Cast, nursery: trio.Nursery) -> None:
    change_job(cast, terms=replace(TERMS, stake_wei=Wei(2)))
    node = await work_as_cone(cast, STAKE, nursery)
    assert node.refusals() == [(JOB, "cone", "free stake")]


async def test_a_cone_whose_stake_is_too_young_says_so(cast: Cast, nursery: trio.Nursery) -> None:
    restake(cast, cast.cones[0], free_wei=1, since_block=0)
    node = await work_as_cone(cast, STAKE, nursery)
    assert node.refusals() == [(JOB, "cone", "young stake")]


async def test_a_restarted_cone_does_not_repeat_its_refusals(
    cast: Cast, nursery: trio.Nursery
) -> None:
    policy = replace(STAKE, limits=JobLimits(least_window_blocks=5))
    node = await work_as_cone(cast, policy, nursery)
    await work_as_cone(cast, policy, nursery)
    assert node.refusals() == [(JOB, "cone", "windows")]


async def test_a_request_that_is_not_valid_is_a_refusal_too(
    cast: Cast, nursery: trio.Nursery
) -> None:
    junk = b"no request"
    await cast.buyer.store.blobs.put(junk, Reference(Purpose.REQUEST, JOB))
    change_job(cast, body_hash=keccak(junk))
    node = await work_as_cone(cast, STAKE, nursery)
    (kept,) = node.store.refusals.kept
    assert "the buyer's request is not valid" in kept.reason


async def test_stake_that_is_pledged_is_not_pledged_twice(
    cast: Cast, nursery: trio.Nursery
) -> None:
    job = cast.market.state.jobs[JOB]
    second = replace(job, job_id=JobId(2))
    cast.market.state = replace(cast.market.state, jobs={JOB: job, JobId(2): second})
    node = await work_as_cone(cast, STAKE, nursery)
    assert [call.job for call in cast.market.sent(EnrolCone)] == [JOB]
    assert node.refusals() == [(2, "cone", "free stake")]


async def test_a_cone_that_is_busy_turns_the_next_job_down(
    cast: Cast, nursery: trio.Nursery
) -> None:
    restake(cast, cast.cones[0], free_wei=2)
    job = cast.market.state.jobs[JOB]
    second = replace(job, job_id=JobId(2))
    cast.market.state = replace(cast.market.state, jobs={JOB: job, JobId(2): second})
    policy = replace(STAKE, limits=JobLimits(jobs_max=1))
    node = await work_as_cone(cast, policy, nursery)
    assert [call.job for call in cast.market.sent(EnrolCone)] == [JOB]
    assert node.refusals() == [(2, "cone", "busy")]


# --- sellers


@pytest.mark.parametrize(
    "policy",
    [
        SELLER,
        replace(SELLER, tags=("digits",)),
        replace(SELLER, metrics=frozenset({Metric.ACC})),
        replace(SELLER, limits=JobLimits(jobs_max=1, min_price_wei=PRICE_WEI)),
    ],
)
async def test_a_seller_takes_a_job_that_its_policy_allows(
    cast: Cast, nursery: trio.Nursery, policy: SellerPolicy
) -> None:
    node = await sell(cast, policy, nursery)
    assert len(cast.market.sent(EnrolSeller)) == 1
    assert node.refusals() == []


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (replace(SELLER, metrics=frozenset({Metric.NEG_MSE})), "metric"),
        (replace(SELLER, limits=JobLimits(min_price_wei=Wei(PRICE_WEI + 1))), "price"),
        (replace(SELLER, limits=JobLimits(least_window_blocks=9)), "windows"),
    ],
)
async def test_a_seller_turns_a_job_down_once_and_says_why(
    cast: Cast, nursery: trio.Nursery, policy: SellerPolicy, code: str
) -> None:
    node = await sell(cast, policy, nursery)
    assert cast.market.sent(EnrolSeller) == []
    assert node.refusals() == [(JOB, "seller", code)]


class TwoTags:
    """`DatasetPort` of data that carry two tags."""

    def __init__(self, inner: Any) -> None:
        self.load_samples = inner.load_samples

    async def load_tags(self, path: str) -> tuple[str, ...]:
        return ("digits", "secrets")


async def test_a_seller_sells_under_the_tags_it_chose_only(
    cast: Cast, nursery: trio.Nursery
) -> None:
    node = cast.sellers[0]
    node.ports = replace(node.ports, datasets=TwoTags(node.ports.datasets))
    change_job(cast, tags=compute_tag_hashes(["secrets"]))
    policy = replace(SELLER, tags=("digits",))
    nursery.start_soon(run_seller, node.post("seller", nursery), policy, None)
    await cast.market.mine(3)
    registered = [call.tags for call in cast.market.sent(RegisterDataset)]
    assert registered in ([], [compute_tag_hashes(["digits"])])
    assert cast.market.sent(EnrolSeller) == []
    assert node.refusals() == [(JOB, "seller", "tags")]


async def test_a_job_for_other_data_is_no_refusal(cast: Cast, nursery: trio.Nursery) -> None:
    change_job(cast, tags=compute_tag_hashes(["weather"]))
    node = await sell(cast, SELLER, nursery)
    assert node.refusals() == []


async def test_a_tag_that_the_data_do_not_carry_is_named(cast: Cast, nursery: trio.Nursery) -> None:
    post = cast.sellers[0].post("seller", nursery)
    with pytest.raises(UserError, match=r"roles.seller.tags: 'digit' is no tag"):
        await run_seller(post, replace(SELLER, tags=("digit",)), None)


def test_an_amount_is_written_to_the_last_wei() -> None:
    assert format_ether(0) == "0 ether"
    assert format_ether(10**18) == "1 ether"
    assert format_ether(15 * 10**17 + 1) == "1.500000000000000001 ether"


def test_prices_are_weighed_in_the_currency_of_the_job() -> None:
    limits = JobLimits(min_price_wei=Wei(5), min_price_token=Wei(50))
    cast = Cast()
    cast.open_enrolment()
    params = cast.buyer.chain.params
    for currency, price_wei, code in [
        (NO_ACCOUNT, 4, "price"),
        (NO_ACCOUNT, 5, None),
        (TOKEN, 49, "price"),
        (TOKEN, 50, None),
    ]:
        job = change_job(cast, currency=currency, price_wei=Wei(price_wei))
        found = limits.find_objection(job, params, ())
        assert (found and found.code) == code
