"""The command `d2m-node devnet`."""

import tempfile
from pathlib import Path

import click

from d2m_node.cli.options import json_of
from d2m_node.cli.shapes import DevnetEvent
from d2m_node.devnet.options import DEFAULT_CONES, DEFAULT_CONES_UNDER_ATTACK, DevnetOptions

CONE_ATTACKS = ("stale", "random", "collude", "silent")


@click.command()
@click.argument("mode", type=click.Choice(["once", "up"]), default="once")
@click.option("--buyers", type=int, default=2, show_default=True, help="Buyers in the auction.")
@click.option("--sellers", type=int, default=6, show_default=True, help="Sellers.")
@click.option(
    "--cones",
    type=int,
    help=f"CONE nodes.  [default: {DEFAULT_CONES}; {DEFAULT_CONES_UNDER_ATTACK} with hostile ones]",
)
@click.option("--byzantine-cones", type=int, default=0, help="How many CONE nodes cheat.")
@click.option(
    "--attack",
    type=click.Choice(CONE_ATTACKS),
    default="collude",
    show_default=True,
    help="How hostile CONE nodes cheat.",
)
@click.option("--malicious-sellers", type=int, default=0, help="How many sellers send poison.")
@click.option("--seed", type=int, default=1, show_default=True, help="How the data are split.")
@click.option("--port", type=int, default=8545, show_default=True, help="Port of the chain.")
@click.option(
    "--block-seconds", type=float, default=0.75, show_default=True, help="Time between blocks."
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the nodes' data; must be new or empty.  [default: a new temporary folder]",
)
@json_of(DevnetEvent, help_text="Print events as JSON, one a line.")
def devnet(  # noqa: PLR0913 - click passes each option
    mode: str,
    *,
    buyers: int,
    sellers: int,
    cones: int | None,
    byzantine_cones: int,
    attack: str,
    malicious_sellers: int,
    seed: int,
    port: int,
    block_seconds: float,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Run a whole market on this machine: a chain, nodes, one job from bid to payout.

    MODE is "once" (default: ends when the job is settled) or "up" (stays up until Ctrl-C).
    """
    import trio
    from rich.console import Console

    from d2m_node.devnet.launcher import run_devnet
    from d2m_node.devnet.report import JsonReport, TextReport

    default_cones = DEFAULT_CONES_UNDER_ATTACK if byzantine_cones else DEFAULT_CONES
    options = DevnetOptions(
        buyers=buyers,
        sellers=sellers,
        cones=default_cones if cones is None else cones,
        byzantine_cones=byzantine_cones,
        attack=attack,
        malicious_sellers=malicious_sellers,
        seed=seed,
        chain_port=port,
        block_seconds=block_seconds,
        folder=(folder or Path(tempfile.mkdtemp(prefix="d2m-devnet-"))).absolute(),
        stay_up=mode == "up",
    )
    console = Console()
    report = JsonReport(console) if as_json else TextReport(console)
    trio.run(run_devnet, options, report.show)
