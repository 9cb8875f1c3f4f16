// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Deployment} from "./Deployment.sol";
import {Handler} from "./Handler.sol";
import {vm} from "./Vm.sol";

/// @notice A walk that is not left to chance: it takes every kind of step, so that none of them only
///         ever reverts.
contract WalkTest {
    mapping(string => uint256) internal taken;

    function test_every_kind_of_step_can_be_taken() public {
        for (uint256 i = 0; i < 8; i++) walk(i);
        string[23] memory kinds = all_kinds();
        for (uint256 i = 0; i < kinds.length; i++) {
            require(taken[kinds[i]] > 0, string.concat("never taken: ", kinds[i]));
        }
    }

    function walk(uint256 start) internal {
        Deployment deployed = new Deployment();
        Handler handler = new Handler(deployed);
        vm.deal(address(handler), 1e40);
        for (uint256 i = 0; i < 600; i++) {
            step(handler, i, uint256(keccak256(abi.encode(start, i))));
        }
        handler.drain();
        string memory violation = handler.violation();
        require(bytes(violation).length == 0, violation);
        string[23] memory kinds = all_kinds();
        for (uint256 i = 0; i < kinds.length; i++) taken[kinds[i]] += handler.taken(kinds[i]);
    }

    function all_kinds() internal pure returns (string[23] memory) {
        return [
            "open_sealed",
            "open_clear",
            "commit_bid",
            "reveal_bid",
            "outbid",
            "close_auction",
            "auction_cancelled",
            "reclaim_bid",
            "enrol_seller",
            "enrol_cone",
            "start_job",
            "cancel_job",
            "reclaim_escrow",
            "reclaim_deposit",
            "request_unbond",
            "withdraw_stake",
            "slash",
            "release_stake",
            "settle_credited",
            "settle_shared",
            "claim",
            "claim_share",
            "sweep_shares"
        ];
    }

    function step(Handler handler, uint256 i, uint256 seed) internal {
        uint256 kind = i % 24;
        if (kind == 0) handler.open_sealed(seed, seed >> 8, seed % 2 == 0);
        if (kind == 1) handler.open_clear(seed, seed >> 8);
        if (kind == 2) handler.commit_bid(seed, seed >> 8);
        if (kind == 3) handler.outbid(seed, seed >> 8);
        if (kind == 4) handler.reveal_bids(seed);
        if (kind == 5) handler.close_auction(seed);
        if (kind == 6) handler.reclaim_bid(seed);
        if (kind == 7) handler.enrol(seed);
        if (kind == 8) handler.close_enrolment(seed);
        if (kind == 9) handler.slash(seed, seed % 3 == 0);
        if (kind == 10) handler.settle(seed, seed >> 8, seed >> 16);
        if (kind == 11) handler.claim(seed);
        if (kind == 12) handler.claim_shares(seed);
        if (kind == 13) handler.reclaim_deposit(seed);
        if (kind == 14) handler.release_stake(seed);
        if (kind == 15) handler.request_unbond(seed, seed >> 8);
        if (kind == 16) handler.withdraw_stake(seed);
        if (kind == 17) handler.reclaim_escrow(seed);
        if (kind == 18) handler.sweep(seed);
        if (kind == 19) handler.sweep_shares(seed);
        if (kind == 20) handler.pass_time(seed);
        if (kind == 21) handler.pass_years(seed);
        if (kind == 22) handler.intrude(seed, seed >> 8);
        if (kind == 23) handler.deposit_stake(seed, seed >> 8);
    }
}
