"""Input agreement at the pool: relays, partial serving, equivocators, "no data" votes."""

from collections.abc import Iterable

import pytest
import trio

from d2m_node.calls import LogBitmaps
from d2m_node.roles.inputs import InputSet, agree_inputs, collect_updates
from d2m_node.roles.seat import Seat
from d2m_node.roles.statements import UNSIGNED
from d2m_node.roles.vote import Finding, cast_vote
from protocol.ballot import Ballot
from protocol.bitmap import list_statements
from protocol.commitment import NO_TRACE, compute_nodata_digest
from protocol.events import BitmapsLogged
from protocol.hashing import word
from protocol.signatures import compact, recover_signer
from protocol.sortition import BallotKind, encode_mini
from protocol.types import Address, Digest, JobId, RoundIndex
from protocol.wire import messages as wire
from tests.support.job import CONES, JOB, OPENED, Cast, Offer, retried, sign
from tests.support.market import Node

SAMPLED = (0, 1, 2)
SCARCE = 1


@pytest.fixture
def cast() -> Cast:
    started = Cast()
    started.start()
    return started


def current_ballot(cast: Cast) -> Ballot:
    ballot = cast.market.state.jobs[JOB].ballot
    assert ballot is not None
    return ballot


class Pool:
    """All CONE nodes working on the inputs of one ballot."""

    def __init__(self, cast: Cast, seats: list[Seat], nursery: trio.Nursery) -> None:
        self.cast, self.seats, self.nursery = cast, seats, nursery
        self.found: dict[int, InputSet] = {}

    async def _work(self, seat: Seat, ballot: Ballot, votes: bool) -> None:
        holdings = await collect_updates(seat, ballot, SAMPLED)
        inputs = await agree_inputs(seat, ballot, SAMPLED, holdings)
        self.found[seat.index] = inputs
        if votes and not inputs.is_complete:
            await cast_vote(seat, ballot, Finding(None, inputs.available))

    def start(self, votes: bool = False) -> None:
        for seat in self.seats:
            self.nursery.start_soon(self._work, seat, current_ballot(self.cast), votes)

    @property
    def told(self) -> dict[int, int]:
        """Bitmap by node, as logged."""
        calls = self.cast.market.sent(LogBitmaps)
        told = [one for call in calls for one in list_statements(call.groups, call.signatures)]
        return {one.cone_index: one.bitmap for one in told}

    @property
    def available(self) -> set[int]:
        return {inputs.available for inputs in self.found.values()}


async def seat_pool(cast: Cast, nursery: trio.Nursery) -> Pool:
    seats = [await cast.take_seat(index, nursery) for index in range(CONES)]
    return Pool(cast, seats, nursery)


async def offer_all(cast: Cast, hosts: Iterable[int] = SAMPLED) -> list[Offer]:
    """Let the sampled sellers commit and open; those of ``hosts`` serve their bytes to all."""
    offers = [Offer(cast.sellers[index], index) for index in SAMPLED]
    for index in hosts:
        await offers[index].serve()
    for offer in offers:
        cast.say(offer.commit, *cast.cones)
    return offers


async def open_all(cast: Cast, offers: list[Offer]) -> None:
    await cast.market.mine_to(OPENED.update_commit_end)
    for offer in offers:
        cast.say(offer.opening, *cast.cones)


def serve_only(seller: Node, *chosen: Node, pool: list[Node]) -> None:
    seller.refused |= {node.peer_id for node in pool if node not in chosen}


async def test_what_one_node_was_served_the_others_get_from_it(
    cast: Cast, nursery: trio.Nursery
) -> None:
    pool = await seat_pool(cast, nursery)
    serve_only(cast.sellers[SCARCE], cast.cones[3], pool=cast.cones)
    pool.start()
    await open_all(cast, await offer_all(cast))
    await cast.market.mine_to(OPENED.availability_end)
    assert pool.told == {}  # nobody lacks anything, so nobody pays for saying so
    assert pool.available == {0b111}
    assert all(inputs.is_complete for inputs in pool.found.values())


@pytest.mark.parametrize(("served", "expected", "told"), [(2, 0b101, [2, 3, 4]), (3, 0b111, [])])
async def test_an_update_counts_if_more_than_half_of_the_pool_hold_it(
    cast: Cast, nursery: trio.Nursery, served: int, expected: int, told: list[int]
) -> None:
    pool = await seat_pool(cast, nursery)
    serve_only(cast.sellers[SCARCE], *cast.cones[:served], pool=cast.cones)
    for node in cast.cones:  # nobody relays
        node.refused |= {other.peer_id for other in cast.cones}
    pool.start()
    await open_all(cast, await offer_all(cast))
    await cast.market.mine_to(OPENED.availability_end + 1)
    assert pool.told == dict.fromkeys(told, 0b101)
    assert pool.available == {expected}


async def test_a_node_that_lacks_an_input_votes_no_data(cast: Cast, nursery: trio.Nursery) -> None:
    pool = await seat_pool(cast, nursery)
    serve_only(cast.sellers[SCARCE], *cast.cones[:3], pool=cast.cones)
    for node in cast.cones:
        node.refused |= {other.peer_id for other in cast.cones}
    pool.start(votes=True)
    await open_all(cast, await offer_all(cast))
    await cast.market.mine_to(OPENED.open_end + 1)
    votes = {one.cone_index: one for one in current_ballot(cast).openings}
    assert sorted(votes) == [3, 4]
    mini = encode_mini(BallotKind.ROUND, 0, 0)
    for vote in votes.values():
        assert vote.digest == compute_nodata_digest(JOB, RoundIndex(0), mini, 0b111)
        assert vote.trace == NO_TRACE


async def test_an_equivocator_is_lacking_although_its_bytes_are_here(
    cast: Cast, nursery: trio.Nursery
) -> None:
    pool = await seat_pool(cast, nursery)
    pool.start()
    offers = await offer_all(cast)
    cast.say(Offer(cast.sellers[SCARCE], SCARCE, value=9).commit, cast.cones[2])
    await open_all(cast, offers)
    await cast.market.mine_to(OPENED.availability_end)
    assert pool.told == dict.fromkeys(range(CONES), 0b101)
    assert pool.available == {0b101}
    assert all(inputs.is_complete for inputs in pool.found.values())


async def test_who_hears_of_an_equivocation_late_leaves_the_seller_out_of_the_next_attempt(
    cast: Cast, nursery: trio.Nursery
) -> None:
    pool = await seat_pool(cast, nursery)
    pool.start()
    await open_all(cast, await offer_all(cast))
    await cast.market.mine_to(OPENED.availability_end)
    assert pool.available == {0b111}
    cast.say(Offer(cast.sellers[SCARCE], SCARCE, value=9).commit, cast.cones[2])
    cast.market.apply(retried())
    pool.found.clear()
    cast.market.calls.clear()
    pool.start()
    await cast.market.mine_to(retried().availability_end)
    assert pool.told == dict.fromkeys(range(CONES), 0b101)
    assert pool.available == {0b101}


async def test_a_logged_bitmap_is_verified_once_by_each_node(
    cast: Cast, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = []

    def count(digest: Digest, signature: bytes) -> Address:
        checks.append(signature)
        return recover_signer(digest, signature)

    monkeypatch.setattr("d2m_node.roles.inputs.recover_signer", count)
    pool = await seat_pool(cast, nursery)
    pool.start()
    offers = await offer_all(cast)
    # All lack the seller that signed twice, so all are logged.
    cast.say(Offer(cast.sellers[SCARCE], SCARCE, value=9).commit, cast.cones[2])
    cast.market.apply(
        BitmapsLogged(
            job=JOB, ballot_number=1, groups=((0b1, 0b1),), signatures=((bytes(32), bytes(32)),)
        )
    )
    await open_all(cast, offers)
    await cast.market.mine_to(OPENED.availability_end + 3)
    logged = current_ballot(cast).bitmaps
    assert len(logged) == CONES + 1
    assert len(checks) == CONES * len(logged)


async def test_a_bitmap_that_is_logged_late_or_for_another_ballot_does_not_count(
    cast: Cast, nursery: trio.Nursery
) -> None:
    pool = await seat_pool(cast, nursery)
    node = cast.cones[0]
    step = {"job_id": JOB, "round_index": 0, "cone_index": 0, "signature": UNSIGNED}

    def log(ballot_number: int, attempt: int, bitmap: int) -> None:
        told = wire.AvailabilityBitmap(attempt=attempt, bitmap=word(bitmap), **step)
        signature = compact(sign(node, told).signature)
        logged = BitmapsLogged(
            job=JOB, ballot_number=ballot_number, groups=((1, bitmap),), signatures=(signature,)
        )
        cast.market.apply(logged)

    log(ballot_number=2, attempt=0, bitmap=0b1)
    log(ballot_number=0, attempt=0, bitmap=0b10)
    assert current_ballot(cast).bitmaps == ()
    await cast.market.mine_to(OPENED.availability_end)
    log(ballot_number=1, attempt=0, bitmap=0b11)
    await cast.market.mine()
    log(ballot_number=1, attempt=0, bitmap=0b111)
    assert [one.bitmap for one in current_ballot(cast).bitmaps] == [0b11]
    assert pool.told == {}


async def test_bitmaps_for_a_job_that_does_not_exist_are_passed_over(cast: Cast) -> None:
    before = cast.market.state
    cast.market.apply(BitmapsLogged(job=JobId(99), ballot_number=1, groups=(), signatures=()))
    assert cast.market.state == before


async def test_what_a_pool_lacks_is_recorded_where_nobody_hears_gossip(
    cast: Cast, nursery: trio.Nursery
) -> None:
    """Nobody knows of the others' bitmaps then but by asking for them."""
    pool = await seat_pool(cast, nursery)
    serve_only(cast.sellers[SCARCE], pool=cast.cones)
    pool.start()
    await open_all(cast, await offer_all(cast))
    for node in cast.cones:
        node.network.is_deaf = True
    await cast.market.mine_to(OPENED.availability_end)
    assert pool.told == dict.fromkeys(range(CONES), 0b101)
    assert pool.available == {0b101}
    assert len(cast.market.sent(LogBitmaps)) == 1, "one node sends for all"
