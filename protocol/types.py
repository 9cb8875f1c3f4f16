"""Ids and quantities that the rules share.

Bytes stay bytes inside the program; hex appears only at the edges (RPC, logs, TOML).
"""

from typing import NewType

Address = NewType("Address", bytes)
"""20 bytes: an account or a contract."""

Digest = NewType("Digest", bytes)
"""32 bytes: Keccak-256 of what it names."""

JobId = NewType("JobId", int)
"""Number of a job; the auction that led to it has the same number."""

RoundIndex = NewType("RoundIndex", int)
SellerIndex = NewType("SellerIndex", int)
"""Position of a seller in its job, by order of enrolment, from zero."""

ConeIndex = NewType("ConeIndex", int)
"""Position of a CONE node in its job's pool, by order of enrolment, from zero."""

BlockNumber = NewType("BlockNumber", int)
Wei = NewType("Wei", int)

UtilityQ20 = NewType("UtilityQ20", int)
"""A utility in units of 2**-20: accuracy 0.95 is 996147 (MECHANISM 12.1)."""

NO_DIGEST = Digest(bytes(32))
"""What stands where no digest can: the header before the first round, say."""

NO_ACCOUNT = Address(bytes(20))
"""No account. As a currency it is ether; any other currency is a token's address."""
