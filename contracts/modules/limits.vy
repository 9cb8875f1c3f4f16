#pragma version 0.4.3
"""
@title How many of each thing the contracts hold
@license Apache-2.0
@notice Bounds of every list. Pool bitmaps share words with other fields, so a pool of more than
        64 nodes needs wider marks in `ballot.vy`; more than 20 sellers needs Merkle claims.
"""

MAX_CONES: constant(uint256) = 64
MAX_SELLERS: constant(uint256) = 20
MAX_BIDS: constant(uint256) = 64
MAX_TAGS: constant(uint256) = 16
BPS: constant(uint256) = 10_000
