"""Forge walks the compiled contracts at random: 256 walks of 500 steps, money checked at each one.

The walks take ether and one token through auctions of all modes, enrolment, stake, settlement and
sweeps; only the rounds are a fake, so that every outcome of a training is reached in a few steps.
"""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = Path(__file__).parent
PATIENCE_SECONDS = 600


def run_forge(folder: Path, contract: str) -> subprocess.CompletedProcess[str]:
    """Run a contract's tests; what they compile goes to a folder that no other run writes to."""
    (binary,) = ROOT.glob(".venv/forge/node_modules/@foundry-rs/forge-*/bin/forge")
    return subprocess.run(
        [
            str(binary),
            "test",
            "--match-contract",
            contract,
            "--out",
            str(folder / "out"),
            "--cache-path",
            str(folder / "cache"),
        ],
        cwd=PROJECT,
        # Forge starts the compiler, which needs a node; where there was none, .venv has one.
        env=os.environ | {"PATH": f"{os.environ['PATH']}:{ROOT / '.venv' / 'bin'}"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def summary(result: subprocess.CompletedProcess[str]) -> str:
    """What went wrong, without the hundreds of steps that led there."""
    told = [line for line in result.stdout.splitlines() if "sender=" not in line]
    return "\n".join(told[-40:]) + result.stderr[-2000:]


def test_a_guided_walk_takes_every_kind_of_step(tmp_path: Path) -> None:
    result = run_forge(tmp_path, "WalkTest")
    assert result.returncode == 0, summary(result)
    assert "1 passed" in result.stdout


def test_random_walks_lose_and_strand_no_money(tmp_path: Path) -> None:
    result = run_forge(tmp_path, "MoneyTest")
    assert result.returncode == 0, summary(result)
    assert "(runs: 256, calls: 128000, reverts: 0)" in result.stdout
