"""Rounds without chain, network and votes: the market's rules beside others."""
