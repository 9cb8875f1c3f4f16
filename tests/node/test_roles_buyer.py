"""The buyer's desk: a bid that could not be revealed is not made."""

from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import pytest
import trio

from d2m_node.calls import OpenAuction
from d2m_node.errors import JobFailed, UserError
from d2m_node.request_file import RequestFile
from d2m_node.roles.buyer import BuyerDesk
from d2m_node.roles.sources import load_body
from protocol.deposits import compute_deposit_range
from protocol.layers import Clip, Flatten, Linear
from protocol.model import ModelDescription, count_model_operations
from protocol.types import Wei
from tests.support.job import BODY, JOB, TERMS, Cast
from tests.support.params import PARAMS

BID_WEI = Wei(30)


def make_request(**terms: int) -> RequestFile:
    return RequestFile(
        tags=("digits",),
        bid_wei=BID_WEI,
        deposit_wei=BID_WEI,
        reserve_wei=Wei(1),
        commit_blocks=5,
        reveal_blocks=5,
        model=BODY.model,
        training=BODY.training,
        sampling=BODY.sampling,
        validation_dataset="dataset.toml",
        validation_final_count=2,
        validation_subset_count=2,
        terms=replace(TERMS, **terms),
    )


@pytest.mark.parametrize("too_much", [-1, 1])
async def test_a_deposit_that_does_not_fit_the_bid_is_refused_before_any_money_moves(
    too_much: int,
) -> None:
    cast = Cast()
    least_wei, most_wei = compute_deposit_range(BID_WEI, TERMS.sellers_min, PARAMS)
    edge_wei = most_wei if too_much > 0 else least_wei
    desk = BuyerDesk(cast.buyer.ports)
    request = make_request(seller_deposit_wei=edge_wei + too_much)
    with (
        trio.fail_after(5),
        pytest.raises(UserError, match=r"^terms\.seller_deposit_wei: is .* a bid of 30 wei"),
    ):
        await desk.submit(request, idempotency_key="key")
    assert cast.buyer.store.journal.values == {}
    assert cast.market.calls == []


async def test_a_request_that_fits_opens_an_auction(nursery: trio.Nursery) -> None:
    cast = Cast()
    desk = BuyerDesk(cast.buyer.ports)
    nursery.start_soon(partial(desk.submit, make_request(), idempotency_key="key"))
    await cast.market.mine()
    (opened,) = cast.market.sent(OpenAuction)
    assert (opened.auction, opened.value_wei) == (1, BID_WEI)


async def test_terms_outside_the_deployments_limits_are_refused_before_any_money_moves() -> None:
    cast = Cast()
    desk = BuyerDesk(cast.buyer.ports)
    request = make_request(header_blocks=PARAMS.max_window_blocks + 1)
    with (
        trio.fail_after(5),
        pytest.raises(UserError, match=r"^terms\.header_blocks: is 101; lower it"),
    ):
        await desk.submit(request, idempotency_key="key")
    assert cast.buyer.store.journal.values == {}


WIDE = ModelDescription(
    input_shape=(1, 2, 2), outputs=2, layers=(Flatten(), Linear(1 << 14), Clip(1), Linear(2))
)
LARGE_BATCH = msgspec.structs.replace(BODY.training, batch_size=1 << 16)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"validation_final_count": 4}, r"^validation\.final_count: must be less than the 4 s"),
        ({"model": WIDE, "training": LARGE_BATCH}, r"^training\.batch_size: too large"),
    ],
)
async def test_a_request_that_no_node_takes_is_refused_before_any_money_moves(
    change: dict[str, Any], complaint: str
) -> None:
    cast = Cast()
    desk = BuyerDesk(cast.buyer.ports)
    with trio.fail_after(5), pytest.raises(UserError, match=complaint):
        await desk.submit(replace(make_request(), **change), idempotency_key="key")
    assert cast.buyer.store.journal.values == {}
    assert cast.buyer.store.blobs.data == {}
    assert cast.market.calls == []


WORK_OF_A_ROUND = 5 * 2 * count_model_operations(BODY.model)
"""Of three sellers, on two samples."""


async def test_work_that_lasts_too_long_is_refused_before_any_money_moves(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    cast = Cast()
    desk = BuyerDesk(cast.buyer.ports)
    monkeypatch.setattr("protocol.request.MAX_OPERATIONS_PER_BALLOT", WORK_OF_A_ROUND - 1)
    with (
        trio.fail_after(5),
        pytest.raises(UserError, match=r"^validation\.subset_count: 5 models of .* at most 1"),
    ):
        await desk.submit(make_request(), idempotency_key="key")
    assert cast.buyer.store.journal.values == {}
    monkeypatch.setattr("protocol.request.MAX_OPERATIONS_PER_BALLOT", WORK_OF_A_ROUND)
    nursery.start_soon(partial(desk.submit, make_request(), idempotency_key="key"))
    await cast.market.mine()
    assert len(cast.market.sent(OpenAuction)) == 1


async def test_no_node_takes_a_request_whose_work_lasts_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cast = Cast()
    cast.start()
    job, ports = cast.market.state.jobs[JOB], cast.cones[0].ports
    monkeypatch.setattr("protocol.request.MAX_OPERATIONS_PER_BALLOT", WORK_OF_A_ROUND)
    assert await load_body(ports, job) == BODY
    monkeypatch.setattr("protocol.request.MAX_OPERATIONS_PER_BALLOT", WORK_OF_A_ROUND - 1)
    with pytest.raises(JobFailed, match=r"request is not valid: validation\.subset_count"):
        await load_body(ports, job)
