"""How processes of this package start others of its modules."""

import os
import sys
from pathlib import Path
from typing import Final

_CODE_FOLDER: Final = Path(__file__).resolve().parents[2]


def build_command(module: str) -> list[str]:
    """Return what runs a module. -P: what lies in the working directory is no module of ours."""
    return [sys.executable, "-P", "-m", module]


def build_environment() -> dict[str, str]:
    """Return this process's environment, in which the module is found."""
    paths = [str(_CODE_FOLDER), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
