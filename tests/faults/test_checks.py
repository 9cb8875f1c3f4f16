"""The harness finds what it looks for: votes signed twice, slashes without an excuse."""

import pytest

from protocol.ballot import Ballot, CommitBatch, MiniRound
from protocol.sortition import BallotKind
from protocol.types import BlockNumber, Digest, RoundIndex
from tests.faults.checks import check_statements, excuses
from tests.faults.director import Outage, Point, Records, note_statement
from tests.faults.table import Fault

NODE = 2
BALLOT = Ballot(
    ballot_number=1,
    round_index=RoundIndex(0),
    kind=BallotKind.ROUND,
    attempt=0,
    seller_seed_block=BlockNumber(2),
    update_commit_end=BlockNumber(6),
    update_open_end=BlockNumber(8),
    availability_end=BlockNumber(12),
    mini_rounds=(
        MiniRound(
            mini_round_index=0,
            seed_block=BlockNumber(13),
            commit_end=BlockNumber(18),
            open_end=BlockNumber(26),
        ),
    ),
    opened_at=(BlockNumber(1), 0),
    batches=(
        CommitBatch(
            mini_round_index=0,
            batch_index=0,
            members=1 << NODE,
            entries=((NODE, Digest(bytes(32))),),
        ),
    ),
)


def say(records: Records, commitment: str, mini: int = 0) -> None:
    details = {"job_id": 1, "round_index": 0, "mini": mini, "commitment": commitment}
    note_statement(records, Point("cone-1", "say/VoteCommit", "before", details))


def test_a_second_and_different_commitment_is_found() -> None:
    records = Records()
    say(records, "aa")
    say(records, "aa")
    say(records, "bb", mini=1)
    assert check_statements(records, {}) == []
    say(records, "bb")
    assert len(check_statements(records, {})) == 1
    assert check_statements(records, {"cone-1"}) == [], "a hostile node may"


@pytest.mark.parametrize(
    ("fault", "first", "last", "is_excused"),
    [
        (Fault.KILL, 17, 25, True),
        (Fault.KILL, 17, 20, False),  # back in time
        (Fault.STOP, 27, 40, False),  # away when all was over
        (Fault.CUT_CHAIN, 17, None, True),
        (Fault.CUT_PEERS, 17, 30, False),  # who has the chain can open
    ],
)
def test_only_an_outage_that_covers_the_windowexcuses_a_vote_that_was_not_opened(
    fault: Fault, first: int, last: int | None, is_excused: bool
) -> None:
    outage = Outage("cone-3", fault, "", first, 4, last)
    assert excuses(outage, BALLOT, NODE) is is_excused
    assert not excuses(outage, BALLOT, NODE + 1), "it had committed to nothing"
