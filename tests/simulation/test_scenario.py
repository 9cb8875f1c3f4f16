"""Scenario files: what they say, and how they are refused."""

import copy
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from d2m_node.chain.deployment import load_params
from d2m_node.errors import UserError
from d2m_node.simulation.hostile.kinds import CONE_KINDS, SELLER_KINDS, assign_kinds
from d2m_node.simulation.nodes.names import Sizes
from d2m_node.simulation.scenario.faults import FAULT_KINDS
from d2m_node.simulation.scenario.file import parse_scenario, read_scenario
from d2m_node.simulation.scenario.overrides import Overrides, override
from d2m_node.simulation.scenario.request import DEFAULT_PARAMS
from d2m_node.user_input import read_toml

ROOT = Path(__file__).parents[2]
SCENARIOS = sorted((ROOT / "configs" / "scenarios").glob("*.toml"))
HOSTILE = ROOT / "configs" / "scenarios" / "hostile.toml"
STORM = ROOT / "configs" / "scenarios" / "storm.toml"


@pytest.fixture
def table() -> dict[str, Any]:
    table = copy.deepcopy(read_toml(HOSTILE))
    del table["hostile"]["drawn"]
    return table


def change(table: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    place = table
    *folders, key = path.split(".")
    for folder in folders:
        place = place.setdefault(folder, {})
    place[key] = value
    return table


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_the_examples_are_read(path: Path) -> None:
    scenario = read_scenario(path)
    assert scenario.seed == 1
    assert scenario.request.terms.sellers_max == scenario.sizes.sellers


def test_the_default_parameters_are_those_of_a_devnet() -> None:
    assert load_params(ROOT / "configs" / "params" / "dev.toml") == DEFAULT_PARAMS


def test_a_share_of_hostile_nodes_is_rounded(table: dict[str, Any]) -> None:
    change(table, "hostile.cones", [{"kind": "random", "share": 0.3}])
    assert [one.count for one in parse_scenario(table).hostile_cones] == [2]


def test_the_seed_draws_how_many_nodes_are_hostile_and_how(table: dict[str, Any]) -> None:
    change(table, "hostile.drawn", {"cones_max": 2, "sellers_max": 1})
    drawn = [parse_scenario(change(table, "seed", seed)).hostile_cones for seed in range(40)]
    assert {sum(one.count for one in kinds) for kinds in drawn} == {0, 1, 2}
    assert {one.kind for kinds in drawn for one in kinds} == set(CONE_KINDS)
    assert parse_scenario(change(table, "seed", 7)).hostile_cones == drawn[7]
    overridden = override(change(table, "seed", 7), Overrides(byzantine_share=0.3))
    assert sum(one.count for one in parse_scenario(overridden).hostile_cones) == 2


def test_the_command_line_comes_before_the_file(table: dict[str, Any]) -> None:
    overrides = Overrides(seed=9, byzantine_share=0.5, ablate=("yoda",))
    scenario = parse_scenario(override(table, overrides))
    assert scenario.seed == 9
    assert [(one.kind, one.count) for one in scenario.hostile_cones] == [("collude", 4)]
    assert scenario.ablate == ("yoda",)
    assert scenario.table["seed"] == 9


def test_more_hostile_nodes_are_the_same_ones_and_others(table: dict[str, Any]) -> None:
    names = Sizes(sellers=20, cones=5).names_of("seller")
    few, many = (
        parse_scenario(
            change(
                change(copy.deepcopy(table), "sizes.sellers", 20),
                "hostile.sellers",
                [{"kind": "noise", "count": count}],
            )
        ).hostile_sellers
        for count in (3, 6)
    )
    chosen = [set(assign_kinds(names, one, 4, "seller")) for one in (few, many)]
    assert chosen[0] < chosen[1]
    assert len(chosen[1]) == 6
    assert set(assign_kinds(names, few, 5, "seller")) != chosen[0]


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("sed", 1, r"unknown key 'sed'; did you mean 'seed'\?"),
        ("sizes.sellrs", 1, r"unknown key 'sizes.sellrs'; did you mean 'sizes.sellers'\?"),
        ("seed", -1, "seed: expected `int` >= 0"),
        ("sizes.cones", 65, "sizes.cones: expected `int` <= 64"),
        ("data.alpha", 0, "data.alpha: is 0; give a number"),
        ("data.dataset", "imagenet", "data.dataset: invalid enum value"),
        ("data.validation_samples", 197, "request.validation.final_count: must be below"),
        ("request.terms.rounds", 3, "request.unknown key 'terms.rounds'"),
        ("request.validation.dataset", "x", "request.validation.dataset: the buyer's data"),
        ("request.terms.sellers_per_round", 9, "request.terms.sellers_per_round: is 9"),
        ("params.audit", 1, r"unknown key 'params.audit'; did you mean 'params.audit_bps'\?"),
        ("params.audit_bps", 10_001, "params.audit_bps: is 10001; give 0 to 10000"),
        ("params.audit_bps", True, "params.audit_bps: True is no whole number"),
        ("chain.delay_seconds", [2.0, 1.0], "chain.delay_seconds: the first number"),
        ("chain.delay_seconds", [1.0, 12.0], "chain.delay_seconds: must end before"),
        ("network.delay_seconds", [2.0, 1.0], "network.delay_seconds: the first number"),
        ("network.loss", 1.5, "network.loss: expected `float` <= 1.0"),
        ("training_seconds", 48, "training_seconds: is 48, and sellers have 48 seconds"),
        ("hostile.cones", [{"kind": "lie", "count": 1}], r"hostile.cones\[0\].kind: 'lie'"),
        ("hostile.cones", [{"kind": "copy"}], r"hostile.cones\[0\]: give either share or count"),
        ("hostile.cones", [{"kind": "copy", "count": 8}], "hostile.cones: 8 hostile nodes"),
        (
            "hostile.sellers",
            [{"kind": "alie", "count": 1, "options": {"zz": 1.0}}],
            r"hostile.sellers\[0\].options: not of alie",
        ),
        (
            "hostile.sellers",
            [{"kind": "poor", "count": 1, "options": {"z": 1.0}}],
            r"hostile.sellers\[0\].options: poor has none",
        ),
        (
            "faults",
            [{"kind": "crash", "block": 1, "nodes": ["cone-8"]}],
            r"faults\[0\].nodes: unknown key 'cone-8'",
        ),
        ("faults", [{"kind": "crash", "block": 1}], r"faults\[0\].nodes: name at least one"),
        (
            "faults",
            [{"kind": "late-block", "block": 1, "depth": 2}],
            r"faults\[0\].depth: a late-block has none",
        ),
        ("faults", [{"kind": "crash", "blok": 1}], r"unknown key 'faults\[0\].blok'"),
        ("random_faults.rate", 0, "random_faults.rate: expected `float` > 0.0"),
        ("random_faults.kinds", [], "random_faults.kinds: give some of"),
        ("ablate", ["nothing"], "ablate: 'nothing' is none of"),
        ("ablate", ["osmd", "no-gate"], "ablate: no-gate and osmd are two rules"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_key(
    table: dict[str, Any], path: str, value: object, complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint) as refusal:
        parse_scenario(change(table, path, value))
    assert "\n" not in str(refusal.value)


def test_the_file_is_named_with_what_is_wrong_in_it(tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text("seed = 1\n")
    with pytest.raises(UserError, match=r"scenario.toml: .*missing required field"):
        read_scenario(path)


def test_faults_at_random_follow_from_seed_and_block(table: dict[str, Any]) -> None:
    scenario = parse_scenario(change(table, "random_faults.rate", 0.5))
    plan, sizes = scenario.random_faults, scenario.sizes
    assert plan is not None
    drawn = [plan.draw(1, block, sizes) for block in range(200)]
    assert drawn == [plan.draw(1, block, sizes) for block in range(200)]
    assert drawn != [plan.draw(2, block, sizes) for block in range(200)]
    begun = [one for one in drawn if one is not None]
    assert {one.kind for one in begun} == set(plan.kinds)
    assert all(1 <= one.blocks <= 4 for one in begun)
    assert all(len(one.nodes) <= 2 for one in begun)


def test_all_windows_that_confirmations_make_too_short_are_named_with_what_mends_them(
    table: dict[str, Any],
) -> None:
    change(table, "chain.confirmations", 5)
    with pytest.raises(UserError, match=r"too short with chain.confirmations = 5") as refusal:
        parse_scenario(table)
    told = re.findall(r"request\.([a-z_.]+) = (\d+) \(is \d+\)", str(refusal.value))
    assert {"terms.enrolment_blocks", "terms.vote_open_blocks", "auction.reveal_blocks"} <= {
        name for name, _ in told
    }
    for name, least in told:
        change(table, f"request.{name}", int(least))
    assert parse_scenario(table).chain.confirmations == 5
    for name, least in told:
        with pytest.raises(UserError, match=rf"set at least request\.{name} = {least} "):
            parse_scenario(change(copy.deepcopy(table), f"request.{name}", int(least) - 1))


@pytest.mark.parametrize("path", [HOSTILE, STORM], ids=lambda path: path.stem)
def test_many_seeds_draw_every_kind_of_node_and_fault(path: Path) -> None:
    """What `scripts/simulate-many` runs meets all that the simulation knows, and often enough."""
    met: Counter[str] = Counter()
    for seed in range(600):
        scenario = read_scenario(path, Overrides(seed=seed))
        cones = {f"cone {one.kind}" for one in scenario.hostile_cones}
        sellers = {f"seller {one.kind}" for one in scenario.hostile_sellers}
        plan, sizes = scenario.random_faults, scenario.sizes
        assert plan is not None
        drawn = (plan.draw(seed, block, sizes) for block in range(100))
        met.update(f"ring of {one.kind}" for one in scenario.hostile_cones if one.count > 1)
        met.update(f"ring of {one.kind}" for one in scenario.hostile_sellers if one.count > 1)
        met.update(cones | sellers | {one.kind for one in drawn if one is not None})
        assert scenario.network.loss > 0
        assert scenario.network.duplicate > 0
        assert scenario.network.jitter_seconds > 0
    wanted = {f"cone {kind}" for kind in CONE_KINDS} | set(FAULT_KINDS)
    wanted |= {f"seller {kind}" for kind in SELLER_KINDS}
    wanted |= {"ring of collude", "ring of identical", "ring of alie"}
    assert wanted <= met.keys()
    assert min(met[one] for one in wanted) >= 5, met
