"""What is signed and not opened yet keeps a role that is switched off at work."""

from dataclasses import replace

import pytest
import trio

from d2m_node.roles.desk import BuyerDesk
from d2m_node.roles.promises import OpenPromises
from d2m_node.roles.vote import vote_key
from protocol.auction import AuctionMode
from protocol.events import (
    AuctionOpened,
    BidCommitted,
    BidRevealed,
    CommitsRecorded,
    OpeningsRecorded,
)
from protocol.market import advance
from protocol.types import NO_ACCOUNT, NO_DIGEST, BlockNumber, Wei
from tests.support.decided import DIGEST, TRACE
from tests.support.job import JOB, OPENED, TAGS, TERMS, Cast
from tests.support.market import Node


def promises_of(node: Node) -> OpenPromises:
    return OpenPromises(node.ports, BuyerDesk(node.ports))


async def make_voter() -> tuple[Cast, OpenPromises]:
    """A CONE node in the first round that has sealed a vote."""
    cast = Cast()
    cast.start()
    cone = cast.cones[1]
    ballot = cast.market.state.jobs[JOB].ballot
    assert ballot is not None
    await cone.store.journal.remember("vote", vote_key(JOB, ballot, ballot.current), b"sealed")
    return cast, promises_of(cone)


def at(cast: Cast, block: int) -> None:
    cast.market.state = advance(cast.market.state, BlockNumber(block))


def commit(cast: Cast) -> None:
    cast.market.apply(
        CommitsRecorded(
            job=JOB, ballot_number=1, mini=0, batch_index=0, members=0b10, commitments=(DIGEST,)
        )
    )


async def test_nobody_owes_anything_without_a_signature() -> None:
    cast = Cast()
    cast.start()
    for node in (cast.buyer, cast.sellers[0], cast.cones[1]):
        for role in ("buyer", "seller", "cone"):
            assert await promises_of(node).find_end(role) is None


async def test_a_sealed_vote_is_owed_as_long_as_its_commitment_may_be_recorded() -> None:
    cast, promises = await make_voter()
    at(cast, OPENED.commit_end - 1)
    assert await promises.find_end("cone") == OPENED.open_end
    at(cast, OPENED.commit_end)
    assert await promises.find_end("cone") is None, "nobody has sent it in time"


async def test_a_recorded_commitment_is_owed_until_it_is_opened() -> None:
    cast, promises = await make_voter()
    commit(cast)
    at(cast, OPENED.open_end - 1)
    assert await promises.find_end("cone") == OPENED.open_end
    assert await promises.find_end("buyer") is None
    cast.market.apply(
        OpeningsRecorded(job=JOB, ballot_number=1, mini=0, groups=((DIGEST, TRACE, 0b10),))
    )
    assert await promises.find_end("cone") is None


async def test_what_can_be_opened_no_more_is_not_waited_for() -> None:
    cast, promises = await make_voter()
    commit(cast)
    at(cast, OPENED.open_end)
    assert await promises.find_end("cone") is None


async def test_a_vote_of_another_attempt_is_not_owed() -> None:
    cast, promises = await make_voter()
    job = cast.market.state.jobs[JOB]
    assert job.ballot is not None
    again = replace(job, ballot=replace(job.ballot, attempt=1))
    cast.market.state = replace(cast.market.state, jobs={JOB: again})
    at(cast, OPENED.commit_end - 1)
    assert await promises.find_end("cone") is None


def bid(cast: Cast, mode: AuctionMode) -> None:
    buyer = cast.buyer.signer.address
    cast.market.apply(
        AuctionOpened(
            auction=JOB, opener=buyer, tags=TAGS, mode=mode.value, currency=NO_ACCOUNT,
            deposit_wei=Wei(5), reserve_wei=Wei(1), commit_end=BlockNumber(10),
            reveal_end=BlockNumber(20),
        ),
        BidCommitted(auction=JOB, bidder=buyer, commitment=NO_DIGEST, deposit_wei=Wei(5)),
    )  # fmt: skip


async def test_a_sealed_bid_is_owed_until_it_is_revealed() -> None:
    cast = Cast()
    bid(cast, AuctionMode.SEALED)
    promises = promises_of(cast.buyer)
    assert await promises.find_end("buyer") == 20
    assert await promises.find_end("cone") is None
    revealed = BidRevealed(
        auction=JOB,
        bidder=cast.buyer.signer.address,
        amount_wei=Wei(5),
        terms=TERMS,
        body_hash=NO_DIGEST,
    )
    before = cast.market.state
    cast.market.apply(revealed)
    assert await promises.find_end("buyer") is None
    cast.market.state = advance(before, BlockNumber(20))
    assert await promises.find_end("buyer") is None, "it is too late"


async def test_a_request_that_is_being_taken_is_owed() -> None:
    cast = Cast()
    desk = BuyerDesk(cast.buyer.ports)
    promises = OpenPromises(cast.buyer.ports, desk)
    desk._pending = 1
    assert await promises.find_end("buyer") is not None
    assert await promises.find_end("cone") is None


async def test_what_is_owed_is_asked_for_with_each_block(nursery: trio.Nursery) -> None:
    cast, promises = await make_voter()
    asked = trio.Event()

    async def wait() -> None:
        await promises.wait_next()
        asked.set()

    nursery.start_soon(wait)
    await trio.testing.wait_all_tasks_blocked()
    assert not asked.is_set()
    await cast.market.mine()
    with trio.fail_after(5):
        await asked.wait()


@pytest.mark.parametrize("role", ["buyer", "seller"])
async def test_a_vote_is_owed_by_the_cone_role_alone(role: str) -> None:
    cast, promises = await make_voter()
    at(cast, OPENED.commit_end - 1)
    assert await promises.find_end(role) is None
