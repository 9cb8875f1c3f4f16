"""The table of metrics in docs/OPERATIONS.md.

`python -m tests.support.metrics_table --record` writes it anew.
"""

import sys
from pathlib import Path

from d2m_node.watch.metrics import METRICS

DOCUMENT = Path(__file__).parents[2] / "docs" / "OPERATIONS.md"
BEGIN = "<!-- metrics: python -m tests.support.metrics_table --record -->\n"
END = "<!-- end of metrics -->\n"


def render() -> str:
    """Write the table from what the node exports."""
    lines = ["| Metric | Type | Labels | What |", "|---|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind.value} | {labels} | {metric.text} |")
    return "\n".join(lines) + "\n"


def read() -> str:
    """Return the table that stands in the document."""
    text = DOCUMENT.read_text()
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)]


def record() -> None:
    """Replace the table in the document."""
    text = DOCUMENT.read_text()
    DOCUMENT.write_text(text.replace(BEGIN + read() + END, BEGIN + render() + END))


if __name__ == "__main__" and sys.argv[1:] == ["--record"]:
    record()
