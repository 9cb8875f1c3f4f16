"""Runs experiments; see `scripts/experiments --help`."""

from d2m_node.simulation.experiments.command import experiments

if __name__ == "__main__":
    experiments()
