"""What several tests share: simulation, fakes, factories, the devnet harness."""
