"""The buyer's desk: a bid that could not be revealed is not made."""

from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import numpy as np
import pytest
import trio
from trio.testing import MockClock

from d2m_node.calls import (
    ApproveToken,
    CommitBid,
    OpenAuction,
    ReclaimBid,
    ReclaimEscrow,
    RevealBid,
)
from d2m_node.errors import JobFailed, TransactionReverted, UserError
from d2m_node.past_jobs import Tie
from d2m_node.ports import Purpose, Reference, Samples
from d2m_node.request_file import RequestFile
from d2m_node.roles.bids import PlannedBid, commit_to, remember_bid
from d2m_node.roles.boundary import PAUSE_SECONDS
from d2m_node.roles.buyer import run_buyer
from d2m_node.roles.delivery import open_model
from d2m_node.roles.desk import BuyerDesk
from d2m_node.roles.payday import run_payday
from d2m_node.roles.shift import Shift
from d2m_node.roles.sources import load_body
from protocol.auction import AuctionMode
from protocol.deposits import compute_deposit_range
from protocol.events import AuctionOpened, TrainingEnded
from protocol.hashing import keccak
from protocol.job import JobPhase
from protocol.layers import Clip, Flatten, Linear
from protocol.market import advance
from protocol.model import ModelDescription, count_model_operations, count_parameters
from protocol.past import let_go
from protocol.request import compute_tag_hashes, encode_body
from protocol.types import NO_ACCOUNT, NO_DIGEST, Address, BlockNumber, Digest, Wei
from protocol.update import TensorKind, encode_tensor
from tests.support.decided import DIGEST, decide_first_round
from tests.support.job import BODY, CONES, JOB, SELLERS, TAGS, TERMS, Cast
from tests.support.market import SAMPLES, wait_idle
from tests.support.params import PARAMS

BID_WEI = Wei(30)
TOKEN = Address(b"\x70" * 20)


def make_cast() -> Cast:
    """The nodes of a market in which there is no job yet."""
    cast = Cast()
    cast.register_all()
    return cast


def make_request(**terms: int) -> RequestFile:
    return RequestFile(
        tags=("digits",),
        mode=AuctionMode.SEALED,
        is_in_token=False,
        bid_wei=BID_WEI,
        deposit_wei=BID_WEI,
        reserve_wei=Wei(1),
        commit_blocks=5,
        reveal_blocks=5,
        model=BODY.model,
        training=BODY.training,
        sampling=BODY.sampling,
        step=BODY.step,
        validation_dataset="dataset.toml",
        validation_final_count=2,
        validation_subset_count=2,
        terms=replace(TERMS, **terms),
    )


@pytest.mark.parametrize("too_much", [-1, 1])
async def test_a_deposit_that_does_not_fit_the_bid_is_refused_before_any_money_moves(
    too_much: int,
) -> None:
    cast = make_cast()
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
    cast = make_cast()
    desk = BuyerDesk(cast.buyer.ports)
    nursery.start_soon(partial(desk.submit, make_request(), idempotency_key="key"))
    await cast.market.mine()
    (opened,) = cast.market.sent(OpenAuction)
    assert (opened.auction, opened.value_wei) == (1, BID_WEI)


async def test_a_request_and_its_bid_take_their_secrets_from_the_nodes_entropy(
    nursery: trio.Nursery,
) -> None:
    class Counting:
        drawn = 0

        def token_bytes(self, count: int, /) -> bytes:
            self.drawn += 1
            return bytes([self.drawn]) * count

    cast = make_cast()
    desk = BuyerDesk(replace(cast.buyer.ports, entropy=Counting()))
    nursery.start_soon(partial(desk.submit, make_request(), idempotency_key="key"))
    await cast.market.mine()
    stored = cast.buyer.store.journal.values
    assert stored["request-seed", "key"] == bytes([1]) * 32
    (bid,) = (value for (kind, _), value in stored.items() if kind == "bid")
    assert msgspec.json.decode(bid, type=PlannedBid).salt == bytes([2]) * 32


async def test_an_old_copy_that_knows_nothing_of_a_bid_does_not_pay_again(
    nursery: trio.Nursery,
) -> None:
    cast = make_cast()
    journal = cast.buyer.store.journal
    desk = BuyerDesk(cast.buyer.ports)
    nursery.start_soon(partial(desk.submit, make_request(), idempotency_key="key"))
    await cast.market.mine(2)
    assert await desk.submit(make_request(), idempotency_key="key") == 1
    journal.values = {}
    restored = BuyerDesk(cast.buyer.ports)
    with pytest.raises(UserError, match=r"auction 1 has a bid .* add 1 to roles.buyer.known_bids"):
        await restored.submit(make_request(), idempotency_key="key")
    assert journal.values == {}
    assert len(cast.market.sent(OpenAuction)) == 1
    told = BuyerDesk(cast.buyer.ports, known_bids=(1,))
    nursery.start_soon(partial(told.submit, make_request(), idempotency_key="another"))
    await cast.market.mine(2)
    assert len(cast.market.sent(OpenAuction)) == 2


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sellers_min": SELLERS + 1, "sellers_max": SELLERS + 1}, "sellers_min: is 5; datasets"),
        ({"cones_min": CONES + 1, "cones_max": CONES + 1}, "cones_min: is 6; accounts with a st"),
    ],
)
async def test_more_than_is_registered_is_not_asked_for(
    change: dict[str, int], complaint: str
) -> None:
    cast = make_cast()
    desk = BuyerDesk(cast.buyer.ports)
    request = make_request(seller_deposit_wei=5, **change)
    with trio.fail_after(5), pytest.raises(UserError, match=rf"^terms\.{complaint}"):
        await desk.submit(request, idempotency_key="key")
    assert cast.buyer.store.journal.values == {}


async def test_a_market_without_a_token_takes_no_request_in_one() -> None:
    cast = make_cast()
    desk = BuyerDesk(cast.buyer.ports)
    request = replace(make_request(), is_in_token=True)
    with trio.fail_after(5), pytest.raises(UserError, match=r"^auction\.currency: this market has"):
        await desk.submit(request, idempotency_key="key")


@pytest.mark.parametrize("mode", [AuctionMode.SEALED, AuctionMode.SECOND_PRICE])
async def test_a_sealed_bid_in_the_token_is_allowed_before_it_is_made(
    nursery: trio.Nursery, mode: AuctionMode
) -> None:
    cast = make_cast()
    cast.buyer.chain.params = replace(PARAMS, token=TOKEN)
    desk = BuyerDesk(cast.buyer.ports)
    request = replace(make_request(), is_in_token=True, mode=mode, deposit_wei=Wei(40))
    nursery.start_soon(partial(desk.submit, request, idempotency_key="key"))
    await cast.market.mine(2)
    calls = [call for _, call in cast.market.calls]
    assert calls[0] == ApproveToken(spender="Market", amount_wei=Wei(40))
    assert isinstance(calls[1], OpenAuction)
    assert (calls[1].currency, calls[1].mode) == (TOKEN, mode)
    assert (calls[1].bond_wei, calls[1].value_wei) == (40, 0)


async def test_terms_outside_the_deployments_limits_are_refused_before_any_money_moves() -> None:
    cast = make_cast()
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
    cast = make_cast()
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
    cast = make_cast()
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


async def submit_and_crash(cast: Cast, **options: Any) -> None:
    """Bid, and stop before the bid is confirmed: its transaction stays on its way."""
    async with trio.open_nursery() as before_crash:
        desk = BuyerDesk(cast.buyer.ports)
        before_crash.start_soon(partial(desk.submit, make_request(), **options))
        await wait_idle()
        before_crash.cancel_scope.cancel()


@pytest.mark.parametrize("blocks_between", [0, 1, 6])
async def test_the_same_key_bids_once_across_a_crash(
    nursery: trio.Nursery, blocks_between: int
) -> None:
    cast = make_cast()
    await submit_and_crash(cast, idempotency_key="key")
    await cast.market.mine(blocks_between)
    desk = BuyerDesk(cast.buyer.ports)
    nursery.start_soon(partial(desk.submit, make_request(), idempotency_key="key"))
    await cast.market.mine(3)
    assert len(cast.market.calls) == 1
    with trio.fail_after(5):
        assert await desk.submit(make_request(), idempotency_key="key") == JOB


async def test_a_bid_on_its_way_goes_on_although_its_auction_is_too_late_to_join(
    nursery: trio.Nursery,
) -> None:
    cast = make_cast()
    cast.market.apply(
        AuctionOpened(
            auction=JOB, opener=cast.cones[0].signer.address, tags=TAGS, mode=0,
            currency=NO_ACCOUNT, deposit_wei=BID_WEI, reserve_wei=Wei(1), commit_end=BlockNumber(4),
            reveal_end=BlockNumber(8),
        )
    )  # fmt: skip
    await submit_and_crash(cast, idempotency_key="key")
    cast.market.state = advance(cast.market.state, BlockNumber(3))
    desk = BuyerDesk(cast.buyer.ports)
    nursery.start_soon(partial(desk.submit, make_request(), idempotency_key="key"))
    await cast.market.mine(2)
    assert cast.market.sent(OpenAuction) == []
    assert len(cast.market.sent(CommitBid)) == 1


@pytest.mark.parametrize(
    ("tags", "mode"), [(("letters",), AuctionMode.SEALED), (("digits",), AuctionMode.SECOND_PRICE)]
)
async def test_a_bid_does_not_follow_its_number_into_an_auction_for_something_else(
    nursery: trio.Nursery, tags: tuple[str, ...], mode: AuctionMode
) -> None:
    """A stranger took the number that was journaled, before the request came a second time."""
    cast = make_cast()
    cast.market.refuses = lambda _: True
    with pytest.raises(TransactionReverted, match="the test refuses it"):
        await BuyerDesk(cast.buyer.ports).submit(make_request(), idempotency_key="key")
    cast.market.refuses = lambda _: False
    cast.market.apply(
        AuctionOpened(
            auction=JOB, opener=cast.cones[0].signer.address, tags=compute_tag_hashes([*tags]),
            mode=mode, currency=NO_ACCOUNT, deposit_wei=BID_WEI, reserve_wei=Wei(1),
            commit_end=BlockNumber(40), reveal_end=BlockNumber(80),
        )
    )  # fmt: skip
    desk = BuyerDesk(cast.buyer.ports)
    nursery.start_soon(partial(desk.submit, make_request(), idempotency_key="key"))
    await cast.market.mine(3)
    assert cast.market.sent(CommitBid) == []
    assert [one.auction for one in cast.market.sent(OpenAuction)] == [JOB + 1]


async def test_another_key_bids_again(nursery: trio.Nursery) -> None:
    cast = make_cast()
    await submit_and_crash(cast, idempotency_key="key")
    await cast.market.mine()
    desk = BuyerDesk(cast.buyer.ports)
    nursery.start_soon(partial(desk.submit, make_request(), idempotency_key="other"))
    await wait_idle()
    assert len(cast.buyer.store.journal.values) == 6, "two seeds, two bodies and two bids"


async def test_a_key_does_not_bid_again_when_the_validation_set_has_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cast = make_cast()
    await submit_and_crash(cast, idempotency_key="key")
    datasets = cast.buyer.ports.datasets
    samples = await datasets.load_samples("dataset.toml")
    changed = replace(samples, inputs=samples.inputs + np.uint8(1))

    async def load(path: str) -> Samples:
        return changed

    monkeypatch.setattr(datasets, "load_samples", load)
    desk = BuyerDesk(cast.buyer.ports)
    with pytest.raises(UserError, match=r"validation\.dataset: it is not what it was"):
        await desk.submit(make_request(), idempotency_key="key")
    await cast.market.mine(3)
    assert len(cast.market.calls) == 1


async def test_a_bid_of_any_amount_is_remembered() -> None:
    most = Wei(2**256 - 1)
    terms = replace(TERMS, stake_wei=most, seller_deposit_wei=most)
    bid = PlannedBid(amount_wei=most, salt=bytes(32), body_hash=bytes(32), terms=terms,
                    dataset_path="")  # fmt: skip
    assert await remember_bid(Cast().buyer.ports, JOB, bid) == bid


async def place_bid(cast: Cast) -> None:
    """Let the buyer know of the bid that has won."""
    bid = PlannedBid(amount_wei=30, salt=bytes(32), body_hash=bytes(32), terms=TERMS,
                    dataset_path="")  # fmt: skip
    await remember_bid(cast.buyer.ports, JOB, bid)
    job, me = cast.market.state.jobs[JOB], cast.buyer.signer.address
    sealed = replace(job.bids[me], commitment=commit_to(cast.buyer.ports, JOB, bid))
    jobs = {JOB: replace(job, bids={me: sealed})}
    cast.market.state = replace(cast.market.state, jobs=jobs)


async def test_a_buyer_closes_an_enrolment_again_that_a_reorganisation_has_opened(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    cast = Cast()
    cast.open_enrolment()
    opened = cast.market.state.jobs[JOB]
    cast = Cast()
    cast.start()
    await place_bid(cast)
    nursery.start_soon(run_payday, cast.buyer.ports)
    nursery.start_soon(buy, cast)
    await cast.market.mine()
    job = cast.market.state.jobs[JOB]
    # On the new branch all applications came too late.
    again = replace(opened, bids=job.bids, enrolment_end=BlockNumber(5))
    cast.market.state = replace(cast.market.state, jobs={JOB: again})
    await cast.market.mine()
    await trio.sleep(PAUSE_SECONDS)
    await cast.market.mine_to(again.enrolment_end + 4)
    assert cast.market.sent(ReclaimEscrow) == [ReclaimEscrow(job=JOB)]


async def test_a_buyer_gets_its_escrow_back_when_no_cone_node_enrols(
    nursery: trio.Nursery,
) -> None:
    cast = Cast()
    cast.open_enrolment()
    cast.buyer.store.blobs.data.clear()  # not even the request is readable
    await place_bid(cast)
    job = cast.market.state.jobs[JOB]
    nursery.start_soon(run_payday, cast.buyer.ports)
    nursery.start_soon(buy, cast)
    await cast.market.mine_to(job.enrolment_end + 4)
    assert cast.market.sent(ReclaimEscrow) == [ReclaimEscrow(job=JOB)]
    assert cast.market.state.jobs[JOB].escrow_reclaimed


async def test_a_refused_reveal_does_not_strand_the_deposit(nursery: trio.Nursery) -> None:
    cast = make_cast()
    cast.market.refuses = lambda call: isinstance(call, RevealBid)
    nursery.start_soon(run_payday, cast.buyer.ports)
    nursery.start_soon(buy, cast)
    desk = BuyerDesk(cast.buyer.ports)
    nursery.start_soon(partial(desk.submit, make_request(), idempotency_key="key"))
    await cast.market.mine(15)
    assert cast.market.sent(RevealBid) == []
    assert cast.market.sent(ReclaimBid) == [ReclaimBid(auction=JOB)]


async def buy(cast: Cast) -> None:
    """Run the buyer as a node does, until cancelled."""
    node = cast.buyer
    async with trio.open_nursery() as nursery:
        await run_buyer(node.post("buyer", nursery), BuyerDesk(node.ports))


async def test_a_bid_that_a_reorganisation_took_back_does_not_end_the_node(
    nursery: trio.Nursery,
) -> None:
    cast = make_cast()
    nursery.start_soon(buy, cast)
    desk = BuyerDesk(cast.buyer.ports)
    nursery.start_soon(partial(desk.submit, make_request(), idempotency_key="key"))
    await cast.market.mine()
    job = cast.market.state.jobs[JOB]
    cast.market.state = replace(cast.market.state, jobs={JOB: replace(job, bids={})})
    await cast.market.mine_to(job.commit_end + 1)
    assert cast.market.sent(RevealBid) == []


async def test_terms_under_which_nobody_could_be_heard_are_refused_before_any_money_moves() -> None:
    cast = make_cast()
    desk = BuyerDesk(cast.buyer.ports)
    with pytest.raises(UserError, match=r"terms\.vote_commit_blocks: is 1; raise it to at least 2"):
        await desk.submit(make_request(vote_commit_blocks=1), idempotency_key="key")
    assert cast.market.calls == []


# --- draining


async def drain_buyer(cast: Cast, desk: BuyerDesk, shift: Shift, ended: trio.Event) -> None:
    async with trio.open_nursery() as nursery:
        await run_buyer(cast.buyer.post("buyer", nursery, shift), desk)
        ended.set()


async def test_a_buyer_that_drains_leaves_when_its_bid_has_come_to_its_end(
    nursery: trio.Nursery,
) -> None:
    cast = make_cast()
    desk, shift, ended = BuyerDesk(cast.buyer.ports), Shift("buyer"), trio.Event()
    nursery.start_soon(drain_buyer, cast, desk, shift, ended)
    await desk_submits(cast, desk, nursery)
    shift.drain()
    await cast.market.mine(3)
    assert not ended.is_set()
    # Nobody enrols: the job is cancelled, and that is its end.
    await cast.market.mine_to(cast.market.state.jobs[JOB].reveal_end + 2)
    await cast.market.mine_to(cast.market.state.jobs[JOB].enrolment_end + 3)
    assert len(cast.market.sent(RevealBid)) == 1
    assert ended.is_set()


async def desk_submits(cast: Cast, desk: BuyerDesk, nursery: trio.Nursery) -> None:
    nursery.start_soon(partial(desk.submit, make_request(), idempotency_key="key"))
    await cast.market.mine()


async def test_a_buyer_that_drains_waits_for_a_bid_that_is_on_its_way(
    nursery: trio.Nursery,
) -> None:
    cast = make_cast()
    desk, shift, ended = BuyerDesk(cast.buyer.ports), Shift("buyer"), trio.Event()
    nursery.start_soon(partial(desk.submit, make_request(), idempotency_key="key"))
    await wait_idle()
    assert not desk.is_idle()
    shift.drain()
    nursery.start_soon(drain_buyer, cast, desk, shift, ended)
    await wait_idle()
    assert not ended.is_set()
    await cast.market.mine_to(7)
    assert desk.is_idle()
    assert len(cast.market.sent(RevealBid)) == 1, "else the bid's deposit is forfeited"


@pytest.mark.parametrize("is_gone", [False, True])
async def test_a_validation_set_that_is_not_the_one_of_the_bid_is_told_with_its_own_code(
    nursery: trio.Nursery, is_gone: bool
) -> None:
    class Changed:
        async def load_samples(self, path: str) -> Samples:
            if is_gone:
                raise UserError(f"{path}: no such file")
            return replace(SAMPLES, labels=SAMPLES.labels + 1)

    cast = Cast()
    cast.start()
    cast.buyer.ports = replace(cast.buyer.ports, datasets=Changed())  # type: ignore[arg-type]
    plan = PlannedBid(
        amount_wei=BID_WEI,
        salt=bytes(32),
        body_hash=keccak(encode_body(BODY)),
        terms=TERMS,
        dataset_path="dataset.toml",
    )
    await remember_bid(cast.buyer.ports, JOB, plan)
    job = cast.market.state.jobs[JOB]
    own = replace(
        job.bids[cast.buyer.signer.address], commitment=commit_to(cast.buyer.ports, JOB, plan)
    )
    job = replace(job, bids={cast.buyer.signer.address: own})
    cast.market.state = replace(cast.market.state, jobs={JOB: job})
    post = cast.buyer.post("buyer", nursery)
    await nursery.start(partial(run_buyer, post, BuyerDesk(cast.buyer.ports)))
    await cast.market.mine(2)
    await wait_idle()
    assert cast.buyer.refusals() == [(JOB, "buyer", "data")]
    (refusal,) = cast.buyer.store.refusals.kept
    assert "dataset.toml" in refusal.reason
    assert refusal.reason.endswith("put it back, then disable and enable the buyer role")


async def let_the_job_end(cast: Cast, digest: Digest) -> None:
    """Let the job end with a model, and be past for its buyer."""
    cast.start()
    decide_first_round(cast, DIGEST, appeal_end=5)
    ended = TrainingEnded(
        job=JOB, outcome=0, rounds_done=1, initial_utility=0, last_utility=1,
        model_digest=digest, credit_root=NO_DIGEST, credit_sum=0, final_block=BlockNumber(1),
    )  # fmt: skip
    job = replace(cast.market.state.jobs[JOB], phase=JobPhase.SETTLED, ended=ended)
    await cast.buyer.store.past.keep([(job, Tie.BUYER)])
    cast.market.state = let_go(cast.market.state, [job])


async def test_a_model_that_was_missed_is_taken_though_its_job_is_past(
    nursery: trio.Nursery,
) -> None:
    cast = Cast()
    size = count_parameters(BODY.model)
    data = encode_tensor(TensorKind.PARAMETERS, np.arange(size, dtype=np.int32))
    for node in cast.cones:
        await node.store.blobs.put(data, Reference(Purpose.STATE, JOB))
    await let_the_job_end(cast, keccak(data))
    for node in cast.cones:
        node.store.past._kept.update(cast.buyer.store.past._kept)
    desk = BuyerDesk(cast.buyer.ports)
    post = cast.buyer.post("buyer", nursery)
    await nursery.start(partial(run_buyer, post, desk))
    await wait_idle()
    assert await open_model(cast.buyer.ports, JOB) is not None
    assert cast.buyer.refusals() == []


async def test_a_model_that_is_here_is_not_taken_again(nursery: trio.Nursery) -> None:
    cast = Cast()
    await let_the_job_end(cast, keccak(b"of no peer"))
    digest = await cast.buyer.store.blobs.put(b"model", Reference(Purpose.MODEL, JOB))
    await cast.buyer.store.journal.remember("model", str(JOB), digest)
    desk = BuyerDesk(cast.buyer.ports)
    await nursery.start(partial(run_buyer, cast.buyer.post("buyer", nursery), desk))
    await wait_idle()
    assert await open_model(cast.buyer.ports, JOB) == b"model"
    assert cast.buyer.refusals() == []


async def test_a_buyer_without_a_bid_leaves_at_once(nursery: trio.Nursery) -> None:
    cast = make_cast()
    shift, ended = Shift("buyer", is_draining=True), trio.Event()
    nursery.start_soon(drain_buyer, cast, BuyerDesk(cast.buyer.ports), shift, ended)
    await cast.market.mine()
    assert ended.is_set()
