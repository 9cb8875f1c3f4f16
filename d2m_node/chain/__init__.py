"""The chain: the only user of web3. `adapter.open_chain` is the way in."""
