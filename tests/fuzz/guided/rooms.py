"""Readers of gossip: from a frame on a topic to what a job's room keeps of it."""

from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import msgspec

from d2m_node.network.counts import NetworkCounts
from d2m_node.network.gossip import Gossip
from d2m_node.ports import TopicPlace, Verdict
from d2m_node.roles.statements import (
    UNSIGNED,
    SignedMessage,
    compute_opened_commitment,
    sender_of,
    signed_part,
    step_of,
)
from protocol.errors import InvalidMessage
from protocol.sortition import compute_ticket_chain
from protocol.types import Digest, JobId, RoundIndex
from protocol.update import UpdateSecret, compute_update_commitment
from protocol.wire import messages as wire
from protocol.wire.codec import decode_message, encode_message
from protocol.wire.messages import GossipMessage
from protocol.wire.topics import Topic, find_topic, name_topic, parse_topic
from tests.fuzz.guided.forms import Form
from tests.fuzz.guided.reader import PEER, Reader, run_alone
from tests.support.job import CONES, JOB, SELLERS, TICKETS, Cast, Offer, ticket_secret
from tests.support.market import DOMAIN, Node
from tests.support.network import build_settings

SETTINGS = build_settings(Path())
TOPICS = {topic: name_topic(DOMAIN, JOB, topic) for topic in Topic}
LENGTH_BYTES = 4
MOST_MESSAGES = 8
"""In one input."""
FLAG_BYTES = 2
"""At the beginning of an input: two bits for each message."""
SIGNED = 3
"""Sign the message for the account that it names, and say it on its topic. Else: which topic."""
CAST = Cast()
CAST.start()


class _Listener:
    """A CONE node's gossip, on the topics of one job."""

    def __init__(self) -> None:
        self.room = CAST.make_room(CAST.cones[0])
        self.blamed = 0
        self.failures: list[Exception] = []
        self.gossip = Gossip(
            CAST.cones[0].peer_id, SETTINGS, self._blame, NetworkCounts(), lambda *_: _AUDIENCE
        )

    def _blame(self, _peer_id: bytes, _reason: str) -> None:
        self.blamed += 1

    async def hear(self, frames: list[tuple[str, bytes]]) -> None:
        """Join all topics, and judge frame after frame; `judge` and what it asks never raise."""
        async with AsyncExitStack() as joined:
            for topic, name in TOPICS.items():
                validate = partial(self._validate, topic)
                await joined.enter_async_context(self.gossip.join_topic(name, validate))
            for name, data in frames:
                before = self.blamed
                verdict = self.gossip.judge(PEER, PEER, (name,), data)
                if self.failures:
                    raise self.failures[0]
                assert (verdict is Verdict.REJECT) == (self.blamed > before)
                if verdict is Verdict.ACCEPT:
                    self._check_kept(decode_message(data))

    def _validate(self, topic: Topic, message: GossipMessage) -> Verdict:
        try:
            return self.room._validate_on(topic, message)
        except Exception as exc:  # gossip logs it and goes on: kept for `hear`
            self.failures.append(exc)
            raise

    def _check_kept(self, message: object) -> None:
        """What was passed on is from a participant, and can be pulled by others."""
        assert isinstance(message, GossipMessage)
        kind = message.__struct_config__.tag
        assert isinstance(kind, int)
        request = wire.MessagesRequest(job_id=JOB, kind=kind, step=step_of(message))
        kept = self.room.serve(request)
        assert message in kept
        assert len(kept) <= max(SELLERS, CONES) + 2 * SELLERS
        assert sender_of(message) < max(SELLERS, CONES)


_AUDIENCE = TopicPlace.AUDIENCE


def hear(data: bytes) -> None:
    """Judge the frames of an input, signed where its bytes say so."""
    flags, data = int.from_bytes(data[:FLAG_BYTES], "big"), data[FLAG_BYTES:]
    frames: list[tuple[str, bytes]] = []
    while data and len(frames) < MOST_MESSAGES:
        size = int.from_bytes(data[:LENGTH_BYTES], "big")
        body, data = data[LENGTH_BYTES:][:size], data[LENGTH_BYTES + size :]
        frames += _prepare(flags & SIGNED, body)
        flags >>= 2
    run_alone(_Listener().hear, frames)


def _prepare(flags: int, body: bytes) -> list[tuple[str, bytes]]:
    """Find the topic, and sign a message that is one; an opening comes behind what it opens."""
    name = list(TOPICS.values())[flags % len(TOPICS)]
    try:
        message = decode_message(body)
    except InvalidMessage:
        return [(name, body)]
    if flags != SIGNED or not isinstance(message, GossipMessage):
        return [(name, body)]
    signer = _find_signer(message)
    if signer is None:
        return [(name, body)]
    said = [one for one in (_commit_to(message, signer), message) if one is not None]
    return [(TOPICS[find_topic(one)], encode_message(_sign(one, signer))) for one in said]


def _sign(message: GossipMessage, signer: Node) -> GossipMessage:
    if not isinstance(message, SignedMessage):
        return message
    digest = signed_part(message).digest(DOMAIN)
    return msgspec.structs.replace(message, signature=signer.signer.sign_digest(digest))


def _commit_to(message: GossipMessage, signer: Node) -> GossipMessage | None:
    """Return what an opening opens."""
    account = signer.signer.address
    match message:
        case wire.UpdateOpening():
            secret = UpdateSecret(
                job=JobId(message.job_id),
                round_index=RoundIndex(message.round_index),
                seller=account,
                update_digest=Digest(message.digest),
                salt=message.salt,
            )
            return wire.UpdateCommit(
                job_id=message.job_id,
                round_index=message.round_index,
                seller_index=message.seller_index,
                commitment=compute_update_commitment(DOMAIN, secret),
                signature=UNSIGNED,
            )
        case wire.VoteOpening():
            return wire.VoteCommit(
                job_id=message.job_id,
                round_index=message.round_index,
                mini=message.mini,
                cone_index=message.cone_index,
                commitment=compute_opened_commitment(DOMAIN, message, account),
                signature=UNSIGNED,
            )
    return None


def _find_signer(message: GossipMessage) -> Node | None:
    if isinstance(message, wire.ValidationOffer):
        return CAST.buyer
    is_seller = isinstance(message, wire.UpdateCommit | wire.UpdateOpening)
    group, index = CAST.sellers if is_seller else CAST.cones, sender_of(message)
    return group[index] if index < len(group) else None


def read_topic(data: bytes) -> None:
    """A topic of this market is named in one way; any other gives nobody a place."""
    name = data.decode(errors="replace")
    found = parse_topic(DOMAIN, name)
    place = CAST.cones[0].library.place_in(name, CAST.cones[1].peer_id)
    assert isinstance(place, TopicPlace)
    if found is None:
        assert place is TopicPlace.OUTSIDE
        raise InvalidMessage("no topic")
    assert name_topic(DOMAIN, *found) == name


def pull(data: bytes) -> None:
    """Whatever is asked of a node's library gets an answer."""
    message = decode_message(data)
    if not isinstance(message, wire.MessagesRequest):
        raise InvalidMessage("no request")
    CAST.make_room(CAST.cones[0]).validate(OFFERS[0].commit)
    library = CAST.cones[0].library
    found = run_alone(library.read_messages, CAST.cones[1].peer_id, message)
    assert len(found) <= 3 * SELLERS


def frame(*messages: GossipMessage, is_signed: bool = True) -> bytes:
    """Put messages behind flags for all of them, and each behind its length."""
    bodies = [encode_message(one) for one in messages]
    flags = (b"\xff" if is_signed else b"\x00") * FLAG_BYTES
    return flags + b"".join(len(one).to_bytes(LENGTH_BYTES, "big") + one for one in bodies)


def _build_gossip() -> list[bytes]:
    place = {"job_id": JOB, "round_index": 0, "signature": bytes(65)}
    word = bytes(range(32))
    element = compute_ticket_chain(ticket_secret(CAST.cones[1]), TICKETS).element(1)
    said: list[GossipMessage] = [
        wire.AvailabilityBitmap(attempt=0, cone_index=1, bitmap=word, **place),
        wire.VoteCommit(mini=0, cone_index=2, commitment=word, **place),
        wire.ValidationOffer(
            job_id=JOB, part=0, digest=word, size_bytes=99, signature=bytes(65)
        ),
        wire.ValidationReceipt(job_id=JOB, part=0, cone_index=3, signature=bytes(65)),
        wire.VoteOpening(
            job_id=JOB, round_index=0, mini=0, cone_index=2, digest=word, trace=word,
            chain_element=word,
        ),
        wire.VoteOpening(
            job_id=JOB, round_index=0, mini=0, cone_index=1, digest=word, trace=word,
            chain_element=element,
        ),
    ]  # fmt: skip
    first, second = OFFERS
    several = [
        frame(first.commit, is_signed=False),
        frame(first.commit, first.opening),
        frame(first.commit, second.commit, second.opening),
        frame(*said),
    ]
    return several + [frame(one) for one in said]


OFFERS = [Offer(CAST.sellers[1], 1, value=number) for number in (1, 2)]
ASKED = [
    wire.MessagesRequest(job_id=job, kind=kind, step=0)
    for kind in (1, 2, 3, 4, 6, 7, 8, 9)
    for job in (JOB, JobId(2))
]
NAMES = [name.encode() for name in TOPICS.values()]
READERS = [
    Reader("gossip", hear, (), _build_gossip(), Form.FRAMES, own_bytes=FLAG_BYTES),
    Reader("topic", read_topic, (InvalidMessage,), NAMES),
    Reader("pull", pull, (InvalidMessage,), [encode_message(one) for one in ASKED], Form.PACKED),
]
