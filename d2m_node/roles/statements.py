"""What the participants of a job say: about which step, as whom, and what of it is signed."""

from dataclasses import dataclass

from protocol.commitment import VoteOpening, VotePosition, compute_vote_commitment
from protocol.evidence import EquivocationEvidence, SignedCommitment
from protocol.hashing import Domain
from protocol.signatures import (
    Availability,
    TypedMessage,
    UpdateCommitment,
    ValidationOffer,
    ValidationReceipt,
    Vote,
)
from protocol.signatures import UpdateOpening as SignedUpdateOpening
from protocol.sortition import BallotKind, encode_mini
from protocol.types import Address, Digest, JobId, RoundIndex
from protocol.wire import messages as wire
from protocol.wire.messages import GossipMessage

SignedMessage = (
    wire.UpdateCommit
    | wire.UpdateOpening
    | wire.AvailabilityBitmap
    | wire.VoteCommit
    | wire.ValidationOffer
    | wire.ValidationReceipt
)

UNSIGNED = bytes(65)
"""Stands where the signature comes."""


@dataclass(frozen=True, slots=True)
class Equivocation:
    """Two commitments of one seller for one round, in the order in which they were heard."""

    first: wire.UpdateCommit
    second: wire.UpdateCommit

    def as_evidence(self, seller: Address) -> EquivocationEvidence:
        """Return it as the contract takes it."""
        return EquivocationEvidence(
            job=JobId(self.first.job_id),
            round_index=RoundIndex(self.first.round_index),
            seller=seller,
            first=SignedCommitment(Digest(self.first.commitment), self.first.signature),
            second=SignedCommitment(Digest(self.second.commitment), self.second.signature),
        )


def step_of(message: GossipMessage) -> int:
    """Return what a message is about: a round, a mini-round of a round, or a part."""
    match message:
        case wire.UpdateCommit() | wire.UpdateOpening():
            return message.round_index
        case wire.AvailabilityBitmap():
            return availability_step(RoundIndex(message.round_index), message.attempt)
        case wire.VoteCommit() | wire.VoteOpening():
            return vote_step(RoundIndex(message.round_index), message.mini)
        case wire.ValidationOffer() | wire.ValidationReceipt():
            return message.part


def compute_opened_commitment(domain: Domain, opening: wire.VoteOpening, node: Address) -> Digest:
    """Compute which commitment of a node an opening opens."""
    position = VotePosition(
        job=JobId(opening.job_id),
        round_index=RoundIndex(opening.round_index),
        mini=opening.mini,
        node=node,
    )
    vote = VoteOpening(Digest(opening.digest), Digest(opening.trace), opening.chain_element)
    return compute_vote_commitment(domain, position, vote)


def availability_step(round_index: RoundIndex, attempt: int) -> int:
    """Number one attempt of one round."""
    return vote_step(round_index, encode_mini(BallotKind.ROUND, attempt, 0))


def vote_step(round_index: RoundIndex, mini: int) -> int:
    """Number one mini-round of a job; grows with the round."""
    return round_index << 40 | mini


def sender_of(message: GossipMessage) -> int:
    """Return the sender's index among the job's sellers or CONE nodes; 0 for the buyer."""
    match message:
        case wire.UpdateCommit() | wire.UpdateOpening():
            return message.seller_index
        case wire.ValidationOffer():
            return 0
        case _:
            return message.cone_index


def tag_of(kind: type) -> int:
    """Return the number under which messages of a kind travel."""
    tag: int = kind.__struct_config__.tag  # type: ignore[attr-defined]
    return tag


def round_of_step(kind: type, step: int) -> int:
    """Return the round that a step of one kind of message belongs to."""
    return step if kind in (wire.UpdateCommit, wire.UpdateOpening) else step >> 40


def signed_part(message: GossipMessage) -> TypedMessage:
    """Return the EIP-712 value that a message's sender signs."""
    job = JobId(message.job_id)
    match message:
        case wire.UpdateCommit():
            return UpdateCommitment(
                job, RoundIndex(message.round_index), Digest(message.commitment)
            )
        case wire.UpdateOpening():
            return SignedUpdateOpening(
                job=job,
                round_index=RoundIndex(message.round_index),
                update_digest=Digest(message.digest),
                salt=message.salt,
            )
        case wire.AvailabilityBitmap():
            return Availability(
                job=job,
                round_index=RoundIndex(message.round_index),
                attempt=message.attempt,
                bitmap=int.from_bytes(message.bitmap, "big"),
            )
        case wire.VoteCommit():
            return Vote(
                job=job,
                round_index=RoundIndex(message.round_index),
                mini=message.mini,
                commitment=Digest(message.commitment),
            )
        case wire.ValidationOffer():
            return ValidationOffer(
                job=job,
                part=message.part,
                part_digest=Digest(message.digest),
                size_bytes=message.size_bytes,
            )
        case wire.ValidationReceipt():
            return ValidationReceipt(job, message.part)
        case wire.VoteOpening():
            raise TypeError("an opening of a vote is not signed")
