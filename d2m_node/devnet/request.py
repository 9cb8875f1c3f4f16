"""The request that a devnet's buyers make: windows and model of a small market (DESIGN 11)."""

from pathlib import Path

from d2m_node.devnet.options import DevnetOptions
from protocol.deposits import compute_deposit_range
from protocol.params import ProtocolParams
from protocol.types import Wei

TARGET = "0.80"
SELLERS_PER_ROUND_MAX = 5

_TEMPLATE = """\
tags = ["digits", "images"]
bid_wei = "{bid_wei}"

[auction]
deposit_wei = "15ether"
reserve_wei = "1ether"
commit_blocks = 5
reveal_blocks = 3

[model]
preset = "cnn"
input_shape = [1, 8, 8]
outputs = 10

[training]
learning_rate = 0.01
batch_size = 16
epochs = 10

[validation]
dataset = "dataset.toml"
final_count = 197
subset_count = 300

[terms]
metric = "accuracy"
target = {target}
rounds_max = 6
sellers_per_round = {sellers_per_round}
sellers_min = {sellers}
sellers_max = {sellers}
cones_min = {cones}
cones_max = {cones}
stake_wei = "1ether"
seller_deposit_wei = "{seller_deposit_wei}"
lead = 3
first_set_size = 4
growth_numerator = 3
growth_denominator = 2
enrolment_blocks = 5
validation_blocks = 4
update_commit_blocks = 4
update_open_blocks = 2
availability_blocks = 3
vote_commit_blocks = 3
vote_open_blocks = 3
decision_blocks = 1
appeal_blocks = 2
header_blocks = 10
"""


def write_request(
    folder: Path, options: DevnetOptions, bid_wei: Wei, params: ProtocolParams
) -> Path:
    """Write one buyer's request file; return its path."""
    path = folder / "request.toml"
    least_deposit_wei, _ = compute_deposit_range(bid_wei, options.sellers, params)
    path.write_text(
        _TEMPLATE.format(
            bid_wei=bid_wei,
            seller_deposit_wei=least_deposit_wei,
            target=TARGET,
            # With every seller in every round, sampling would have nothing to choose.
            sellers_per_round=min(SELLERS_PER_ROUND_MAX, options.sellers - 1),
            sellers=options.sellers,
            cones=options.cones,
        )
    )
    return path
