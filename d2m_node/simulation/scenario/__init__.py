"""The scenario file, from its tables to a `Scenario` that is checked."""
