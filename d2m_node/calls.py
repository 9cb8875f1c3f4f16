"""What a node may ask the contracts to do: one frozen class per function.

The fields are the function's arguments in the order of the ABI; ``value_wei`` is the money sent
along. The chain adapter needs nothing else to encode a call.
"""

from dataclasses import dataclass
from typing import ClassVar

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
class OpenAuction:
    contract: ClassVar[str] = "Market"
    function: ClassVar[str] = "open_auction"
    auction: JobId
    """The number the auction will get; the bid's commitment holds it, so another one reverts."""
    tags: tuple[Digest, ...]
    mode: int
    deposit_wei: Wei
    reserve_wei: Wei
    commit_blocks: int
    reveal_blocks: int
    commitment: Digest
    value_wei: Wei


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitBid:
    contract: ClassVar[str] = "Market"
    function: ClassVar[str] = "commit_bid"
    auction: JobId
    commitment: Digest
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
    contract: ClassVar[str] = "Market"
    function: ClassVar[str] = "enrol_seller"
    job: JobId
    terms: JobTerms
    dataset_id: int
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
    contract: ClassVar[str] = "Market"
    function: ClassVar[str] = "enrol_cone"
    job: JobId
    terms: JobTerms
    ticket_root: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseEnrolment:
    contract: ClassVar[str] = "Market"
    function: ClassVar[str] = "close_enrolment"
    job: JobId
    terms: JobTerms


@dataclass(frozen=True, slots=True, kw_only=True)
class ReclaimEscrow:
    contract: ClassVar[str] = "Market"
    function: ClassVar[str] = "reclaim_escrow"
    job: JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitReceipts:
    contract: ClassVar[str] = "Rounds"
    function: ClassVar[str] = "submit_receipts"
    job: JobId
    part: int
    entries: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTraining:
    contract: ClassVar[str] = "Rounds"
    function: ClassVar[str] = "start_training"
    job: JobId
    terms: JobTerms


@dataclass(frozen=True, slots=True, kw_only=True)
class LogBitmaps:
    contract: ClassVar[str] = "Rounds"
    function: ClassVar[str] = "log_bitmaps"
    job: JobId
    entries: tuple[tuple[int, int, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitCommits:
    contract: ClassVar[str] = "Rounds"
    function: ClassVar[str] = "submit_commits"
    job: JobId
    entries: tuple[tuple[int, Digest, bytes], ...]
    """(CONE index, commitment, signature)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitOpenings:
    contract: ClassVar[str] = "Rounds"
    function: ClassVar[str] = "submit_openings"
    job: JobId
    terms: JobTerms
    batch_index: int
    batch: tuple[tuple[int, Digest], ...]
    openings: tuple[tuple[int, Digest, Digest, bytes, bytes], ...]
    """(position in the batch, digest, trace, salt, chain element)."""
    header: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    contract: ClassVar[str] = "Rounds"
    function: ClassVar[str] = "tally"
    job: JobId
    terms: JobTerms
    groups: tuple[tuple[int, Digest, Digest], ...]
    """(mini-round, digest, trace), ascending."""
    header: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpireBallot:
    contract: ClassVar[str] = "Rounds"
    function: ClassVar[str] = "expire"
    job: JobId
    terms: JobTerms


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteSlashes:
    contract: ClassVar[str] = "Rounds"
    function: ClassVar[str] = "execute_slashes"
    job: JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleJob:
    contract: ClassVar[str] = "Settlement"
    function: ClassVar[str] = "settle"
    job: JobId
    terms: JobTerms
    leaves: tuple[tuple[Address, int], ...]
    """(payee, accepted rounds), in seller order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimPayout:
    contract: ClassVar[str] = "Settlement"
    function: ClassVar[str] = "claim"


ContractCall = (
    BindPeer
    | RegisterDataset
    | DepositStake
    | RequestUnbond
    | WithdrawStake
    | ReleaseStake
    | OpenAuction
    | CommitBid
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
    | ExpireBallot
    | ExecuteSlashes
    | SettleJob
    | ClaimPayout
)
