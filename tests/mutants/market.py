"""Planted bugs in the rules of auctions, enrolments, checks of decisions and refunds."""

from tests.mutants.mutant import Mutant

_CHANCE = "test_appeals.py::test_all_decisions_or_none_are_audited_at_the_ends"
_LISTS = "test_enrolment.py::test_lists_of_sellers_are_hashed_as_in_the_vectors"
MARKET = (
    Mutant(
        bug="the second price may be below the reserve",
        file="auction.py",
        old="return max([reserve_wei, *amounts[1:2]])",
        new="return max([0, *amounts[1:2]])",
        killed_by=("test_auction.py::test_winner_and_price_are_those_of_the_vectors",),
    ),
    Mutant(
        bug="a raise is rounded down",
        file="auction.py",
        old="-(-best_wei * (BPS + RAISE_BPS) // BPS)",
        new="best_wei * (BPS + RAISE_BPS) // BPS",
        killed_by=("test_auction.py::test_the_least_bid_is_that_of_the_vectors",),
    ),
    Mutant(
        bug="extensions have no bound",
        file="auction.py",
        old="return min(late_blocks, max_window_blocks - window.extended_blocks)",
        new="return late_blocks",
        killed_by=("test_auction.py::test_the_extension_is_that_of_the_vectors",),
    ),
    Mutant(
        bug="a list of applications does not say how many there are",
        file="enrolment.py",
        old="applications = chained & ~_COUNT_MASK | count",
        new="applications = chained",
        killed_by=(_LISTS,),
    ),
    Mutant(
        bug="a draw is given up at the first seed out of reach",
        file="enrolment.py",
        old="return head_block > enrolment_end + seed_delay_blocks + GIVE_UP_BLOCKS",
        new="return head_block > enrolment_end + seed_delay_blocks + GIVE_UP_BLOCKS // 2",
        killed_by=(
            "test_enrolment.py::test_a_draw_is_given_up_only_when_two_seeds_are_out_of_reach",
        ),
    ),
    Mutant(
        bug="a decision is audited although the deployment has no audits",
        file="appeals.py",
        old="return audit_seed % BPS < params.audit_bps",
        new="return audit_seed % BPS <= params.audit_bps",
        killed_by=(_CHANCE,),
    ),
    Mutant(
        bug="a bond is divided among votes that there cannot be",
        file="appeals.py",
        old="min(terms.first_set_size, terms.cones_max)",
        new="terms.first_set_size",
        killed_by=("test_appeals.py::test_a_first_set_larger_than_the_pool_counts_as_the_pool",),
    ),
    Mutant(
        bug="half of the pool overturns a decision",
        file="consensus.py",
        old="        if 2 * count > pool_size:",
        new="        if 2 * count >= pool_size:",
        killed_by=("test_consensus.py::test_half_of_the_pool_is_no_majority",),
    ),
    Mutant(
        bug="refunds above the cap are not cut",
        file="settlement.py",
        old="    if total <= cap_wei:\n",
        new="    if total >= 0:\n",
        killed_by=("test_settlement.py::test_refunds_above_the_cap_are_cut_alike",),
    ),
    Mutant(
        bug="who comes for a failed appeal is paid for the round",
        file="payment_audit.py",
        old="if ballot.pool_mini_round is None or ballot.pays_newcomers:",
        new="if ballot.pool_mini_round is None or True:",
        killed_by=(
            "test_payment_audit.py::"
            "test_who_comes_for_an_appeal_that_fails_is_not_paid_for_the_round",
        ),
    ),
    Mutant(
        bug="statements that come late count",
        file="ballot.py",
        old="if not is_of_ballot or block_number > ballot.availability_end:",
        new="if not is_of_ballot:",
        killed_by=(
            "test_ballot.py::test_bitmaps_that_are_late_or_of_another_ballot_change_nothing",
        ),
    ),
    Mutant(
        bug="who copies a peer id keeps the place of its account",
        file="market.py",
        old="is_same = before is not None and before.peer_id == event.peer_id",
        new="is_same = before is not None",
        killed_by=("test_peers.py::test_who_names_another_peer_than_before_comes_last",),
    ),
)
