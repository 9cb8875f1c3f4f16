"""Windows of a job under which nobody could be heard: terms that the contracts take all the same.

A node that knows this rule does not join such a job. Its stake, its deposit or its work could be
lost there, whatever it does.
"""

from typing import Final

from protocol.enrolment import HEADER_REACH_BLOCKS
from protocol.errors import InvalidParams
from protocol.sortition import compute_set_sizes
from protocol.terms import WINDOW_FIELDS, JobTerms

REACTION_BLOCKS: Final = 2
"""A statement needs one block to be mined; one more is kept in reserve."""
AT_STAKE: Final = frozenset({"validation_blocks", "availability_blocks", "vote_open_blocks"})
"""What comes too late in these costs a CONE node its stake, or a buyer its money. A call that a
reorganisation takes back, of no more blocks than the node waits, must still be mined in time."""
SLACKS: Final = frozenset({"decision_blocks"})
"""Blocks between two windows, in which nobody has to say anything."""


def validate_windows(
    terms: JobTerms, seed_delay_blocks: int, *, lag_blocks: int = 0, least_blocks: int = 0
) -> None:
    """Check that a node can act in each window of a job, and that no seed of it gets too old.

    Parameters
    ----------
    terms :
        Valid by :func:`protocol.terms.validate_terms`.
    seed_delay_blocks :
        The deployment's: from a deadline to the block whose randomness is the seed.
    lag_blocks :
        How far behind the chain's tip a node acts: its confirmations.
    least_blocks :
        What a node wants of each window besides.

    Raises
    ------
    InvalidParams
        Naming the first window that is too short, or what makes a ballot too long.
    """
    short = find_short_windows(
        terms, seed_delay_blocks, lag_blocks=lag_blocks, least_blocks=least_blocks
    )
    for name, least in short.items():
        raise InvalidParams(name, f"is {getattr(terms, name)}; raise it to at least {least}")
    longest = compute_longest_ballot(terms, seed_delay_blocks)
    if longest > HEADER_REACH_BLOCKS:
        raise InvalidParams(
            "vote_commit_blocks",
            f"a check of a ballot may end {longest} blocks after its seed, which can be proved for "
            f"{HEADER_REACH_BLOCKS}; lower it, vote_open_blocks, header_blocks or appeal_blocks",
        )


def find_short_windows(
    terms: JobTerms, seed_delay_blocks: int, *, lag_blocks: int = 0, least_blocks: int = 0
) -> dict[str, int]:
    """Return the windows in which a node could not act, with how many blocks they must have.

    The parameters are those of :func:`validate_windows`.
    """
    least_by_name = {
        name: max(least_blocks, _least_of(terms, name, seed_delay_blocks, lag_blocks))
        for name in WINDOW_FIELDS
        if name not in SLACKS
    }
    return {name: least for name, least in least_by_name.items() if getattr(terms, name) < least}


def _least_of(terms: JobTerms, name: str, seed_delay_blocks: int, lag_blocks: int) -> int:
    """Return how many blocks a window must have for a node so far behind the tip."""
    least = lag_blocks + REACTION_BLOCKS
    if name in AT_STAKE and lag_blocks > 0:
        least += lag_blocks + 1  # and whom the first sender left out sends a block later
    match name:
        case "appeal_blocks" | "validation_blocks":
            # The seed of an audit, or of the draw of the validation set, is mined in the window.
            return least + seed_delay_blocks - (name == "appeal_blocks")
        case "availability_blocks":
            # V_t is drawn by a block behind the sellers' commitments, and needed before the vote.
            return max(least, seed_delay_blocks - terms.update_open_blocks)
        case _:
            return least


def compute_least_reveal_blocks(lag_blocks: int) -> int:
    """Compute how long bidders must be able to reveal, for one that acts so far behind the tip.

    A bid that is revealed too late forfeits a part of its deposit. So a reveal must still be mined
    in time if a reorganisation, of no more blocks than the bidder waits, takes it back.
    """
    return 2 * lag_blocks + REACTION_BLOCKS


def compute_longest_ballot(terms: JobTerms, seed_delay_blocks: int) -> int:
    """Compute how long after its seed a ballot may end: undecided to its last set, late, checked.

    Openings prove the seed of the first mini-round until the end. Commitments and calls of the
    whole pool are refused once that will be out of reach.
    """
    sets = compute_set_sizes(
        terms.cones_max, terms.first_set_size, terms.growth_numerator, terms.growth_denominator
    )
    vote_blocks = terms.vote_commit_blocks + terms.vote_open_blocks
    # A window starts at the tally that opens it if that is later than the seed.
    between_blocks = max(terms.header_blocks, seed_delay_blocks)
    undecided_blocks = len(sets) * vote_blocks + (len(sets) - 1) * between_blocks
    check_blocks = terms.appeal_blocks + seed_delay_blocks + vote_blocks
    return undecided_blocks + terms.header_blocks + check_blocks
