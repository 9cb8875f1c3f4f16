"""The table of methods in docs/RPC.md: `python -m tests.support.rpc_table --record` writes it."""

import re
import sys
from pathlib import Path
from typing import Final

from d2m_node.client import Scope
from d2m_node.rpc.methods import ENDPOINTS

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "RPC.md"
BEGIN: Final = "<!-- python -m tests.support.rpc_table --record -->\n"
END: Final = "<!-- end -->\n"


def make_table() -> str:
    """Return the table, a line for each method."""
    lines = ["| Method | Scope | |", "|---|---|---|"]
    for name in sorted(ENDPOINTS):
        method = ENDPOINTS[name].method
        scopes = [method.scope] if isinstance(method.scope, Scope) else list(method.scope.values())
        shown = ", ".join(f"`{scope}`" for scope in scopes)
        key = "; takes an idempotency key" if method.pays else ""
        lines.append(f"| `{name}` | {shown} | {method.summary}{key} |")
    return "\n".join(lines) + "\n"


def read_table() -> str:
    """Return the table as the document has it."""
    return DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0]


def main() -> None:
    if sys.argv[1:] != ["--record"]:
        raise SystemExit(__doc__)
    pattern = re.escape(BEGIN) + ".*?" + re.escape(END)
    text = re.sub(
        pattern, lambda _: BEGIN + make_table() + END, DOCUMENT.read_text(), flags=re.DOTALL
    )
    DOCUMENT.write_text(text)


if __name__ == "__main__":
    main()
