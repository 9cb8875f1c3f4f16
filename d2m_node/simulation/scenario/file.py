"""The scenario file: what is simulated, from which seed, with which hostile nodes and faults.

`configs/scenarios/` shows every table. The table ``request`` is a `request.toml` without the
dataset of its validation: the buyer holds a part of ``data``. What a request leaves out of its
auction and of the numbers of nodes follows from ``sizes``; see `DEFAULT_REQUEST`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import msgspec

from d2m_node.errors import UserError
from d2m_node.simulation.computing.federation import DataPlan
from d2m_node.simulation.hostile.kinds import draw_hostile, read_hostile
from d2m_node.simulation.nodes.names import Sizes
from d2m_node.simulation.scenario.agreement import check_together
from d2m_node.simulation.scenario.faults import read_faults, read_random_faults
from d2m_node.simulation.scenario.overrides import NOTHING, Overrides, override
from d2m_node.simulation.scenario.plan import OSMD, YODA, ChainPlan, NetworkPlan, Scenario
from d2m_node.simulation.scenario.request import read_params, read_request
from d2m_node.simulation.scenario.tables import (
    ChainTable,
    DataTable,
    NetworkTable,
    ScenarioTable,
    SizesTable,
)
from d2m_node.simulation.tables import check_keys
from d2m_node.user_input import explain_mismatch, read_toml


def read_scenario(path: Path, overrides: Overrides = NOTHING) -> Scenario:
    """Read a scenario file. Raises UserError: the file, the key, what it should be."""
    table = read_toml(path)
    try:
        return parse_scenario(override(table, overrides))
    except UserError as exc:
        raise UserError(f"{path}: {exc}") from exc


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
    params = read_params(written.params)
    request = read_request(table["request"], sizes, params)
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
    check_together(scenario)
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
        held_out_count=table.held_out_samples,
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


def _read_ablations(names: Sequence[str]) -> tuple[str, ...]:
    # Only scenarios that leave something out need the other rules.
    from d2m_node.simulation.computing.ablations import ABLATIONS

    known = (YODA, OSMD, *ABLATIONS)
    for name in names:
        if name not in known:
            raise UserError(f"ablate: {name!r} is none of {', '.join(known)}")
    rules = sorted(set(names) - {YODA})
    if len(rules) > 1:
        raise UserError(f"ablate: {rules[0]} and {rules[1]} are two rules for one round; give one")
    return tuple(sorted(set(names)))
