"""Planted bugs in what an account is told of its money."""

from tests.mutants.mutant import Mutant

_EARNINGS = "test_earnings.py"
EARNINGS = (
    Mutant(
        bug="a raised bid counts whole",
        file="earnings.py",
        old="added = event.deposit_wei - self._bid_wei",
        new="added = event.deposit_wei",
        killed_by=(f"{_EARNINGS}::test_a_raised_bid_counts_by_the_difference",),
    ),
    Mutant(
        bug="a forfeit is forgotten",
        file="earnings.py",
        old="if event.forfeited_wei:",
        new="if not event.forfeited_wei:",
        killed_by=(f"{_EARNINGS}::test_a_bid_that_was_not_revealed_loses_its_forfeit",),
    ),
    Mutant(
        bug="stake is in the job's currency",
        file="earnings.py",
        old="return replace(entry, currency=NO_ACCOUNT)",
        new="return replace(entry, currency=self._job.currency)",
        killed_by=(
            f"{_EARNINGS}::test_stake_and_its_slashes_are_ether_in_a_job_paid_with_a_token",
        ),
    ),
    Mutant(
        bug="a bond that comes back is lost",
        file="earnings.py",
        old="        if event.is_overturned:\n",
        new="        if not event.is_overturned:\n",
        killed_by=(f"{_EARNINGS}::test_a_bond_comes_back_or_is_shared",),
    ),
    Mutant(
        bug="what is due counts for nothing",
        file="earnings.py",
        old="due_wei=Wei(0) if share is None else share.amount_wei",
        new="due_wei=Wei(0)",
        killed_by=(f"{_EARNINGS}::test_a_share_that_is_not_claimed_is_due_and_not_earned",),
    ),
    Mutant(
        bug="a vote that was not opened was never cast",
        file="zero_pay.py",
        old="return Why.NOT_OPENED if has_committed else Why.NO_VOTE",
        new="return Why.NO_VOTE",
        killed_by=(f"{_EARNINGS}::test_no_data_and_unopened_votes_are_told_apart",),
    ),
    Mutant(
        bug="who came for a failed appeal had the wrong trace",
        file="zero_pay.py",
        old="return Why.FEWER_TRACES if vote in paid_votes else Why.PAID_BY_BOND",
        new="return Why.FEWER_TRACES",
        killed_by=(f"{_EARNINGS}::test_who_came_for_a_failed_appeal_is_paid_by_its_bond",),
    ),
    Mutant(
        bug="an update that was late was not accepted",
        file="zero_pay.py",
        old="            return Why.NO_UPDATE\n",
        new="            return Why.NOT_ACCEPTED\n",
        killed_by=(f"{_EARNINGS}::test_a_seller_learns_what_kept_its_update_out",),
    ),
)
