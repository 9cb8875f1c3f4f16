"""Statements: receipts that count, and bitmaps that are only put on record."""

from typing import Any

import boa
import pytest
from eth_utils.crypto import keccak

from tests.contracts import reference
from tests.contracts.blocks import header_of
from tests.contracts.world import CHAIN, Job, World, make_actor

ROUNDS_PART, FINAL_PART = 0, 1


@pytest.fixture
def waiting(job: Job) -> Job:
    """A job that waits for receipts of its validation data."""
    job.prepare().open_auction().close_auction().enrol().close_enrolment()
    return job


def submit(job: Job, entries: list[tuple[int, bytes, bytes]], part: int = ROUNDS_PART) -> None:
    job.world.statements.submit_receipts(job.number, part, entries)


def test_receipts_are_recorded_node_by_node(world: World, waiting: Job) -> None:
    waiting.submit_receipts(ROUNDS_PART, [0, 3])
    (first,) = world.statements.get_logs()
    assert (first.job, first.part, first.bitmap) == (1, ROUNDS_PART, 0b01001)
    waiting.submit_receipts(ROUNDS_PART, [3, 1])
    (second,) = world.statements.get_logs()
    assert second.bitmap == world.statements.receipts(1, ROUNDS_PART) == 0b01011
    assert world.statements.receipts(1, FINAL_PART) == 0
    assert world.statements.receipts(2, ROUNDS_PART) == 0


def test_one_receipt_alone_is_a_way_out(world: World, waiting: Job) -> None:
    waiting.submit_receipts(ROUNDS_PART, [4])
    assert world.statements.receipts(1, ROUNDS_PART) == 0b10000


def test_receipts_that_do_not_hold_are_skipped(world: World, waiting: Job) -> None:
    good, other = waiting.receipt(0, ROUNDS_PART), waiting.receipt(1, ROUNDS_PART)
    stranger = make_actor("stranger").key
    message = reference.receipt_message(CHAIN, world.market_raw, 1, ROUNDS_PART)
    bad = [
        (1, good[1], good[2]),  # another node's
        (5, other[1], other[2]),  # beyond the pool
        (2**256 - 1, other[1], other[2]),
        (1, *reference.sign_compact(stranger, message)),
        (1, bytes(32), bytes(32)),
        (1, other[1], (int.from_bytes(other[2], "big") ^ 1 << 255).to_bytes(32, "big")),
        waiting.receipt(2, FINAL_PART),  # of the other part
    ]
    with boa.reverts("statements: nothing recorded"):
        submit(waiting, bad)
    submit(waiting, [*bad, good])
    assert world.statements.receipts(1, ROUNDS_PART) == 0b00001


@pytest.mark.parametrize(
    "origin",
    [
        {"chain": CHAIN + 1},
        {"market": bytes(20)},
        {"job": 2},
        {"part": FINAL_PART},
    ],
)
def test_a_receipt_is_for_one_chain_market_job_and_part(
    world: World, waiting: Job, origin: dict[str, Any]
) -> None:
    fields = {"chain": CHAIN, "market": world.market_raw, "job": 1, "part": ROUNDS_PART}
    signature = reference.sign_compact(
        waiting.cones[0].key, reference.receipt_message(**{**fields, **origin})
    )
    with boa.reverts("statements: nothing recorded"):
        submit(waiting, [(0, *signature)])


def test_a_batch_in_vain_tells_its_sender(world: World, waiting: Job) -> None:
    with boa.reverts("statements: nothing recorded"):
        submit(waiting, [])
    waiting.submit_receipts(ROUNDS_PART)
    with boa.reverts("statements: nothing recorded"):
        waiting.submit_receipts(ROUNDS_PART)


def test_receipts_end_with_the_window(world: World, waiting: Job) -> None:
    last_block = waiting.validation_end
    world.blocks.mine_to(last_block)
    waiting.submit_receipts(ROUNDS_PART, [0])
    world.blocks.mine()
    with boa.reverts("statements: receipts not open"):
        waiting.submit_receipts(ROUNDS_PART, [1])


def test_no_receipts_are_taken_before_the_enrolment_closed(world: World, job: Job) -> None:
    with boa.reverts("statements: receipts not open"):
        submit(job, [])
    job.prepare().open_auction().close_auction().enrol()
    with boa.reverts("statements: receipts not open"):
        job.submit_receipts(ROUNDS_PART)


def test_receipts_of_the_final_part_are_taken_in_a_final_evaluation_only(
    world: World, job: Job
) -> None:
    job.train()
    for part in (ROUNDS_PART, FINAL_PART, 2):
        with boa.reverts("statements: receipts not open"):
            job.submit_receipts(part, [0])
    job.decide_round(999_000)
    job.decide_round(999_000)
    assert job.ballot.kind == 1
    job.submit_receipts(FINAL_PART, [0, 2])
    assert world.statements.receipts(1, FINAL_PART) == 0b00101
    for part in (ROUNDS_PART, 2):
        with boa.reverts("statements: receipts not open"):
            job.submit_receipts(part, [0])
    world.blocks.mine_past(job.ballot.availability_end)
    with boa.reverts("statements: receipts not open"):
        job.submit_receipts(FINAL_PART, [1])


def test_receipts_follow_the_order_of_the_drawn_pool(world: World) -> None:
    job = Job(world, 5, 8, changes={"cones_min": 3, "cones_max": 5})
    job.prepare().open_auction().close_auction().enrol()
    block = world.market.job_of(1).enrolment_end + 1
    world.blocks.mine_past(block)
    job.close_enrolment(header_of(block))
    (drawn,) = [one for one in world.enrolment.get_logs() if type(one).__name__ == "ConesDrawn"]
    left_out = next(index for index in range(8) if index not in drawn.indices)
    message = reference.receipt_message(CHAIN, world.market_raw, 1, ROUNDS_PART)
    signed = {
        index: reference.sign_compact(job.cones[index].key, message)
        for index in (drawn.indices[4], left_out)
    }
    with boa.reverts("statements: nothing recorded"):
        submit(job, [(index, *signed[left_out]) for index in range(5)])
    submit(job, [(4, *signed[drawn.indices[4]])])
    assert world.statements.receipts(1, ROUNDS_PART) == 0b10000


def test_bitmaps_are_logged_as_they_come(world: World, job: Job) -> None:
    job.train()
    groups = [(0b1011, 0b101), (2**256 - 1, 2**256 - 1), (0, 0)]
    signatures = [(keccak(b"r"), keccak(b"vs")), (bytes(32), b"\xff" * 32)]
    ballot_number = job.ballot.ballot_number
    for account in (job.cones[0], world.stranger):
        world.statements.log_bitmaps(1, ballot_number, groups, signatures, sender=account.address)
        (logged,) = world.statements.get_logs()
        assert (logged.job, logged.ballot_number) == (1, ballot_number)
        assert [tuple(group) for group in logged.groups] == groups
        assert [tuple(signature) for signature in logged.signatures] == signatures


def test_bitmaps_cost_little_more_than_their_log(world: World) -> None:
    signatures = [(keccak(bytes([i])), keccak(bytes([i, i]))) for i in range(20)]
    world.statements.log_bitmaps(1, 1, [(2**20 - 1, 2**20 - 1)], signatures)
    log_gas = 375 * 4 + 8 * 32 * (4 + 2 + 2 * 20)
    assert world.statements._computation.get_gas_used() < log_gas + 4000
