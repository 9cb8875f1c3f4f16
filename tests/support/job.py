"""A job in its first round, for tests of roles, and what its sellers and CONE nodes say."""

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import trio

from d2m_node.ports import Purpose, Reference
from d2m_node.roles.cone import FINAL_BALLOTS, MAX_BALLOTS_PER_ROUND
from d2m_node.roles.executor import HonestExecutor
from d2m_node.roles.room import Room
from d2m_node.roles.seat import Seat
from d2m_node.roles.shift import Shift
from d2m_node.roles.statements import UNSIGNED, signed_part
from protocol.events import (
    AttemptOpened,
    AuctionClosed,
    AuctionOpened,
    BidCommitted,
    BidRevealed,
    ConeEnrolled,
    DatasetRegistered,
    EnrolmentClosed,
    PeerBound,
    SellerDeposited,
    SellerEnrolled,
    StakeDeposited,
)
from protocol.hashing import keccak
from protocol.model import count_parameters, logreg
from protocol.request import (
    RequestBody,
    SamplingSpec,
    TrainingSpec,
    ValidationSpec,
    compute_tag_hashes,
    encode_body,
)
from protocol.samples import encode_samples
from protocol.sortition import compute_ticket_chain
from protocol.terms import WINDOW_FIELDS, JobTerms, Metric
from protocol.types import NO_ACCOUNT, NO_DIGEST, BlockNumber, ConeIndex, JobId, RoundIndex, Wei
from protocol.update import TensorKind, UpdateSecret, compute_update_commitment, encode_tensor
from protocol.validation_set import compute_validation_root
from protocol.wire import messages as wire
from protocol.wire.topics import find_topic, name_topic
from tests.support.market import DOMAIN, SAMPLES, Market, Node

JOB = JobId(1)
PRICE_WEI = Wei(30)
DEPOSIT_WEI = Wei(7)
SELLERS, CONES = 4, 5
TAGS = compute_tag_hashes(["digits"])
BODY = RequestBody(
    tags=["digits"],
    model=logreg((1, 2, 2), 2),
    initial_seed=bytes(32),
    training=TrainingSpec(learning_rate_micros=10_000, batch_size=2, epochs=1),
    sampling=SamplingSpec(alpha_bps=2000, eta_q16=65_536, keep_bps=7000),
    validation=ValidationSpec(
        root=compute_validation_root(encode_samples(SAMPLES.inputs), SAMPLES.labels),
        sample_count=4,
        final_count=2,
        subset_count=2,
    ),
)
TERMS = JobTerms(
    rounds_max=6,
    target=1 << 20,
    metric=Metric.ACC,
    sellers_per_round=3,
    lead=3,
    first_set_size=CONES,
    growth_numerator=3,
    growth_denominator=2,
    sellers_min=3,
    sellers_max=SELLERS,
    cones_min=1,
    cones_max=CONES,
    stake_wei=Wei(1),
    seller_deposit_wei=DEPOSIT_WEI,
    **dict.fromkeys(WINDOW_FIELDS, 4),
)
TICKETS = TERMS.rounds_max * MAX_BALLOTS_PER_ROUND + FINAL_BALLOTS
OPENED = AttemptOpened(
    job=JOB,
    ballot_number=1,
    round_index=0,
    kind=0,
    attempt=0,
    seller_seed_block=BlockNumber(2),
    update_commit_end=BlockNumber(6),
    update_open_end=BlockNumber(8),
    availability_end=BlockNumber(12),
    seed_block=BlockNumber(13),
    commit_end=BlockNumber(18),
    open_end=BlockNumber(22),
)


def ticket_secret(node: Node) -> bytes:
    """What a CONE node's tickets of the job follow from."""
    return node.name.encode().ljust(32)


class Cast:
    """The nodes of one job and the market they share."""

    def __init__(self) -> None:
        self.market = Market()
        self.buyer = Node(self.market, "buyer")
        self.sellers = [Node(self.market, f"seller {i}") for i in range(SELLERS)]
        self.cones = [Node(self.market, f"cone {i}") for i in range(CONES)]

    def introduce(self, node: Node) -> None:
        """Let everybody know a node's peer, and give it the request."""
        body = encode_body(BODY)
        self.market.apply(
            PeerBound(account=node.signer.address, peer_id=node.peer_id, multiaddr=b"")
        )
        node.store.blobs.keep(body, Reference(Purpose.REQUEST, JOB))

    def register(self, seller: Node, dataset_id: int) -> None:
        """Let a seller have a data set with the tags of the job."""
        self.market.apply(
            DatasetRegistered(
                dataset_id=dataset_id,
                seller=seller.signer.address,
                tags=TAGS,
                metadata_hash=NO_DIGEST,
                min_price_wei=Wei(0),
                min_price_token=Wei(0),
            )
        )

    def register_all(self) -> None:
        """Let sellers' data sets and CONE nodes' stakes be known, before any auction."""
        for number, node in enumerate(self.sellers):
            self.register(node, number)
        for node in self.cones:
            self.market.apply(
                StakeDeposited(
                    account=node.signer.address,
                    amount_wei=Wei(1),
                    free_wei=Wei(1),
                    since_block=BlockNumber(0),
                )
            )

    def open_enrolment(self) -> None:
        """Take the job to its enrolment: peers and data sets are known, the request is served."""
        body = encode_body(BODY)
        for node in (self.buyer, *self.sellers, *self.cones):
            self.introduce(node)
        self.register_all()
        buyer, price_wei = self.buyer.signer.address, PRICE_WEI
        self.market.apply(
            AuctionOpened(
                auction=JOB, opener=buyer, tags=TAGS, mode=0, currency=NO_ACCOUNT,
                deposit_wei=price_wei, reserve_wei=Wei(1), commit_end=BlockNumber(0),
                reveal_end=BlockNumber(0),
            ),
            BidCommitted(auction=JOB, bidder=buyer, commitment=NO_DIGEST, deposit_wei=price_wei),
            BidRevealed(
                auction=JOB, bidder=buyer, amount_wei=price_wei, terms=TERMS, body_hash=keccak(body)
            ),
            AuctionClosed(
                auction=JOB, buyer=buyer, price_wei=price_wei, terms_hash=NO_DIGEST,
                request_hash=NO_DIGEST, body_hash=keccak(body), enrolment_end=BlockNumber(2),
            ),
        )  # fmt: skip

    def start(self) -> None:
        """Take the job to its first round."""
        self.open_enrolment()
        for index, node in enumerate(self.sellers):
            account = node.signer.address
            self.market.apply(
                SellerEnrolled(job=JOB, index=index, seller=account, dataset_id=index),
                SellerDeposited(job=JOB, seller=account, amount_wei=DEPOSIT_WEI),
            )
        for index, node in enumerate(self.cones):
            root = compute_ticket_chain(ticket_secret(node), TICKETS).root
            self.market.apply(
                ConeEnrolled(job=JOB, index=index, node=node.signer.address, ticket_root=root)
            )
        self.market.apply(
            EnrolmentClosed(
                job=JOB, sellers=SELLERS, cones=CONES,
                enrolment_end=BlockNumber(0), validation_end=BlockNumber(0),
            ),
            OPENED,
        )  # fmt: skip

    async def open_room(self, node: Node, nursery: trio.Nursery) -> Room:
        """Let a node listen to the job."""
        room = self.make_room(node)
        await nursery.start(room.run)
        return room

    def make_room(self, node: Node) -> Room:
        """Give a node a room that hears nothing but what it is told."""
        node.rooms[JOB] = room = Room(node.ports, JOB)
        return room

    async def take_seat(self, index: int, nursery: trio.Nursery) -> Seat:
        """Seat a CONE node, listening."""
        node = self.cones[index]
        return Seat(
            lag_blocks=0,
            ports=node.ports,
            room=await self.open_room(node, nursery),
            job_id=JOB,
            body=BODY,
            index=ConeIndex(index),
            tickets=compute_ticket_chain(ticket_secret(node), TICKETS),
            executor=HonestExecutor(),
            shift=Shift("cone"),
        )

    def say(self, message: Any, *listeners: Node) -> list[Any]:
        """Bring a message to some nodes first; who accepts it passes it on. Return verdicts."""
        topic = name_topic(DOMAIN, JOB, find_topic(message))
        return [node.network.deliver(topic, message) for node in listeners]


def sign(node: Node, message: Any) -> Any:
    """Sign a message that was made with `UNSIGNED` in the signature's place."""
    signature = node.signer.sign_digest(signed_part(message).digest(DOMAIN))
    return msgspec.structs.replace(message, signature=signature)


class Offer:
    """One update of one seller for round 0: bytes, commitment and opening, signed."""

    def __init__(self, seller: Node, index: int, value: int = 1) -> None:
        size = count_parameters(BODY.model)
        self.seller = seller
        # Other bytes for each seller: the same ones could be had from any of them.
        update = np.full(size, 16 * value + index, dtype=np.int32)
        self.data = encode_tensor(TensorKind.UPDATE, update)
        self.digest = keccak(self.data)
        salt = keccak(b"salt")
        secret = UpdateSecret(
            job=JOB,
            round_index=RoundIndex(0),
            seller=seller.signer.address,
            update_digest=self.digest,
            salt=salt,
        )
        place = {"job_id": JOB, "round_index": 0, "seller_index": index, "signature": UNSIGNED}
        commitment = compute_update_commitment(DOMAIN, secret)
        self.commit = sign(seller, wire.UpdateCommit(commitment=commitment, **place))
        self.opening = sign(seller, wire.UpdateOpening(digest=self.digest, salt=salt, **place))

    async def serve(self) -> None:
        """Let the job's CONE nodes fetch the bytes."""
        await self.seller.store.blobs.put(self.data, Reference(Purpose.OWN_UPDATE, JOB))


def retried() -> AttemptOpened:
    """The second attempt of the first round, which begins at availability."""
    return replace(
        OPENED,
        ballot_number=2,
        attempt=1,
        seller_seed_block=BlockNumber(0),
        update_commit_end=BlockNumber(0),
        update_open_end=BlockNumber(0),
        availability_end=BlockNumber(30),
        seed_block=BlockNumber(31),
        commit_end=BlockNumber(36),
        open_end=BlockNumber(40),
    )
