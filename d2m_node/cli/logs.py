"""Show what a node has logged, whether or not it runs."""

import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import click

from d2m_node.cli.options import data_dir, data_dir_option, json_of, set_option
from d2m_node.cli.shapes import LogRecord
from d2m_node.errors import UserError

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_HEAD: Final = ("timestamp", "level", "event")
_SCOPE: Final = ("role", "job", "round", "peer")


class _Since(click.ParamType[datetime]):
    """A time, or how long ago."""

    name = "TIME"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        text = str(value).strip()
        found = re.fullmatch(r"(\d{1,9})\s*([smhd])", text)
        try:
            if found:
                ago = timedelta(**{_UNITS[found[2]]: int(found[1])})
                return datetime.now(UTC) - ago
            moment = datetime.fromisoformat(text)
        except (ValueError, OverflowError):
            self.fail(f"{text!r} is neither like 10m, 2h, 7d nor like 2026-01-31T12:00", param, ctx)
        return moment if moment.tzinfo else moment.astimezone()


@click.command()
@data_dir_option()
@set_option
@click.option("-f", "--follow", is_flag=True, help="Wait for more, until Ctrl-C.")
@click.option("--job", type=click.IntRange(min=1), help="Only lines about this job.")
@click.option("--role", type=click.Choice(["buyer", "seller", "cone"]), help="Only of this role.")
@click.option(
    "--level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Only this level and graver ones.",
)
@click.option("--since", type=_Since(), help="Only since then: 10m, 2h, 7d, or a date and time.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=0, max=1_000_000),
    default=100,
    show_default=True,
    help="At most so many of those that are there already.",
)
@json_of(LogRecord, help_text="Print each line as the JSON that it is.")
def logs(  # noqa: PLR0913 - click passes each option
    *,
    flags: dict[str, str],
    follow: bool,
    job: int | None,
    role: str | None,
    level: str | None,
    since: datetime | None,
    lines: int,
    as_json: bool,
) -> None:
    """Show the node's log; the node need not run."""
    from d2m_node.log_files import LogFilter, LogLine, follow_lines, read_last_lines
    from d2m_node.settings import read_configuration

    path = read_configuration(data_dir(), flags=flags).values["logs.file"]
    if not isinstance(path, Path):
        raise UserError("logs.file: the settings name no file, so there is no log to show")
    wanted = LogFilter(job=job, role=role, level=level, since=since)
    is_colored = sys.stdout.isatty()

    def show(found: Iterable[LogLine]) -> None:
        for line in found:
            if as_json:
                click.echo(line.text)
            elif line.fields is None:
                click.echo(_CONTROL.sub("?", line.text))
            else:
                click.echo(_write_line(line.fields, is_colored=is_colored))

    reader = follow_lines if follow else read_last_lines
    show(reader(path, wanted, lines))


def _write_line(fields: dict[str, object], *, is_colored: bool) -> str:
    """Write an event for people: time, level, name, what it is about, then its other fields."""
    time = str(fields.get("timestamp", ""))[:23].replace("T", " ")
    level = str(fields.get("level", ""))
    head = f"{time} {level:<8} {fields.get('event', '')}"
    names: list[str] = [name for name in _SCOPE if name in fields]
    names += [name for name in fields if name not in (*_HEAD, *_SCOPE)]
    rest = [f"{name}={fields[name]}" for name in names]
    # What peers made us write must not steer the terminal.
    plain = _CONTROL.sub("?", "  ".join([head, *rest]))
    if not is_colored or level not in ("warning", "error", "critical"):
        return plain
    return click.style(plain, fg="yellow" if level == "warning" else "red")
