"""The simulated network: what is said and served arrives in virtual time, or does not."""
