"""What simulated nodes compute, and on which data."""
