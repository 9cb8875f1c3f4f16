// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Course, IStakePool, TrainingResult} from "./Interfaces.sol";

/// @notice Stands where the rounds are: says how a training ended, and slashes whom it is told to.
contract FakeRounds {
    struct Pool {
        address roster;
        uint256 cones;
    }

    mapping(uint256 => Pool) internal pools;
    mapping(uint256 => TrainingResult) internal results;

    function open_job(uint256 job, bytes32, uint256, address roster, uint256 cones) external {
        pools[job] = Pool(roster, cones);
    }

    function end(uint256 job, TrainingResult memory result) external {
        results[job] = result;
    }

    function slash(
        IStakePool stakes,
        uint256 job,
        address[] memory accounts,
        uint256 reason,
        address[] memory beneficiaries
    ) external {
        stakes.slash(job, accounts, reason, beneficiaries);
    }

    function close_job(uint256 job, Course calldata) external view returns (TrainingResult memory) {
        return results[job];
    }

    function training_result(uint256 job, Course calldata)
        external
        view
        returns (TrainingResult memory)
    {
        return results[job];
    }

    function execute_slashes(uint256, Course calldata) external {}

    function pool_of(uint256 job) external view returns (address, uint256, uint256) {
        return (pools[job].roster, pools[job].cones, 0);
    }
}
