"""The chain. `adapter.open_chain` is the way in."""
