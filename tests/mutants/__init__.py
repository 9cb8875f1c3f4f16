"""Planted bugs in the rules: the tests of the tests."""
