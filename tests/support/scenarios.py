"""Scenarios of a small market, that run in a second."""

from typing import Any

from d2m_node.simulation.scenario.file import parse_scenario
from d2m_node.simulation.scenario.plan import Scenario


def small_table(**tables: Any) -> dict[str, Any]:
    """Return the table of a scenario with four sellers and five CONE nodes; whole tables differ."""
    return {
        "seed": 1,
        "sizes": {"sellers": 4, "cones": 5},
        "data": {"validation_samples": 300, "test_samples": 100, "samples_per_seller": 100},
        "request": {
            "model": {"preset": "logreg", "input_shape": [1, 8, 8], "outputs": 10},
            "training": {"learning_rate": 0.01, "batch_size": 16, "epochs": 1},
            "validation": {"final_count": 100, "subset_count": 100},
            "terms": {
                "target": 0.99,
                "rounds_max": 2,
                "sellers_per_round": 3,
                "lead": 3,
                "first_set_size": 4,
                "growth_numerator": 3,
                "growth_denominator": 2,
            },
        },
        **tables,
    }


def small_scenario(**tables: Any) -> Scenario:
    """Return such a scenario, checked."""
    return parse_scenario(small_table(**tables))
