"""A buyer bids only where its bid can be revealed in time, by a node that acts blocks behind."""

from dataclasses import replace

import pytest
import trio

from d2m_node.errors import UserError
from d2m_node.roles.bids import Wish, find_open_auction
from d2m_node.roles.desk import BuyerDesk
from protocol.auction import AuctionMode
from protocol.events import AuctionOpened
from protocol.market import MarketState
from protocol.types import NO_ACCOUNT, Address, BlockNumber, Wei
from protocol.windows import compute_least_reveal_blocks
from tests.node.test_roles_auctions import make_request
from tests.support.job import JOB, TAGS, TERMS, Cast

LAG = 5
LEAST = compute_least_reveal_blocks(LAG)
COMMIT_END = 20


def sealed(**changes: object) -> Wish:
    wish = Wish(
        tags=TAGS,
        mode=AuctionMode.SEALED,
        currency=NO_ACCOUNT,
        amount_wei=Wei(1000),
        terms=TERMS,
        bidder=Address(b"\x01" * 20),
        lag_blocks=LAG,
    )
    return replace(wish, **changes)  # type: ignore[arg-type]


def open_auction(reveal_blocks: int) -> MarketState:
    """Return a market with one sealed auction, in its first block."""
    cast = Cast()
    cast.register_all()
    cast.market.apply(
        AuctionOpened(
            auction=JOB, opener=Address(b"\x02" * 20), tags=TAGS, mode=AuctionMode.SEALED,
            currency=NO_ACCOUNT, deposit_wei=Wei(100), reserve_wei=Wei(100),
            commit_end=BlockNumber(COMMIT_END), reveal_end=BlockNumber(COMMIT_END + reveal_blocks),
        ),
    )  # fmt: skip
    return cast.market.state


async def test_a_request_whose_bid_might_be_revealed_too_late_is_refused() -> None:
    cast = Cast()
    cast.register_all()
    desk = BuyerDesk(cast.buyer.ports, lag_blocks=LAG)
    short = make_request(mode=AuctionMode.SEALED, deposit_wei=Wei(1000), reveal_blocks=LEAST - 1)
    complaint = rf"^auction\.reveal_blocks: is {LEAST - 1}; raise it to at least {LEAST}: "
    with trio.fail_after(5), pytest.raises(UserError, match=complaint):
        await desk.submit(short, idempotency_key="key")
    assert cast.buyer.store.journal.values == {}


def test_a_reveal_has_room_for_a_reorganisation_as_deep_as_the_node_waits() -> None:
    # Sent when the end of the commitments is followed, it is mined in the next block of the chain.
    mined_after = LAG + 1
    assert LEAST - mined_after >= LAG


def test_an_auction_is_joined_only_if_there_is_time_to_reveal() -> None:
    assert find_open_auction(open_auction(LEAST), sealed()) is not None
    assert find_open_auction(open_auction(LEAST - 1), sealed()) is None
    assert find_open_auction(open_auction(LEAST - 1), sealed(lag_blocks=LAG - 1)) is not None


@pytest.mark.parametrize(("head", "is_joined"), [(13, True), (14, False)])
def test_an_auction_is_joined_only_if_the_bid_comes_before_its_end(
    head: int, is_joined: bool
) -> None:
    state = replace(open_auction(LEAST), block_number=BlockNumber(head))
    assert (find_open_auction(state, sealed()) is not None) == is_joined
