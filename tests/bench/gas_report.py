"""The recorded gas report, and what counts as worse than it."""

import json
from collections.abc import Mapping
from pathlib import Path

PATH = Path(__file__).parent / "gas.json"
ALLOWED_RISE_PERCENT = 2


def read_report() -> dict[str, int]:
    """Recorded gas by key; empty if nothing was recorded."""
    return json.loads(PATH.read_text()) if PATH.exists() else {}


def write_report(measured: Mapping[str, int]) -> None:
    PATH.write_text(json.dumps(measured, indent=1, sort_keys=True) + "\n")


def compare(recorded: Mapping[str, int], measured: Mapping[str, int]) -> list[str]:
    """One line for each cost that rose too far, is new, or is gone."""
    found = [f"gas: {name} is not measured any more" for name in recorded.keys() - measured.keys()]
    for name, gas in measured.items():
        before = recorded.get(name)
        if before is None:
            found.append(f"gas: {name} is not recorded: {gas}")
        elif 100 * gas > (100 + ALLOWED_RISE_PERCENT) * before:
            found.append(f"gas: {name} rose from {before} to {gas}")
    return sorted(found)
