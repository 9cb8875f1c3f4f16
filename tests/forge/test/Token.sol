// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @notice A token that returns nothing, as some old ones do. Whoever asks is given some.
contract Token {
    mapping(address => uint256) public balanceOf;

    function mint(address account, uint256 amount) external {
        balanceOf[account] += amount;
    }

    function transfer(address payee, uint256 amount) external {
        balanceOf[msg.sender] -= amount;
        balanceOf[payee] += amount;
    }

    /// @dev Everybody allows everybody: the walks are about what the contracts do with it.
    function transferFrom(address payer, address payee, uint256 amount) external {
        balanceOf[payer] -= amount;
        balanceOf[payee] += amount;
    }
}
