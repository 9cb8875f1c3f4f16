"""Planted bugs in the rules of which jobs to join, and when to leave one."""

from tests.mutants.mutant import Mutant

_LEAD = "test_leaving.py::test_a_voter_is_missed_unless_a_lead_agreed_beside_it"
_WALK = "test_windows.py::test_the_longest_ballot_is_that_of_a_walk"
_SHORT = "test_windows.py::test_a_shorter_window_is_named_and_said_how_long_it_must_be"
JOINING = (
    Mutant(
        bug="a node counts its own vote among those that can do without it",
        file="leaving.py",
        old=" and one.cone_index != index",
        new="",
        killed_by=(_LEAD,),
    ),
    Mutant(
        bug="votes for another digest count",
        file="leaving.py",
        old="if one.digest == last.decision.digest and",
        new="if",
        killed_by=("test_leaving.py::test_votes_for_another_digest_do_not_count",),
    ),
    Mutant(
        bug="nodes that have left stay away after a failed attempt",
        file="leaving.py",
        old="or job.undecided or job.voided",
        new="",
        killed_by=("test_leaving.py::test_a_failed_attempt_or_a_void_round_calls_everybody_back",),
    ),
    Mutant(
        bug="the check of a decision takes no time",
        file="windows.py",
        old="terms.header_blocks + check_blocks",
        new="terms.header_blocks",
        killed_by=(_WALK,),
    ),
    Mutant(
        bug="every tally comes in time",
        file="windows.py",
        old="max(terms.header_blocks, seed_delay_blocks)",
        new="seed_delay_blocks",
        killed_by=(_WALK,),
    ),
    Mutant(
        bug="a node needs no time to answer",
        file="windows.py",
        old="least = lag_blocks + REACTION_BLOCKS",
        new="least = lag_blocks",
        killed_by=(_SHORT,),
    ),
    Mutant(
        bug="a node sees every block at once",
        file="windows.py",
        old="least = lag_blocks + REACTION_BLOCKS",
        new="least = REACTION_BLOCKS",
        killed_by=(_SHORT,),
    ),
)
