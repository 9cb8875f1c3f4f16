// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Actors} from "./Actors.sol";
import {JobRecord, JobTerms} from "./Interfaces.sol";
import {vm} from "./Vm.sol";

/// @notice Auctions of all modes, in ether and in the token.
abstract contract Bidders is Actors {
    function open_sealed(uint256 seed, uint256 amount, bool is_second_price) external {
        seed = mix(seed);
        if (unfinished() >= MOST_UNFINISHED) return;
        (address actor, address currency) = (pick_actor(seed), pick_currency(seed));
        amount = 10_000 + amount % 1e9;
        uint256 number = auctions.length;
        uint256 reserve = seed % 20_000;
        bytes32 commitment = commit(number, actor, amount);
        uint256 bond = amount + seed % 1000;
        uint256 mode = is_second_price ? 1 : 0;
        pay_in(currency, bond);
        uint256 value = currency == address(0) ? bond : 0;
        vm.prank(actor);
        market.open_auction{value: value}(
            number, tags(), mode, currency, 0, reserve, 10, 10, commitment, bond, no_permit()
        );
        Auction storage auction = auctions.push();
        auction.mode = mode;
        auction.currency = currency;
        auction.reserve = reserve;
        auction.reveal_start = block.number + 11;
        bids[number][actor] = Bid(amount, bond, false);
        taken["open_sealed"]++;
    }

    function commit_bid(uint256 seed, uint256 amount) external {
        seed = mix(seed);
        uint256 number = pick_bidding(seed, false);
        address actor = pick_actor(seed);
        if (number == 0 || bids[number][actor].bond > 0) return;
        amount = 10_000 + amount % 1e9;
        uint256 bond = amount + seed % 1000;
        address currency = auctions[number].currency;
        pay_in(currency, bond);
        uint256 value = currency == address(0) ? bond : 0;
        bytes32 commitment = commit(number, actor, amount);
        vm.prank(actor);
        market.commit_bid{value: value}(number, commitment, bond, no_permit());
        bids[number][actor] = Bid(amount, bond, false);
        taken["commit_bid"]++;
    }

    /// @dev Some bidders never reveal: this picks by chance.
    function reveal_bids(uint256 seed) external {
        seed = mix(seed);
        uint256 number = pick(seed, 1);
        if (number == 0 || auctions[number].mode == 2) return;
        Auction storage auction = auctions[number];
        if (block.number < auction.reveal_start) vm.roll(auction.reveal_start);
        for (uint256 i = 0; i < ACTORS; i++) {
            Bid storage bid = bids[number][actors[i]];
            bool is_shy = (seed >> (i + 8)) & 3 == 0;
            if (bid.bond == 0 || bid.is_revealed || is_shy || bid.amount < auction.reserve) {
                continue;
            }
            vm.prank(actors[i]);
            try market.reveal_bid(number, bid.amount, terms(bid.amount), BODY_HASH, salt(number)) {
                bid.is_revealed = true;
                note_best(auction, bid.amount);
                taken["reveal_bid"]++;
            } catch {}
        }
    }

    function open_clear(uint256 seed, uint256 amount) external {
        seed = mix(seed);
        if (unfinished() >= MOST_UNFINISHED) return;
        (address actor, address currency) = (pick_actor(seed), pick_currency(seed));
        amount = 10_000 + amount % 1e9;
        uint256 number = auctions.length;
        pay_in(currency, amount);
        uint256 value = currency == address(0) ? amount : 0;
        JobTerms memory wanted = terms(amount);
        vm.prank(actor);
        market.open_clear_auction{value: value}(
            number, tags(), currency, 0, 20, amount, wanted, BODY_HASH, no_permit()
        );
        Auction storage auction = auctions.push();
        auction.mode = 2;
        auction.currency = currency;
        auction.best = amount;
        bids[number][actor] = Bid(amount, amount, true);
        taken["open_clear"]++;
    }

    function outbid(uint256 seed, uint256 raise) external {
        seed = mix(seed);
        uint256 number = pick_bidding(seed, true);
        if (number == 0) return;
        address actor = pick_actor(seed);
        Auction storage auction = auctions[number];
        uint256 amount = auction.best + (auction.best + 19) / 20 + raise % 1e6;
        uint256 missing = amount - bids[number][actor].bond;
        uint256 value = auction.currency == address(0) ? missing : 0;
        JobTerms memory wanted = terms(amount);
        vm.prank(actor);
        try market.bid{value: value}(number, amount, wanted, BODY_HASH, no_permit()) {
            paid_in[auction.currency] += missing;
            auction.best = amount;
            bids[number][actor] = Bid(amount, amount, true);
            taken["outbid"]++;
        } catch {}
    }

    function close_auction(uint256 seed) external {
        seed = mix(seed);
        uint256 number = pick(seed, 1);
        if (number != 0) close_auction_of(number);
    }

    function close_auction_of(uint256 number) internal {
        Auction storage auction = auctions[number];
        // Longer than the windows of any auction with all its extensions.
        if (auction.mode == 2 || block.number < auction.reveal_start + 10) {
            vm.roll(block.number + 130);
        }
        market.close_auction(number);
        JobRecord memory job = market.job_of(number);
        if (auction.best == 0) {
            check(job.status == CANCELLED, "an auction without a bid goes on");
            taken["auction_cancelled"]++;
            return;
        }
        uint256 price = auction.best;
        if (auction.mode == 1) {
            price = auction.second > auction.reserve ? auction.second : auction.reserve;
        }
        check(job.price_wei == price, "not the price of the mode");
        check(bids[number][job.buyer].amount == auction.best, "not the best bidder wins");
        bids[number][job.buyer].bond -= price;
        auction.deposit = deposit_of_terms(auction.best, price);
        taken["close_auction"]++;
    }

    function reclaim_bid(uint256 seed) external {
        seed = mix(seed);
        uint256 number = pick_any(seed);
        if (number == 0) return;
        reclaim_bid_of(number, pick_actor(seed));
    }

    function reclaim_bid_of(uint256 number, address actor) internal {
        Bid storage bid = bids[number][actor];
        (address currency, uint256 bond) = (auctions[number].currency, bid.bond);
        uint256 forfeit = bid.is_revealed ? 0 : bond * 1000 / 10_000;
        bytes memory call = abi.encodeCall(market.reclaim_bid, (number));
        if (collect(address(market), actor, currency, call, bond - forfeit, forfeit)) {
            bid.bond = 0;
            taken["reclaim_bid"]++;
        }
    }
}
