"""Options that most commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import click

F = TypeVar("F", bound=Callable[..., object])


def data_dir_option(envvar: str | None = None) -> Callable[[F], F]:
    """Add ``--data-dir``, read by `data_dir`: before the command's name or after it."""
    return click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        envvar=envvar,
        expose_value=False,
        callback=_keep_data_dir,
        help="The node's directory.  [env: D2M_DATA_DIR; default: ~/.local/share/d2m-node]",
    )


def _split_flags(
    context: click.Context,  # noqa: ARG001
    parameter: click.Parameter,  # noqa: ARG001
    values: tuple[str, ...],
) -> dict[str, str]:
    flags = {}
    for text in values:
        key, separator, value = text.partition("=")
        if not separator:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE")
        flags[key.strip()] = value
    return flags


ANY: Final = object
"""What a method gives that is not known beforehand."""


class JsonOption(click.Option):
    """`--json`, and what it prints: docs/CLI.md is written from these types."""

    shapes: tuple[object, ...] = ()


def json_of(*shapes: object, help_text: str = "Print JSON.") -> Callable[[F], F]:
    """Add ``--json`` to a command that prints one document of one of these types."""

    class Shaped(JsonOption):
        pass

    Shaped.shapes = shapes
    return click.option("--json", "as_json", cls=Shaped, is_flag=True, help=help_text)


set_option: Final = click.option(
    "--set",
    "flags",
    metavar="KEY=VALUE",
    multiple=True,
    callback=_split_flags,
    help="Set one setting, like logs.level=debug. Wins over the environment and config.toml.",
)


def data_dir() -> Path:
    """Return the directory that the command line names, or the platform's."""
    from d2m_node.settings import default_data_dir
    from d2m_node.user_input import expand_home

    chosen: Path | None = click.get_current_context().find_root().obj
    return expand_home(chosen or default_data_dir()).absolute()


def _keep_data_dir(
    context: click.Context,
    parameter: click.Parameter,  # noqa: ARG001
    value: Path | None,
) -> None:
    if value is not None:
        context.find_root().obj = value
