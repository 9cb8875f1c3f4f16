// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Deployment} from "./Deployment.sol";
import {FakeRounds} from "./FakeRounds.sol";
import {
    CreditLeaf,
    IDataRegistry,
    IEnrolment,
    IMarket,
    ISellerDeposits,
    ISettlement,
    IStakePool,
    JobTerms,
    Permit
} from "./Interfaces.sol";
import {Token} from "./Token.sol";
import {vm} from "./Vm.sol";

/// @notice Accounts with money, what they did, and what is computed of it here once more.
abstract contract Actors {
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
