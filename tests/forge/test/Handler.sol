// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Deployment} from "./Deployment.sol";
import {FakeRounds} from "./FakeRounds.sol";
import {
    ConeApplication,
    Course,
    CreditLeaf,
    Holding,
    IDataRegistry,
    IEnrolment,
    IMarket,
    ISellerDeposits,
    ISettlement,
    IStakePool,
    JobRecord,
    JobTerms,
    Permit,
    TrainingResult
} from "./Interfaces.sol";
import {Token} from "./Token.sol";
import {vm} from "./Vm.sol";

/// @notice What actors do with the market, and what that must do to their money. Each call looks for
///         an auction or a job that it fits, so that a random walk carries jobs to their end. What
///         does not come out as computed here is noted in `violation`.
contract Handler {
    uint256 constant ACTORS = 12;
    /// @dev So that a walk comes to the end of its auctions instead of opening new ones.
    uint256 constant MOST_UNFINISHED = 4;
    address constant BURN_ACCOUNT = 0x000000000000000000000000000000000000dEaD;
    bytes32 constant BODY_HASH = keccak256("body");
    uint256 constant FORTUNE = 1e36;

    uint256 constant CANCELLED = 2;
    uint256 constant ENROLMENT = 3;
    uint256 constant RUNNING = 4;
    uint256 constant SETTLED = 5;

    struct Auction {
        uint256 mode;
        address currency;
        uint256 reserve;
        uint256 reveal_start;
        uint256 deposit;
        address[] sellers;
        address[] cones;
        uint256 best;
        uint256 second;
        bool is_done; // no money of it is left but for what payees can claim
        uint256[] participation;
        CreditLeaf[] leaves;
        bool is_shared; // payees claim their shares one by one
        uint256 shares_left;
    }

    struct Bid {
        uint256 amount;
        uint256 bond;
        bool is_revealed;
    }

    Deployment internal immutable deployed;
    Token internal immutable token;
    IMarket internal immutable market;
    IStakePool internal immutable stakes;
    ISellerDeposits internal immutable deposits;
    IEnrolment internal immutable enrolment;
    ISettlement internal immutable settlement;
    FakeRounds internal immutable rounds;

    address[] public actors;
    uint256[] internal datasets;
    Auction[] internal auctions;
    mapping(uint256 => mapping(address => Bid)) internal bids;
    mapping(uint256 => mapping(address => uint256)) internal ending_wei;
    mapping(address => mapping(address => uint256)) public owed;

    /// @notice What went into the contracts and came out of them, by currency, as computed here.
    mapping(address => uint256) public paid_in;
    mapping(address => uint256) public paid_out;
    mapping(address => uint256) public burned;
    string public violation;
    uint256 internal steps;
    /// @notice How often each kind of step was taken.
    mapping(string => uint256) public taken;

    constructor(Deployment deployed_) {
        deployed = deployed_;
        token = deployed_.token();
        market = deployed_.market();
        stakes = deployed_.stakes();
        deposits = deployed_.deposits();
        enrolment = deployed_.enrolment();
        settlement = deployed_.settlement();
        rounds = deployed_.rounds();
        vm.roll(1000);
        IDataRegistry data = deployed_.data();
        for (uint256 i = 0; i < ACTORS; i++) {
            address actor = vm.addr(i + 1);
            actors.push(actor);
            vm.deal(actor, FORTUNE);
            token.mint(actor, FORTUNE);
            vm.prank(actor);
            datasets.push(data.register_dataset(tags(), BODY_HASH, 0, 0));
            vm.prank(actor);
            stakes.deposit{value: 1_000_000}();
            paid_in[address(0)] += 1_000_000;
        }
        vm.roll(1001);
        auctions.push(); // they are numbered from 1
    }

    // --- bids ----------------------------------------------------------------------------------

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

    // --- enrolment -----------------------------------------------------------------------------

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

    // --- stake ---------------------------------------------------------------------------------

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

    // --- settlement ----------------------------------------------------------------------------

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

    // --- time and strangers --------------------------------------------------------------------

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

    // --- helpers -------------------------------------------------------------------------------

    /// @dev Let an account collect what it is owed, and try to collect it again.
    function collect(
        address target,
        address actor,
        address currency,
        bytes memory call,
        uint256 amount,
        uint256 forfeit
    ) internal returns (bool is_paid) {
        uint256 before = balance(actor, currency);
        uint256 burnt_before = burnt(currency);
        vm.prank(actor);
        (is_paid,) = target.call(call);
        if (!is_paid) return false;
        paid_out[currency] += amount;
        burn(currency, forfeit);
        check(balance(actor, currency) == before + amount, "not what is owed is paid");
        check(burnt(currency) == burnt_before + forfeit, "not what is forfeited is burned");
        vm.prank(actor);
        (bool is_again,) = target.call(call);
        check(!is_again, "something is paid twice");
    }

    function pay_in(address currency, uint256 amount) internal {
        paid_in[currency] += amount;
    }

    function burn(address currency, uint256 amount) internal {
        paid_out[currency] += amount;
        burned[currency] += amount;
    }

    /// @dev The runner likes small and special numbers, of which most bits are zero.
    function mix(uint256 seed) internal returns (uint256) {
        return uint256(keccak256(abi.encode(seed, steps++)));
    }

    function check(bool is_right, string memory what) internal {
        if (!is_right) note(what);
    }

    function note(string memory what) internal {
        if (bytes(violation).length == 0) violation = what;
    }

    function note_best(Auction storage auction, uint256 amount) internal {
        if (amount > auction.best) {
            auction.second = auction.best;
            auction.best = amount;
        } else if (amount > auction.second) {
            auction.second = amount;
        }
    }

    function balance(address account, address currency) public view returns (uint256) {
        return currency == address(0) ? account.balance : token.balanceOf(account);
    }

    function burnt(address currency) internal view returns (uint256) {
        return balance(BURN_ACCOUNT, currency);
    }

    function claimable_sum(address currency) internal view returns (uint256 sum) {
        for (uint256 i = 0; i < ACTORS; i++) sum += settlement.claimable(currency, actors[i]);
    }

    function deposits_sum(uint256 number) internal view returns (uint256 sum) {
        for (uint256 i = 0; i < ACTORS; i++) sum += deposits.deposit_of(number, actors[i]);
    }

    function unfinished() internal view returns (uint256 count) {
        for (uint256 number = 1; number < auctions.length; number++) {
            uint256 status = market.job_of(number).status;
            if (status != CANCELLED && status != SETTLED) count++;
        }
        // Old auctions are looked at again and again: a walk has a bounded number of them.
        if (auctions.length > 9) count = MOST_UNFINISHED;
    }

    function pick(uint256 seed, uint256 status) internal view returns (uint256) {
        uint256 count = auctions.length - 1;
        for (uint256 i = 0; i < count; i++) {
            uint256 number = 1 + addmod(seed, i, count);
            if (market.job_of(number).status == status) return number;
        }
        return 0;
    }

    function pick_bidding(uint256 seed, bool is_open) internal view returns (uint256) {
        uint256 number = pick(seed, 1);
        if (number == 0 || (auctions[number].mode == 2) != is_open) return 0;
        return is_open || block.number < auctions[number].reveal_start ? number : 0;
    }

    function pick_any(uint256 seed) internal view returns (uint256) {
        return auctions.length == 1 ? 0 : 1 + seed % (auctions.length - 1);
    }

    function pick_actor(uint256 seed) internal view returns (address) {
        return actors[(seed >> 4) % ACTORS];
    }

    function pick_currency(uint256 seed) internal view returns (address) {
        return (seed >> 3) & 1 == 0 ? address(0) : address(token);
    }

    function tags() internal pure returns (bytes32[] memory list) {
        list = new bytes32[](1);
        list[0] = keccak256("digits");
    }

    function no_permit() internal pure returns (Permit[] memory) {
        return new Permit[](0);
    }

    function salt(uint256 number) internal pure returns (bytes32) {
        return keccak256(abi.encode(number));
    }

    function commit(uint256 number, address actor, uint256 amount) internal view returns (bytes32) {
        bytes32 request = keccak256(abi.encode(terms(amount), BODY_HASH));
        return keccak256(
            abi.encodePacked(
                "D2M/v1/bid",
                bytes1(0),
                abi.encode(block.chainid, market, number, actor, amount, request, salt(number))
            )
        );
    }

    /// @dev The deposit lies between what the floor could pay one of three sellers and an equal share.
    function terms(uint256 amount) internal pure returns (JobTerms memory) {
        return JobTerms({
            rounds_max: 6,
            target: 900_000,
            metric: 0,
            sellers_per_round: 3,
            lead: 1,
            first_set_size: 2,
            growth_numerator: 3,
            growth_denominator: 2,
            sellers_min: 3,
            sellers_max: 12,
            cones_min: 2,
            cones_max: 12,
            stake_wei: 1000 + amount % 5000,
            seller_deposit_wei: (amount - amount * 3000 / 10_000 + 2) / 3,
            enrolment_blocks: 6,
            validation_blocks: 7,
            update_commit_blocks: 4,
            update_open_blocks: 2,
            availability_blocks: 3,
            vote_commit_blocks: 3,
            vote_open_blocks: 3,
            decision_blocks: 1,
            appeal_blocks: 2,
            header_blocks: 20
        });
    }

    function deposit_of_terms(uint256 amount, uint256 price) internal pure returns (uint256) {
        uint256 wanted = terms(amount).seller_deposit_wei;
        uint256 most = terms(price).seller_deposit_wei;
        if (most == 0) most = 1;
        return wanted < most ? wanted : most;
    }

    function nodes(CreditLeaf[] storage leaves) internal view returns (bytes32[] memory level) {
        level = new bytes32[](leaves.length);
        for (uint256 i = 0; i < level.length; i++) {
            level[i] = keccak256(
                abi.encodePacked(
                    "D2M/v1/credit", bytes1(0), abi.encode(i, leaves[i].payee, leaves[i].v)
                )
            );
        }
    }

    function up(bytes32[] memory level) internal pure returns (bytes32[] memory parents) {
        parents = new bytes32[]((level.length + 1) / 2);
        for (uint256 i = 0; i < parents.length; i++) {
            parents[i] = 2 * i + 1 < level.length
                ? keccak256(abi.encode(level[2 * i], level[2 * i + 1]))
                : level[2 * i];
        }
    }

    function root(bytes32[] memory level) internal pure returns (bytes32) {
        while (level.length > 1) level = up(level);
        return level[0];
    }

    /// @dev A node without a neighbour moves up as it is, and has no place in the proof.
    function proof(CreditLeaf[] storage leaves, uint256 index)
        internal
        view
        returns (bytes32[] memory list)
    {
        bytes32[] memory level = nodes(leaves);
        list = new bytes32[](8);
        uint256 length = 0;
        while (level.length > 1) {
            if (index ^ 1 < level.length) list[length++] = level[index ^ 1];
            level = up(level);
            index /= 2;
        }
        assembly {
            mstore(list, length)
        }
    }
}
