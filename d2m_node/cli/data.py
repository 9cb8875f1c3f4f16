"""The benchmark data sets: are they here, and how to get them."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from d2m_node.benchmark_data.files import DATASETS, DataFile, Download
from d2m_node.cli.options import F, json_of
from d2m_node.cli.output import print_result
from d2m_node.cli.shapes import DataFileView

EXIT_FLAWED: Final = 1


def _shared(command: F) -> F:
    """Add what both commands take."""
    add: list[Callable[[F], F]] = [
        click.argument(
            "folder",
            metavar="DIR",
            type=click.Path(file_okay=False, path_type=Path),
            envvar="D2M_DATA",
        ),
        click.option(
            "--dataset",
            "datasets",
            type=click.Choice(list(DATASETS)),
            multiple=True,
            help="Only this one; may be given more than once.  [default: all]",
        ),
        json_of(list[DataFileView]),
    ]
    for decorate in reversed(add):
        command = decorate(command)
    return command


@click.group()
def data() -> None:
    """Check or get the benchmark data sets: MNIST, Fashion-MNIST, CIFAR-10."""


@data.command()
@_shared
def verify(*, folder: Path, datasets: tuple[str, ...], as_json: bool) -> None:
    """Check the files of a folder against sizes and checksums, a line for each.

    DIR may be left out if D2M_DATA names it. Ends with code 1 if a file is missing or wrong.
    """
    from d2m_node.benchmark_data.verify import find_flaw

    views = []
    for file in _list_files(datasets):
        flaw = find_flaw(file, folder)
        views.append(_view(file, flaw or "here", good=flaw is None))
        if not as_json:
            _show(views[-1])
    _end(views, as_json=as_json)


@data.command()
@_shared
def fetch(*, folder: Path, datasets: tuple[str, ...], as_json: bool) -> None:
    """Get the files that a folder lacks from their public homes, and check them.

    What is there and right is left alone; a download that was interrupted goes on where it stopped.
    DIR may be left out if D2M_DATA names it. Ends with code 1 if a file could not be had.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TransferSpeedColumn,
    )

    from d2m_node.benchmark_data.fetch import Fetched, OnBytes, fetch_files

    views: list[DataFileView] = []
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), console=Console(stderr=True)) as progress:

        def start(download: Download) -> OnBytes:
            task = progress.add_task(download.name, total=download.size_bytes)
            return lambda count: progress.update(task, completed=count)

        def finish(fetched: Fetched) -> None:
            views.append(_view(fetched.file, fetched.state, good=fetched.is_good))
            if not as_json:
                _show(views[-1])

        fetch_files(_list_files(datasets), folder, on_start=start, on_done=finish)
    _end(views, as_json=as_json)


def _list_files(datasets: tuple[str, ...]) -> list[DataFile]:
    return [file for name in datasets or DATASETS for file in DATASETS[name]]


def _view(file: DataFile, state: str, *, good: bool) -> DataFileView:
    return DataFileView(dataset=file.dataset, path=file.path, good=good, state=state)


def _show(view: DataFileView) -> None:
    mark = click.style("ok  ", fg="green") if view.good else click.style("bad ", fg="red")
    click.echo(f"{mark} {view.path}: {view.state}")


def _end(views: list[DataFileView], *, as_json: bool) -> None:
    if as_json:
        print_result(views)
    if not all(view.good for view in views):
        click.get_current_context().exit(EXIT_FLAWED)
