"""Shared vectors, and what reads them."""

import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

from tests.contracts import vectors

VECTORS = Path(__file__).parents[1] / "vectors"
CASES = json.loads(vectors.PATH.read_text())
MECHANISM = json.loads((VECTORS / "mechanism.json").read_text())
MARKET: str = CASES["market"]

pure_calls = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
"""One chain serves all examples: the rules are pure."""


def load_vector(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))
