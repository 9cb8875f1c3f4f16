"""Honest devnets of real processes, and a small job for them."""

from pathlib import Path
from typing import Any

from d2m_node.client import SUBMIT_REQUEST, AsyncRpcClient, SubmitRequestParams
from d2m_node.devnet.launcher import Devnet
from d2m_node.devnet.options import DevnetOptions
from tests.support.anvil import find_free_port
from tests.support.small_request import SmallJob, write_small_request


def make_honest_options(
    folder: Path,
    *,
    sellers: int,
    cones: int,
    buyers: int = 1,
    seed: int = 1,
    block_seconds: float = 0.5,
) -> DevnetOptions:
    return DevnetOptions(
        buyers=buyers,
        sellers=sellers,
        cones=cones,
        byzantine_cones=0,
        attack="collude",
        malicious_sellers=0,
        seed=seed,
        chain_port=find_free_port(),
        block_seconds=block_seconds,
        folder=folder,
        stay_up=False,
    )


def show_nothing(_: dict[str, Any]) -> None:
    """Leave untold what a devnet tells its user."""


async def submit_small_job(devnet: Devnet, wish: SmallJob) -> None:
    """Let the first buyer bid for a job."""
    buyer = next(plan for plan in devnet.plans if plan.role == "buyer")
    params = SubmitRequestParams(
        path=str(write_small_request(buyer.folder, wish)), idempotency_key="small-job"
    )
    async with AsyncRpcClient(buyer.folder / "rpc.sock") as client:
        await client.call(SUBMIT_REQUEST, params)
