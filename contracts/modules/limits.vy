#pragma version 0.4.3
"""
@title How many of each thing the contracts hold
@license Apache-2.0
@notice Bounds of every list. Marks of a ballot share one word, so a pool has at most 64 nodes;
        bitmaps of sellers are one word, so a job has at most 256 sellers.
"""

MAX_CONES: constant(uint256) = 64
MAX_SELLERS: constant(uint256) = 256
# Payees of a job that are credited when it is settled; with more of them, each claims its share.
MAX_CREDITED: constant(uint256) = 20
# Accounts that may apply for the places of a job, as CONE nodes and as sellers alike.
MAX_APPLICANTS: constant(uint256) = 256
MAX_TAGS: constant(uint256) = 16
BPS: constant(uint256) = 10_000
