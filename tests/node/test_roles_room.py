"""A job's room: which messages are kept, passed on and served."""

from collections import Counter
from dataclasses import replace
from itertools import product
from typing import Any

import msgspec
import pytest
import trio

from d2m_node.ports import Verdict
from d2m_node.roles.room import ROUNDS_KEPT
from d2m_node.roles.statements import UNSIGNED
from protocol.commitment import VoteOpening, VotePosition, compute_vote_commitment
from protocol.events import CommitsRecorded, ConeEnrolled
from protocol.evidence import verify_equivocation
from protocol.hashing import keccak
from protocol.sortition import BallotKind, compute_ticket_chain, encode_mini
from protocol.types import RoundIndex
from protocol.wire import messages as wire
from protocol.wire.topics import Topic, name_topic
from tests.contracts.deposit_vectors import mirror
from tests.support.job import CONES, JOB, OPENED, TICKETS, Cast, Offer, sign, ticket_secret
from tests.support.market import DOMAIN

COMMITS = wire.MessagesRequest(job_id=JOB, kind=1, step=0)


@pytest.fixture
def cast() -> Cast:
    started = Cast()
    started.start()
    return started


@pytest.fixture
def offers(cast: Cast) -> tuple[Offer, Offer]:
    """Two updates of seller 1 for one round."""
    return Offer(cast.sellers[1], 1, value=1), Offer(cast.sellers[1], 1, value=2)


async def test_a_second_commitment_is_passed_on_and_kept_as_evidence(
    cast: Cast, offers: tuple[Offer, Offer], nursery: trio.Nursery
) -> None:
    room = await cast.open_room(cast.cones[0], nursery)
    first, second = (offer.commit for offer in offers)
    assert [room.validate(first), room.validate(second)] == [Verdict.ACCEPT] * 2
    assert room.heard(wire.UpdateCommit, 0) == {1: first}
    found = room.equivocations[1]
    assert (found.first, found.second) == (first, second)
    verify_equivocation(DOMAIN, found.as_evidence(cast.sellers[1].signer.address))


async def test_a_commitment_that_is_heard_again_is_no_evidence(
    cast: Cast, offers: tuple[Offer, Offer], nursery: trio.Nursery
) -> None:
    room = await cast.open_room(cast.cones[0], nursery)
    first = offers[0].commit
    mirrored = msgspec.structs.replace(first, signature=mirror(first.signature))
    verdicts = [room.validate(one) for one in (first, first, mirrored)]
    assert verdicts == [Verdict.ACCEPT, Verdict.IGNORE, Verdict.IGNORE]
    assert room.equivocations == {}


async def test_a_forged_second_commitment_is_rejected(
    cast: Cast, offers: tuple[Offer, Offer], nursery: trio.Nursery
) -> None:
    room = await cast.open_room(cast.cones[0], nursery)
    room.validate(offers[0].commit)
    forged = sign(cast.sellers[2], offers[1].commit)
    assert room.validate(forged) is Verdict.REJECT
    assert room.equivocations == {}


async def test_a_third_commitment_is_not_passed_on(
    cast: Cast, offers: tuple[Offer, Offer], nursery: trio.Nursery
) -> None:
    room = await cast.open_room(cast.cones[0], nursery)
    for offer in offers:
        room.validate(offer.commit)
    third = Offer(cast.sellers[1], 1, value=3).commit
    assert room.validate(third) is Verdict.IGNORE
    assert room.equivocations[1].second == offers[1].commit


@pytest.mark.parametrize("is_old", [False, True])
async def test_both_sides_are_served_even_when_their_round_is_over(
    cast: Cast, offers: tuple[Offer, Offer], nursery: trio.Nursery, is_old: bool
) -> None:
    room = await cast.open_room(cast.cones[0], nursery)
    for offer in offers:
        room.validate(offer.commit)
    if is_old:
        turn_to_round(cast, ROUNDS_KEPT)
        room.validate(make_offer(cast, 2, ROUNDS_KEPT))
        assert room.heard(wire.UpdateCommit, 0) == {}
    assert room.serve(COMMITS) == [offer.commit for offer in offers]


def turn_to_round(cast: Cast, round_index: int) -> None:
    cast.market.apply(replace(OPENED, ballot_number=1 + round_index, round_index=round_index))


def make_offer(cast: Cast, index: int, round_index: int) -> Any:
    """A seller's commitment in a later round."""
    commit = Offer(cast.sellers[index], index).commit
    return sign(cast.sellers[index], msgspec.structs.replace(commit, round_index=round_index))


async def test_every_room_keeps_the_messages_of_the_latest_rounds_only(
    cast: Cast, nursery: trio.Nursery
) -> None:
    room = await cast.open_room(cast.sellers[0], nursery)
    for round_index in range(6):
        turn_to_round(cast, round_index)
        assert room.validate(make_offer(cast, 1, round_index)) is Verdict.ACCEPT
    kept = [one for one in range(6) if room.heard(wire.UpdateCommit, one)]
    assert kept == list(range(6 - ROUNDS_KEPT, 6))


async def test_nodes_that_hear_different_sides_first_all_get_both(
    cast: Cast, offers: tuple[Offer, Offer], nursery: trio.Nursery
) -> None:
    rooms = [await cast.open_room(node, nursery) for node in cast.cones]
    for node in cast.cones[2:]:
        node.network.is_deaf = True
    cast.say(offers[0].commit, cast.cones[0])
    for node in cast.cones[:2]:
        node.network.is_deaf = True
    for node in cast.cones[2:]:
        node.network.is_deaf = False
    cast.say(offers[1].commit, cast.cones[2])
    assert all(room.equivocations == {} for room in rooms)
    for node in cast.cones:
        node.network.is_deaf = False
    cast.say(offers[0].commit, cast.cones[4])
    cast.say(offers[1].commit, cast.cones[1])
    for room in rooms:
        sides = {room.equivocations[1].first.commitment, room.equivocations[1].second.commitment}
        assert sides == {offer.commit.commitment for offer in offers}


async def test_an_opening_of_nothing_does_not_take_the_place_of_the_right_one(
    cast: Cast, offers: tuple[Offer, Offer], nursery: trio.Nursery
) -> None:
    room = await cast.open_room(cast.cones[0], nursery)
    room.validate(offers[0].commit)
    assert room.validate(offers[1].opening) is Verdict.IGNORE
    assert room.validate(offers[0].opening) is Verdict.ACCEPT
    assert room.opens_commitment(offers[0].opening)
    assert not room.opens_commitment(offers[1].opening)


async def test_an_opening_of_the_second_commitment_is_kept(
    cast: Cast, offers: tuple[Offer, Offer], nursery: trio.Nursery
) -> None:
    room = await cast.open_room(cast.cones[0], nursery)
    for offer in offers:
        room.validate(offer.commit)
    assert room.validate(offers[1].opening) is Verdict.ACCEPT


async def test_an_opening_may_come_before_its_commitment(
    cast: Cast, offers: tuple[Offer, Offer], nursery: trio.Nursery
) -> None:
    room = await cast.open_room(cast.cones[0], nursery)
    assert room.validate(offers[0].opening) is Verdict.ACCEPT
    assert not room.opens_commitment(offers[0].opening)
    room.validate(offers[0].commit)
    assert room.opens_commitment(offers[0].opening)


def make_vote(cast: Cast, index: int, digest: bytes) -> tuple[wire.VoteCommit, wire.VoteOpening]:
    """A node's vote in the next attempt, as it is gossiped."""
    mini = encode_mini(BallotKind.ROUND, 1, 0)
    node = cast.cones[index]
    position = VotePosition(job=JOB, round_index=RoundIndex(0), mini=mini, node=node.signer.address)
    secret = VoteOpening(keccak(digest), keccak(b"trace"), bytes(32))
    commit = wire.VoteCommit(
        job_id=JOB, round_index=0, mini=mini, cone_index=index, signature=UNSIGNED,
        commitment=compute_vote_commitment(DOMAIN, position, secret),
    )  # fmt: skip
    opening = wire.VoteOpening(
        job_id=JOB, round_index=0, mini=mini, cone_index=index, digest=secret.digest,
        trace=secret.trace, chain_element=bytes(32),
    )  # fmt: skip
    return sign(node, commit), opening


async def test_who_passes_on_a_vote_that_its_node_told_others_otherwise_is_not_blamed(
    cast: Cast, nursery: trio.Nursery
) -> None:
    """A node that commits twice would else set honest neighbours against each other."""
    (first, opened_first), (second, opened_second) = (
        make_vote(cast, 1, digest) for digest in (b"one", b"another")
    )
    room = await cast.open_room(cast.cones[0], nursery)
    assert room.validate(first) is Verdict.ACCEPT
    assert room.validate(second) is Verdict.IGNORE
    assert room.validate(opened_second) is Verdict.IGNORE
    assert room.validate(opened_first) is Verdict.ACCEPT


@pytest.mark.parametrize("changes", [{"seller_index": 7}, {"round_index": 2}, {"job_id": 2}])
async def test_what_is_from_nobody_or_far_away_is_not_kept(
    cast: Cast, offers: tuple[Offer, Offer], nursery: trio.Nursery, changes: dict[str, Any]
) -> None:
    room = await cast.open_room(cast.cones[0], nursery)
    stray = sign(cast.sellers[1], msgspec.structs.replace(offers[0].commit, **changes))
    assert room.validate(stray) is not Verdict.ACCEPT
    assert room.serve(COMMITS) == []


async def test_what_comes_before_the_members_are_known_is_ignored_without_blame(
    nursery: trio.Nursery,
) -> None:
    cast = Cast()
    cast.open_enrolment()
    room = await cast.open_room(cast.cones[0], nursery)
    receipt = wire.ValidationReceipt(job_id=JOB, part=0, cone_index=1, signature=UNSIGNED)
    signed = sign(cast.cones[1], receipt)
    assert room.validate(signed) is Verdict.IGNORE
    assert room.heard(wire.ValidationReceipt, 0) == {}
    cast.start()
    assert room.validate(signed) is Verdict.ACCEPT
    beyond = sign(cast.cones[1], msgspec.structs.replace(receipt, cone_index=CONES))
    assert room.validate(beyond) is Verdict.REJECT


async def test_only_a_node_of_the_pool_subscribes_and_the_others_are_heard(
    cast: Cast, nursery: trio.Nursery
) -> None:
    rooms = [
        await cast.open_room(node, nursery) for node in (cast.buyer, cast.sellers[1], cast.cones[0])
    ]
    topics = [len(node.network.topics) for node in (cast.buyer, cast.sellers[1], cast.cones[0])]
    assert topics == [0, 0, 3]
    await rooms[1].publish(Offer(cast.sellers[1], 1).commit)
    assert [1 in room.heard(wire.UpdateCommit, 0) for room in rooms] == [False, True, True]


async def test_a_message_on_another_topic_than_its_own_is_rejected(
    cast: Cast, nursery: trio.Nursery
) -> None:
    await cast.open_room(cast.cones[0], nursery)
    commit = Offer(cast.sellers[1], 1).commit
    network = cast.cones[0].network
    verdicts = {topic: network.deliver(name_topic(DOMAIN, JOB, topic), commit) for topic in Topic}
    assert verdicts.pop(Topic.UPDATES) is Verdict.ACCEPT
    assert set(verdicts.values()) == {Verdict.REJECT}


async def test_a_seller_that_applies_as_a_cone_node_too_listens_from_then_on(
    nursery: trio.Nursery,
) -> None:
    cast = Cast()
    cast.open_enrolment()
    node = cast.cones[0]
    await cast.open_room(node, nursery)
    assert not node.network.topics
    cast.market.apply(
        ConeEnrolled(job=JOB, index=0, node=node.signer.address, ticket_root=bytes(32))
    )
    await cast.market.mine()
    assert len(node.network.topics) == len(Topic)


async def test_a_node_that_the_draw_leaves_out_hears_no_more(nursery: trio.Nursery) -> None:
    cast = Cast()
    cast.start()
    node = cast.cones[0]
    await cast.open_room(node, nursery)
    job = cast.market.state.jobs[JOB]
    left_out = replace(job, cones=job.cones[1:])
    cast.market.state = replace(cast.market.state, jobs={JOB: left_out})
    await cast.market.mine()
    assert not node.network.topics


async def test_a_participant_that_signs_all_it_can_fills_a_bounded_room(
    cast: Cast, nursery: trio.Nursery
) -> None:
    """One message of a kind for a step counts, and steps far from the open ballot do not."""
    room = await cast.open_room(cast.cones[0], nursery)
    hostile, accepted = cast.cones[2], Counter[type]()
    for round_index, attempt, mini in product(range(6), range(4), range(4)):
        place = {"job_id": JOB, "round_index": round_index, "cone_index": 2}
        for kind in BallotKind:
            number = encode_mini(kind, attempt, mini)
            for side in (1, 2):
                vote = wire.VoteCommit(
                    mini=number, commitment=bytes([side]) * 32, signature=UNSIGNED, **place
                )
                accepted[wire.VoteCommit] += room.validate(sign(hostile, vote)) is Verdict.ACCEPT
        bitmap = wire.AvailabilityBitmap(
            attempt=attempt, bitmap=bytes(32), signature=UNSIGNED, **place
        )
        is_taken = room.validate(sign(hostile, bitmap)) is Verdict.ACCEPT
        accepted[wire.AvailabilityBitmap] += is_taken
    # Rounds 0 and 1, attempts 0 and 1, the open mini-round and the next, both kinds of ballots.
    assert accepted == {wire.VoteCommit: 2 * 2 * 2 * len(BallotKind), wire.AvailabilityBitmap: 4}


async def test_an_opening_is_known_by_a_commitment_that_only_the_chain_has(
    cast: Cast, nursery: trio.Nursery
) -> None:
    """The commitment may have been recorded by its node alone."""
    room, node = await cast.open_room(cast.cones[0], nursery), cast.cones[1]
    mini = encode_mini(BallotKind.ROUND, 0, 0)
    element = compute_ticket_chain(ticket_secret(node), TICKETS).element(1)
    secret = VoteOpening(keccak(b"digest"), keccak(b"trace"), element)
    position = VotePosition(job=JOB, round_index=RoundIndex(0), mini=mini, node=node.signer.address)
    opening = wire.VoteOpening(
        job_id=JOB, round_index=0, mini=mini, cone_index=1, digest=secret.digest,
        trace=secret.trace, chain_element=element,
    )  # fmt: skip
    assert room.validate(opening) is Verdict.IGNORE
    cast.market.apply(
        CommitsRecorded(
            job=JOB, ballot_number=1, mini=mini, batch_index=0, members=0b10,
            commitments=(compute_vote_commitment(DOMAIN, position, secret),),
        )
    )  # fmt: skip
    other = msgspec.structs.replace(opening, digest=bytes(32))
    assert room.validate(other) is Verdict.IGNORE
    assert room.validate(opening) is Verdict.ACCEPT
