"""Planted bugs by which a vote counts that should not, or an honest voter loses its stake."""

from tests.contracts.mutants.mutant import Mutant

TALLY = tuple(
    Mutant(
        file="modules/tally.vy",
        contracts=contracts,
        bug=bug,
        old=old,
        new=new,
        killed_by=test,
    )
    for bug, contracts, old, new, test in (
        (
            "the lead is one vote short",
            ("Rounds",),
            "count.votes >= count.second + count.no_data + lead ",
            "count.votes + 1 >= count.second + count.no_data + lead ",
            "test_lead::test_one_vote_less_decides_nothing",
        ),
        (
            "the second digest is overlooked",
            ("Rounds",),
            "count.votes >= count.second + count.no_data + lead ",
            "count.votes >= count.no_data + lead ",
            "test_lead::test_one_vote_less_decides_nothing",
        ),
        (
            "nodes without the data do not hold up a decision",
            ("Rounds",),
            "count.votes >= count.second + count.no_data + lead ",
            "count.votes >= count.second + lead ",
            "test_lead::test_one_vote_less_decides_nothing",
        ),
        (
            "a bare half is a majority",
            ("Rounds",),
            "or 2 * count.votes > cone_count",
            "or 2 * count.votes >= cone_count - 1",
            "test_lead::test_one_vote_less_decides_nothing",
        ),
        (
            "accepted voters are slashed",
            ("Ballots",),
            "        count.wrong &= ~tables.everybody[slot]\n",
            "",
            "test_lead::test_only_another_digest_is_slashed_as_wrong",
        ),
        (
            "who copied the digest is slashed as if it were wrong",
            ("Ballots",),
            "count.wrong &= ~tables.everybody[slot]",
            "count.wrong &= ~tables.majorities[slot]",
            "test_lead::test_only_another_digest_is_slashed_as_wrong",
        ),
        (
            "who lacks the data is slashed",
            ("Ballots",),
            "count.wrong = tables.opened & ~tables.no_data",
            "count.wrong = tables.opened",
            "test_lead::test_only_another_digest_is_slashed_as_wrong",
        ),
        (
            "all groups of a digest count, whatever their traces",
            ("Ballots",),
            "            tables.votes[slot] += size - best\n",
            "            tables.votes[slot] += size\n",
            "test_lead::test_one_vote_less_decides_nothing",
        ),
    )
)

VOTES = tuple(
    Mutant(
        file="modules/votes.vy", contracts=("Ballots",), bug=bug, old=old, new=new, killed_by=test
    )
    for bug, old, new, test in (
        (
            "who was not drawn votes",
            "if ticket < draw.first_ticket or ticket > draw.last_ticket:",
            "if draw.first_ticket > draw.last_ticket:",
            "test_rounds_votes::test_only_drawn_nodes_open_in_a_small_set",
        ),
        (
            "any number is a chain element",
            "    return link == root\n",
            "    return link != empty(bytes32)\n",
            "test_rounds_votes::test_an_element_that_is_not_of_the_nodes_chain_does_not_vote",
        ),
        (
            "commitments need no signature",
            "if convert(signer, uint256) != convert(record, uint256) >> roster.ACCOUNT_AT:",
            "if signer == msg.sender and record == empty(bytes32):",
            "test_rounds_votes::test_commitments_that_do_not_hold_are_skipped",
        ),
        (
            "a node commits twice",
            "        if (taken >> index) & 1 == 1:\n            continue\n",
            "",
            "test_rounds_votes::test_nobody_commits_twice_in_an_attempt",
        ),
        (
            "who cannot pay a slash votes",
            "taken: uint256 = marks.committed | pool.barred",
            "taken: uint256 = marks.committed",
            "test_rounds_decisions::test_who_cannot_pay_another_slash_votes_no_more",
        ),
    )
)

ROUNDS = tuple(
    Mutant(file=file, contracts=contracts, bug=bug, old=old, new=new, killed_by=test)
    for file, contracts, bug, old, new, test in (
        (
            "Ballots.vy",
            ("Ballots",),
            "a count leaves votes out",
            'assert tables.opened == marks.opened, "ballots: votes missing"',
            "pass",
            "test_rounds_decisions::test_a_count_must_hold_every_vote",
        ),
        (
            "modules/slashes.vy",
            ("Rounds",),
            "slashes do not wait for the appeal window",
            "return plan != 0 and block.number > plan >> DUE_AT",
            "return plan != 0",
            "test_rounds_decisions::test_wrong_and_unopened_votes_are_slashed_after_the_appeal_window",
        ),
        (
            "Rounds.vy",
            ("Rounds",),
            "a minority overturns a decision",
            "and 2 * counted.votes.votes > counted.ballot.cones",
            "and counted.votes.votes > 0",
            "test_pool_calls::test_a_decision_falls_by_an_absolute_majority_only",
        ),
        (
            "Rounds.vy",
            ("Rounds",),
            "a decision is checked again and again",
            'assert progress.call == progresses.CALL_NONE, "rounds: checked already"',
            "pass",
            "test_appeals::test_a_decision_is_checked_once",
        ),
        (
            "Rounds.vy",
            ("Rounds",),
            "anyone closes a job",
            'assert msg.sender == SETTLEMENT, "rounds: only the settlement"',
            "pass",
            "test_rounds::test_only_the_settlement_closes_jobs_and_only_appeals_calls_pools",
        ),
        (
            "Rounds.vy",
            ("Rounds",),
            "a job is settled within the appeal window",
            'assert block.number > progress.deadline, "rounds: appeal window open"',
            "pass",
            "test_settlement::test_a_job_is_settled_once_in_time_and_under_its_terms",
        ),
    )
)

ENROLMENT = tuple(
    Mutant(file="Enrolment.vy", contracts=("Enrolment",), bug=bug, old=old, new=new, killed_by=test)
    for bug, old, new, test in (
        (
            "who closes an enrolment chooses the sellers",
            "applications._of_sellers(sellers) == self.sellers_applied[job]",
            "len(sellers) > 0",
            "test_enrolment::test_another_list_does_not_close_an_enrolment",
        ),
        (
            "stake that came after the auction was seen counts",
            "since_block < record.opened_block",
            "since_block <= block.number",
            "test_enrolment::test_stake_that_came_after_the_auction_was_seen_does_not_count",
        ),
        (
            "sellers are enrolled below their minimum price",
            "assert record.price_wei >= min_price_wei",
            "assert record.price_wei >= 0",
            "test_enrolment::test_a_seller_takes_part_at_its_minimum_price_and_not_below",
        ),
    )
)

ALL = (*TALLY, *VOTES, *ROUNDS, *ENROLMENT)
