"""Planted bugs by which somebody gets money that is not its own, or money is stuck."""

from tests.contracts.mutants.mutant import Mutant

STAKE_POOL = tuple(
    Mutant(file="StakePool.vy", contracts=("StakePool",), bug=bug, old=old, new=new, killed_by=test)
    for bug, old, new, test in (
        (
            "rewards are paid twice",
            "        self.holdings[msg.sender].reward_wei = 0\n".removeprefix("    "),
            "",
            "?test_stake_pool",
        ),
        (
            "unbonded stake is paid twice",
            "        self.holdings[msg.sender].unbonding_wei = 0\n",
            "",
            "?test_stake_pool",
        ),
        (
            "stake is paid a block too early",
            "block.number > holding.release_block",
            "block.number >= holding.release_block",
            "?test_stake_pool",
        ),
        (
            "anyone locks stake",
            'assert msg.sender == ENROLMENT.address, "stake: only the enrolment locks"',
            "pass",
            "?test_stake_pool",
        ),
        (
            "anyone slashes",
            'assert msg.sender == ROUNDS, "stake: only rounds slash"',
            "pass",
            "?test_stake_pool",
        ),
        (
            "more is shared than taken",
            "(taken_wei // 2) // len(beneficiaries)",
            "taken_wei // len(beneficiaries) + 1",
            "?test_stake_pool",
        ),
        (
            "what cannot be divided is stranded",
            "taken_wei - reward_each_wei * len(beneficiaries)",
            "taken_wei // 2",
            "?test_stake_pool",
        ),
        (
            "stake is released twice",
            "    self.locks[job][account].remaining_wei = 0\n",
            "",
            "?test_stake_pool",
        ),
        (
            "stake of a running job is released",
            "assert staticcall MARKET.is_closed(job) or",
            "assert True or",
            "?test_stake_pool",
        ),
        (
            "stake is locked for a job twice",
            'assert self.locks[job][account].original_wei == 0, "stake: already locked"',
            "pass",
            "?test_stake_pool",
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
            "?test_seller_deposits",
        ),
        (
            "deposits go back while the job runs",
            "assert staticcall IMarket(MARKET).is_closed(job) or",
            "assert True or",
            "?test_seller_deposits",
        ),
        (
            "anyone makes sellers forfeit",
            'assert msg.sender == SETTLEMENT, "deposits: only the settlement"',
            "pass",
            "?test_seller_deposits",
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
            "?test_market",
        ),
        (
            "the price stays with the winner too",
            ".deposit_wei -= price_wei",
            ".deposit_wei -= 0 * price_wei",
            "?test_market",
        ),
        (
            "a bid that is not revealed forfeits nothing",
            "    if bid.is_revealed:\n        return bid.deposit_wei, 0",
            "    if True:\n        return bid.deposit_wei, 0",
            "?test_market",
        ),
        (
            "of equal bids the later one wins",
            "bid.order < best.order",
            "bid.order > best.order",
            "?test_market",
        ),
        (
            "a bid is worth more than its deposit",
            'assert amount_wei <= bid.deposit_wei, "market: above the deposit"',
            "pass",
            "?test_market",
        ),
        (
            "any raise outbids",
            'assert amount_wei >= least_wei, "market: raise too small"',
            "pass",
            "?test_market_open",
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
            "?test_market",
        ),
        (
            "Market.vy",
            "anyone takes an escrow",
            'assert msg.sender == CONTRACTS.settlement, "market: only the settlement"',
            "pass",
            "?test_market",
        ),
        (
            "Market.vy",
            "the escrow of a running job goes back to its buyer",
            'assert self.jobs[job].status == STATUS_CANCELLED, "market: job not cancelled"',
            "pass",
            "?test_market",
        ),
        (
            "modules/auction_rules.vy",
            "a second price is below the reserve",
            "return max(second_wei, reserve_wei)",
            "return second_wei",
            "?test_market",
        ),
        (
            "modules/money.vy",
            "a token that keeps a fee is taken",
            "assert after_wei == before_wei + amount_wei",
            "assert after_wei >= before_wei",
            "?test_market_tokens",
        ),
        (
            "modules/money.vy",
            "ether is taken for a token and stranded",
            'assert msg.value == 0, "money: ether for a token"',
            "pass",
            "?test_market_tokens",
        ),
        (
            "modules/money.vy",
            "less ether is taken than is booked",
            'assert msg.value == amount_wei, "money: not the amount"',
            "pass",
            "?test_market",
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
            "?test_settlement",
        ),
        (
            "Settlement.vy",
            "any credits are taken",
            "assert merkle._root(nodes) == result.credit_root",
            "assert len(nodes) == len(nodes)",
            "?test_settlement",
        ),
        (
            "Settlement.vy",
            "credits are paid without a cap",
            "part: uint256 = min(weight, access_cap)",
            "part: uint256 = weight",
            "?test_settlement",
        ),
        (
            "Settlement.vy",
            "the buyer gets the whole price as well",
            "refund_wei: uint256 = price_wei - paid_wei",
            "refund_wei: uint256 = price_wei",
            "?test_settlement",
        ),
        (
            "Settlement.vy",
            "nobody forfeits",
            "    if not payments._is_forfeit(result):\n        return\n",
            "    if len(leaves) >= 0:\n        return\n",
            "?test_seller_deposits",
        ),
        (
            "Settlement.vy",
            "money is swept a block too early",
            "block.number > (credit >> AMOUNT_BITS) + PARAMS.sweep_blocks",
            "block.number >= (credit >> AMOUNT_BITS) + PARAMS.sweep_blocks",
            "?test_settlement_money,test_settlement_shares",
        ),
        (
            "modules/shares.vy",
            "a CONE node's share is paid twice",
            'assert (self.cones_paid[job] >> index) & 1 == 0, "shares: already paid"',
            "pass",
            "?test_settlement_shares",
        ),
        (
            "modules/shares.vy",
            "a seller's share is paid twice",
            'assert (self.sellers_paid[job] >> index) & 1 == 0, "shares: already paid"',
            "pass",
            "?test_settlement_shares",
        ),
        (
            "modules/payments.vy",
            "a floor is paid without progress",
            "if paid_bps >= FLOOR_PROGRESS:",
            "if paid_bps >= 0:",
            "?test_settlement,test_settlement_vectors",
        ),
        (
            "modules/payments.vy",
            "shares are rounded up",
            "return pool_wei * part // total",
            "return (pool_wei * part + total - 1) // total",
            "?test_settlement,test_settlement_vectors",
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
            "?test_appeals,test_appeals_money",
        ),
        (
            "a lost appeal costs nothing",
            "    if is_overturned:\n",
            "    if is_overturned or closed.bond_wei > 0:\n",
            "?test_appeals,test_appeals_money",
        ),
        (
            "anyone resolves an appeal",
            'assert msg.sender == ROUNDS.address, "appeals: only rounds"',
            "pass",
            "?test_appeals,test_appeals_money",
        ),
        (
            "strangers appeal",
            'assert account == msg.sender, "appeals: not of this job"',
            "pass",
            "?test_appeals,test_appeals_money",
        ),
    )
)

ALL = (*STAKE_POOL, *SELLER_DEPOSITS, *BIDS, *MARKET, *SETTLEMENT, *APPEALS)
