"""Who may have what of a job, and when: kind by kind, asker by asker, point by point."""

from dataclasses import replace

import pytest
import trio

from d2m_node.ports import Purpose, Reference, TopicPlace
from d2m_node.roles.access import READERS, Matter, Standing, covers
from protocol.events import PeerBound
from protocol.hashing import keccak
from protocol.job import JobPhase
from protocol.types import JobId
from protocol.wire import messages as wire
from protocol.wire.topics import Topic, name_topic
from tests.support.access import ASKERS, BLOBS, POINTS, Stage
from tests.support.job import JOB, Offer, sign
from tests.support.market import DOMAIN

EVERYBODY = frozenset(ASKERS)
POOL = frozenset({"cone", "other cone"})
NOBODY = frozenset[str]()

ALWAYS = {"request": EVERYBODY, "own request": EVERYBODY}
RUNNING = ALWAYS | {"update": POOL, "own update": POOL, "validation": POOL}
STATES = {"parameters": POOL, "weights": POOL, "undecided": POOL}

ALLOWED = {
    "first round": RUNNING | STATES,
    "second round": RUNNING
    | STATES
    | {"parameters": POOL | {"seller"}, "weights": POOL | {"seller"}},
    "final evaluation": RUNNING | STATES,
    "ended": RUNNING | STATES | {"parameters": POOL | {"buyer"}},
    "settled": ALWAYS | STATES | {"parameters": POOL | {"buyer", "seller"}},
    "cancelled": ALWAYS | STATES,
}
"""Who may have a blob at a point of the job; nobody may have what is not named."""


@pytest.mark.parametrize("name", BLOBS)
@pytest.mark.parametrize("point", POINTS)
async def test_a_blob_is_served_to_those_whom_the_table_names(point: str, name: str) -> None:
    stage = Stage(point)
    kept = BLOBS[name]
    served = set()
    for asker, node in stage.peers.items():
        admitted = await stage.server.library.admits(node.peer_id, kept.digest)
        data = await stage.server.library.read_blob(node.peer_id, kept.digest)
        assert (data == kept.data) is admitted
        served |= {asker} if admitted else set()
    assert served == ALLOWED[point].get(name, NOBODY)


@pytest.mark.parametrize("name", BLOBS)
async def test_what_is_refused_looks_like_what_is_not_here(name: str) -> None:
    stage = Stage("first round")
    stranger = stage.peers["stranger"].peer_id
    answers = [
        await stage.server.library.read_blob(stranger, digest)
        for digest in (BLOBS[name].digest, keccak(b"nowhere"))
    ]
    is_public = name in ALWAYS
    assert answers == [BLOBS[name].data if is_public else None, None]


def test_every_matter_has_its_readers_and_the_pool_has_all_but_what_is_spent_or_own() -> None:
    assert set(READERS) == set(Matter)
    without_pool = {one for one, readers in READERS.items() if Standing.CONE not in readers}
    assert without_pool == {Matter.REQUEST, Matter.SPENT_INPUT, Matter.OWN_FILE}
    assert [one for one in Matter if Standing.ANYBODY in READERS[one]] == [Matter.REQUEST]


async def test_who_has_an_account_in_the_job_by_another_name_is_served_as_that() -> None:
    """Several accounts may name one peer: it may have what any of them may have."""
    stage = Stage("second round")
    cast, seller = stage.cast, stage.peers["seller"]
    cone = cast.market.state.peers[cast.cones[1].signer.address]
    peers = cast.market.state.peers
    cast.market.state = replace(cast.market.state, peers={**peers, seller.signer.address: cone})
    library, digest = stage.server.library, BLOBS["parameters"].digest
    assert await library.admits(cone.peer_id, digest)
    assert not await library.admits(seller.peer_id, digest), "its account named another peer"


MESSAGES = (
    "commit", "opening", "bitmap", "vote", "vote opening", "offer", "receipt"
)  # fmt: skip


async def say_all(stage: Stage, nursery: trio.Nursery) -> dict[str, wire.MessagesRequest]:
    """Let the server's room keep one message of each kind; return how each is asked for."""
    cast = stage.cast
    room = await cast.open_room(stage.server, nursery)
    offer = Offer(cast.sellers[1], 1)
    place = {"job_id": JOB, "round_index": 0, "cone_index": 2}
    unsigned = bytes(65)
    said = {
        "commit": offer.commit,
        "opening": offer.opening,
        "bitmap": sign(
            cast.cones[2],
            wire.AvailabilityBitmap(attempt=0, bitmap=bytes(32), signature=unsigned, **place),
        ),
        "vote": sign(
            cast.cones[2],
            wire.VoteCommit(mini=0, commitment=bytes(32), signature=unsigned, **place),
        ),
        "vote opening": wire.VoteOpening(
            mini=0, digest=bytes(32), trace=bytes(32), chain_element=bytes(32), **place
        ),
        "offer": sign(
            cast.buyer,
            wire.ValidationOffer(
                job_id=JOB, part=0, digest=bytes(32), size_bytes=1, signature=unsigned
            ),
        ),
        "receipt": sign(
            cast.cones[2],
            wire.ValidationReceipt(job_id=JOB, part=0, cone_index=2, signature=unsigned),
        ),
    }
    for message in said.values():
        room._keep(message)
    return {
        name: wire.MessagesRequest(job_id=JOB, kind=message.__struct_config__.tag, step=0)
        for name, message in said.items()
    }


@pytest.mark.parametrize("name", MESSAGES)
async def test_a_message_is_given_to_the_pool_and_back_to_who_said_it(
    name: str, nursery: trio.Nursery
) -> None:
    stage = Stage("first round")
    request = (await say_all(stage, nursery))[name]
    served = {
        asker
        for asker, node in stage.peers.items()
        if await stage.server.library.read_messages(node.peer_id, request)
    }
    speaker = {"commit": {"seller"}, "opening": {"seller"}, "offer": {"buyer"}}.get(name, set())
    assert served == POOL | speaker


async def test_a_seller_has_nothing_back_of_what_another_said(nursery: trio.Nursery) -> None:
    stage = Stage("first round")
    request = (await say_all(stage, nursery))["commit"]
    other = stage.cast.sellers[2].peer_id
    assert await stage.server.library.read_messages(other, request) == []


@pytest.mark.parametrize(
    ("kept", "wanted", "expected"),
    [
        ((Purpose.STATE, 1), (Purpose.STATE, 1), True),
        ((Purpose.STATE, 1), (Purpose.STATE, 2), False),
        ((Purpose.STATE, 1), (Purpose.REQUEST, 1), False),
        ((Purpose.UPDATE, 1), (Purpose.VALIDATION, 1), False),
        ((Purpose.OWN_UPDATE, 1), (Purpose.UPDATE, 1), True),
        ((Purpose.OWN_UPDATE, 1), (Purpose.UPDATE, 2), False),
        ((Purpose.OWN_REQUEST, 0), (Purpose.REQUEST, 2), True),
        ((Purpose.REQUEST, 1), (Purpose.REQUEST, 2), True),
        ((Purpose.REQUEST, 1), (Purpose.STATE, 1), False),
        ((Purpose.MODEL, 1), (Purpose.STATE, 1), False),
    ],
)
def test_a_blob_is_taken_for_another_job_or_purpose_only_if_it_is_public(
    kept: tuple[Purpose, int], wanted: tuple[Purpose, int], expected: bool
) -> None:
    kept_for, needed = (Reference(one, JobId(job)) for one, job in (kept, wanted))
    assert covers(kept_for, needed) is expected


PLACES = {
    Topic.UPDATES: {"seller": TopicPlace.SPEAKER},
    Topic.VALIDATION: {"buyer": TopicPlace.SPEAKER},
    Topic.VOTES: {},
}


@pytest.mark.parametrize("topic", Topic)
def test_the_pool_alone_hears_a_topic_and_only_those_speak_who_have_something_to_say(
    topic: Topic,
) -> None:
    stage = Stage("first round")
    name = name_topic(DOMAIN, JOB, topic)
    places = {
        asker: stage.server.library.place_in(name, node.peer_id)
        for asker, node in stage.peers.items()
    }
    pool = dict.fromkeys(POOL, TopicPlace.AUDIENCE)
    assert places == dict.fromkeys(ASKERS, TopicPlace.OUTSIDE) | pool | PLACES[topic]


@pytest.mark.parametrize("name", ["", "d2m/2/1/2", "d2m/2/31337/11/99/votes"])
def test_nobody_has_a_place_in_a_topic_of_no_job(name: str) -> None:
    stage = Stage("first round")
    places = {stage.server.library.place_in(name, one.peer_id) for one in stage.peers.values()}
    assert places == {TopicPlace.OUTSIDE}


def test_places_follow_the_chain_when_it_changes() -> None:
    stage = Stage("first round")
    market, library = stage.cast.market, stage.server.library
    cone, stranger = stage.cast.cones[1], stage.peers["stranger"]
    name = name_topic(DOMAIN, JOB, Topic.VOTES)
    assert library.place_in(name, cone.peer_id) is TopicPlace.AUDIENCE
    # Its account names another peer from now on.
    account = cone.signer.address
    market.apply(PeerBound(account=account, peer_id=stranger.peer_id, multiaddr=b""))
    assert library.place_in(name, cone.peer_id) is TopicPlace.OUTSIDE
    assert library.place_in(name, stranger.peer_id) is TopicPlace.AUDIENCE
    job = market.state.jobs[JOB]
    market.state = replace(
        market.state, jobs={**market.state.jobs, JOB: replace(job, cones=job.cones[2:])}
    )
    assert library.place_in(name, stranger.peer_id) is TopicPlace.OUTSIDE


def test_before_its_members_are_fixed_a_job_has_no_audience() -> None:
    stage = Stage("first round")
    market = stage.cast.market
    job = market.state.jobs[JOB]
    before = replace(job, cones=(), sellers=(), phase=JobPhase.ENROLMENT)
    market.state = replace(market.state, jobs={JOB: before})
    name = name_topic(DOMAIN, JOB, Topic.VOTES)
    cone = stage.peers["cone"].peer_id
    assert stage.server.library.place_in(name, cone) is TopicPlace.OUTSIDE
