"""A whole market on one machine: chain, contracts, node processes, one job."""
