"""The buyer in an open auction: it bids what is needed, up to the amount of its request."""

from dataclasses import replace
from functools import partial

import pytest
import trio

from d2m_node.calls import (
    ApproveToken,
    CloseAuction,
    OpenAuction,
    OpenClearAuction,
    PlaceBid,
    ReclaimBid,
)
from d2m_node.request_file import RequestFile
from d2m_node.roles.bids import PlannedBid, fit_terms, recall_bid
from d2m_node.roles.buyer import run_buyer
from d2m_node.roles.desk import BuyerDesk
from protocol.auction import AuctionMode
from protocol.deposits import validate_seller_deposit
from protocol.events import AuctionOpened, BidCommitted, BidRevealed
from protocol.job import JobPhase
from protocol.request import compute_tag_hashes
from protocol.terms import compute_request_hash
from protocol.types import NO_ACCOUNT, Address, BlockNumber, Digest, Wei
from tests.support.job import BODY, JOB, TAGS, TERMS, Cast
from tests.support.market import Node, wait_idle
from tests.support.params import PARAMS

LIMIT_WEI = Wei(1000)
DEPOSIT_WEI = Wei(120)
RIVAL_BODY = Digest(b"\x0b" * 32)
TOKEN = Address(b"\x70" * 20)


def make_request(**changes: object) -> RequestFile:
    request = RequestFile(
        tags=("digits",),
        mode=AuctionMode.OPEN,
        is_in_token=False,
        bid_wei=LIMIT_WEI,
        deposit_wei=Wei(0),
        reserve_wei=Wei(100),
        commit_blocks=20,
        reveal_blocks=0,
        model=BODY.model,
        training=BODY.training,
        sampling=BODY.sampling,
        step=BODY.step,
        validation_dataset="dataset.toml",
        validation_final_count=2,
        validation_subset_count=2,
        terms=replace(TERMS, seller_deposit_wei=DEPOSIT_WEI),
    )
    return replace(request, **changes)  # type: ignore[arg-type]


class Bidding:
    """A buyer at work, and a rival whose calls a test makes."""

    def __init__(self, nursery: trio.Nursery, token: Address = NO_ACCOUNT) -> None:
        self.cast = Cast()
        self.cast.register_all()
        self.market = self.cast.market
        self.nursery = nursery
        self.rival = Node(self.market, "rival").signer.address
        self.me = self.cast.buyer.signer.address
        self.cast.buyer.chain.params = replace(PARAMS, token=token)
        nursery.start_soon(self.buy)

    async def buy(self) -> None:
        node = self.cast.buyer
        async with trio.open_nursery() as nursery:
            await run_buyer(node.post("buyer", nursery), BuyerDesk(node.ports))

    async def submit(self, request: RequestFile, key: str = "key") -> None:
        desk = BuyerDesk(self.cast.buyer.ports)
        self.nursery.start_soon(partial(desk.submit, request, idempotency_key=key))
        await self.market.mine()

    def open_by_rival(self, amount_wei: int = 100, tags: tuple[Digest, ...] = TAGS) -> None:
        terms = fit_terms(TERMS, Wei(amount_wei), PARAMS)
        self.market.apply(
            AuctionOpened(
                auction=JOB, opener=self.rival, tags=tags, mode=AuctionMode.OPEN,
                currency=NO_ACCOUNT, deposit_wei=Wei(0), reserve_wei=Wei(100),
                commit_end=BlockNumber(20), reveal_end=BlockNumber(20),
            ),
            BidCommitted(
                auction=JOB, bidder=self.rival, deposit_wei=Wei(amount_wei),
                commitment=compute_request_hash(terms, RIVAL_BODY),
            ),
            BidRevealed(
                auction=JOB, bidder=self.rival, amount_wei=Wei(amount_wei), terms=terms,
                body_hash=RIVAL_BODY,
            ),
        )  # fmt: skip

    async def bid_of_rival(self, amount_wei: int) -> None:
        """Let the rival bid in the next block, then let the buyer see it."""
        bid = PlaceBid(
            auction=JOB,
            amount_wei=Wei(amount_wei),
            terms=fit_terms(TERMS, Wei(amount_wei), PARAMS),
            body_hash=RIVAL_BODY,
            permits=(),
            value_wei=Wei(amount_wei),
        )
        self.market.send(self.rival, bid)
        await self.market.mine()

    @property
    def own(self) -> list[PlaceBid]:
        return [c for s, c in self.market.calls if s == self.me and isinstance(c, PlaceBid)]


@pytest.fixture
def bidding(nursery: trio.Nursery) -> Bidding:
    return Bidding(nursery)


async def test_it_opens_with_the_reserve_and_wins_at_it(bidding: Bidding) -> None:
    await bidding.submit(make_request())
    (opened,) = bidding.market.sent(OpenClearAuction)
    assert (opened.amount_wei, opened.value_wei) == (100, 100)
    await bidding.market.mine_to(bidding.market.state.jobs[JOB].commit_end + 3)
    assert bidding.own == []
    job = bidding.market.state.jobs[JOB]
    assert (job.phase, job.buyer, job.price_wei) == (JobPhase.ENROLMENT, bidding.me, 100)
    assert job.terms == opened.terms


async def test_it_answers_every_bid_with_the_smallest_one_and_pays_the_difference(
    bidding: Bidding,
) -> None:
    await bidding.submit(make_request())
    await bidding.bid_of_rival(200)
    await bidding.market.mine()
    await bidding.bid_of_rival(400)
    await bidding.market.mine(3)
    assert [(bid.amount_wei, bid.value_wei) for bid in bidding.own] == [(210, 110), (420, 210)]
    job = bidding.market.state.jobs[JOB]
    assert job.best_bid is not None
    assert job.best_bid.bidder == bidding.me


async def test_its_terms_fit_whatever_it_bids(bidding: Bidding) -> None:
    await bidding.submit(make_request())
    (opened,) = bidding.market.sent(OpenClearAuction)
    bids = [(opened.amount_wei, opened.terms)]
    for amount_wei in (200, 400, 900):
        await bidding.bid_of_rival(amount_wei)
        await bidding.market.mine()
    bids += [(bid.amount_wei, bid.terms) for bid in bidding.own]
    assert len(bids) == 4
    for amount_wei, terms in bids:
        validate_seller_deposit(terms, amount_wei, PARAMS)
    assert bids[0][1].seller_deposit_wei < DEPOSIT_WEI
    assert bids[-1][1].seller_deposit_wei == DEPOSIT_WEI


async def test_it_stops_at_its_limit_and_takes_its_money_back_at_once(bidding: Bidding) -> None:
    await bidding.submit(make_request())
    await bidding.bid_of_rival(970)
    await bidding.market.mine(2)
    assert bidding.own == []
    assert bidding.market.sent(ReclaimBid) == [ReclaimBid(auction=JOB)]
    job = bidding.market.state.jobs[JOB]
    assert job.phase is JobPhase.AUCTION
    assert job.bids[bidding.me].reclaimed
    await bidding.market.mine_to(job.commit_end + 3)
    assert len(bidding.market.sent(CloseAuction)) == 1
    assert bidding.market.state.jobs[JOB].buyer == bidding.rival


async def test_the_limit_itself_is_bid(bidding: Bidding) -> None:
    await bidding.submit(make_request(bid_wei=Wei(210), terms=TERMS_OF_SMALL_BIDS))
    await bidding.bid_of_rival(200)
    await bidding.market.mine()
    assert [bid.amount_wei for bid in bidding.own] == [210]


TERMS_OF_SMALL_BIDS = replace(TERMS, seller_deposit_wei=Wei(40))


async def test_it_joins_an_auction_in_which_it_can_win(bidding: Bidding) -> None:
    bidding.open_by_rival(amount_wei=300)
    await bidding.submit(make_request())
    assert [(bid.auction, bid.amount_wei) for bid in bidding.own] == [(JOB, 315)]
    assert bidding.market.sent(OpenClearAuction) == []


async def test_it_opens_its_own_auction_where_it_cannot_win(bidding: Bidding) -> None:
    bidding.open_by_rival(amount_wei=990)
    await bidding.submit(make_request())
    assert [call.auction for call in bidding.market.sent(OpenClearAuction)] == [JOB + 1]
    assert bidding.own == []


async def test_it_joins_no_auction_of_another_mode(bidding: Bidding) -> None:
    bidding.open_by_rival()
    sealed = make_request(mode=AuctionMode.SEALED, deposit_wei=LIMIT_WEI, reveal_blocks=5)
    await bidding.submit(sealed)
    assert [call.auction for call in bidding.market.sent(OpenAuction)] == [JOB + 1]


async def test_it_joins_no_auction_for_other_data(bidding: Bidding) -> None:
    bidding.open_by_rival(tags=compute_tag_hashes(["numbers"]))
    await bidding.submit(make_request())
    assert [call.auction for call in bidding.market.sent(OpenClearAuction)] == [JOB + 1]


async def test_it_joins_no_auction_that_opened_before_enough_was_registered(
    bidding: Bidding,
) -> None:
    bidding.open_by_rival()
    early = replace(bidding.market.state.jobs[JOB], stakers=0)
    bidding.market.state = replace(bidding.market.state, jobs={JOB: early})
    await bidding.submit(make_request())
    assert [call.auction for call in bidding.market.sent(OpenClearAuction)] == [JOB + 1]


async def test_who_is_outbid_while_its_bid_is_on_its_way_looks_again(bidding: Bidding) -> None:
    bidding.open_by_rival(amount_wei=300)
    refused: list[int] = []

    def is_late(call: object) -> bool:
        """Refuse the first bid, as a market does in which somebody was faster."""
        if isinstance(call, PlaceBid) and not refused:
            refused.append(call.amount_wei)
            return True
        return False

    bidding.market.refuses = is_late
    bidding.market.refusal = "market: raise too small"
    await bidding.submit(make_request())
    await bidding.market.mine(3)
    assert refused == [315]
    assert [bid.amount_wei for bid in bidding.own] == [315]


async def test_a_second_request_opens_an_auction_of_its_own(bidding: Bidding) -> None:
    await bidding.submit(make_request())
    await bidding.submit(make_request(), key="other")
    await bidding.market.mine()
    assert [call.auction for call in bidding.market.sent(OpenClearAuction)] == [JOB, JOB + 1]


async def test_raises_in_the_token_are_allowed_one_by_one(nursery: trio.Nursery) -> None:
    bidding = Bidding(nursery, TOKEN)
    await bidding.submit(make_request(is_in_token=True))
    await bidding.market.mine()
    (opened,) = bidding.market.sent(OpenClearAuction)
    assert (opened.currency, opened.value_wei) == (TOKEN, 0)
    await bidding.bid_of_rival(200)
    await bidding.market.mine(3)
    assert bidding.market.sent(ApproveToken) == [
        ApproveToken(spender="Market", amount_wei=Wei(100)),
        ApproveToken(spender="Market", amount_wei=Wei(110)),
    ]
    assert [(bid.amount_wei, bid.value_wei) for bid in bidding.own] == [(210, 0)]


async def test_it_goes_on_bidding_after_a_restart(nursery: trio.Nursery) -> None:
    async with trio.open_nursery() as before_crash:
        bidding = Bidding(before_crash)
        await bidding.submit(make_request())
        before_crash.cancel_scope.cancel()
    await bidding.bid_of_rival(200)
    nursery.start_soon(bidding.buy)
    await bidding.market.mine(2)
    assert [bid.amount_wei for bid in bidding.own] == [210]


async def test_the_bid_on_chain_is_found_in_the_journal_after_every_raise(
    bidding: Bidding,
) -> None:
    await bidding.submit(make_request())
    for amount_wei in (200, 900):
        await bidding.bid_of_rival(amount_wei)
        await bidding.market.mine()
        await wait_idle()
        found = await recall_bid(bidding.cast.buyer.ports, bidding.market.state.jobs[JOB])
        assert isinstance(found, PlannedBid)
        assert found.amount_wei == LIMIT_WEI
