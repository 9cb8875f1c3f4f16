"""A simulation that runs: the clock, the cast, the faults, all nodes."""
