"""PromQL taken apart by a real parser: which series it reads, and by which labels."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import promql_parser as promql

from d2m_node.watch.metrics import METRICS, Kind

SCRAPE_LABELS = frozenset({"instance", "job"})
"""Those that Prometheus adds."""


@dataclass(frozen=True)
class Selector:
    """One series that an expression reads."""

    name: str
    labels: frozenset[str]


def list_selectors(expression: str) -> Iterator[Selector]:
    """Parse an expression and yield what it reads. Raises ValueError if it is no PromQL."""
    for node in walk(promql.parse(expression)):
        if isinstance(node, promql.VectorSelector):
            labels = frozenset(matcher.name for matcher in node.matchers.matchers)
            yield Selector(node.name or "", labels)


def list_grouping_labels(expression: str) -> set[str]:
    """Return the labels that aggregations and joins name."""
    labels: set[str] = set()
    for node in walk(promql.parse(expression)):
        if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            labels |= set(node.modifier.labels)
        if isinstance(node, promql.BinaryExpr) and node.modifier is not None:
            matching = node.modifier.matching
            labels |= set(matching.labels) if matching is not None else set()
    return labels


def walk(node: object) -> Iterator[object]:
    """Yield an expression and all its parts."""
    yield node
    match node:
        case promql.BinaryExpr():
            parts = [node.lhs, node.rhs]
        case promql.Call():
            parts = list(node.args)
        case promql.MatrixSelector():
            parts = [node.vector_selector]
        case promql.AggregateExpr():
            parts = [node.expr] + ([node.param] if node.param is not None else [])
        case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
            parts = [node.expr]
        case promql.VectorSelector() | promql.NumberLiteral() | promql.StringLiteral():
            parts = []
        case _:
            raise ValueError(f"{type(node).__name__} is not known")
    for part in parts:
        yield from walk(part)


def exported_series() -> Mapping[str, frozenset[str]]:
    """Return every series that a node exports by its own metrics, with its labels."""
    series: dict[str, frozenset[str]] = {"up": frozenset()}
    for metric in METRICS:
        labels = frozenset(metric.labels)
        if metric.kind is Kind.HISTOGRAM:
            series[f"{metric.name}_bucket"] = labels | {"le"}
            series[f"{metric.name}_count"] = series[f"{metric.name}_sum"] = labels
        else:
            series[metric.name] = labels
    process = ("cpu_seconds_total", "max_fds", "open_fds", "resident_memory_bytes",
               "start_time_seconds", "virtual_memory_bytes")  # fmt: skip
    return series | {f"process_{name}": frozenset[str]() for name in process}
