#pragma version 0.4.3
"""
@title Rules harness
@license Apache-2.0
@notice Opens the rules of the modules to tests. Never deployed to a chain.
"""

from interfaces import IBallots
from interfaces import IRounds
from interfaces import ISellerDeposits
from modules import auction_rules
from modules import bitmap
from modules import commitments
from modules import equivocation
from modules import execution_set
from modules import header as block_header
from modules import limits
from modules import merkle
from modules import params as deployment
from modules import participation
from modules import payments
from modules import refunds
from modules import result_header
from modules import tally
from modules import terms as job_terms
from modules import typed_data


@external
@pure
def terms_hash(terms: job_terms.JobTerms) -> bytes32:
    return job_terms._hash(terms)


@external
@pure
def request_hash(terms: job_terms.JobTerms, body_hash: bytes32) -> bytes32:
    return job_terms._request_hash(terms, body_hash)


@external
@pure
def validate_terms(
    terms: job_terms.JobTerms, min_stake_wei: uint256, max_window_blocks: uint256
):
    job_terms._validate(terms, min_stake_wei, max_window_blocks)


@external
@pure
def params_hash(params: deployment.Params) -> bytes32:
    return deployment._hash(params)


@external
@pure
def validate_params(params: deployment.Params):
    deployment._validate(params)


@external
@view
def bid_commitment(
    market: address,
    auction: uint256,
    bidder: address,
    amount_wei: uint256,
    request_hash: bytes32,
    salt: bytes32,
) -> bytes32:
    return commitments._bid(market, auction, bidder, amount_wei, request_hash, salt)


@external
@view
def vote_commitment(
    market: address,
    job: uint256,
    round_index: uint256,
    mini: uint256,
    node: address,
    digest: bytes32,
    trace: bytes32,
    element: bytes32,
) -> bytes32:
    return commitments._vote_at(
        commitments._vote_place(market, job, round_index, mini),
        convert(node, uint256),
        digest, trace, element
    )


@external
@pure
def ticket(node: address, element: bytes32, es_seed: bytes32) -> uint256:
    return commitments._ticket(convert(node, uint256), element, es_seed)


@external
@view
def es_seed(
    market: address, job: uint256, round_index: uint256, mini: uint256, randomness: bytes32
) -> bytes32:
    return commitments._es_seed(market, job, round_index, mini, randomness)


@external
@view
def vote_message(
    market: address, job: uint256, round_index: uint256, mini: uint256, commitment: bytes32
) -> bytes32:
    separator: bytes32 = typed_data._domain_separator(market)
    return typed_data._vote(separator, job, round_index, mini, commitment)


@external
@view
def receipt_message(market: address, job: uint256, part: uint256) -> bytes32:
    return typed_data._receipt(typed_data._domain_separator(market), job, part)


@external
@pure
def signer(digest: bytes32, signature: Bytes[65]) -> address:
    return typed_data._signer(digest, signature)


@external
@pure
def credit_leaf(index: uint256, payee: address, v: uint256) -> bytes32:
    return commitments._credit_leaf(index, payee, v)


@external
@pure
def merkle_root(leaves: DynArray[bytes32, limits.MAX_SELLERS]) -> bytes32:
    return merkle._root(leaves)


@external
@pure
def is_proven(
    leaf: bytes32,
    index: uint256,
    count: uint256,
    proof: DynArray[bytes32, merkle.LEVELS],
    root: bytes32,
) -> bool:
    return merkle._is_proven(leaf, index, count, proof, root)


@external
@view
def randomness(block_number: uint256, header: Bytes[1024]) -> bytes32:
    return block_header._randomness(block_number, header)


@external
@pure
def mix_hash(header: Bytes[1024]) -> bytes32:
    return block_header._mix_hash(header)


@external
@view
def read_round(
    header: Bytes[2560],
    origin: result_header.Origin,
    previous_digest: bytes32,
    sampled_count: uint256,
) -> result_header.RoundResult:
    return result_header._read_round(header, origin, previous_digest, sampled_count)


@external
@view
def read_final(
    header: Bytes[2560], origin: result_header.Origin, model_digest: bytes32
) -> result_header.FinalResult:
    return result_header._read_final(header, origin, model_digest)


@external
@pure
def bit_count(bits: uint256) -> uint256:
    return bitmap._count(bits)


@external
@pure
def set_size(terms: job_terms.JobTerms, cones: uint256, m: uint256) -> uint256:
    return execution_set._size(terms, cones, m)


@external
@pure
def last_ticket(size: uint256, cones: uint256) -> uint256:
    return execution_set._last_ticket(size, cones)


@external
@pure
def count_votes(
    groups: DynArray[IBallots.VoteGroup, limits.MAX_CONES],
    bitmaps: DynArray[uint256, limits.MAX_CONES],
) -> tally.Count:
    return tally._lead(tally._count(groups, bitmaps))


@external
@pure
def count_votes_for(
    groups: DynArray[IBallots.VoteGroup, limits.MAX_CONES],
    bitmaps: DynArray[uint256, limits.MAX_CONES],
    digest: bytes32,
) -> tally.Count:
    return tally._of_digest(tally._count(groups, bitmaps), digest)


@external
@pure
def is_decided(count: IBallots.Counted, lead: uint256, cone_count: uint256) -> bool:
    return tally._is_decided(count, lead, cone_count)


@external
@pure
def is_hopeless(count: IBallots.Counted, lead: uint256, cone_count: uint256) -> bool:
    return tally._is_hopeless(count, lead, cone_count)


@external
@pure
def count_participation(participants: uint256[4], voters: uint256) -> uint256[4]:
    return participation._count(participants, voters)


@external
@view
def audit_seed(
    market: address, job: uint256, round_index: uint256, mini: uint256, randomness: bytes32
) -> uint256:
    return commitments._audit_seed(market, job, round_index, mini, randomness)


@external
@pure
def collect_refunds(sums: uint256[8], noted: uint256) -> uint256[8]:
    return refunds._collect(sums, noted)


@external
@pure
def pools(
    price_wei: uint256,
    terms: job_terms.JobTerms,
    params: deployment.Params,
    result: IRounds.TrainingResult,
) -> payments.Pools:
    return payments._pools(price_wei, terms, params, result)


@external
@pure
def refund_cap(
    price_wei: uint256,
    rounds_max: uint256,
    params: deployment.Params,
    rounds_done: uint256,
    cone_wei: uint256,
) -> uint256:
    return payments._refund_cap(price_wei, rounds_max, params, rounds_done, cone_wei)


@external
@pure
def refund(spent_wei: uint256, total_wei: uint256, cap_wei: uint256) -> uint256:
    return payments._refund(spent_wei, total_wei, cap_wei)


@external
@pure
def share(pool_wei: uint256, part: uint256, total: uint256) -> uint256:
    return payments._share(pool_wei, part, total)


@external
@pure
def access_cap(sellers_per_round: uint256, rounds_done: uint256, sellers: uint256) -> uint256:
    return payments._access_cap(sellers_per_round, rounds_done, sellers)


@external
@pure
def least_bid(reserve_wei: uint256, best_wei: uint256) -> uint256:
    return auction_rules._least_bid(reserve_wei, best_wei)


@external
@pure
def extension(
    now_block: uint256,
    opened_block: uint256,
    commit_end: uint256,
    extended_blocks: uint256,
    max_window_blocks: uint256,
) -> uint256:
    return auction_rules._extension(
        now_block, opened_block, commit_end, extended_blocks, max_window_blocks
    )


@external
@pure
def auction_price(
    mode: uint256, best_wei: uint256, second_wei: uint256, reserve_wei: uint256
) -> uint256:
    return auction_rules._price(mode, best_wei, second_wei, reserve_wei)


@external
@pure
def seller_deposit(
    price_wei: uint256, terms: job_terms.JobTerms, params: deployment.Params
) -> uint256:
    return payments._seller_deposit(price_wei, terms, params)


@external
@pure
def deposit_range(
    price_wei: uint256, sellers_min: uint256, params: deployment.Params
) -> (uint256, uint256):
    return payments._deposit_range(price_wei, sellers_min, params)


@external
@pure
def is_forfeit(result: IRounds.TrainingResult) -> bool:
    return payments._is_forfeit(result)


@external
@view
def check_equivocation(
    market: address,
    job: uint256,
    round_index: uint256,
    seller: address,
    first: ISellerDeposits.SignedCommitment,
    second: ISellerDeposits.SignedCommitment,
):
    equivocation._check(market, job, round_index, seller, first, second)
