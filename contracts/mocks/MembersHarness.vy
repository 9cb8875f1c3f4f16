#pragma version 0.4.3
"""
@title Members harness
@license Apache-2.0
@notice Opens the rules of applications, draws and rosters to tests. Never deployed to a chain.
"""

from interfaces import IEnrolment
from modules import applications
from modules import commitments
from modules import draw
from modules import header as block_header
from modules import limits
from modules import roster
from modules import typed_data


@external
@pure
def signer_compact(digest: bytes32, r: bytes32, vs: bytes32) -> address:
    return typed_data._signer_compact(digest, r, vs)


@external
@pure
def hash_sellers(accounts: DynArray[address, limits.MAX_APPLICANTS]) -> uint256:
    return applications._of_sellers(accounts)


@external
@pure
def hash_cones(cones: DynArray[IEnrolment.ConeApplication, limits.MAX_APPLICANTS]) -> uint256:
    return applications._of_cones(cones)


@external
@view
def enrol_seed(market: address, job: uint256, randomness: bytes32) -> bytes32:
    return commitments._enrol_seed(market, job, randomness)


@external
@pure
def draw_sellers(
    seed: bytes32, count: uint256, size: uint256
) -> DynArray[uint256, limits.MAX_APPLICANTS]:
    return draw._positions(draw._draw(seed, draw.SELLERS, count, size))


@external
@pure
def draw_cones(
    seed: bytes32, count: uint256, size: uint256
) -> DynArray[uint256, limits.MAX_APPLICANTS]:
    return draw._positions(draw._draw(seed, draw.CONES, count, size))


@external
@pure
def everyone(size: uint256) -> DynArray[uint256, limits.MAX_APPLICANTS]:
    return draw._positions(draw._everyone(size))


@external
@view
def anchor_block(seed_block: uint256) -> uint256:
    return block_header._anchor_block(seed_block)


@external
def freeze_sellers(
    accounts: DynArray[address, limits.MAX_APPLICANTS], members: uint256
) -> address:
    return roster._freeze(roster._pack_sellers(accounts, members))


@external
def freeze_cones(
    cones: DynArray[IEnrolment.ConeApplication, limits.MAX_APPLICANTS], members: uint256
) -> address:
    return roster._freeze(roster._pack_cones(cones, members))


@external
@view
def seller_at(members: address, index: uint256) -> address:
    return roster._seller(members, index)


@external
@view
def read_cones(members: address) -> Bytes[roster.MAX_CONES_SIZE]:
    return roster._read_cones(members)


@external
@view
def cone_account_at(members: address, index: uint256) -> address:
    return roster._cone_account(members, index)


@external
@view
def count_members(members: address, record_size: uint256) -> uint256:
    return roster._count(members, record_size)


@external
@view
def is_member(members: address, record_size: uint256, account: address) -> bool:
    return roster._holds(members, record_size, account)
