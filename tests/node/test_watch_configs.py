"""The dashboard and the alerts ask for what a node exports, in words that Prometheus knows."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as parse_text

from d2m_node.watch.metrics import METRICS
from tests.support import metrics_table
from tests.support.promql import (
    SCRAPE_LABELS,
    exported_series,
    list_grouping_labels,
    list_selectors,
)
from tests.support.watch import WatchedNode

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
RULES_FILE = CONFIGS / "prometheus" / "d2m-alerts.yml"
OPERATIONS = (ROOT / "docs" / "OPERATIONS.md").read_text()
SERIES = exported_series()
DURATION = re.compile(r"\d+[smhd]")


def load_rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES_FILE.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def load_dashboard() -> dict[str, Any]:
    dashboard: dict[str, Any] = json.loads((CONFIGS / "grafana" / "d2m-node.json").read_text())
    return dashboard


def list_targets(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield panel and expression, with what Grafana fills in filled in."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"].replace("$__rate_interval", "1m")


RULES = load_rules()
DASHBOARD = load_dashboard()


def check(expression: str) -> None:
    """Check that an expression is PromQL, of series and labels that there are."""
    labels = set(SCRAPE_LABELS)
    for selector in list_selectors(expression):
        assert selector.name in SERIES, f"{selector.name} is not exported"
        assert selector.labels <= SERIES[selector.name] | SCRAPE_LABELS, selector
        labels |= SERIES[selector.name]
    assert list_grouping_labels(expression) <= labels, expression


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_there_is_and_says_what_it_means(rule: dict[str, Any]) -> None:
    check(rule["expr"])
    assert DURATION.fullmatch(rule["for"])
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert set(rule["annotations"]) == {"summary", "description"}
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_names_labels_that_its_series_have(rule: dict[str, Any]) -> None:
    known = set(SCRAPE_LABELS)
    for selector in list_selectors(rule["expr"]):
        known |= SERIES[selector.name]
    used = re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values()))
    assert set(used) <= known


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_has_a_paragraph_on_what_to_do(rule: dict[str, Any]) -> None:
    assert f"**{rule['alert']}.**" in OPERATIONS


def test_alerts_have_one_name_each() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("panel", "expression"), list(list_targets(DASHBOARD)))
def test_a_panel_asks_for_what_there_is(panel: str, expression: str) -> None:
    check(expression)


def test_every_metric_is_on_the_dashboard_but_the_labels_of_the_node() -> None:
    shown = {one.name for _, text in list_targets(DASHBOARD) for one in list_selectors(text)}
    missing = {
        metric.name for metric in METRICS if not any(name.startswith(metric.name) for name in shown)
    }
    assert missing == {"d2m_node_info"}


def test_the_dashboard_has_one_data_source_which_its_reader_chooses() -> None:
    variables = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    sources = {json.dumps(one, sort_keys=True) for one in find_all(DASHBOARD, "datasource")}
    assert sources == {'{"type": "prometheus", "uid": "${datasource}"}'}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD["panels"])))
    assert used <= {*variables, "__rate_interval"}
    for variable in variables.values():
        if variable["type"] == "query":
            name, label = re.fullmatch(
                r"label_values\((\w+), (\w+)\)", variable["definition"]
            ).groups()  # type: ignore[union-attr]
            assert name in SERIES
            assert label in SERIES[name] | SCRAPE_LABELS


def test_panels_have_numbers_places_and_names_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    titles = [panel["title"] for panel in panels if panel["type"] == "timeseries"]
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert cells.isdisjoint(own), f"{panel['title']} lies on another panel"
        cells |= own
    assert len(set(titles)) == len(titles)


def find_all(value: Any, key: str) -> Iterator[Any]:
    if isinstance(value, dict):
        if isinstance(value.get(key), dict):
            yield value[key]
        for inner in value.values():
            yield from find_all(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from find_all(inner, key)


def test_the_example_scrapes_the_address_that_the_settings_suggest() -> None:
    from d2m_node.settings import WatchSettings

    text = (CONFIGS / "prometheus" / "prometheus.yml").read_text()
    example = yaml.safe_load(text)
    (job,) = example["scrape_configs"]
    assert job["job_name"] == "d2m-node"
    assert example["rule_files"] == [RULES_FILE.name]
    commented = "\n".join(line.removeprefix("#   ") for line in text.splitlines() if "#   " in line)
    section = tomllib.loads(commented)["watch"]
    assert WatchSettings(**section).listen == job["static_configs"][0]["targets"][0]


async def test_the_series_of_the_process_are_those_of_the_library() -> None:
    watch = WatchedNode().started_watch()
    body, _ = watch.exposition.render(await watch.reader.read(), "")
    exported = {one.name for family in parse_text(body.decode()) for one in family.samples}
    assert {name for name in SERIES if name.startswith("process_")} <= exported


@pytest.mark.parametrize(
    "expression",
    ["sum(", "d2m_nothing > 0", 'd2m_ready{chek="a"}', "sum by (role) (d2m_chain_head_block)"],
)
def test_the_check_itself_refuses(expression: str) -> None:
    with pytest.raises((ValueError, AssertionError)):
        check(expression)


def test_the_table_of_metrics_is_fresh() -> None:
    assert metrics_table.read() == metrics_table.render(), metrics_table.BEGIN
