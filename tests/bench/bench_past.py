"""What a market that is old costs a node: memory, disk, and time to follow it.

Others: the same with every job kept in memory, as the fold alone would have it.
"""

import json
import subprocess
import sys

from tests.bench.rows import Plan, Row, Timing

FEW, MANY = 200, 2000
"""With the few jobs already as many events are kept for subscribers as ever are."""


def run(plan: Plan) -> list[Row]:
    """Follow few jobs and many, each in a process of its own."""
    few, many = follow_old_market(FEW), follow_old_market(MANY)
    kept = follow_old_market(MANY, "--keep")
    per_job = (many["resident_bytes"] - few["resident_bytes"]) / (MANY - FEW)
    kept_per_job = (kept["resident_bytes"] - few["resident_bytes"]) / (MANY - FEW)
    case = (
        f"{MANY} jobs: {per_job:.0f} bytes of memory each, not {kept_per_job:.0f}; "
        f"{many['disk_bytes'] / MANY:.0f} on the disk"
    )
    ours = Timing("d2m-node", (many["cpu_seconds"],))
    return [Row(case=case, ours=ours, others=(Timing("all kept", (kept["cpu_seconds"],)),))]


def follow_old_market(jobs: int, *options: str) -> dict[str, float]:
    """Return what following so many jobs came to; with ``--keep`` none leaves the state."""
    command = [sys.executable, "-m", "tests.bench.old_market", str(jobs), *options]
    done = subprocess.run(command, check=True, capture_output=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found
