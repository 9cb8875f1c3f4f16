"""The request and the parameters of a scenario, with what it need not say."""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Final

from d2m_node.errors import UserError
from d2m_node.request_file import RequestFile, parse_request
from d2m_node.simulation.nodes.names import Sizes
from d2m_node.user_input import explain_unknown_key, parse_wei
from protocol.deposits import compute_deposit_range
from protocol.errors import InvalidParams
from protocol.params import ProtocolParams, validate_params
from protocol.types import NO_ACCOUNT, Wei

VALIDATION: Final = "validation"
"""Path under which the buyer finds its data."""

DEFAULT_REQUEST: Final[Mapping[str, object]] = {
    "tags": ["benchmark"],
    "bid_wei": "10ether",
    "auction": {
        "deposit_wei": "100ether",
        "reserve_wei": "1ether",
        "commit_blocks": 5,
        "reveal_blocks": 5,
    },
    "terms": {
        "metric": "accuracy",
        "stake_wei": "1ether",
        "enrolment_blocks": 5,
        "validation_blocks": 4,
        "update_commit_blocks": 4,
        "update_open_blocks": 2,
        "availability_blocks": 3,
        "vote_commit_blocks": 3,
        "vote_open_blocks": 3,
        "decision_blocks": 1,
        "appeal_blocks": 2,
        "header_blocks": 10,
    },
}
"""What a request need not say. Least and most sellers and CONE nodes are those of ``sizes``, the
sellers' deposit is the least that the bid allows."""

DEFAULT_PARAMS: Final = ProtocolParams(
    cone_bps=3000,
    floor_bps=5000,
    bid_forfeit_bps=1000,
    slash_wrong_bps=5000,
    slash_noreveal_bps=5000,
    min_stake_wei=Wei(10**18),
    unbonding_blocks=20,
    max_window_blocks=100_000,
    seed_delay_blocks=1,
    retries=2,
    finals_max=3,
    audit_bps=1000,
    sweep_blocks=1_000_000,
    refund_cap_bps=2000,
    token=NO_ACCOUNT,
)
"""Those of `configs/params/dev.toml`."""


def read_params(table: Mapping[str, object]) -> ProtocolParams:
    """Fill in the parameters that a scenario leaves out, and check them. Raises UserError."""
    names = [field.name for field in fields(ProtocolParams) if field.name != "token"]
    values: dict[str, int] = {}
    for key, value in table.items():
        if key not in names:
            known = [f"params.{one}" for one in names]
            raise UserError(explain_unknown_key(f"params.{key}", known))
        try:
            values[key] = parse_wei(value) if key == "min_stake_wei" else _whole(value)
        except UserError as exc:
            raise UserError(f"params.{key}: {exc}") from exc
    try:
        params = replace(DEFAULT_PARAMS, **values)  # type: ignore[arg-type]  # amounts are ints
        validate_params(params)
    except InvalidParams as exc:
        raise UserError(f"params.{exc}") from exc
    return params


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"{value!r} is no whole number")
    return value


def read_request(written: object, sizes: Sizes, params: ProtocolParams) -> RequestFile:
    """Fill in what a request leaves out, and check it. Raises UserError."""
    assert isinstance(written, Mapping), "the table was checked"
    table = _merge(DEFAULT_REQUEST, written)
    validation = table.get("validation")
    if isinstance(validation, dict):
        if "dataset" in validation:
            raise UserError(
                "request.validation.dataset: the buyer's data are cut from [data]; remove it"
            )
        table["validation"] = {**validation, "dataset": VALIDATION}
    terms = table["terms"]
    try:
        if isinstance(terms, dict):
            bid_wei = parse_wei(table["bid_wei"])
            least_wei, _ = compute_deposit_range(bid_wei, sizes.sellers, params)
            filled = {
                "sellers_min": sizes.sellers,
                "sellers_max": sizes.sellers,
                "cones_min": sizes.cones,
                "cones_max": sizes.cones,
                "seller_deposit_wei": least_wei,
            }
            table["terms"] = {**filled, **terms}
        return parse_request(table, Path("/"))
    except UserError as exc:
        raise UserError(f"request.{exc}") from exc


def _merge(default: Mapping[str, object], written: Mapping[str, object]) -> dict[str, object]:
    """Fill in what is not written, table by table."""
    merged = {**default, **written}
    for key, value in default.items():
        ours = written.get(key)
        if isinstance(value, Mapping) and isinstance(ours, Mapping):
            merged[key] = _merge(value, ours)
        elif isinstance(value, Mapping) and key not in written:
            merged[key] = dict(value)
    return merged
