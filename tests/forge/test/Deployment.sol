// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {FakeRounds} from "./FakeRounds.sol";
import {
    Contracts,
    IDataRegistry,
    IEnrolment,
    IMarket,
    ISellerDeposits,
    ISettlement,
    IStakePool,
    Params
} from "./Interfaces.sol";
import {Token} from "./Token.sol";
import {vm} from "./Vm.sol";

/// @notice The compiled contracts, put on the chain as `d2m_node/chain/deployment.py` does, but for
///         the rounds, whose place a fake takes.
contract Deployment {
    Token public immutable token;
    IDataRegistry public immutable data;
    IStakePool public immutable stakes;
    ISellerDeposits public immutable deposits;
    IMarket public immutable market;
    IEnrolment public immutable enrolment;
    ISettlement public immutable settlement;
    FakeRounds public immutable rounds;

    constructor() {
        token = new Token();
        Params memory params = parameters(address(token));
        uint256 nonce = vm.getNonce(address(this));
        Contracts memory at = predict(nonce);
        address market_ = vm.computeCreateAddress(address(this), nonce + 4);
        create("PeerRegistry", "");
        data = IDataRegistry(create("DataRegistry", ""));
        stakes = IStakePool(
            create("StakePool", abi.encode(params, market_, at.enrolment, at.rounds))
        );
        deposits = ISellerDeposits(
            create(
                "SellerDeposits", abi.encode(params, market_, at.enrolment, at.settlement)
            )
        );
        market = IMarket(create("Market", abi.encode(params, at)));
        require(address(market) == market_, "deployment: wrong address");
        enrolment = IEnrolment(
            create(
                "Enrolment",
                abi.encode(
                    params,
                    address(market),
                    at.data_registry,
                    at.stake_pool,
                    at.seller_deposits,
                    at.rounds
                )
            )
        );
        create("Statements", abi.encode(address(market), at.ballots));
        create("Ballots", abi.encode(params, address(market), at.rounds));
        rounds = new FakeRounds();
        create("Appeals", abi.encode(params, address(market), at.enrolment, at.rounds));
        settlement = ISettlement(
            create(
                "Settlement",
                abi.encode(params, address(market), at.enrolment, at.rounds, at.seller_deposits)
            )
        );
        require(address(settlement) == at.settlement, "deployment: wrong address");
    }

    function parameters(address token_) internal pure returns (Params memory) {
        return Params({
            cone_bps: 3000,
            floor_bps: 5000,
            bid_forfeit_bps: 1000,
            slash_wrong_bps: 5000,
            slash_noreveal_bps: 5000,
            min_stake_wei: 1000,
            unbonding_blocks: 50,
            max_window_blocks: 100,
            seed_delay_blocks: 1,
            retries: 1,
            finals_max: 3,
            audit_bps: 1000,
            sweep_blocks: 1000,
            refund_cap_bps: 1000,
            token: token_
        });
    }

    function predict(uint256 nonce) internal view returns (Contracts memory at) {
        at.peer_registry = vm.computeCreateAddress(address(this), nonce);
        at.data_registry = vm.computeCreateAddress(address(this), nonce + 1);
        at.stake_pool = vm.computeCreateAddress(address(this), nonce + 2);
        at.seller_deposits = vm.computeCreateAddress(address(this), nonce + 3);
        at.enrolment = vm.computeCreateAddress(address(this), nonce + 5);
        at.statements = vm.computeCreateAddress(address(this), nonce + 6);
        at.ballots = vm.computeCreateAddress(address(this), nonce + 7);
        at.rounds = vm.computeCreateAddress(address(this), nonce + 8);
        at.appeals = vm.computeCreateAddress(address(this), nonce + 9);
        at.settlement = vm.computeCreateAddress(address(this), nonce + 10);
    }

    function create(string memory name, bytes memory arguments) internal returns (address created) {
        string memory path =
            string.concat("../../d2m_node/chain/artifacts/", name, ".json");
        bytes memory code =
            bytes.concat(vm.parseJsonBytes(vm.readFile(path), ".bytecode"), arguments);
        assembly {
            created := create(0, add(code, 32), mload(code))
        }
        require(created != address(0), string.concat("deployment: no ", name));
    }
}
