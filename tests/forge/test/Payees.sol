// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Actors} from "./Actors.sol";
import {Course, CreditLeaf, JobRecord, TrainingResult} from "./Interfaces.sol";
import {vm} from "./Vm.sol";

/// @notice Trainings that end as the runner likes, and those who are paid for them.
abstract contract Payees is Actors {
    function settle(uint256 seed, uint256 outcome, uint256 rounds_done) external {
        seed = mix(seed);
        uint256 number = pick(seed, RUNNING);
        if (number == 0) return;
        end_training(number, seed, 1 + outcome % 4, rounds_done % 7);
        settle_job(number, seed);
    }

    function end_training(uint256 number, uint256 seed, uint256 outcome, uint256 done) internal {
        Auction storage auction = auctions[number];
        if (outcome == 1 && done == 0) done = 1;
        if (outcome == 4) done = 0;
        TrainingResult memory result;
        result.terms_hash = keccak256(abi.encode(terms(auction.best)));
        result.outcome = outcome;
        result.rounds_done = done;
        result.initial_utility = 100_000;
        result.last_utility = seed % 4 == 0 ? int256(50_000) : int256(500_000);
        result.is_final_evaluated = seed % 8 != 4;
        result.final_block = block.number;
        result.participation = new uint256[](auction.cones.length);
        result.refunds_wei = new uint256[](auction.cones.length);
        for (uint256 i = 0; i < auction.cones.length; i++) {
            if (done > 0) result.participation[i] = (seed >> (2 * i)) % (done + 1);
            result.refunds_wei[i] = (seed >> (i + 7)) % 500;
        }
        for (uint256 i = 0; i < auction.sellers.length && done > 0; i++) {
            auction.leaves.push(CreditLeaf(auction.sellers[i], (seed >> (3 * i)) % (done + 1)));
            result.credit_sum += auction.leaves[i].v;
        }
        if (done > 0) result.credit_root = root(nodes(auction.leaves));
        auction.participation = result.participation;
        rounds.end(number, result);
        vm.roll(block.number + 1);
    }

    function settle_job(uint256 number, uint256 seed) internal {
        Auction storage auction = auctions[number];
        JobRecord memory job = market.job_of(number);
        bool is_unknown = seed % 8 == 0;
        CreditLeaf[] memory leaves = is_unknown ? new CreditLeaf[](0) : auction.leaves;
        if (is_unknown) vm.roll(block.number + 101);
        uint256 before = claimable_sum(job.currency);
        uint256 forfeited = deposits_sum(number);
        uint256 burnt_before = burnt(job.currency);
        Course memory course;
        settlement.settle(number, terms(auction.best), course, leaves);
        forfeited -= deposits_sum(number);
        burn(job.currency, forfeited);
        check(burnt(job.currency) == burnt_before + forfeited, "forfeits are not burned");
        check(market.escrow_of(number) == 0, "an escrow is left");
        uint256 credited = claimable_sum(job.currency) - before;
        check(credited <= job.price_wei, "more than the price is credited");
        auction.shares_left = job.price_wei - credited;
        auction.is_shared = auction.shares_left > 0;
        check(
            !auction.is_shared || auction.sellers.length + auction.cones.length > 20,
            "a settlement does not sum to the price"
        );
        try settlement.settle(number, terms(auction.best), course, leaves) {
            note("a job is settled twice");
        } catch {}
        taken[auction.is_shared ? "settle_shared" : "settle_credited"]++;
    }

    function claim(uint256 seed) external {
        seed = mix(seed);
        claim_of(pick_actor(seed), pick_currency(seed));
    }

    function claim_of(address actor, address currency) internal {
        uint256 amount = settlement.claimable(currency, actor);
        bytes memory call = abi.encodeCall(settlement.claim, (currency));
        if (collect(address(settlement), actor, currency, call, amount, 0)) taken["claim"]++;
    }

    function claim_shares(uint256 seed) external {
        seed = mix(seed);
        uint256 number = pick(seed, SETTLED);
        if (number == 0 || !auctions[number].is_shared) return;
        // Some payees never come.
        for (uint256 i = 0; i < auctions[number].cones.length; i++) {
            if ((seed >> i) & 3 == 0) continue;
            claim_share(number, abi.encodeCall(settlement.claim_cone_share, (number, i)));
        }
        for (uint256 i = 0; i < auctions[number].leaves.length; i++) {
            if ((seed >> (i + 12)) & 3 == 0) continue;
            claim_share(
                number,
                abi.encodeCall(
                    settlement.claim_seller_share,
                    (number, i, auctions[number].leaves[i].v, proof(auctions[number].leaves, i))
                )
            );
        }
    }

    /// @dev A share is credited or paid; either way it leaves what is shared, once.
    function claim_share(uint256 number, bytes memory call) internal {
        Auction storage auction = auctions[number];
        uint256 held = balance(address(settlement), auction.currency);
        uint256 before = claimable_sum(auction.currency);
        (bool is_done,) = address(settlement).call(call);
        if (!is_done) return;
        uint256 paid = held - balance(address(settlement), auction.currency);
        uint256 share = claimable_sum(auction.currency) + paid - before;
        paid_out[auction.currency] += paid;
        check(share <= auction.shares_left, "more is shared than the price");
        auction.shares_left -= share;
        (is_done,) = address(settlement).call(call);
        check(!is_done, "a share is claimed twice");
        taken["claim_share"]++;
    }

    function sweep(uint256 seed) external {
        seed = mix(seed);
        (address actor, address currency) = (pick_actor(seed), pick_currency(seed));
        uint256 amount = settlement.claimable(currency, actor);
        uint256 before = burnt(currency);
        try settlement.sweep(actor, currency) {
            burn(currency, amount);
            check(burnt(currency) == before + amount, "not what is swept is burned");
            taken["sweep"]++;
        } catch {}
    }

    function sweep_shares(uint256 seed) external {
        seed = mix(seed);
        uint256 number = pick(seed, SETTLED);
        if (number != 0) sweep_shares_of(number);
    }

    function sweep_shares_of(uint256 number) internal {
        Auction storage auction = auctions[number];
        uint256 before = burnt(auction.currency);
        try settlement.sweep_shares(number) {
            burn(auction.currency, auction.shares_left);
            check(
                burnt(auction.currency) == before + auction.shares_left,
                "not what is left of the shares is burned"
            );
            auction.shares_left = 0;
            taken["sweep_shares"]++;
        } catch {}
    }
}
