"""The simulated chain: the real contracts in an EVM of this process."""
