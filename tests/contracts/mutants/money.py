"""Planted bugs by which somebody gets money that is not its own, or money is stuck."""

from tests.contracts.mutants.mutant import Mutant

STAKE_POOL = tuple(
    Mutant(file="StakePool.vy", contracts=("StakePool",), bug=bug, old=old, new=new, killed_by=test)
    for bug, old, new, test in (
        (
            "rewards are paid twice",
            "        self.holdings[msg.sender].reward_wei = 0\n".removeprefix("    "),
            "",
            "test_paid_once::test_a_reward_is_paid_once",
        ),
        (
            "unbonded stake is paid twice",
            "        self.holdings[msg.sender].unbonding_wei = 0\n",
            "",
            "test_stake_pool::test_unbonding_stake_is_paid_after_the_wait",
        ),
        (
            "stake is paid a block too early",
            "block.number > holding.release_block",
            "block.number >= holding.release_block",
            "test_stake_pool::test_unbonding_stake_is_paid_after_the_wait",
        ),
        (
            "anyone locks stake",
            'assert msg.sender == ENROLMENT.address, "stake: only the enrolment locks"',
            "pass",
            "test_stake_pool::test_only_the_enrolment_locks_and_once_per_job",
        ),
        (
            "anyone slashes",
            'assert msg.sender == ROUNDS, "stake: only rounds slash"',
            "pass",
            "test_stake_pool::test_only_rounds_slash",
        ),
        (
            "more is shared than taken",
            "(taken_wei // 2) // len(beneficiaries)",
            "taken_wei // len(beneficiaries) + 1",
            "test_stake_pool::test_half_of_a_slash_is_shared_and_half_burned",
        ),
        (
            "what cannot be divided is stranded",
            "taken_wei - reward_each_wei * len(beneficiaries)",
            "taken_wei // 2",
            "test_stake_pool::test_what_cannot_be_divided_is_burned",
        ),
        (
            "stake is released twice",
            "    self.locks[job][account].remaining_wei = 0\n",
            "",
            "test_stake_pool::test_locked_stake_is_released_once_the_job_is_closed",
        ),
        (
            "stake of a running job is released",
            "assert staticcall MARKET.is_closed(job) or",
            "assert True or",
            "test_stake_pool::test_locked_stake_is_released_once_the_job_is_closed",
        ),
        (
            "stake is locked for a job twice",
            'assert self.locks[job][account].original_wei == 0, "stake: already locked"',
            "pass",
            "test_stake_pool::test_only_the_enrolment_locks_and_once_per_job",
        ),
    )
)

SELLER_DEPOSITS = tuple(
    Mutant(
        file="SellerDeposits.vy",
        contracts=("SellerDeposits",),
        bug=bug,
        old=old,
        new=new,
        killed_by=test,
    )
    for bug, old, new, test in (
        (
            "a deposit is paid back twice",
            "    self.deposits[job][seller] = 0\n",
            "",
            "test_seller_deposits::test_deposits_return_when_the_job_is_settled",
        ),
        (
            "deposits go back while the job runs",
            "assert staticcall IMarket(MARKET).is_closed(job) or",
            "assert True or",
            "test_seller_deposits::test_deposits_return_when_the_job_is_settled",
        ),
        (
            "anyone makes sellers forfeit",
            'assert msg.sender == SETTLEMENT, "deposits: only the settlement"',
            "pass",
            "test_seller_deposits::test_only_the_settlement_forfeits",
        ),
    )
)

BIDS = tuple(
    Mutant(file="modules/bids.vy", contracts=("Market",), bug=bug, old=old, new=new, killed_by=test)
    for bug, old, new, test in (
        (
            "a bid is paid back twice",
            "    self.bids[auction][msg.sender].deposit_wei = 0\n",
            "",
            "test_market::test_nobody_reclaims_twice_and_strangers_reclaim_nothing",
        ),
        (
            "the price stays with the winner too",
            ".deposit_wei -= price_wei",
            ".deposit_wei -= 0 * price_wei",
            "test_market::test_the_higher_bid_wins_and_everybody_gets_the_rest_back",
        ),
        (
            "a bid that is not revealed forfeits nothing",
            "    if bid.is_revealed:\n        return bid.deposit_wei, 0",
            "    if True:\n        return bid.deposit_wei, 0",
            "test_market::test_the_higher_bid_wins_and_everybody_gets_the_rest_back",
        ),
        (
            "of equal bids the later one wins",
            "bid.order < best.order",
            "bid.order > best.order",
            "test_market::test_of_equal_bids_the_earlier_commitment_wins",
        ),
        (
            "a bid is worth more than its deposit",
            'assert amount_wei <= bid.deposit_wei, "market: above the deposit"',
            "pass",
            "test_market::test_an_amount_out_of_bounds_is_not_revealed",
        ),
        (
            "any raise outbids",
            'assert amount_wei >= least_wei, "market: raise too small"',
            "pass",
            "test_market_open::test_a_bid_that_another_one_came_before_takes_no_money",
        ),
    )
)

MARKET = tuple(
    Mutant(file=file, contracts=("Market",), bug=bug, old=old, new=new, killed_by=test)
    for file, bug, old, new, test in (
        (
            "Market.vy",
            "an escrow is paid back twice",
            "    self.escrows[job] = 0\n    log IMarket.EscrowReclaimed",
            "    log IMarket.EscrowReclaimed",
            "test_market::test_a_cancelled_job_is_refunded_in_full_and_once",
        ),
        (
            "Market.vy",
            "anyone takes an escrow",
            'assert msg.sender == CONTRACTS.settlement, "market: only the settlement"',
            "pass",
            "test_market::test_only_the_settlement_takes_the_escrow_and_of_a_running_job",
        ),
        (
            "Market.vy",
            "the escrow of a running job goes back to its buyer",
            'assert self.jobs[job].status == STATUS_CANCELLED, "market: job not cancelled"',
            "pass",
            "test_market::test_a_cancelled_job_is_refunded_in_full_and_once",
        ),
        (
            "modules/auction_rules.vy",
            "a second price is below the reserve",
            "return max(second_wei, reserve_wei)",
            "return second_wei",
            "test_auction_rules::test_winner_and_price_are_those_of_the_vectors",
        ),
        (
            "modules/money.vy",
            "a token that keeps a fee is taken",
            "assert after_wei == before_wei + amount_wei",
            "assert after_wei >= before_wei",
            "test_market_tokens::test_a_token_that_keeps_a_fee_is_refused",
        ),
        (
            "modules/money.vy",
            "ether is taken for a token and stranded",
            'assert msg.value == 0, "money: ether for a token"',
            "pass",
            "test_market_tokens::test_ether_is_not_taken_for_a_token",
        ),
        (
            "modules/money.vy",
            "less ether is taken than is booked",
            'assert msg.value == amount_wei, "money: not the amount"',
            "pass",
            "test_market_open::test_a_bidder_adds_what_is_missing_and_no_more",
        ),
    )
)

SETTLEMENT = tuple(
    Mutant(file=file, contracts=("Settlement",), bug=bug, old=old, new=new, killed_by=test)
    for file, bug, old, new, test in (
        (
            "Settlement.vy",
            "a payout is paid twice",
            "    self.credits[currency][payee] = 0\n",
            "",
            "test_settlement_money::test_each_payee_pulls_its_own_once",
        ),
        (
            "Settlement.vy",
            "any credits are taken",
            "assert merkle._root(nodes) == result.credit_root",
            "assert len(nodes) == len(nodes)",
            "test_settlement::test_credits_must_be_those_of_the_decided_root",
        ),
        (
            "Settlement.vy",
            "credits are paid without a cap",
            "part: uint256 = min(weight, access_cap)",
            "part: uint256 = weight",
            "test_settlement::test_what_the_cap_on_accesses_withholds_returns_to_the_buyer",
        ),
        (
            "Settlement.vy",
            "the buyer gets the whole price as well",
            "refund_wei: uint256 = price_wei - paid_wei",
            "refund_wei: uint256 = price_wei",
            "test_settlement::test_a_job_that_reaches_its_target_pays_the_whole_price",
        ),
        (
            "Settlement.vy",
            "nobody forfeits",
            "    if not payments._is_forfeit(result):\n        return\n",
            "    if len(leaves) >= 0:\n        return\n",
            "test_seller_deposits::test_accepted_sellers_of_a_model_that_got_no_better_forfeit",
        ),
        (
            "Settlement.vy",
            "money is swept a block too early",
            "block.number > (credit >> AMOUNT_BITS) + PARAMS.sweep_blocks",
            "block.number >= (credit >> AMOUNT_BITS) + PARAMS.sweep_blocks",
            "test_settlement_money::test_what_nobody_claims_is_burned_a_long_time_after_the_last_credit",
        ),
        (
            "modules/shares.vy",
            "a CONE node's share is paid twice",
            'assert (self.cones_paid[job] >> index) & 1 == 0, "shares: already paid"',
            "pass",
            "test_settlement_shares::test_a_share_is_paid_once",
        ),
        (
            "modules/shares.vy",
            "a seller's share is paid twice",
            'assert (self.sellers_paid[job] >> index) & 1 == 0, "shares: already paid"',
            "pass",
            "test_settlement_shares::test_a_share_is_paid_once",
        ),
        (
            "modules/payments.vy",
            "a floor is paid without progress",
            "if paid_bps >= FLOOR_PROGRESS:",
            "if paid_bps >= 0:",
            "test_settlement_vectors::test_a_settlement_pays_what_the_rules_say",
        ),
        (
            "modules/payments.vy",
            "shares are rounded up",
            "return pool_wei * part // total",
            "return (pool_wei * part + total - 1) // total",
            "test_settlement_vectors::test_a_settlement_pays_what_the_rules_say",
        ),
    )
)

APPEALS = tuple(
    Mutant(file="Appeals.vy", contracts=("Appeals",), bug=bug, old=old, new=new, killed_by=test)
    for bug, old, new, test in (
        (
            "a bond is paid back twice",
            "    self.withdrawable[currency][msg.sender] = 0\n",
            "",
            "test_appeals_money::test_a_payee_that_refuses_its_money_holds_up_nobody",
        ),
        (
            "a lost appeal costs nothing",
            "    if is_overturned:\n",
            "    if is_overturned or closed.bond_wei > 0:\n",
            "test_pool_calls::test_an_upheld_decision_shares_the_bond_among_those_it_called",
        ),
        (
            "anyone resolves an appeal",
            'assert msg.sender == ROUNDS.address, "appeals: only rounds"',
            "pass",
            "test_rounds::test_only_the_settlement_closes_jobs_and_only_appeals_calls_pools",
        ),
        (
            "strangers appeal",
            'assert self._member(job, is_seller, index) == msg.sender, "appeals: not of this job"',
            "pass",
            "test_appeals::test_only_members_of_the_job_appeal",
        ),
    )
)

ALL = (*STAKE_POOL, *SELLER_DEPOSITS, *BIDS, *MARKET, *SETTLEMENT, *APPEALS)
