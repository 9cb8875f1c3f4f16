"""A job at each point at which other rules of access hold, and who may ask."""

from dataclasses import dataclass, replace

import msgspec

from d2m_node.ports import Purpose, Reference
from protocol.bitmap import encode_bitmap
from protocol.digest import NO_UTILITY, RoundHeader
from protocol.events import AttemptOpened, PeerBound, TrainingEnded
from protocol.hashing import keccak
from protocol.job import JobPhase
from protocol.request import ModelAccess, encode_body
from protocol.sortition import BallotKind
from protocol.types import BlockNumber, Digest, JobId, RoundIndex, UtilityQ20
from tests.support.decided import decide_first_round, open_second_round
from tests.support.job import BODY, JOB, Cast
from tests.support.market import DOMAIN, Node

POINTS = ("first round", "second round", "final evaluation", "ended", "settled", "cancelled")
ASKERS = ("buyer", "seller", "cone", "other cone", "elsewhere", "registered", "stranger")
"""What a peer is: of the job, in another job alone, in no job, or not in the registry."""

PARAMETERS, WEIGHTS = b"parameters after the first round", b"weights after the first round"
UNDECIDED = b"parameters that nobody decided"


@dataclass(frozen=True)
class Kept:
    """A blob, and why the server keeps it."""

    data: bytes
    purpose: Purpose
    job_id: JobId = JOB

    @property
    def digest(self) -> Digest:
        return keccak(self.data)


BLOBS = {
    "request": Kept(b"a body", Purpose.REQUEST),
    "own request": Kept(b"an own body", Purpose.OWN_REQUEST, JobId(0)),
    "update": Kept(b"an update", Purpose.UPDATE),
    "own update": Kept(b"an own update", Purpose.OWN_UPDATE),
    "validation": Kept(b"a part", Purpose.VALIDATION),
    "parameters": Kept(PARAMETERS, Purpose.STATE),
    "weights": Kept(WEIGHTS, Purpose.STATE),
    "undecided": Kept(UNDECIDED, Purpose.STATE),
    "model": Kept(b"a model file", Purpose.MODEL),
    "of an unknown job": Kept(b"an update of another job", Purpose.UPDATE, JobId(77)),
}


def make_header(parameters: bytes = PARAMETERS) -> RoundHeader:
    """The decision of the first round."""
    return RoundHeader(
        job=JOB,
        round_index=RoundIndex(0),
        model_digest=keccak(parameters),
        sampler_digest=keccak(WEIGHTS),
        sampled=encode_bitmap([0]),
        available=encode_bitmap([0]),
        accepted=0,
        utility_before=UtilityQ20(0),
        utility_after=UtilityQ20(0),
        utilities=(NO_UTILITY,),
        domain=DOMAIN,
        previous_digest=Digest(bytes(32)),
        credit_root=Digest(bytes(32)),
        credit_sum=0,
    )


class Stage:
    """One CONE node that keeps a blob of each kind, and peers that ask it."""

    def __init__(
        self,
        point: str,
        model_access: ModelAccess = ModelAccess.PARTICIPANTS,
        parameters: bytes = PARAMETERS,
    ) -> None:
        self.cast = Cast()
        self.header = make_header(parameters)
        self.cast.start()
        self.server = self.cast.cones[0]
        self.body = msgspec.structs.replace(BODY, model_access=model_access)
        self._request(encode_body(self.body))
        for kept in BLOBS.values():
            self.server.store.blobs.keep(kept.data, Reference(kept.purpose, kept.job_id))
        self.server.store.blobs.keep(parameters, Reference(Purpose.STATE, JOB))
        self.peers = {
            "buyer": self.cast.buyer,
            "seller": self.cast.sellers[1],
            "cone": self.cast.cones[1],
            "other cone": self.cast.cones[2],
            "elsewhere": Node(self.cast.market, "cone of another job"),
            "registered": Node(self.cast.market, "nobody's"),
            "stranger": Node(self.cast.market, "stranger"),
        }
        self._turn_to(point)
        self._add_others()

    def _request(self, body: bytes) -> None:
        """Let the job be about a request that all its nodes have."""
        market = self.cast.market
        for node in (self.cast.buyer, *self.cast.sellers, *self.cast.cones):
            node.store.blobs.keep(body, Reference(Purpose.REQUEST, JOB))
        job = replace(market.state.jobs[JOB], body_hash=keccak(body))
        market.state = replace(market.state, jobs={JOB: job})

    def _turn_to(self, point: str) -> None:
        market = self.cast.market
        if point == "cancelled":
            job = replace(market.state.jobs[JOB], phase=JobPhase.CANCELLED)
            market.state = replace(market.state, jobs={JOB: job})
        if point in ("first round", "cancelled"):
            return
        header = self.header
        decide_first_round(self.cast, header.digest, appeal_end=30, header=header.encode())
        if point == "second round":
            return
        market.apply(open_final(30))
        if point == "final evaluation":
            return
        market.apply(end_training(header.model_digest))
        if point == "settled":
            job = replace(market.state.jobs[JOB], phase=JobPhase.SETTLED)
            market.state = replace(market.state, jobs={JOB: job})

    def _add_others(self) -> None:
        """Register two more peers, and put one of them into the pool of another job."""
        market = self.cast.market
        for name in ("elsewhere", "registered"):
            node = self.peers[name]
            account = node.signer.address
            market.apply(PeerBound(account=account, peer_id=node.peer_id, multiaddr=b""))
        job = market.state.jobs[JOB]
        outsider = self.peers["elsewhere"].signer.address
        cones = (replace(job.cones[0], account=outsider),)
        other = replace(job, job_id=JobId(2), sellers=(), cones=cones, buyer=outsider)
        market.state = replace(market.state, jobs={**market.state.jobs, other.job_id: other})


def open_final(base: int) -> AttemptOpened:
    """A final evaluation in the second round's place."""
    return replace(open_second_round(base), kind=BallotKind.FINAL)


def end_training(model_digest: Digest) -> TrainingEnded:
    """Training ended with a model."""
    return TrainingEnded(
        job=JOB,
        outcome=1,
        rounds_done=1,
        initial_utility=0,
        last_utility=0,
        model_digest=model_digest,
        credit_root=Digest(bytes(32)),
        credit_sum=0,
        final_block=BlockNumber(40),
    )
