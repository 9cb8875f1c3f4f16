"""What a simulation came to: the record that `result.json` holds, and experiments read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from d2m_node.errors import UserError
from d2m_node.user_input import read_file

RESULT_FILE: Final = "result.json"
MAX_RESULT_BYTES: Final = 64 << 20
HONEST: Final = "honest"
"""Group of nodes that do what the protocol asks; others are named by their attack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePayout:
    """What one node got out of the job."""

    node: str
    """Its name in the simulation, like seller-3."""
    role: str
    """buyer, seller or cone."""
    group: str
    """`HONEST`, or the name of its attack or flaw."""
    payout_wei: int
    """Of the price; what the buyer got back for the buyer."""
    contribution: int
    """Of a seller the rounds in which it was accepted; of a CONE node the ballots decided with
    its vote."""
    slashed_wei: int
    """Stake or deposit that it lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One run of a scenario. Lists per round hold decided rounds, in order."""

    seed: int
    scenario: Mapping[str, object]
    """The scenario as it was run, options of the command line included."""
    ended: str
    """How training ended: target, ended, aborted, unserved; or cancelled."""
    initial_accuracy: float
    """Of the model before the first round, on the test data."""
    accuracy: tuple[float, ...]
    """After each round, on the test data, which no node of the market has."""
    final_accuracy: float
    log_digest: str
    """Hexadecimal; equal for two runs of one seed."""
    wrong_decisions: int
    """Decisions, of rounds and final evaluations, that stand and are not the honest result."""
    overturned_decisions: int
    """Decisions that the whole pool took back."""
    votes: tuple[int, ...]
    """Per round: votes that were opened."""
    mini_rounds: tuple[int, ...]
    """Per round: execution sets that it took, of all its attempts."""
    blocks: tuple[int, ...]
    """Per round: blocks from its first attempt's opening to its decision."""
    gas: tuple[int, ...]
    """Per round: gas of all calls that were mined while it was open."""
    network_bytes: tuple[int, ...]
    """Per round: bytes that nodes sent to each other while it was open."""
    gas_total: int
    network_bytes_total: int
    payouts: tuple[NodePayout, ...]
    refused_calls: int
    """Calls that were mined and reverted."""
    virtual_seconds: float
    """From the first bid to the last payout, by the simulated clock."""
    seconds: float
    """The same by the clock on the wall. It is no part of the log."""
    faults: Mapping[str, int] = field(default_factory=dict)
    """What went wrong, by schedule or at random: how often, by kind."""


def write_result(outcome: Outcome, folder: Path) -> Path:
    """Write `result.json` into a folder, whole or not at all; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RESULT_FILE
    draft = path.with_suffix(".draft")
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(outcome), indent=2) + b"\n")
    draft.replace(path)
    return path


def read_result(path: Path) -> Outcome:
    """Read a `result.json`. Raises UserError that names the file and field."""
    data = read_file(path, MAX_RESULT_BYTES)
    try:
        return msgspec.json.decode(data, type=Outcome)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise UserError(f"{path}: no result of a simulation: {exc}") from exc
