// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Deployment} from "./Deployment.sol";
import {Handler} from "./Handler.sol";
import {FuzzSelector, vm} from "./Vm.sol";

/// @notice What holds for the money in the contracts, whatever anybody does (MECHANISM 14 and 18).
contract MoneyTest {
    Deployment internal deployed;
    Handler internal handler;

    function setUp() public {
        deployed = new Deployment();
        handler = new Handler(deployed);
        vm.deal(address(handler), 1e40);
    }

    function targetContracts() public view returns (address[] memory list) {
        list = new address[](1);
        list[0] = address(handler);
    }

    function targetSelectors() public view returns (FuzzSelector[] memory list) {
        bytes4[] memory selectors = new bytes4[](24);
        selectors[0] = handler.open_sealed.selector;
        selectors[1] = handler.open_clear.selector;
        selectors[2] = handler.commit_bid.selector;
        selectors[3] = handler.reveal_bids.selector;
        selectors[4] = handler.outbid.selector;
        selectors[5] = handler.close_auction.selector;
        selectors[6] = handler.reclaim_bid.selector;
        selectors[7] = handler.enrol.selector;
        selectors[8] = handler.close_enrolment.selector;
        selectors[9] = handler.reclaim_escrow.selector;
        selectors[10] = handler.reclaim_deposit.selector;
        selectors[11] = handler.deposit_stake.selector;
        selectors[12] = handler.request_unbond.selector;
        selectors[13] = handler.withdraw_stake.selector;
        selectors[14] = handler.slash.selector;
        selectors[15] = handler.release_stake.selector;
        selectors[16] = handler.settle.selector;
        selectors[17] = handler.claim.selector;
        selectors[18] = handler.claim_shares.selector;
        selectors[19] = handler.sweep.selector;
        selectors[20] = handler.sweep_shares.selector;
        selectors[21] = handler.pass_time.selector;
        selectors[22] = handler.pass_years.selector;
        selectors[23] = handler.intrude.selector;
        list = new FuzzSelector[](1);
        list[0] = FuzzSelector(address(handler), selectors);
    }

    /// @notice After each step: nothing came out otherwise than computed, and the contracts together
    ///         hold what was paid in and not paid out.
    function invariant_money_is_kept() public view {
        string memory violation = handler.violation();
        require(bytes(violation).length == 0, violation);
        check_sum(address(0));
        check_sum(address(deployed.token()));
    }

    /// @notice After each walk: each contract holds the sum of what it owes, and once time has
    ///         passed everybody can take what is its own, until nothing is left.
    function afterInvariant() public {
        check_buckets(address(0));
        check_buckets(address(deployed.token()));
        handler.drain();
        string memory violation = handler.violation();
        require(bytes(violation).length == 0, violation);
        check_empty(address(0));
        check_empty(address(deployed.token()));
    }

    function check_sum(address currency) internal view {
        uint256 sum = held(address(deployed.market()), currency)
            + held(address(deployed.stakes()), currency)
            + held(address(deployed.deposits()), currency)
            + held(address(deployed.settlement()), currency);
        uint256 left = handler.paid_in(currency) - handler.paid_out(currency);
        require(sum == left, "the contracts do not hold what was paid in and not paid out");
    }

    function check_buckets(address currency) internal view {
        require(
            held(address(deployed.market()), currency) == handler.held_by_market(currency),
            "the market does not hold bids and escrows"
        );
        require(
            held(address(deployed.deposits()), currency) == handler.held_by_deposits(currency),
            "the deposits are not there"
        );
        require(
            held(address(deployed.settlement()), currency) == handler.held_by_settlement(currency),
            "the settlement does not hold what can be claimed"
        );
        uint256 stakes = currency == address(0) ? handler.held_by_stakes() : 0;
        require(held(address(deployed.stakes()), currency) == stakes, "the stakes are not there");
    }

    function check_empty(address currency) internal view {
        require(held(address(deployed.market()), currency) == 0, "money is stranded in the market");
        require(held(address(deployed.stakes()), currency) == 0, "stake is stranded");
        require(held(address(deployed.deposits()), currency) == 0, "deposits are stranded");
        require(held(address(deployed.settlement()), currency) == 0, "payouts are stranded");
    }

    function held(address account, address currency) internal view returns (uint256) {
        return handler.balance(account, currency);
    }
}
