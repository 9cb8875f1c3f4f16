"""Evidence that anyone can check: a seller signed two commitments for one round.

Source: MECHANISM 6, step 2. The contract applies the same rule (`modules/equivocation.vy`).
"""

from dataclasses import dataclass

from protocol.errors import InvalidSignature, RuleViolation
from protocol.hashing import Domain
from protocol.signatures import UpdateCommitment, recover_signer
from protocol.types import Address, Digest, JobId, RoundIndex


@dataclass(frozen=True, slots=True)
class SignedCommitment:
    """A seller's commitment to one update, and its signature: 65 bytes r | s | v."""

    commitment: Digest
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EquivocationEvidence:
    """Two commitments that one seller is said to have signed for one round."""

    job: JobId
    round_index: RoundIndex
    seller: Address
    first: SignedCommitment
    second: SignedCommitment


def verify_equivocation(domain: Domain, evidence: EquivocationEvidence) -> None:
    """Check that the seller signed both commitments, and that they differ.

    Commitments are compared, not signatures: one commitment has as many signatures as its signer
    likes, and signing it again is no fault.

    Raises
    ------
    RuleViolation
        If both commitments are the same.
    InvalidSignature
        If one of them was not signed by the seller, for this job, round and domain.
    """
    if evidence.first.commitment == evidence.second.commitment:
        raise RuleViolation("one commitment twice is no equivocation")
    for signed in (evidence.first, evidence.second):
        said = UpdateCommitment(evidence.job, evidence.round_index, signed.commitment)
        signer = recover_signer(said.digest(domain), signed.signature)
        if signer != evidence.seller:
            raise InvalidSignature(f"not signed by the seller {evidence.seller.hex()}")
