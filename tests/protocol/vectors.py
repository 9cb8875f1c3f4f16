"""The recorded cases of the mechanism, as plain JSON values."""

import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parents[1] / "vectors"


def load_vectors(name: str = "mechanism") -> dict[str, Any]:
    """Load ``tests/vectors/<name>.json``."""
    loaded: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_text())
    return loaded
