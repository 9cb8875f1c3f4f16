"""Evidence against a seller at the pool: journaled, reported once, across restarts."""

import pytest
import trio

from d2m_node.calls import ReportEquivocation
from d2m_node.roles.evidence import KIND, report_equivocations
from d2m_node.roles.seat import Seat
from protocol.deposits import DepositStatus
from protocol.events import EquivocationProved
from protocol.evidence import EquivocationEvidence, SignedCommitment, verify_equivocation
from protocol.types import NO_DIGEST, Digest, RoundIndex
from tests.support.job import DEPOSIT_WEI, JOB, Cast, Offer
from tests.support.market import DOMAIN, wait_idle

HOSTILE = 1


@pytest.fixture
def cast() -> Cast:
    started = Cast()
    started.start()
    return started


async def seat_pool(cast: Cast, nursery: trio.Nursery, skip: int | None = None) -> list[Seat]:
    """Seat the pool and let all but one member watch for evidence."""
    seats = [await cast.take_seat(index, nursery) for index in range(len(cast.cones))]
    for seat in seats:
        if seat.index != skip:
            nursery.start_soon(report_equivocations, seat)
    await wait_idle()
    return seats


def equivocate(cast: Cast) -> None:
    for value in (1, 2):
        cast.say(Offer(cast.sellers[HOSTILE], HOSTILE, value).commit, cast.cones[0])


def reporter(cast: Cast) -> int:
    """The pool index of the only node that sent a report."""
    ((sender, _),) = cast.market.calls
    return [node.signer.address for node in cast.cones].index(sender)


def status(cast: Cast) -> DepositStatus:
    account = cast.sellers[HOSTILE].signer.address
    return cast.market.state.jobs[JOB].deposits[account].status


async def test_one_node_reports_what_all_have_heard(cast: Cast, nursery: trio.Nursery) -> None:
    seats = await seat_pool(cast, nursery)
    equivocate(cast)
    await cast.market.mine(8)
    (report,) = cast.market.sent(ReportEquivocation)
    verify_equivocation(
        DOMAIN,
        EquivocationEvidence(
            job=report.job,
            round_index=RoundIndex(report.round_index),
            seller=report.seller,
            first=SignedCommitment(*report.first),
            second=SignedCommitment(*report.second),
        ),
    )
    assert seats[reporter(cast)].rank(HOSTILE) == 0
    assert status(cast) is DepositStatus.EQUIVOCATED
    for node in cast.cones:
        assert (KIND, f"{JOB}/{HOSTILE}") in node.store.journal.values


async def test_the_next_in_turn_reports_when_the_first_is_silent(
    cast: Cast, nursery: trio.Nursery
) -> None:
    first = (HOSTILE + JOB) % len(cast.cones)
    seats = await seat_pool(cast, nursery, skip=first)
    assert seats[first].rank(HOSTILE) == 0
    equivocate(cast)
    await cast.market.mine(8)
    assert seats[reporter(cast)].rank(HOSTILE) == 1
    assert status(cast) is DepositStatus.EQUIVOCATED


async def test_a_restarted_node_reports_what_it_had_heard(cast: Cast) -> None:
    async with trio.open_nursery() as before_crash:
        await seat_pool(cast, before_crash)
        equivocate(cast)
        await wait_idle()
        before_crash.cancel_scope.cancel()
    assert cast.market.calls == []
    for node in cast.cones:
        node.restart()
    async with trio.open_nursery() as nursery:
        (seat, *_) = await seat_pool(cast, nursery)
        assert seat.equivocators == {HOSTILE}
        await cast.market.mine(8)
        assert status(cast) is DepositStatus.EQUIVOCATED
        nursery.cancel_scope.cancel()


async def test_nothing_is_sent_against_a_deposit_that_is_gone(
    cast: Cast, nursery: trio.Nursery
) -> None:
    cast.market.apply(
        EquivocationProved(
            job=JOB,
            seller=cast.sellers[HOSTILE].signer.address,
            round_index=0,
            first_commitment=NO_DIGEST,
            second_commitment=Digest(b"\x01" * 32),
            amount_wei=DEPOSIT_WEI,
        )
    )
    seats = await seat_pool(cast, nursery)
    assert seats[0].equivocators == {HOSTILE}
    equivocate(cast)
    await cast.market.mine(8)
    assert cast.market.calls == []


async def test_an_honest_seller_is_not_reported(cast: Cast, nursery: trio.Nursery) -> None:
    seats = await seat_pool(cast, nursery)
    offer = Offer(cast.sellers[HOSTILE], HOSTILE)
    cast.say(offer.commit, *cast.cones)
    cast.say(offer.opening, *cast.cones)
    await cast.market.mine(8)
    assert cast.market.calls == []
    assert seats[0].equivocators == frozenset()
