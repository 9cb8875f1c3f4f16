#pragma version 0.4.3
#pragma nonreentrancy on
"""
@title Statements
@license Apache-2.0
@notice What CONE nodes say that they hold: receipts for validation data, which decide whether a
        buyer served it, and bitmaps of updates, which are only put on record.
"""

from interfaces import IBallots
from interfaces import IStatements
from modules import limits
from modules import roster
from modules import typed_data

implements: IStatements

MARKET: immutable(address)
BALLOTS: immutable(IBallots)

receipt_bits: HashMap[uint256, HashMap[uint256, uint256]]


@deploy
def __init__(market: address, ballots: address):
    """
    @notice Fix the other contracts.
    @param market Market, whose address is in everything that is signed.
    @param ballots Ballots, which knows the pools and the windows.
    """
    MARKET = market
    BALLOTS = IBallots(ballots)


@external
def submit_receipts(
    job: uint256, part: uint256, entries: DynArray[IStatements.ReceiptEntry, limits.MAX_CONES]
):
    """
    @notice Record which nodes hold validation data. What does not hold is skipped.
    @param job Number of the job.
    @param part 0 for the samples of the rounds, 1 for those of the final evaluation.
    @param entries Node indices with signatures of `ValidationReceipt`.
    """
    receipts_end: uint256 = staticcall BALLOTS.receipts_end(job, part)
    assert block.number <= receipts_end, "statements: receipts not open"
    pool: address = empty(address)
    cone_count: uint256 = 0
    barred: uint256 = 0
    pool, cone_count, barred = staticcall BALLOTS.pool_of(job)

    message: bytes32 = typed_data._receipt(typed_data._domain_separator(MARKET), job, part)
    before: uint256 = self.receipt_bits[job][part]
    bits: uint256 = before
    for entry: IStatements.ReceiptEntry in entries:
        if entry.cone_index >= cone_count or (bits >> entry.cone_index) & 1 == 1:
            continue
        signer: address = typed_data._signer_compact(message, entry.r, entry.vs)
        if signer == roster._cone_account(pool, entry.cone_index):
            bits |= 1 << entry.cone_index
    assert bits != before, "statements: nothing recorded"

    self.receipt_bits[job][part] = bits
    log IStatements.ReceiptsRecorded(job=job, part=part, bitmap=bits)


@external
@reentrant
def log_bitmaps(
    job: uint256,
    ballot_number: uint256,
    groups: DynArray[IStatements.BitmapGroup, limits.MAX_CONES],
    signatures: DynArray[IStatements.Signature, limits.MAX_CONES],
):
    """
    @notice Put signed statements of who holds which updates on record.
    @dev Nothing is checked and nothing is stored: readers take the first valid statement of each
         node that was logged in a block up to the end of the ballot's availability window.
    @param job Job in training.
    @param ballot_number Ballot that the statements are for.
    @param groups Nodes that say the same, and what they say: bitmaps of nodes and of sellers.
    @param signatures Signatures of `Availability`, group by group, by index of their nodes.
    """
    log IStatements.BitmapsLogged(
        job=job, ballot_number=ballot_number, groups=groups, signatures=signatures
    )


@external
@view
def receipts(job: uint256, part: uint256) -> uint256:
    """
    @notice Which nodes hold validation data.
    @param job Number of the job.
    @param part 0 for the samples of the rounds, 1 for those of the final evaluation.
    @return Bitmap of nodes.
    """
    return self.receipt_bits[job][part]
