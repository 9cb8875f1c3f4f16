"""Buy a model: bid for a request, follow the job as it goes, and save what it delivers.

    python examples/buy_model.py NODE/rpc.sock request.toml --key spring-digits -o model.safetensors

Run it again with the same key, after a break or a crash, and it goes on with the same job: the key
never bids twice.
"""

import argparse
from pathlib import Path

import trio

from d2m_node.client import (
    ENABLE_ROLE,
    JOB_MODEL,
    NODE_STATUS,
    START,
    SUBMIT_REQUEST,
    AsyncRpcClient,
    CallRefused,
    EnableRoleParams,
    ErrorCode,
    JobParams,
    NodeEvent,
    NodeUnreachable,
    NoParams,
    SubmitRequestParams,
)

TOLD = ["auction", "enrolment", "round", "final", "training", "job", "payout.credited"]
BLOCKS = "block.followed"
"""Tells the time: a model may arrive some blocks after the job is settled."""


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("socket", type=Path)
    parser.add_argument("request", type=Path)
    parser.add_argument("--key", required=True, help="names this purchase")
    parser.add_argument("-o", "--output", type=Path, required=True)
    return parser.parse_args()


def tell(event: NodeEvent) -> None:
    facts = ", ".join(f"{name}={value}" for name, value in event.facts.items())
    print(f"block {event.block}: {event.kind} {facts[:160]}", flush=True)


async def follow(node: AsyncRpcClient, job: int) -> bytes:
    """Tell what happens in a job; return its model. Raises SystemExit if there will be none."""
    account = (await node.call(NODE_STATUS, NoParams())).account
    is_over = False
    # From the start of what the node keeps, so that a second run tells the whole story.
    async with node.events([*TOLD, BLOCKS], job=job, after=START) as events:
        async for event in events:
            if event.kind != BLOCKS:
                tell(event)
            if event.kind in ("auction.cancelled", "job.cancelled"):
                raise SystemExit(f"job {job} was cancelled; the money comes back by itself")
            if event.kind == "auction.closed" and event.facts["buyer"] != account:
                raise SystemExit(f"job {job}: outbid; the money comes back by itself")
            if event.kind == "job.settled":
                is_over = True
                if event.facts["rounds_done"] == 0:
                    raise SystemExit(f"job {job} ended without a round, and so without a model")
            if is_over and (model := await fetch(node, job)) is not None:
                return model
    raise AssertionError("a stream ends only by an error")


async def fetch(node: AsyncRpcClient, job: int) -> bytes | None:
    try:
        return (await node.call(JOB_MODEL, JobParams(job=job))).safetensors
    except CallRefused as refusal:
        if refusal.code in (ErrorCode.USER_ERROR, ErrorCode.UNAVAILABLE):  # not there yet
            return None
        raise


async def buy(node: AsyncRpcClient, request: Path, key: str) -> bytes:
    await node.call(ENABLE_ROLE, EnableRoleParams(role="buyer"))
    params = SubmitRequestParams(path=str(request), idempotency_key=key)
    job = (await node.call(SUBMIT_REQUEST, params)).job
    print(f"bid placed: job {job}", flush=True)
    return await follow(node, job)


async def main() -> None:
    wanted = read_arguments()
    try:
        async with AsyncRpcClient(wanted.socket) as node:
            model = await buy(node, wanted.request.absolute(), wanted.key)
    except (CallRefused, NodeUnreachable) as refusal:
        raise SystemExit(str(refusal)) from None
    wanted.output.write_bytes(model)
    print(f"{wanted.output}: {len(model)} bytes")


if __name__ == "__main__":
    trio.run(main)
