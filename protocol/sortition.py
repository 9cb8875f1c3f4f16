"""Seeds from chain randomness, and who is drawn into an execution set.

Source: MECHANISM 4, 7.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Final

from protocol.hashing import (
    Domain,
    Stream,
    address_word,
    fixed_bytes,
    hash_domain,
    keccak,
    word,
)
from protocol.types import Address, Digest, JobId, RoundIndex

TICKET_RANGE = 1 << 256
REMEMBERED: Final = 1024
"""Elements of chains: what a large pool opens in a few ballots."""


class BallotKind(IntEnum):
    """What a ballot decides."""

    ROUND = 0
    FINAL = 1


def encode_mini(kind: BallotKind, attempt: int, mini_round_index: int) -> int:
    """Number a mini-round inside its round: kind * 2**32 + attempt * 2**16 + mini-round."""
    if not (0 <= attempt < 1 << 16 and 0 <= mini_round_index < 1 << 16):
        raise ValueError(f"attempt {attempt} or mini-round {mini_round_index} needs over 16 bits")
    return kind << 32 | attempt << 16 | mini_round_index


def decode_mini(mini: int) -> tuple[BallotKind, int, int]:
    """Return kind, attempt and mini-round; ValueError if there is no such kind."""
    return BallotKind(mini >> 32), mini >> 16 & 0xFFFF, mini & 0xFFFF


def compute_es_seed(
    domain: Domain, job: JobId, round_index: RoundIndex, mini: int, randomness: bytes
) -> Digest:
    """Compute the execution-set seed; ``mini`` comes from :func:`encode_mini`."""
    return hash_domain(
        "es", domain.prefix, word(job), word(round_index), word(mini), fixed_bytes(randomness)
    )


def compute_seller_seed(
    domain: Domain, job: JobId, round_index: RoundIndex, randomness: bytes
) -> Digest:
    """Compute the seed that samples a round's sellers."""
    return hash_domain(
        "sellers", domain.prefix, word(job), word(round_index), fixed_bytes(randomness)
    )


def compute_subset_seed(
    domain: Domain, job: JobId, round_index: RoundIndex, randomness: bytes
) -> Digest:
    """Compute the seed that draws a round's validation subset."""
    return hash_domain("val", domain.prefix, word(job), word(round_index), fixed_bytes(randomness))


def compute_fin_seed(domain: Domain, job: JobId, randomness: bytes) -> Digest:
    """Compute the seed that says which validation samples are kept for the final evaluation."""
    return hash_domain("fin-split", domain.prefix, word(job), fixed_bytes(randomness))


def compute_set_sizes(
    pool_size: int, first_set_size: int, growth_numerator: int, growth_denominator: int
) -> tuple[int, ...]:
    """List the cumulative sizes of a round's execution sets, the last one being the pool.

    Source: MECHANISM 7.1.
    """
    if not growth_numerator > growth_denominator > 0:
        raise ValueError(f"growth {growth_numerator}/{growth_denominator} must exceed one")
    if pool_size < 1 or first_set_size < 1:
        raise ValueError(f"pool {pool_size} and first set {first_set_size} must not be empty")
    sizes = [min(pool_size, first_set_size)]
    while sizes[-1] < pool_size:
        sizes.append(min(pool_size, -(-growth_numerator * sizes[-1] // growth_denominator)))
    return tuple(sizes)


@dataclass(frozen=True, slots=True)
class TicketChain:
    """A node's private tickets: ``elements[k]`` is h_k, and h_k = keccak(h_{k+1})."""

    elements: tuple[Digest, ...]

    @property
    def root(self) -> Digest:
        """h_0, which the node registers when it enrols."""
        return self.elements[0]

    @property
    def length(self) -> int:
        """How many ballots the chain serves."""
        return len(self.elements) - 1

    def element(self, ballot_number: int) -> Digest:
        """Return the element of a ballot, counted from 1; IndexError when the chain is used up."""
        if not 1 <= ballot_number <= self.length:
            raise IndexError(f"ballot {ballot_number} outside 1..{self.length}")
        return self.elements[ballot_number]


def compute_ticket_chain(secret: bytes, length: int) -> TicketChain:
    """Build a chain for ``length`` ballots that ends in the secret."""
    elements = [Digest(fixed_bytes(secret))]
    for _ in range(length):
        elements.append(keccak(elements[-1]))
    return TicketChain(tuple(reversed(elements)))


def is_element_of_chain(element: bytes, ballot_number: int, root: Digest) -> bool:
    """Tell whether hashing ``element`` ``ballot_number`` times gives the registered root.

    What was asked last is remembered: many nodes of one process may check the same vote.
    """
    return _is_element_of_chain(element, ballot_number, root)


@lru_cache(maxsize=REMEMBERED)
def _is_element_of_chain(element: bytes, ballot_number: int, root: Digest) -> bool:
    node = Digest(element)
    for _ in range(ballot_number):
        node = keccak(node)
    return node == root


def compute_ticket(node: Address, element: Digest, es_seed: Digest) -> int:
    """Compute a node's ticket for one attempt; ``es_seed`` is that of mini-round 0."""
    ticket = hash_domain("ticket", address_word(node), fixed_bytes(element), fixed_bytes(es_seed))
    return int.from_bytes(ticket, "big")


def compute_threshold(set_size: int, pool_size: int) -> int:
    """Compute T_m: tickets below it are in the execution set of that size."""
    return set_size * TICKET_RANGE // pool_size


def compute_first_mini_round(ticket: int, set_sizes: Sequence[int], pool_size: int) -> int:
    """Find the mini-round in which a node votes: the first one whose threshold it is below.

    There always is one: the last set is the whole pool.
    """
    for mini_round_index, set_size in enumerate(set_sizes):
        if ticket < compute_threshold(set_size, pool_size):
            return mini_round_index
    raise ValueError("the last set must be the whole pool")


def draw_execution_set(
    es_seed: Digest, pool: Sequence[int], former: Sequence[int], set_size: int
) -> tuple[int, ...]:
    """Draw the new members of an execution set in public.

    Kept for the comparison with private tickets, and for chains where gas matters more than
    bribery.

    Parameters
    ----------
    es_seed :
        Seed of the mini-round.
    pool :
        All CONE nodes of the job, ascending.
    former :
        Members drawn in earlier mini-rounds.
    set_size :
        Cumulative size n_m.

    Returns
    -------
    members :
        The ``set_size - len(former)`` new members, in the order of the stream.

    Source: MECHANISM 7.2, public draw.
    """
    known = frozenset(former)
    remaining = [node for node in pool if node not in known]
    positions = Stream(es_seed).draw(set_size - len(known), len(remaining))
    return tuple(remaining[position] for position in positions)
