// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @notice The test runner's own calls that are used here.
interface Vm {
    function roll(uint256 number) external;
    function prank(address sender) external;
    function deal(address account, uint256 balance) external;
    function readFile(string calldata path) external view returns (string memory);
    function parseJsonBytes(string calldata json, string calldata key)
        external
        pure
        returns (bytes memory);
    function computeCreateAddress(address deployer, uint256 nonce) external pure returns (address);
    function getNonce(address account) external view returns (uint64);
    function setBlockhash(uint256 number, bytes32 hash) external;
    function addr(uint256 key) external pure returns (address);
    function sign(uint256 key, bytes32 digest)
        external
        pure
        returns (uint8 v, bytes32 r, bytes32 s);
}

Vm constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

/// @notice Which calls of a handler the runner draws from.
struct FuzzSelector {
    address addr;
    bytes4[] selectors;
}
