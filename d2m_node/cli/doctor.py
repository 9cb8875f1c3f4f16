"""`d2m-node doctor`: what keeps the node from working, and what to do about it."""

from collections.abc import Mapping

import click

from d2m_node.cli.options import data_dir, data_dir_option, json_of, set_option
from d2m_node.cli.output import print_result
from d2m_node.cli.shapes import DoctorReport
from d2m_node.errors import UserError

_MARKS = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("fail", "red")}


@click.command()
@data_dir_option()
@set_option
@json_of(DoctorReport)
def doctor(*, flags: Mapping[str, str], as_json: bool) -> None:
    """Check settings, keys, chain, clock, peers, disk, money, devices and limits.

    Works beside a running node and without one, and changes nothing. Ends with code 3 if something
    must be mended; a warning is no reason.
    """
    import trio

    from d2m_node.doctor.examination import examine

    checks = trio.run(examine, data_dir(), flags)
    failed = [one for one in checks if one.status == "fail"]
    if as_json:
        print_result(DoctorReport(ok=not failed, checks=checks))
    else:
        for one in checks:
            mark, color = _MARKS[one.status]
            click.echo(f"{click.style(mark, fg=color)}  {one.name}: {one.detail}")
            if one.fix:
                click.echo(f"      fix: {one.fix}")
    if failed:
        raise UserError(f"{len(failed)} of {len(checks)} checks failed: {failed[0].name}")
