"""Terms under which nobody could be heard, or under which a seed gets too old."""

from dataclasses import replace

import pytest

from protocol.enrolment import HEADER_REACH_BLOCKS
from protocol.errors import InvalidParams
from protocol.sortition import compute_set_sizes
from protocol.terms import WINDOW_FIELDS, JobTerms, TermLimits, validate_terms
from protocol.types import Wei
from protocol.windows import AT_STAKE, compute_longest_ballot, validate_windows
from tests.protocol.test_terms import TERMS

DELAY = 1
LEAST = {
    **dict.fromkeys(WINDOW_FIELDS, 2),
    "decision_blocks": 1,
    "validation_blocks": 3,
}
"""What a node right behind the tip needs."""
DEVNET = replace(
    TERMS, enrolment_blocks=5, validation_blocks=4, update_commit_blocks=4, update_open_blocks=2,
    availability_blocks=3, vote_commit_blocks=3, vote_open_blocks=3, decision_blocks=1,
    appeal_blocks=2, header_blocks=10,
)  # fmt: skip


def with_windows(**blocks: int) -> JobTerms:
    return replace(TERMS, **blocks)


def list_least(lag: int) -> dict[str, int]:
    """Return what a node so far behind the tip needs: twice as much more where it could lose."""
    more = dict.fromkeys(LEAST, lag) | {"decision_blocks": 0}
    more |= dict.fromkeys(AT_STAKE, 2 * lag + 1 if lag else 0)
    return {key: blocks + more[key] for key, blocks in LEAST.items()}


def test_the_windows_of_a_devnet_are_safe() -> None:
    validate_windows(DEVNET, DELAY)


def test_the_least_windows_are_safe() -> None:
    validate_windows(with_windows(**LEAST), DELAY)


@pytest.mark.parametrize("name", [name for name in WINDOW_FIELDS if name != "decision_blocks"])
@pytest.mark.parametrize("lag", [0, 5])
def test_a_shorter_window_is_named_and_said_how_long_it_must_be(name: str, lag: int) -> None:
    least = list_least(lag)
    validate_windows(with_windows(**least), DELAY, lag_blocks=lag)
    short = with_windows(**{**least, name: least[name] - 1})
    with pytest.raises(InvalidParams, match=f"^{name}.*raise it to at least {least[name]}$"):
        validate_windows(short, DELAY, lag_blocks=lag)


def test_a_node_may_want_longer_windows_but_no_longer_slack() -> None:
    validate_windows(with_windows(decision_blocks=1), DELAY, least_blocks=4)
    with pytest.raises(InvalidParams, match="at least 5"):
        validate_windows(with_windows(decision_blocks=1), DELAY, least_blocks=5)


def test_the_seed_of_an_audit_is_mined_in_the_appeal_window_and_answered() -> None:
    delay = 7
    windows = dict.fromkeys(WINDOW_FIELDS, 20)
    validate_windows(with_windows(**windows), delay)
    with pytest.raises(InvalidParams, match=r"^appeal_blocks.*at least 8"):
        validate_windows(with_windows(**{**windows, "appeal_blocks": 7}), delay)


def test_the_subset_of_a_round_is_drawn_before_the_vote() -> None:
    delay = 30
    windows = {**dict.fromkeys(WINDOW_FIELDS, 40), "update_open_blocks": 10}
    validate_windows(with_windows(**{**windows, "availability_blocks": 20}), delay)
    with pytest.raises(InvalidParams, match=r"^availability_blocks.*at least 20"):
        validate_windows(with_windows(**{**windows, "availability_blocks": 19}), delay)


def walk_ballot(terms: JobTerms, delay: int) -> int:
    """Walk a ballot in which every step is as late as the contracts allow; return its length."""
    sizes = compute_set_sizes(
        terms.cones_max, terms.first_set_size, terms.growth_numerator, terms.growth_denominator
    )
    seed = block = 0
    open_end = -delay
    for _ in sizes:
        commit_end = max(block, open_end + delay) + terms.vote_commit_blocks
        open_end = commit_end + terms.vote_open_blocks
        block = open_end + terms.header_blocks
    appeal_end = block + terms.appeal_blocks
    whole_seed = appeal_end + delay
    return whole_seed + terms.vote_commit_blocks + terms.vote_open_blocks - seed


@pytest.mark.parametrize("delay", [1, 3, 50])
@pytest.mark.parametrize("first_set_size", [1, 4, 7])
def test_the_longest_ballot_is_that_of_a_walk(delay: int, first_set_size: int) -> None:
    terms = with_windows(first_set_size=first_set_size, appeal_blocks=9, header_blocks=10)
    assert compute_longest_ballot(terms, delay) == walk_ballot(terms, delay)


def test_windows_that_outlive_the_seed_are_refused_though_the_market_takes_them() -> None:
    limits = TermLimits(Wei(1), 1 << 20, DELAY)
    terms = with_windows(vote_open_blocks=1)
    longest_open = (HEADER_REACH_BLOCKS - compute_longest_ballot(terms, DELAY)) // 3 + 1
    assert len(compute_set_sizes(terms.cones_max, 4, 3, 2)) + 1 == 4
    for blocks in (longest_open // 2, 4 * longest_open):
        validate_terms(with_windows(vote_open_blocks=blocks), limits)
    validate_windows(with_windows(vote_open_blocks=longest_open // 2), DELAY)
    with pytest.raises(InvalidParams, match=f"can be proved for {HEADER_REACH_BLOCKS}"):
        validate_windows(with_windows(vote_open_blocks=4 * longest_open), DELAY)


def test_a_ballot_may_end_in_the_last_block_in_which_its_seed_can_be_proved() -> None:
    room = HEADER_REACH_BLOCKS - compute_longest_ballot(TERMS, DELAY)
    validate_windows(with_windows(appeal_blocks=TERMS.appeal_blocks + room), DELAY)
    with pytest.raises(InvalidParams, match=f"{HEADER_REACH_BLOCKS + 1} blocks after its seed"):
        validate_windows(with_windows(appeal_blocks=TERMS.appeal_blocks + room + 1), DELAY)
