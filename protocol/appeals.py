"""When the whole pool checks a decision: by chance, or because somebody appeals.

Source: MECHANISM 9.4.
"""

from protocol.hashing import Domain, fixed_bytes, hash_domain, word
from protocol.params import BPS, ProtocolParams
from protocol.terms import JobTerms
from protocol.types import JobId, RoundIndex, Wei


def compute_audit_seed(
    domain: Domain, job: JobId, round_index: RoundIndex, mini: int, randomness: bytes
) -> int:
    """Compute what decides by chance whether a decision is checked.

    ``mini`` is that of the mini-round which decided; the randomness is of a block after its last
    opening, so that no voter knew it.
    """
    seed = hash_domain(
        "audit", domain.prefix, word(job), word(round_index), word(mini), fixed_bytes(randomness)
    )
    return int.from_bytes(seed, "big")


def is_audited(audit_seed: int, params: ProtocolParams) -> bool:
    """Tell whether chance calls the whole pool."""
    return audit_seed % BPS < params.audit_bps


def compute_appeal_bond(
    price_wei: Wei, terms: JobTerms, params: ProtocolParams, missing: int
) -> Wei:
    """Compute what an appeal costs: the pay of the votes that it calls for.

    A vote is paid a round's share of the CONE nodes' pool, divided by the first execution set; at
    least the smallest unit. ``missing`` nodes have not voted yet.
    """
    pool_wei = price_wei * params.cone_bps // BPS
    votes = terms.rounds_max * min(terms.first_set_size, terms.cones_max)
    return Wei(missing * max(pool_wei // votes, 1))
