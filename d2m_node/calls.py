"""What a node may ask the contracts to do: one frozen class per function.

The fields are the function's arguments in the order of the ABI; ``value_wei`` is the money sent
along. The chain adapter needs nothing else to encode a call.
"""

from dataclasses import dataclass
from typing import ClassVar

from protocol.course import Course
from protocol.terms import JobTerms
from protocol.types import Address, Digest, JobId, Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class BindPeer:
    contract: ClassVar[str] = "PeerRegistry"
    function: ClassVar[str] = "bind_peer"
    peer_id: bytes
    multiaddr: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterDataset:
    contract: ClassVar[str] = "DataRegistry"
    function: ClassVar[str] = "register_dataset"
    tags: tuple[Digest, ...]
    metadata_hash: Digest
    min_price_wei: Wei
    min_price_token: Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class DepositStake:
    contract: ClassVar[str] = "StakePool"
    function: ClassVar[str] = "deposit"
    value_wei: Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestUnbond:
    contract: ClassVar[str] = "StakePool"
    function: ClassVar[str] = "request_unbond"
    amount_wei: Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawStake:
    contract: ClassVar[str] = "StakePool"
    function: ClassVar[str] = "withdraw"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseStake:
    contract: ClassVar[str] = "StakePool"
    function: ClassVar[str] = "release"
    job: JobId
    account: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class ApproveToken:
    """Let a contract take an amount of the deployment's token from this account."""

    contract: ClassVar[str] = "Token"
    function: ClassVar[str] = "approve"
    spender: str
    """Name of the contract that will keep the money."""
    amount_wei: Wei


Permit = tuple[Wei, int, int, bytes, bytes]
"""A token's permit: value, deadline, v, r, s. Calls take at most one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAuction:
    contract: ClassVar[str] = "Market"
    function: ClassVar[str] = "open_auction"
    auction: JobId
    """The number the auction will get; the bid's commitment holds it, so another one reverts."""
    tags: tuple[Digest, ...]
    mode: int
    currency: Address
    deposit_wei: Wei
    reserve_wei: Wei
    commit_blocks: int
    reveal_blocks: int
    commitment: Digest
    bond_wei: Wei
    """What the bid puts up: at least the auction's deposit and its own amount."""
    permits: tuple[Permit, ...]
    value_wei: Wei
    """The bond in an auction in ether, else zero; likewise in the calls below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitBid:
    contract: ClassVar[str] = "Market"
    function: ClassVar[str] = "commit_bid"
    auction: JobId
    commitment: Digest
    bond_wei: Wei
    permits: tuple[Permit, ...]
    value_wei: Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenClearAuction:
    contract: ClassVar[str] = "Market"
    function: ClassVar[str] = "open_clear_auction"
    auction: JobId
    tags: tuple[Digest, ...]
    currency: Address
    reserve_wei: Wei
    bid_blocks: int
    amount_wei: Wei
    terms: JobTerms
    body_hash: Digest
    permits: tuple[Permit, ...]
    value_wei: Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceBid:
    contract: ClassVar[str] = "Market"
    function: ClassVar[str] = "bid"
    auction: JobId
    amount_wei: Wei
    terms: JobTerms
    body_hash: Digest
    permits: tuple[Permit, ...]
    value_wei: Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class RevealBid:
    contract: ClassVar[str] = "Market"
    function: ClassVar[str] = "reveal_bid"
    auction: JobId
    amount_wei: Wei
    terms: JobTerms
    body_hash: Digest
    salt: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseAuction:
    contract: ClassVar[str] = "Market"
    function: ClassVar[str] = "close_auction"
    auction: JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class ReclaimBid:
    contract: ClassVar[str] = "Market"
    function: ClassVar[str] = "reclaim_bid"
    auction: JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolSeller:
    contract: ClassVar[str] = "Enrolment"
    function: ClassVar[str] = "enrol_seller"
    job: JobId
    terms: JobTerms
    dataset_id: int
    permits: tuple[Permit, ...]
    value_wei: Wei
    """The deposit that the terms ask for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReclaimDeposit:
    contract: ClassVar[str] = "SellerDeposits"
    function: ClassVar[str] = "reclaim"
    job: JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportEquivocation:
    contract: ClassVar[str] = "SellerDeposits"
    function: ClassVar[str] = "report_equivocation"
    job: JobId
    round_index: int
    seller: Address
    first: tuple[Digest, bytes]
    """(commitment, signature), as `second`."""
    second: tuple[Digest, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolCone:
    contract: ClassVar[str] = "Enrolment"
    function: ClassVar[str] = "enrol_cone"
    job: JobId
    terms: JobTerms
    ticket_root: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseEnrolment:
    contract: ClassVar[str] = "Enrolment"
    function: ClassVar[str] = "close_enrolment"
    job: JobId
    terms: JobTerms
    sellers: tuple[Address, ...]
    """All that applied, in order."""
    cones: tuple[tuple[Address, Digest], ...]
    """All that applied, in order: (account, ticket root)."""
    header: bytes
    """RLP header of the draw's seed block; empty if nobody has to be left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReclaimEscrow:
    contract: ClassVar[str] = "Market"
    function: ClassVar[str] = "reclaim_escrow"
    job: JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitReceipts:
    contract: ClassVar[str] = "Statements"
    function: ClassVar[str] = "submit_receipts"
    job: JobId
    part: int
    entries: tuple[tuple[int, bytes, bytes], ...]
    """(CONE index, r, vs)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTraining:
    contract: ClassVar[str] = "Rounds"
    function: ClassVar[str] = "start_training"
    job: JobId
    terms: JobTerms
    course: Course


@dataclass(frozen=True, slots=True, kw_only=True)
class LogBitmaps:
    contract: ClassVar[str] = "Statements"
    function: ClassVar[str] = "log_bitmaps"
    job: JobId
    ballot_number: int
    groups: tuple[tuple[int, int], ...]
    """(bitmap of CONE nodes, bitmap of sellers whose updates they hold)."""
    signatures: tuple[tuple[bytes, bytes], ...]
    """(r, vs), group by group, by index of the nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitCommits:
    contract: ClassVar[str] = "Ballots"
    function: ClassVar[str] = "submit_commits"
    job: JobId
    sender_index: int
    """The sender's index in the pool, for its refund."""
    members: int
    """Bitmap of the CONE nodes that the entries are of."""
    entries: tuple[tuple[Digest, bytes, bytes], ...]
    """(commitment, r, vs), by index of their nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitOpenings:
    contract: ClassVar[str] = "Ballots"
    function: ClassVar[str] = "submit_openings"
    job: JobId
    sender_index: int
    batch_index: int
    members: int
    """Bitmap of the CONE nodes of the batch."""
    batch: tuple[tuple[int, bytes], ...]
    """(position of its vote, chain element) by index of their nodes; of what is not opened the
    number of votes, and the commitment."""
    opened: tuple[tuple[Digest, Digest], ...]
    """(digest, trace) of the votes that are opened."""
    header: bytes
    """RLP header of the attempt's first seed block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    contract: ClassVar[str] = "Rounds"
    function: ClassVar[str] = "tally"
    job: JobId
    terms: JobTerms
    course: Course
    groups: tuple[tuple[int, Digest, Digest], ...]
    """(mini-round, digest, trace), ascending."""
    header: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TallyPool:
    contract: ClassVar[str] = "Rounds"
    function: ClassVar[str] = "tally_pool"
    job: JobId
    terms: JobTerms
    course: Course
    parent: Course
    """The course before the decision that is checked."""
    groups: tuple[tuple[int, Digest, Digest], ...]
    header: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpireBallot:
    contract: ClassVar[str] = "Rounds"
    function: ClassVar[str] = "expire"
    job: JobId
    terms: JobTerms
    course: Course


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditDecision:
    contract: ClassVar[str] = "Rounds"
    function: ClassVar[str] = "audit"
    job: JobId
    terms: JobTerms
    course: Course
    header: bytes
    """RLP header of the audit's seed block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppealDecision:
    contract: ClassVar[str] = "Appeals"
    function: ClassVar[str] = "appeal"
    job: JobId
    terms: JobTerms
    course: Course
    is_seller: bool
    index: int
    """Of the appellant among the job's sellers, or in its pool."""
    permits: tuple[Permit, ...]
    value_wei: Wei
    """The bond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawBond:
    contract: ClassVar[str] = "Appeals"
    function: ClassVar[str] = "withdraw"
    currency: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteSlashes:
    contract: ClassVar[str] = "Rounds"
    function: ClassVar[str] = "execute_slashes"
    job: JobId
    course: Course


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleJob:
    contract: ClassVar[str] = "Settlement"
    function: ClassVar[str] = "settle"
    job: JobId
    terms: JobTerms
    course: Course
    leaves: tuple[tuple[Address, int], ...]
    """(payee, accepted rounds), in seller order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimPayout:
    contract: ClassVar[str] = "Settlement"
    function: ClassVar[str] = "claim"
    currency: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimConeShare:
    contract: ClassVar[str] = "Settlement"
    function: ClassVar[str] = "claim_cone_share"
    job: JobId
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimSellerShare:
    contract: ClassVar[str] = "Settlement"
    function: ClassVar[str] = "claim_seller_share"
    job: JobId
    index: int
    v: int
    proof: tuple[Digest, ...]


ContractCall = (
    BindPeer
    | RegisterDataset
    | DepositStake
    | RequestUnbond
    | WithdrawStake
    | ReleaseStake
    | ApproveToken
    | OpenAuction
    | CommitBid
    | OpenClearAuction
    | PlaceBid
    | RevealBid
    | CloseAuction
    | ReclaimBid
    | EnrolSeller
    | ReclaimDeposit
    | ReportEquivocation
    | EnrolCone
    | CloseEnrolment
    | ReclaimEscrow
    | SubmitReceipts
    | StartTraining
    | LogBitmaps
    | SubmitCommits
    | SubmitOpenings
    | Tally
    | TallyPool
    | ExpireBallot
    | AuditDecision
    | AppealDecision
    | WithdrawBond
    | ExecuteSlashes
    | SettleJob
    | ClaimPayout
    | ClaimConeShare
    | ClaimSellerShare
)
