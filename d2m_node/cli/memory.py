"""Copies of what the node remembers: made while it runs, put back while it does not."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from d2m_node.cli.options import data_dir, data_dir_option, json_of
from d2m_node.cli.output import print_result
from d2m_node.cli.shapes import CopiedStore

if TYPE_CHECKING:
    from d2m_node.storage.backup import Copied


@click.command()
@data_dir_option()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@json_of(CopiedStore)
def backup(*, file: Path, as_json: bool) -> None:
    """Copy the node's memory into FILE; the node may run meanwhile.

    Keys are not in it: see d2m-node key export.
    """
    from d2m_node.storage.backup import write_backup

    copied = write_backup(data_dir(), file)
    if as_json:
        print_result(_describe(file, copied))
        return
    click.echo(f"{file}: {copied.journal_rows} records of the journal, {copied.blobs} blobs")
    if copied.missing:
        click.echo(f"{copied.missing} blobs that only this node may have are damaged or gone")
    click.echo("The keys are not in it: d2m-node key export -o FILE")


@click.command()
@data_dir_option()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@json_of(CopiedStore)
def restore(*, file: Path, as_json: bool) -> None:
    """Put the backup FILE in the place of the stopped node's memory.

    What was there is moved into a folder of its own. The node then signs nothing new in rounds that
    are open when it starts: it may have signed in them since the copy was made.
    """
    from d2m_node.storage.backup import restore_backup

    copied = restore_backup(file, data_dir())
    if as_json:
        print_result(_describe(file, copied))
        return
    click.echo(f"{data_dir()}: {copied.journal_rows} records of the journal, {copied.blobs} blobs")
    if copied.missing:
        click.echo(f"{copied.missing} blobs are fetched from peers when they are needed")


def _describe(file: Path, copied: "Copied") -> CopiedStore:
    return CopiedStore(
        file=str(file),
        journal_rows=copied.journal_rows,
        blobs=copied.blobs,
        missing=copied.missing,
    )
