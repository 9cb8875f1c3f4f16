"""Requests for small jobs: a tiny model, few rounds, windows as short as a test can bear."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from d2m_node.chain.deployment import load_params
from d2m_node.devnet.launcher import PARAMS_FILE
from protocol.deposits import compute_deposit_range
from protocol.types import Wei

REQUEST = """\
tags = ["digits", "images"]
bid_wei = "{bid_wei}"

[auction]
mode = "{mode}"
currency = "{currency}"
reserve_wei = "1000000000000000000"
commit_blocks = {bid_blocks}
{sealing}

[delivery]
model = "{model_access}"

[model]
preset = "cnn"
input_shape = [1, 8, 8]
outputs = 10

[training]
learning_rate = 0.01
batch_size = 32
epochs = 1

[validation]
dataset = "dataset.toml"
final_count = 197
subset_count = 200

[terms]
metric = "accuracy"
target = 0.999
rounds_max = {rounds}
sellers_per_round = {sellers_per_round}
sellers_min = {sellers_min}
sellers_max = {sellers}
cones_min = {cones_min}
cones_max = {cones}
stake_wei = "1ether"
seller_deposit_wei = "{seller_deposit_wei}"
lead = 3
first_set_size = {first_set_size}
growth_numerator = 3
growth_denominator = 2
{windows}
"""

PATIENT_WINDOWS = {
    "enrolment": 14,
    "validation": 14,
    "update_commit": 6,
    "update_open": 5,
    "availability": 3,
    "vote_commit": 5,
    "vote_open": 8,
    "decision": 1,
    "appeal": 2,
    "header": 12,
}
"""In blocks: long enough for a node to be started again in the midst of one."""

BRISK_WINDOWS = PATIENT_WINDOWS | {
    "enrolment": 6,
    "validation": 6,
    "update_commit": 4,
    "update_open": 3,
    "vote_commit": 4,
    "vote_open": 4,
}
"""For nodes that are not disturbed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallJob:
    """What the request asks for."""

    bid_wei: Wei
    sellers: int
    sellers_min: int
    cones: int
    rounds: int = 2
    mode: str = "sealed"
    is_in_token: bool = False
    model_access: str = "participants"
    first_set_size: int = 4
    bid_blocks: int = 6
    reveal_blocks: int = 5
    windows: Mapping[str, int] = field(default_factory=lambda: PATIENT_WINDOWS)


def write_small_request(folder: Path, job: SmallJob) -> Path:
    """Write a buyer's request file beside its dataset.toml; return its path."""
    path = folder / "request.toml"
    params = load_params(PARAMS_FILE)
    least_wei, _ = compute_deposit_range(job.bid_wei, job.sellers_min, params)
    sealing = f'deposit_wei = "{15 * 10**18}"\nreveal_blocks = {job.reveal_blocks}'
    path.write_text(
        REQUEST.format(
            bid_wei=job.bid_wei,
            mode=job.mode,
            currency="token" if job.is_in_token else "ether",
            model_access=job.model_access,
            sealing="" if job.mode == "open" else sealing,
            bid_blocks=job.bid_blocks,
            rounds=job.rounds,
            sellers_per_round=job.sellers - 1,
            sellers_min=job.sellers_min,
            sellers=job.sellers,
            cones_min=job.cones - 1,
            cones=job.cones,
            first_set_size=job.first_set_size,
            seller_deposit_wei=least_wei,
            windows="\n".join(f"{name}_blocks = {n}" for name, n in job.windows.items()),
        )
    )
    return path
