"""Planted bugs of the contracts, each with a test that notices it."""
