#pragma version 0.4.3
"""
@title What is hashed
@license Apache-2.0
@notice Every hash that Python and the contracts must agree on, each under its own domain.
@dev The vectors in `tests/vectors/commitments.json` hold for both.
"""

BID: constant(Bytes[11]) = b"D2M/v1/bid\x00"
VOTE: constant(Bytes[12]) = b"D2M/v1/vote\x00"
TICKET: constant(Bytes[14]) = b"D2M/v1/ticket\x00"
ES_SEED: constant(Bytes[10]) = b"D2M/v1/es\x00"
CREDIT: constant(Bytes[14]) = b"D2M/v1/credit\x00"
AUDIT: constant(Bytes[13]) = b"D2M/v1/audit\x00"
ENROL_SEED: constant(Bytes[13]) = b"D2M/v1/enrol\x00"


@internal
@view
def _bid(
    market: address,
    auction: uint256,
    bidder: address,
    amount_wei: uint256,
    request_hash: bytes32,
    salt: bytes32,
) -> bytes32:
    """
    @notice Commitment of a sealed bid (MECHANISM 3.1).
    @param market Market that the bid is made in.
    @param auction Number of the auction.
    @param bidder Account that bids.
    @param amount_wei Amount of the bid.
    @param request_hash Hash of terms and body.
    @param salt 32 random bytes of the bidder.
    @return The commitment.
    """
    return keccak256(
        concat(
            BID,
            abi_encode(chain.id, market, auction, bidder, amount_wei, request_hash, salt),
        )
    )


@internal
@view
def _vote_place(
    market: address, job: uint256, round_index: uint256, mini: uint256
) -> Bytes[172]:
    """
    @notice What the commitments of one mini-round begin with.
    @param market Market of the job.
    @param job Number of the job.
    @param round_index Round that is voted on.
    @param mini Kind, attempt and mini-round.
    @return The first bytes.
    """
    return concat(VOTE, abi_encode(chain.id, market, job, round_index, mini))


@internal
@pure
def _vote_at(
    place: Bytes[172], voter: uint256, digest: bytes32, trace: bytes32, element: bytes32
) -> bytes32:
    """
    @notice Commitment of a vote (MECHANISM 9.2).
    @dev The voter's chain element is its salt: nobody else knows it before the vote is opened,
         and it is another one in each attempt.
    @param place What the commitments of the mini-round begin with.
    @param voter Account of the voter, as a number.
    @param digest What the voter computed.
    @param trace Evidence that it was computed.
    @param element The voter's chain element for the attempt.
    @return The commitment.
    """
    return keccak256(concat(place, convert(voter, bytes32), digest, trace, element))


@internal
@pure
def _ticket(voter: uint256, element: bytes32, es_seed: bytes32) -> uint256:
    """
    @notice A node's place in the order in which an attempt's voters are called (MECHANISM 7.2).
    @param voter Account of the CONE node, as a number.
    @param element The node's chain element for the attempt.
    @param es_seed Seed of the attempt.
    @return The ticket, as a number.
    """
    ticket: bytes32 = keccak256(concat(TICKET, convert(voter, bytes32), element, es_seed))
    return convert(ticket, uint256)


@internal
@view
def _es_seed(
    market: address, job: uint256, round_index: uint256, mini: uint256, randomness: bytes32
) -> bytes32:
    """
    @notice Seed of an execution set (MECHANISM 4).
    @param market Market of the job.
    @param job Number of the job.
    @param round_index Round that is voted on.
    @param mini Kind, attempt and mini-round.
    @param randomness Beacon value of the seed block.
    @return The seed.
    """
    return keccak256(
        concat(ES_SEED, abi_encode(chain.id, market, job, round_index, mini, randomness))
    )


@internal
@view
def _audit_seed(
    market: address, job: uint256, round_index: uint256, mini: uint256, randomness: bytes32
) -> uint256:
    """
    @notice What says by chance whether a decision is checked (MECHANISM 9.4).
    @param market Market of the job.
    @param job Number of the job.
    @param round_index Round that was decided.
    @param mini Kind, attempt and mini-round that decided it.
    @param randomness Beacon value of the audit's seed block.
    @return The seed, as a number.
    """
    seed: bytes32 = keccak256(
        concat(AUDIT, abi_encode(chain.id, market, job, round_index, mini, randomness))
    )
    return convert(seed, uint256)


@internal
@view
def _enrol_seed(market: address, job: uint256, randomness: bytes32) -> bytes32:
    """
    @notice Seed that draws the members of a job (MECHANISM 3.1, 4).
    @param market Market of the job.
    @param job Number of the job.
    @param randomness Beacon value of the seed block.
    @return The seed.
    """
    return keccak256(concat(ENROL_SEED, abi_encode(chain.id, market, job, randomness)))


@internal
@pure
def _credit_leaf(index: uint256, payee: address, v: uint256) -> bytes32:
    """
    @notice Leaf of the tree of sellers' credits.
    @param index Seller index.
    @param payee Account of the seller.
    @param v Contribution weight: accepted rounds so far.
    @return The leaf.
    """
    return keccak256(concat(CREDIT, abi_encode(index, payee, v)))
