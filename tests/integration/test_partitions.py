"""Nodes in network namespaces, between which the line is cut and mended."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.faults]

OWN_NAMESPACES = ("unshare", "--user", "--map-root-user", "--net", "--mount", "--fork")
TRIAL = "mount -t tmpfs none /run && ip netns add trial && ip link add br0 type bridge"


def find_refusal() -> str | None:
    """Say why this machine gives nobody network namespaces; None if it does."""
    missing = [name for name in ("unshare", "ip", "mount") if shutil.which(name) is None]
    if missing:
        return f"no {' or '.join(missing)} on this machine"
    trial = subprocess.run(
        [*OWN_NAMESPACES, "sh", "-c", TRIAL], capture_output=True, text=True, check=False
    )
    return f"the kernel refuses: {trial.stderr.strip()}" if trial.returncode else None


REFUSAL = find_refusal()


@pytest.mark.skipif(REFUSAL is not None, reason=str(REFUSAL))
def test_the_sides_of_a_cut_go_on_alone_and_find_each_other_when_it_is_mended(
    tmp_path: Path,
) -> None:
    """Connected, heard and served: all, then one's own side only, then all again."""
    command = [*OWN_NAMESPACES, sys.executable, "-m", "tests.support.partition", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
