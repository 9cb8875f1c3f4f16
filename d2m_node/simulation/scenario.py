"""The scenario file: what is simulated, from which seed, with which hostile nodes and faults.

`configs/scenarios/` shows every table. The table ``request`` is a `request.toml` without the
dataset of its validation: the buyer holds a part of ``data``. What a request leaves out of its
auction and of the numbers of nodes follows from ``sizes``; see `DEFAULT_REQUEST`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from pathlib import Path
from typing import Final

import msgspec

from d2m_node.errors import UserError
from d2m_node.request_file import RequestFile, parse_request
from d2m_node.simulation.faults import (
    Fault,
    RandomFaults,
    read_faults,
    read_random_faults,
)
from d2m_node.simulation.federation import DataPlan
from d2m_node.simulation.hostile import (
    Hostile,
    draw_hostile,
    read_hostile,
)
from d2m_node.simulation.names import Sizes
from d2m_node.simulation.scenario_tables import (
    ChainTable,
    DataTable,
    NetworkTable,
    ScenarioTable,
    SizesTable,
)
from d2m_node.simulation.tables import check_keys
from d2m_node.user_input import explain_mismatch, explain_unknown_key, parse_wei, read_toml
from protocol.auction import AuctionMode
from protocol.deposits import compute_deposit_range
from protocol.errors import InvalidParams
from protocol.params import ProtocolParams, validate_params
from protocol.types import NO_ACCOUNT, Wei
from protocol.windows import REACTION_BLOCKS, validate_windows

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

YODA: Final = "yoda"
OSMD: Final = "osmd"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPlan:
    """How messages and bytes travel. Draws are made per message, from the seed."""

    delay_seconds: tuple[float, float] = (0.02, 0.2)
    """Least and most, drawn per link."""
    jitter_seconds: float = 0.0
    """So much longer at most a message takes."""
    bytes_per_second: int = 0
    """What a node uploads of blobs; 0: no limit."""
    loss: float = 0.0
    duplicate: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainPlan:
    """How blocks come, and when nodes see them."""

    block_seconds: float = 12.0
    delay_seconds: tuple[float, float] = (0.05, 0.5)
    """From a block to the moment at which a node has folded it; drawn per node."""
    confirmations: int = 0
    """So many blocks more a node waits before it acts on one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A scenario as a person wrote it, checked."""

    seed: int
    sizes: Sizes
    data: DataPlan
    request: RequestFile
    params: ProtocolParams
    chain: ChainPlan
    network: NetworkPlan
    training_seconds: float
    """Of the simulated clock, for one training."""
    hostile_cones: tuple[Hostile, ...]
    hostile_sellers: tuple[Hostile, ...]
    faults: tuple[Fault, ...]
    random_faults: RandomFaults | None
    ablate: tuple[str, ...]
    table: Mapping[str, object]
    """What it was read from, for the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What a command line says instead of the file; None and nothing leave it as it is."""

    seed: int | None = None
    byzantine_share: float | None = None
    """Of the CONE nodes. They attack as the file's first kind does, or collude."""
    ablate: tuple[str, ...] = ()


NOTHING: Final = Overrides()


def read_scenario(path: Path, overrides: Overrides = NOTHING) -> Scenario:
    """Read a scenario file. Raises UserError: the file, the key, what it should be."""
    table = read_toml(path)
    try:
        return parse_scenario(override(table, overrides))
    except UserError as exc:
        raise UserError(f"{path}: {exc}") from exc


def override(table: Mapping[str, object], overrides: Overrides) -> dict[str, object]:
    """Put what a command line says into a scenario's table."""
    changed = dict(table)
    if overrides.seed is not None:
        changed["seed"] = overrides.seed
    if overrides.ablate:
        changed["ablate"] = list(overrides.ablate)
    if overrides.byzantine_share is not None:
        hostile = changed.get("hostile")
        nodes = dict(hostile) if isinstance(hostile, dict) else {}
        cones = nodes.get("cones")
        first = cones[0] if isinstance(cones, list) and cones else {}
        kind = first.get("kind", "collude") if isinstance(first, dict) else "collude"
        nodes["cones"] = [{"kind": kind, "share": overrides.byzantine_share}]
        drawn = nodes.get("drawn")
        if isinstance(drawn, dict):
            nodes["drawn"] = {**drawn, "cones_max": 0}
        changed["hostile"] = nodes
    return changed


def parse_scenario(table: Mapping[str, object]) -> Scenario:
    """Check a scenario that is already a table. Raises UserError that names the key."""
    plain = make_plain(table)
    assert isinstance(plain, dict)
    check_keys(plain, ScenarioTable)
    try:
        written = msgspec.convert(plain, ScenarioTable)
    except msgspec.ValidationError as exc:
        raise UserError(explain_mismatch(exc)) from exc
    sizes = _read_sizes(written.sizes)
    params = _read_params(written.params)
    request = _read_request(table["request"], sizes, params)
    chain = _read_chain(written.chain)
    training_seconds = written.training_seconds
    scenario = Scenario(
        seed=written.seed,
        sizes=sizes,
        data=_read_data(written.data),
        request=request,
        params=params,
        chain=chain,
        network=_read_network(written.network),
        training_seconds=chain.block_seconds if training_seconds is None else training_seconds,
        hostile_cones=read_hostile(
            "cones",
            written.hostile.cones,
            sizes.cones,
            draw_hostile("cones", written.hostile.drawn.cones_max, written.seed),
        ),
        hostile_sellers=read_hostile(
            "sellers",
            written.hostile.sellers,
            sizes.sellers,
            draw_hostile("sellers", written.hostile.drawn.sellers_max, written.seed),
        ),
        faults=read_faults(written.faults, sizes),
        random_faults=read_random_faults(written.random_faults),
        ablate=_read_ablations(written.ablate),
        table=plain,
    )
    _check_together(scenario)
    return _leave_vote_out(scenario) if YODA in scenario.ablate else scenario


def _leave_vote_out(scenario: Scenario) -> Scenario:
    """Let the first vote decide: sets of one node, a lead of one, and no audits."""
    terms = replace(scenario.request.terms, lead=1, first_set_size=1)
    return replace(
        scenario,
        request=replace(scenario.request, terms=terms),
        params=replace(scenario.params, audit_bps=0),
    )


def make_plain(value: object) -> object:
    """Turn a table's exact decimals into floats, which JSON and comparisons of limits take."""
    if isinstance(value, Mapping):
        return {key: make_plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [make_plain(one) for one in value]
    return float(value) if isinstance(value, Decimal) else value


def _read_sizes(table: SizesTable) -> Sizes:
    return Sizes(buyers=table.buyers, sellers=table.sellers, cones=table.cones)


def _read_network(table: NetworkTable) -> NetworkPlan:
    _check_order("network.delay_seconds", table.delay_seconds)
    return NetworkPlan(
        delay_seconds=table.delay_seconds,
        jitter_seconds=table.jitter_seconds,
        bytes_per_second=table.bytes_per_second,
        loss=table.loss,
        duplicate=table.duplicate,
    )


def _read_data(table: DataTable) -> DataPlan:
    if not (table.alpha.is_finite() and Decimal("0.001") <= table.alpha <= 1000):
        raise UserError(f"data.alpha: is {table.alpha}; give a number between 0.001 and 1000")
    return DataPlan(
        dataset=table.dataset,
        alpha_milli=int(table.alpha * 1000),
        validation_count=table.validation_samples,
        test_count=table.test_samples,
        per_seller=table.samples_per_seller,
    )


def _read_chain(table: ChainTable) -> ChainPlan:
    block = table.block_seconds
    delay = (block / 240, block / 24) if table.delay_seconds is None else table.delay_seconds
    _check_order("chain.delay_seconds", delay)
    if delay[1] >= block:
        raise UserError(f"chain.delay_seconds: must end before the next block, in {block} seconds")
    return ChainPlan(block_seconds=block, delay_seconds=delay, confirmations=table.confirmations)


def _check_order(key: str, span: tuple[float, float]) -> None:
    if span[0] > span[1]:
        raise UserError(f"{key}: the first number is the smaller one")


def _read_params(table: Mapping[str, object]) -> ProtocolParams:
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


def _read_request(written: object, sizes: Sizes, params: ProtocolParams) -> RequestFile:
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


def _read_ablations(names: Sequence[str]) -> tuple[str, ...]:
    # Only scenarios that leave something out need the other rules.
    from d2m_node.simulation.ablations import ABLATIONS

    known = (YODA, OSMD, *ABLATIONS)
    for name in names:
        if name not in known:
            raise UserError(f"ablate: {name!r} is none of {', '.join(known)}")
    rules = sorted(set(names) - {YODA})
    if len(rules) > 1:
        raise UserError(f"ablate: {rules[0]} and {rules[1]} are two rules for one round; give one")
    return tuple(sorted(set(names)))


def _check_reveal(blocks: int, least_blocks: int) -> None:
    if blocks < least_blocks:
        raise UserError(
            f"request.auction.reveal_blocks: is {blocks}; raise it to at least {least_blocks} "
            "(with chain.confirmations)"
        )


def _check_together(scenario: Scenario) -> None:
    """Check what one table alone cannot tell."""
    terms, sizes = scenario.request.terms, scenario.sizes
    if terms.sellers_min > sizes.sellers:
        raise UserError(f"request.terms.sellers_min: is {terms.sellers_min}, sizes.sellers is less")
    if terms.cones_min > sizes.cones:
        raise UserError(f"request.terms.cones_min: is {terms.cones_min}, sizes.cones is less")
    window = terms.update_commit_blocks * scenario.chain.block_seconds
    if scenario.training_seconds >= window:
        raise UserError(
            f"training_seconds: is {scenario.training_seconds:g}, and sellers have {window:g} "
            "seconds (request.terms.update_commit_blocks)"
        )
    try:
        validate_windows(
            terms,
            scenario.params.seed_delay_blocks,
            lag_blocks=scenario.chain.confirmations,
        )
    except InvalidParams as exc:
        raise UserError(f"request.terms.{exc} (with chain.confirmations)") from exc
    least_blocks = scenario.chain.confirmations + REACTION_BLOCKS
    if scenario.request.mode is not AuctionMode.OPEN:
        _check_reveal(scenario.request.reveal_blocks, least_blocks)
    if scenario.request.validation_final_count >= scenario.data.validation_count:
        raise UserError(
            "request.validation.final_count: must be below data.validation_samples, "
            f"{scenario.data.validation_count}"
        )
