"""Python in a process of its own, where hashes and addresses are others than in this one."""

import os
import subprocess
import sys


def run_elsewhere(script: str) -> str:
    """Run a script; return what it prints."""
    own = os.environ.get("PYTHONHASHSEED", "random")
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONHASHSEED": "2" if own == "1" else "1"},
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout
