"""How fast blocks may come, so that a node can be started again within a window."""

import subprocess
import sys
import time

SHORTEST_SECONDS, LONGEST_SECONDS = 0.4, 2.0
BLOCKS_PER_IMPORT = 3
"""A node takes about twice as long to start as to be imported: six blocks, of windows of eight."""


def measure_block_seconds() -> float:
    """Time the import of a node on this machine, as busy as it is."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", "import d2m_node.node"], check=True)
    seconds = (time.monotonic() - started) / BLOCKS_PER_IMPORT
    return round(min(max(seconds, SHORTEST_SECONDS), LONGEST_SECONDS), 2)
