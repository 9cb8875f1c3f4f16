// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Actors} from "./Actors.sol";
import {Bidders} from "./Bidders.sol";
import {Deployment} from "./Deployment.sol";
import {Holding} from "./Interfaces.sol";
import {Members} from "./Members.sol";
import {Payees} from "./Payees.sol";
import {vm} from "./Vm.sol";

/// @notice What actors do with the market, and what that must do to their money. Each call looks for
///         an auction or a job that it fits, so that a random walk carries jobs to their end. What
///         does not come out as computed here is noted in `violation`.
contract Handler is Bidders, Members, Payees {
    constructor(Deployment deployed_) Actors(deployed_) {}

    function pass_time(uint256 blocks) external {
        vm.roll(block.number + 1 + blocks % 5);
    }

    function pass_years(uint256 seed) external {
        seed = mix(seed);
        if (seed % 8 == 0) vm.roll(block.number + 1001);
    }

    /// @notice Nobody but the contracts may call what they ask of each other.
    function intrude(uint256 seed, uint256 amount) external {
        seed = mix(seed);
        uint256 number = pick_any(seed);
        address actor = pick_actor(seed);
        address[] memory all = actors;
        vm.prank(actor);
        try stakes.lock(number, pick_actor(amount), amount) {
            note("a stranger locks");
        } catch {}
        vm.prank(actor);
        try stakes.slash(number, all, 1, all) {
            note("a stranger slashes");
        } catch {}
        vm.prank(actor);
        try market.release_escrow(number) {
            note("a stranger releases an escrow");
        } catch {}
        vm.prank(actor);
        try market.start_job(number) {
            note("a stranger starts a job");
        } catch {}
        vm.prank(actor);
        try market.cancel_job(number) {
            note("a stranger cancels a job");
        } catch {}
        vm.prank(actor);
        try deposits.forfeit(number, all) {
            note("a stranger forfeits");
        } catch {}
        vm.prank(actor);
        (bool is_kept,) = address(settlement).call{value: 1}("");
        check(!is_kept, "a stranger's ether is kept");
    }

    /// @notice Let everybody take what is its own, after so long a time that nobody else is needed.
    function drain() external {
        for (uint256 number = 1; number < auctions.length; number++) {
            vm.roll(block.number + 200);
            uint256 status = market.job_of(number).status;
            if (status == 1) close_auction_of(number);
            if (market.job_of(number).status == ENROLMENT) close_enrolment_of(number);
            if (market.job_of(number).status == RUNNING) {
                end_training(number, mix(number), 1 + number % 4, number % 7);
                settle_job(number, mix(number));
            }
            reclaim_escrow_of(number);
            for (uint256 i = 0; i < ACTORS; i++) {
                reclaim_bid_of(number, actors[i]);
                reclaim_deposit_of(number, actors[i]);
                release_stake_of(number, actors[i]);
            }
        }
        for (uint256 i = 0; i < ACTORS; i++) {
            claim_of(actors[i], address(0));
            claim_of(actors[i], address(token));
            uint256 free = stakes.holding_of(actors[i]).free_wei;
            if (free == 0) continue;
            vm.prank(actors[i]);
            stakes.request_unbond(free);
        }
        vm.roll(block.number + 2000);
        for (uint256 number = 1; number < auctions.length; number++) sweep_shares_of(number);
        for (uint256 i = 0; i < ACTORS; i++) withdraw_stake_of(actors[i]);
    }

    // --- what the contracts must hold ------------------------------------------------------------

    function held_by_market(address currency) external view returns (uint256 sum) {
        for (uint256 number = 1; number < auctions.length; number++) {
            if (auctions[number].currency != currency) continue;
            sum += market.escrow_of(number);
            for (uint256 i = 0; i < ACTORS; i++) sum += bids[number][actors[i]].bond;
        }
    }

    function held_by_deposits(address currency) external view returns (uint256 sum) {
        for (uint256 number = 1; number < auctions.length; number++) {
            if (auctions[number].currency == currency) sum += deposits_sum(number);
        }
    }

    function held_by_stakes() external view returns (uint256 sum) {
        for (uint256 i = 0; i < ACTORS; i++) {
            Holding memory holding = stakes.holding_of(actors[i]);
            sum += holding.free_wei + holding.unbonding_wei + holding.reward_wei;
            for (uint256 number = 1; number < auctions.length; number++) {
                sum += stakes.lock_of(number, actors[i]).remaining_wei;
            }
        }
    }

    function held_by_settlement(address currency) external view returns (uint256 sum) {
        sum = claimable_sum(currency);
        for (uint256 number = 1; number < auctions.length; number++) {
            if (auctions[number].currency == currency) sum += auctions[number].shares_left;
        }
    }
}
