"""Who takes part in a job: applications, and the draw if there are more than places.

The chain keeps a list of applications as one word; whoever closes an enrolment brings the list.
The contracts do the same in `contracts/modules/applications.vy` and `draw.vy`.
Source: MECHANISM 3.1, 4.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from protocol.block_header import compute_anchor_block
from protocol.hashing import (
    Domain,
    Stream,
    address_word,
    fixed_bytes,
    hash_domain,
    keccak,
    word,
)
from protocol.types import Address, BlockNumber, Digest, JobId

MAX_APPLICANTS: Final = 256
"""Accounts that may apply for the places of a job, as CONE nodes and as sellers alike."""

HEADER_REACH_BLOCKS: Final = 8191
"""How far back contracts can prove a header (EIP-2935)."""

GIVE_UP_BLOCKS: Final = 2 * HEADER_REACH_BLOCKS
"""After the first seed of a draw: a job whose draw nobody could prove by then may be cancelled."""

_COUNT_MASK: Final = (1 << 16) - 1


class DrawnRole(Enum):
    """Whose places are drawn; the value is the label of the stream."""

    SELLERS = "enrol-sellers"
    CONES = "enrol-cones"


@dataclass(frozen=True, slots=True)
class EnrolledSeller:
    """A seller that applied for a place in the job."""

    account: Address
    dataset_id: int


@dataclass(frozen=True, slots=True)
class EnrolledCone:
    """A CONE node that applied for a place in the job's pool."""

    account: Address
    ticket_root: Digest


def hash_sellers(accounts: Iterable[Address]) -> int:
    """Compute the word of a list of sellers, in the order of their applications.

    240 bits of a hash over all of them, then 16 bits for how many they are.
    """
    return _hash_applications(address_word(account) for account in accounts)


def hash_cones(cones: Iterable[tuple[Address, Digest]]) -> int:
    """Compute the word of a list of CONE nodes: accounts with their ticket roots, in order."""
    return _hash_applications(address_word(account) + fixed_bytes(root) for account, root in cones)


def _hash_applications(encoded: Iterable[bytes]) -> int:
    applications = 0
    for count, application in enumerate(encoded, start=1):
        chained = int.from_bytes(keccak(word(applications) + application), "big")
        applications = chained & ~_COUNT_MASK | count
    return applications


def compute_enrol_seed(domain: Domain, job: JobId, randomness: bytes) -> Digest:
    """Compute the seed that draws the members of a job."""
    return hash_domain("enrol", domain.prefix, word(job), fixed_bytes(randomness))


def compute_draw_block(
    enrolment_end: BlockNumber, seed_delay_blocks: int, head_block: BlockNumber
) -> BlockNumber:
    """Compute the block whose randomness draws the members of a job.

    Parameters
    ----------
    enrolment_end :
        Last block in which applications are taken: they are complete before the seed exists.
    seed_delay_blocks :
        The deployment's distance of a seed block from the deadline before it.
    head_block :
        The block in which the enrolment is closed.

    Raises
    ------
    RuleViolation
        If that block is not mined yet.
    """
    seed_block = BlockNumber(enrolment_end + seed_delay_blocks)
    return compute_anchor_block(seed_block, head_block, HEADER_REACH_BLOCKS)


def may_give_up_draw(
    enrolment_end: BlockNumber, seed_delay_blocks: int, head_block: BlockNumber
) -> bool:
    """Tell whether a call without a header cancels, in this block, a job that must be drawn."""
    return head_block > enrolment_end + seed_delay_blocks + GIVE_UP_BLOCKS


def draw_members(seed: Digest, role: DrawnRole, applied: int, places: int) -> tuple[int, ...]:
    """Find which applications of a job get its places.

    Parameters
    ----------
    seed :
        From :func:`compute_enrol_seed`; not looked at if there are places for all.
    role :
        Whose applications they are.
    applied :
        How many applied, at most MAX_APPLICANTS.
    places :
        How many the terms of the job allow.

    Returns
    -------
    indices :
        Applications that became members, ascending: members keep the order of applications.
    """
    if applied <= places:
        return tuple(range(applied))
    return tuple(sorted(Stream(seed, role.value).draw(places, applied)))
