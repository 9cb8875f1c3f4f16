// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Actors} from "./Actors.sol";
import {ConeApplication, Holding, JobRecord, JobTerms} from "./Interfaces.sol";
import {vm} from "./Vm.sol";

/// @notice Sellers and CONE nodes with their deposits and stake.
abstract contract Members is Actors {
    function enrol(uint256 seed) external {
        seed = mix(seed);
        uint256 number = pick(seed, ENROLMENT);
        if (number == 0) return;
        JobTerms memory agreed = terms(auctions[number].best);
        // Some jobs find too few.
        uint256 count = seed % 5 == 0 ? 2 : ACTORS;
        for (uint256 i = 0; i < count; i++) {
            if ((seed >> (i + 8)) & 7 != 0) enrol_seller(number, i, agreed);
            if ((seed >> (i + 32)) & 7 != 0) enrol_cone(number, actors[i], agreed);
        }
    }

    function enrol_seller(uint256 number, uint256 i, JobTerms memory agreed) internal {
        Auction storage auction = auctions[number];
        uint256 value = auction.currency == address(0) ? auction.deposit : 0;
        vm.prank(actors[i]);
        try enrolment.enrol_seller{value: value}(number, agreed, datasets[i], no_permit()) {
            paid_in[auction.currency] += auction.deposit;
            auction.sellers.push(actors[i]);
            taken["enrol_seller"]++;
        } catch {}
    }

    function enrol_cone(uint256 number, address actor, JobTerms memory agreed) internal {
        vm.prank(actor);
        try enrolment.enrol_cone(number, agreed, keccak256(abi.encode(actor))) {
            auctions[number].cones.push(actor);
            taken["enrol_cone"]++;
        } catch {}
    }

    function close_enrolment(uint256 seed) external {
        seed = mix(seed);
        uint256 number = pick(seed, ENROLMENT);
        if (number != 0) close_enrolment_of(number);
    }

    function close_enrolment_of(uint256 number) internal {
        Auction storage auction = auctions[number];
        if (block.number <= market.job_of(number).enrolment_end) {
            vm.roll(market.job_of(number).enrolment_end + 1);
        }
        ConeApplication[] memory cones = new ConeApplication[](auction.cones.length);
        for (uint256 i = 0; i < cones.length; i++) {
            cones[i] = ConeApplication(auction.cones[i], keccak256(abi.encode(auction.cones[i])));
        }
        enrolment.close_enrolment(number, terms(auction.best), auction.sellers, cones, "");
        bool is_enough = auction.sellers.length >= 3 && cones.length >= 2;
        uint256 status = market.job_of(number).status;
        check(status == (is_enough ? RUNNING : CANCELLED), "minimums are not heeded");
        taken[is_enough ? "start_job" : "cancel_job"]++;
    }

    function reclaim_escrow(uint256 seed) external {
        seed = mix(seed);
        uint256 number = pick(seed, CANCELLED);
        if (number == 0) return;
        reclaim_escrow_of(number);
    }

    function reclaim_escrow_of(uint256 number) internal {
        JobRecord memory job = market.job_of(number);
        if (job.buyer == address(0)) return;
        uint256 amount = market.escrow_of(number);
        check(amount == 0 || amount == job.price_wei, "an escrow is not the price");
        bytes memory call = abi.encodeCall(market.reclaim_escrow, (number));
        if (collect(address(market), job.buyer, job.currency, call, amount, 0)) {
            taken["reclaim_escrow"]++;
        }
    }

    function reclaim_deposit(uint256 seed) external {
        seed = mix(seed);
        uint256 number = pick_any(seed);
        if (number == 0) return;
        reclaim_deposit_of(number, pick_actor(seed));
    }

    function reclaim_deposit_of(uint256 number, address actor) internal {
        uint256 amount = deposits.deposit_of(number, actor);
        check(amount == 0 || amount == auctions[number].deposit, "not the deposit of the terms");
        bytes memory call = abi.encodeCall(deposits.reclaim, (number));
        if (collect(address(deposits), actor, auctions[number].currency, call, amount, 0)) {
            taken["reclaim_deposit"]++;
        }
    }

    function deposit_stake(uint256 seed, uint256 amount) external {
        seed = mix(seed);
        amount = 1 + amount % 1e6;
        paid_in[address(0)] += amount;
        vm.prank(pick_actor(seed));
        stakes.deposit{value: amount}();
    }

    function request_unbond(uint256 seed, uint256 amount) external {
        seed = mix(seed);
        address actor = pick_actor(seed);
        uint256 free = stakes.holding_of(actor).free_wei;
        if (free == 0) return;
        vm.prank(actor);
        stakes.request_unbond(1 + amount % free);
        taken["request_unbond"]++;
    }

    function withdraw_stake(uint256 seed) external {
        seed = mix(seed);
        withdraw_stake_of(pick_actor(seed));
    }

    function withdraw_stake_of(address actor) internal {
        Holding memory holding = stakes.holding_of(actor);
        uint256 amount = holding.reward_wei;
        if (block.number > holding.release_block) amount += holding.unbonding_wei;
        bytes memory call = abi.encodeCall(stakes.withdraw, ());
        if (collect(address(stakes), actor, address(0), call, amount, 0)) {
            taken["withdraw_stake"]++;
        }
    }

    /// @dev Accepted voters share half of what the others lose, whatever the rounds decide.
    function slash(uint256 seed, bool is_wrong) external {
        seed = mix(seed);
        uint256 number = pick(seed, RUNNING);
        if (number == 0) return;
        address[] storage cones = auctions[number].cones;
        uint256 slashed = 1 + seed % (cones.length - 1);
        address[] memory losers = new address[](slashed);
        address[] memory winners = new address[](seed % 3 == 0 ? 0 : cones.length - slashed);
        uint256 lost = 0;
        uint256 before = burnt(address(0));
        for (uint256 i = 0; i < slashed; i++) {
            losers[i] = cones[i];
            uint256 left = stakes.lock_of(number, cones[i]).remaining_wei;
            uint256 share = stakes.lock_of(number, cones[i]).original_wei / 2;
            lost += left < share ? left : share;
        }
        for (uint256 i = 0; i < winners.length; i++) {
            winners[i] = cones[slashed + i];
        }
        rounds.slash(stakes, number, losers, is_wrong ? 1 : 2, winners);
        uint256 each = winners.length == 0 ? 0 : lost / 2 / winners.length;
        burn(address(0), lost - each * winners.length);
        check(
            burnt(address(0)) == before + lost - each * winners.length,
            "a slash does not burn its half"
        );
        taken["slash"]++;
    }

    function release_stake(uint256 seed) external {
        seed = mix(seed);
        uint256 number = pick_any(seed);
        if (number == 0) return;
        release_stake_of(number, pick_actor(seed));
    }

    function release_stake_of(uint256 number, address actor) internal {
        uint256 locked = stakes.lock_of(number, actor).remaining_wei;
        uint256 free = stakes.holding_of(actor).free_wei;
        try stakes.release(number, actor) {
            uint256 status = market.job_of(number).status;
            check(status == CANCELLED || status == SETTLED, "stake of a running job is free");
            check(stakes.holding_of(actor).free_wei == free + locked, "not all stake is released");
            try stakes.release(number, actor) {
                note("stake is released twice");
            } catch {}
            taken["release_stake"]++;
        } catch {}
    }
}
