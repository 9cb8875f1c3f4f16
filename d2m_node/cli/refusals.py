"""Why jobs were turned down, as a table."""

from collections.abc import Sequence

import click

from d2m_node import client as api
from d2m_node.cli.output import print_table


def show_refusals(found: Sequence[api.RefusalView]) -> None:
    """Say which jobs this node turned down or could not go on with, and why."""
    if found:
        click.echo()
        rows = [[str(one.job), one.role, one.reason, str(one.block)] for one in found]
        print_table(("job refused", "role", "why", "block"), rows)
