"""Receipts for validation data: signed once, landed together, each as the contract checks it."""

from dataclasses import replace

import pytest
import trio

from d2m_node.calls import ContractCall, SubmitReceipts
from d2m_node.roles import validation
from d2m_node.roles.validation import FINAL_PART, SELECTION_PART, Parts, give_receipt
from protocol.events import ReceiptsRecorded
from protocol.signatures import ValidationReceipt, expand, recover_signer
from protocol.types import BlockNumber
from tests.support.job import CONES, JOB, Cast
from tests.support.market import DOMAIN

DEADLINE = BlockNumber(8)


def sent_blocks(cast: Cast, kind: type[ContractCall]) -> list[int]:
    """Return after which followed blocks calls of a kind were sent: mined in the next one."""
    return [block - 1 for block, call in cast.market.mined if isinstance(call, kind)]


@pytest.fixture
def cast() -> Cast:
    started = Cast()
    started.start()
    return started


async def test_the_receipts_of_a_pool_land_in_one_call_and_name_their_signers(
    cast: Cast, nursery: trio.Nursery
) -> None:
    seats = [await cast.take_seat(index, nursery) for index in range(CONES)]
    for seat in seats:
        nursery.start_soon(give_receipt, seat, SELECTION_PART, DEADLINE)
    await cast.market.mine_to(DEADLINE)
    (call,) = cast.market.sent(SubmitReceipts)
    assert (call.job, call.part) == (JOB, SELECTION_PART)
    digest = ValidationReceipt(JOB, SELECTION_PART).digest(DOMAIN)
    signers = {index: recover_signer(digest, expand(r, vs)) for index, r, vs in call.entries}
    assert signers == {seat.index: seat.ports.signer.address for seat in seats}
    assert cast.market.state.jobs[JOB].receipts[SELECTION_PART] == (1 << CONES) - 1


async def test_receipts_of_the_whole_pool_do_not_wait_for_the_end_of_the_window(
    cast: Cast, nursery: trio.Nursery
) -> None:
    for seat in [await cast.take_seat(index, nursery) for index in range(CONES)]:
        nursery.start_soon(give_receipt, seat, SELECTION_PART, BlockNumber(DEADLINE + 20))
    await cast.market.mine(2)
    assert cast.market.state.jobs[JOB].receipts[SELECTION_PART] == (1 << CONES) - 1


@pytest.mark.parametrize("lag_blocks", [0, 1, 3])
async def test_a_receipt_leaves_room_for_a_chain_that_turns_as_deep_as_the_node_waits(
    cast: Cast, nursery: trio.Nursery, lag_blocks: int
) -> None:
    deadline = BlockNumber(DEADLINE + 12)
    seat = replace(await cast.take_seat(2, nursery), lag_blocks=lag_blocks)
    nursery.start_soon(give_receipt, seat, SELECTION_PART, deadline)
    await cast.market.mine_to(deadline)
    (sent_after,) = sent_blocks(cast, SubmitReceipts)
    # The chain is so many blocks further than the node sees, and mines the call in the next one.
    mined_in = sent_after + lag_blocks + 1
    assert deadline - mined_in >= lag_blocks


async def test_a_receipt_that_the_chain_takes_back_is_given_again(
    cast: Cast, nursery: trio.Nursery
) -> None:
    deadline = BlockNumber(DEADLINE + 12)
    seat = replace(await cast.take_seat(2, nursery), lag_blocks=4)
    nursery.start_soon(give_receipt, seat, SELECTION_PART, deadline)
    recorded = ReceiptsRecorded(job=JOB, part=SELECTION_PART, bitmap=0b00100)
    cast.market.apply(recorded)
    await cast.market.mine_to(deadline - 7)
    assert cast.market.sent(SubmitReceipts) == []
    cast.market.apply(replace(recorded, bitmap=0))
    await cast.market.mine_to(deadline - 4)
    assert cast.market.state.jobs[JOB].receipts[SELECTION_PART] == 0b00100


async def test_a_node_whose_receipt_is_recorded_sends_nothing(
    cast: Cast, nursery: trio.Nursery
) -> None:
    seat = await cast.take_seat(2, nursery)
    cast.market.apply(ReceiptsRecorded(job=JOB, part=SELECTION_PART, bitmap=0b00100))
    nursery.start_soon(give_receipt, seat, SELECTION_PART, DEADLINE)
    await cast.market.mine_to(DEADLINE)
    assert cast.market.calls == []


async def test_a_receipt_that_no_ballot_recorded_is_given_for_the_next_one(
    cast: Cast, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hold(*_: object) -> str:
        return "held"

    monkeypatch.setattr(validation, "load_split", hold)
    monkeypatch.setattr(validation, "obtain_part", hold)
    seat = await cast.take_seat(2, nursery)
    parts = Parts(seat)
    cast.market.refuses = lambda call: isinstance(call, SubmitReceipts)
    nursery.start_soon(parts.obtain, FINAL_PART, DEADLINE)
    await cast.market.mine_to(DEADLINE)
    cast.market.refuses = lambda _: False
    next_deadline = BlockNumber(DEADLINE + 8)
    nursery.start_soon(parts.obtain, FINAL_PART, next_deadline)
    await cast.market.mine_to(next_deadline)
    assert cast.market.state.jobs[JOB].receipts[FINAL_PART] == 0b00100
